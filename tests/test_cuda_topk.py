"""Top-k search on the GPU: its kernels in the emulator, and on a GPU the op, give what the CPU gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulation import BUILDS, ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import hamming_topk
from search_cases import all_distances, brute_topk, code_lengths, random_codes

MATRICES = (0, 1)  # without and on tensor cores


def run(emulator, build: str, queries: Tensor, database: Tensor, k: int, *, order="forward", mask=None, **options: int):
    """Search with tests/cuda_emulator/topk.cpp: distances, indices and, with settled=1, what the filter settled."""
    arrays = [array.contiguous().numpy().tobytes() for array in (queries, database, mask) if array is not None]
    sizes = {"queries": len(queries), "codes": len(database), "width": queries.shape[1], "k": k}
    options |= sizes | {"mask": int(mask is not None)}
    settings = [f"{name}={value}" for name, value in options.items()]
    output = emulator.output("topk", build, *settings, order=order, data=b"".join(arrays))
    distances, indices, settled = np.split(np.frombuffer(output, np.uint8), np.cumsum([4, 8]) * len(queries) * k)
    return distances.view(np.int32).reshape(-1, k), indices.view(np.int64).reshape(-1, k), settled.tolist()


def check(emulator, build: str, queries: Tensor, database: Tensor, k: int, *, mask=None, **options) -> list[int]:
    """Hold a search to the brute force; return, with settled=1, a 1 for each query that the filter settled."""
    *found, settled = run(emulator, build, queries, database, k, mask=mask, **options)
    for array, expected in zip(found, brute_topk(queries, database, k, mask), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    return settled


def some_mask(kind: str | None, n: int) -> Tensor | None:
    if kind is None:
        return None
    mask = torch.zeros(n, dtype=torch.bool)
    mask[{"none": slice(0), "one": slice(n // 2, n // 2 + 1), "half": slice(1, None, 2), "all": slice(None)}[kind]] = 1
    return mask


@settings(max_examples=70)
@given(
    n=st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 2049, 4101]),
    q=st.sampled_from([0, 1, 2, 5, 17, 140]),
    k=st.sampled_from(["1", "5", "N", "N + 3"]),
    num_bits=code_lengths,
    distinct=st.sampled_from([None, 1, 3, 20]),
    masked=st.sampled_from([None, "none", "one", "half", "all"]),
    capacity=st.sampled_from([8192, 300, 7]),
    selected=st.sampled_from([2048, 4]),
    batch=st.sampled_from([1024, 16]),
    sample=st.sampled_from([16384, 64, 4]),
    order=st.sampled_from(ORDERS),
    matrices=st.sampled_from(MATRICES),
    shift=st.sampled_from([0, 0, 4, 1]),
    seed=st.integers(0, 999),
)
def test_topk_equals_the_brute_force(
    emulator, n, q, k, num_bits, distinct, masked, capacity, selected, batch, sample, order, matrices, shift, seed
):
    if q * n > 100_000:
        q = 5
    k = max(1, {"1": 1, "5": 5, "N": n, "N + 3": n + 3}[k])
    queries = random_codes(q, num_bits, seed, distinct)
    database = random_codes(n, num_bits, seed + (distinct is None), distinct)
    limits = {"capacity": capacity, "selected": selected, "batch": batch, "sample": sample}
    mask = some_mask(masked, n)
    check(emulator, "plain", queries, database, k, mask=mask, order=order, matrices=matrices, shift=shift, **limits)


# Each number of words that kernels are compiled for, exact and with bytes left over
WIDTHS = (8, 31, 32, 48, 64, 96, 128, 200, 256, 300, 1024)


@pytest.mark.parametrize("build", ["address", "thread"])
@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("matrices", MATRICES)
def test_sanitizers_find_nothing(emulator, build, num_bits, matrices):
    """In rounds of the filter, in its lists that are full, and in the ranking of what is left."""
    if matrices and num_bits > 256:
        pytest.skip("not compared on tensor cores")
    if build == "thread" and num_bits not in ((64,) if matrices else (32, 64, 128, 256, 300)):
        pytest.skip("differs in how codes are read only, and threads take long to make")
    n, q = (4095, 3) if build == "address" else (700, 2)  # one code less than blocks hold, whatever the width
    queries, database = random_codes(q, num_bits, 1), random_codes(n, num_bits, 2)
    shift = 0 if num_bits % 32 == 0 else num_bits % 4
    for order, k, capacity in (("reverse", 10, 8192), ("random:3", 5, 20), ("warp", n + 1, 8192)):
        if build == "thread" and capacity == 20:
            continue
        options = {
            "capacity": capacity,
            "matrices": matrices,
            "shift": shift,
            "threads": 64 if build == "thread" else 0,
        }
        check(emulator, build, queries, database, k, mask=some_mask("half", n), order=order, **options)


def test_no_races_where_blocks_look_at_thresholds_again(emulator):
    """Each of 8 blocks takes five times the codes that it holds, and the candidates come in several rounds."""
    queries, database = random_codes(1, 64, 1), random_codes(8 * 5 * 2048, 64, 2)
    check(emulator, "thread", queries, database, 300, matrices=0, threads=64, processors=1)


@pytest.mark.parametrize(("build", "count", "chunks"), [("plain", 130, 4), ("thread", 24, 22)])
def test_blocks_on_tensor_cores_look_at_thresholds_again(emulator, build, count, chunks):
    """Each of 3 blocks takes more chunks of codes than it lets pass before it looks: three, and 21."""
    queries, database = random_codes(count, 64, 1), random_codes(3 * chunks * 1024, 64, 2)
    options = {"threads": 64, "sample": 256} if build == "thread" else {}
    check(emulator, build, queries, database, 40, matrices=1, processors=1, **options)


@pytest.mark.parametrize("build", ["address", "thread"])
def test_many_queries_share_a_sample(emulator, build):
    """From 16 queries on its codes are put side by side, with the part of the mask that is theirs."""
    n = 700 if build == "address" else 300  # threads take long to make
    queries, database = random_codes(17, 40, 1), random_codes(n, 40, 2)
    options = {"sample": 64, "matrices": 1, "threads": 64 if build == "thread" else 0}
    for masked in (None, "half", "none") if build == "address" else ("half",):
        check(emulator, build, queries, database, 5, mask=some_mask(masked, n), order="random:1", **options)


@pytest.mark.parametrize("build", ["address", "thread"])
@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize(("count", "far", "near"), [(3, 700, 200), (24, 40, 720)])
def test_more_than_a_block_remembers(emulator, build, matrices, count, far, near):
    """More pairs than it finds room for, or more hits: threads then take them up alone, and lower thresholds."""
    queries = random_codes(3, 64, 1).repeat(count // 3, 1)
    database = torch.cat((random_codes(1, 64, 2).repeat(far, 1), queries[:1].repeat(near, 1)))
    cases = (100, 8192), (5, 80), (far + near, 8192)
    for k, capacity in cases[: 1 if build == "thread" and count > 3 else 3]:  # threads take long to make
        options = {"capacity": capacity, "sample": 4, "matrices": matrices, "threads": 64 if build == "thread" else 0}
        check(emulator, build, queries, database, k, order="random:2", **options)


HARD = {
    "equal": lambda q, d: q[:1].repeat(len(d), 1),
    "two": lambda q, d: random_codes(len(d), 64, 9, 2),
    "nearest first": lambda q, d: d[all_distances(q[:1], d)[0].argsort(kind="stable").copy()],
    "nearest last": lambda q, d: d[all_distances(q[:1], d)[0].argsort(kind="stable")[::-1].copy()],
    "one near": lambda q, d: torch.cat((d[:-1], q[:1])),
}


@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("k", [1, 300])
def test_data_that_is_hard_to_sample(emulator, kind, k, matrices):
    """More codes than the sample sees, in every order: right, and settled by the filter while candidates fit."""
    queries = random_codes(3, 64, 5)
    database = HARD[kind](queries, random_codes(6000, 64, 4))
    for order in ORDERS[1:4]:
        options = {"order": order, "matrices": matrices, "settled": 1}
        assert check(emulator, "plain", queries, database, k, **options) == [1, 1, 1]
        check(emulator, "plain", queries, database, k, capacity=max(k, 200), **options)


def test_more_ties_than_candidates_are_ranked(emulator):
    queries, database = random_codes(2, 64, 1), random_codes(1, 64, 2).repeat(33_000, 1)
    assert check(emulator, "plain", queries, database, 10, settled=1) == [0, 0]


@pytest.mark.parametrize("k", [256, 2048])
def test_ties_beyond_all_that_the_selection_has_room_for(emulator, k):
    queries = random_codes(1, 64, 1)
    database = torch.cat((random_codes(10, 64, 2), queries.repeat(3000, 1)))
    assert check(emulator, "address", queries, database, k, settled=1) == [1]


def test_queries_that_the_sample_misleads_are_ranked(emulator):
    """Ten copies of the query lie where the sample looks: it takes them for many, and the filter finds fewer than k."""
    n, sample = 9000, 64
    queries, database = random_codes(1, 64, 1), random_codes(n, 64, 2)
    for i in range(10):
        first, end, mixed = i * n // sample, (i + 1) * n // sample, (i + 1) * 2654435761 % 2**32
        database[first + ((mixed ^ mixed >> 15) * (end - first) >> 32)] = queries[0]
    for matrices in MATRICES:
        options = {"matrices": matrices, "sample": sample, "settled": 1}
        assert check(emulator, "plain", queries, database, 20, **options) == [0]
        assert check(emulator, "plain", queries, database, 10, **options) == [1]


def test_rounds_lower_the_threshold(emulator):
    """A sample of one in a hundred lets more pass than there is room for, unless what is found shuts others out."""
    queries, database = random_codes(2, 64, 1), random_codes(400_000, 64, 2)
    for matrices in MATRICES:
        found = check(emulator, "plain", queries, database, 1, capacity=400, matrices=matrices, settled=1)
        assert found == [1, 1]


@pytest.mark.parametrize("build", BUILDS)
def test_ids_take_the_place_of_indices(emulator, build):
    queries, database = random_codes(2, 64, 1), random_codes(65, 64, 2)
    ids = torch.arange(65) * 3 + 2**40
    arrays = [array.numpy().tobytes() for array in (queries, database, ids)]
    expected = brute_topk(queries, database, 70, ids=ids)[1]
    for selected in (2048, 1):
        settings = [f"{n}={v}" for n, v in dict(queries=2, codes=65, width=8, k=70, ids=1, selected=selected).items()]
        output = emulator.output("topk", build, *settings, data=b"".join(arrays))
        np.testing.assert_array_equal(np.frombuffer(output[2 * 70 * 4 :], np.int64).reshape(2, 70), expected)


def same_as_cpu(queries: Tensor, database: Tensor, k: int, mask: Tensor | None = None) -> None:
    """Expect from the GPU what the CPU gives, by both ways of comparing."""
    expected = hamming_topk(queries.cpu(), database.cpu(), k, mask=None if mask is None else mask.cpu())
    for tensor_cores in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ADSQ_TENSOR_CORES", tensor_cores)
            found = hamming_topk(queries, database, k, mask=mask)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.cpu(), b), (tensor_cores, k)


@pytest.mark.gpu
@pytest.mark.parametrize("num_bits", [*WIDTHS, 5, 4096])
@pytest.mark.parametrize(("q", "n"), [(0, 9), (1, 0), (1, 1), (1, 100_003), (65, 20_001), (1100, 3000)])
def test_gpu_equals_cpu(num_bits, q, n):
    queries, database = random_codes(q, num_bits, 1).cuda(), random_codes(n, num_bits, 2, max(1, n // 3)).cuda()
    for k in (1, 10, 100, 2048) if n > 9 else (1, 3):
        for masked in (None, "one", "half"):
            mask = some_mask(masked, n)
            same_as_cpu(queries, database, k, None if mask is None else mask.cuda())
    same_as_cpu(queries[:40], database, max(1, n))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", HARD)
def test_gpu_on_hard_data(kind):
    queries = random_codes(20, 64, 5)
    database = HARD[kind](queries, random_codes(300_000, 64, 4))
    for k in (1, 100, 5000):
        same_as_cpu(queries.cuda(), database.cuda(), k)


@pytest.mark.gpu
@pytest.mark.slow
def test_gpu_beyond_two_to_the_31_pairs():
    queries, database = random_codes(70_000, 32, 1).cuda(), random_codes(40_000, 32, 2).cuda()
    same_as_cpu(queries, database, 3)


@pytest.mark.gpu
def test_gpu_takes_strided_codes_at_any_address():
    queries, database = random_codes(33, 64, 1).cuda(), random_codes(5000, 128, 2).cuda()
    same_as_cpu(queries[::2], database[::3, :8], 20)
    same_as_cpu(queries[:, 1:7].contiguous()[1:], database.flatten()[1:-15][: 6 * 8000].view(-1, 6), 20)


@pytest.mark.gpu
def test_gpu_side_streams_and_graphs():
    """Work goes to the current stream, and a captured search runs again on what its inputs hold then."""
    queries, database = random_codes(50, 64, 1).cuda(), random_codes(50_000, 64, 2).cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**7)
        changed = database ^ 1
        same_as_cpu(queries, changed, 10)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        few, many = hamming_topk(queries[:1], database, 10), hamming_topk(queries, database, 3000)
    for seed in (3, 4):
        queries.copy_(random_codes(50, 64, seed))
        database.copy_(random_codes(50_000, 64, seed + 10, 1000 if seed == 4 else None))
        graph.replay()
        for found, rows, k in ((few, 1, 10), (many, 50, 3000)):
            expected = hamming_topk(queries[:rows].cpu(), database.cpu(), k)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True)), seed


@pytest.mark.gpu
def test_gpu_does_not_wait_for_results():
    queries, database = random_codes(50, 64, 1).cuda(), random_codes(50_000, 64, 2).cuda()
    hamming_topk(queries, database, 10)
    torch.cuda.set_sync_debug_mode("error")
    try:
        hamming_topk(queries, database, 10)
        hamming_topk(queries, database, 3000)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_gpu_that_is_not_the_current_one():
    queries, database = random_codes(50, 64, 1).to("cuda:1"), random_codes(5000, 64, 2).to("cuda:1")
    assert hamming_topk(queries, database, 10)[0].device == queries.device
    same_as_cpu(queries, database, 10)
