"""hamming_topk and hamming_range against a brute force in numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adsq.kernels import hamming_range, hamming_topk, pack_codes
from adsq.kernels.hamming_topk import op, reference

NO_DISTANCE = 2147483647
Ranking = tuple[np.ndarray, np.ndarray]

sizes = st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 2049])
query_counts = st.sampled_from([0, 1, 2, 65])


def random_codes(rows: int, num_bits: int, seed: int, distinct: int | None = None) -> Tensor:
    """Packed codes; with `distinct`, drawn from so few different ones that duplicates abound."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (rows if distinct is None else distinct, num_bits), generator=generator) * 2 - 1
    if distinct is not None:
        signs = signs[torch.randint(0, distinct, (rows,), generator=generator)]
    return pack_codes(signs)


def all_distances(queries: Tensor, database: Tensor) -> np.ndarray:
    difference = queries.numpy()[:, None] ^ database.numpy()[None]
    return np.unpackbits(difference, axis=2).sum(axis=2, dtype=np.int64)


def brute_topk(queries: Tensor, database: Tensor, k: int, mask: Tensor | None = None) -> Ranking:
    distances = np.full((len(queries), k), NO_DISTANCE, dtype=np.int32)
    indices = np.full((len(queries), k), -1, dtype=np.int64)
    allowed = np.arange(len(database)) if mask is None else np.flatnonzero(mask.numpy())
    for i, row in enumerate(all_distances(queries, database)):
        order = allowed[np.lexsort((allowed, row[allowed]))][:k]
        indices[i, : len(order)] = order
        distances[i, : len(order)] = row[order]
    return distances, indices


def brute_range(queries: Tensor, database: Tensor, radius: int) -> list[tuple[int, int, int]]:
    return [
        (i, distance, index)
        for i, row in enumerate(all_distances(queries, database).tolist())
        for distance, index in sorted((d, j) for j, d in enumerate(row))
        if distance <= radius
    ]


def assert_topk(found: tuple[Tensor, Tensor], expected: Ranking) -> None:
    distances, indices = found
    assert distances.dtype == torch.int32
    assert indices.dtype == torch.int64
    np.testing.assert_array_equal(distances.numpy(), expected[0])
    np.testing.assert_array_equal(indices.numpy(), expected[1])


def range_triples(found: tuple[Tensor, Tensor, Tensor]) -> list[tuple[int, int, int]]:
    offsets, distances, indices = found
    assert (offsets.dtype, distances.dtype, indices.dtype) == (torch.int64, torch.int32, torch.int64)
    assert offsets[0] == 0
    assert offsets[-1] == len(distances) == len(indices)
    queries = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())
    return list(zip(queries.tolist(), distances.tolist(), indices.tolist(), strict=True))


@pytest.fixture
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.fixture
def reduced_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@settings(max_examples=40)
@given(
    n=sizes,
    q=query_counts,
    k=st.sampled_from(["1", "N", "N + 3"]),
    num_bits=st.integers(1, 300),
    distinct=st.sampled_from([None, 1, 3]),
    masked=st.sampled_from([None, 0.0, 0.5, 1.0]),
    seed=st.integers(0, 9999),
)
def test_topk_equals_brute_force(
    n: int, q: int, k: str, num_bits: int, distinct: int | None, masked: float | None, seed: int
) -> None:
    queries = random_codes(q, num_bits, seed, distinct)
    database = random_codes(n, num_bits, seed + 1, distinct)
    neighbours = {"1": 1, "N": max(1, n), "N + 3": n + 3}[k]
    mask = None if masked is None else torch.rand(n, generator=torch.Generator().manual_seed(seed)) < masked
    found = hamming_topk(queries, database, neighbours, mask=mask)
    assert_topk(found, brute_topk(queries, database, neighbours, mask))


@settings(max_examples=40)
@given(
    n=sizes,
    q=query_counts,
    share=st.sampled_from([0.0, 0.4, 0.5, 1.0, 1.5]),
    num_bits=st.integers(1, 300),
    distinct=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 9999),
)
def test_range_equals_brute_force(n: int, q: int, share: float, num_bits: int, distinct: int | None, seed: int) -> None:
    queries = random_codes(q, num_bits, seed, distinct)
    database = random_codes(n, num_bits, seed + 1, distinct)
    radius = int(share * num_bits)
    assert range_triples(hamming_range(queries, database, radius)) == brute_range(queries, database, radius)


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 20])
@pytest.mark.parametrize("k", [1, 5, 130, 200])
def test_any_block_size_gives_the_same(block: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, database = random_codes(9, 37, 0, 5), random_codes(130, 37, 1, 40)
    expected = brute_topk(queries, database, k), brute_range(queries, database, 15)
    monkeypatch.setattr(reference, "BLOCK", block)
    assert_topk(reference.hamming_topk(queries, database, k), expected[0])
    assert range_triples(reference.hamming_range(queries, database, 15)) == expected[1]


@pytest.mark.parametrize("k", [1, 10, 700])
def test_blocks_stay_within_the_stated_bound(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    distance = reference.hamming_distance

    def spy(queries: Tensor, database: Tensor, num_bits: int | None = None) -> Tensor:
        result = distance(queries, database, num_bits)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(reference, "BLOCK", 512)
    monkeypatch.setattr(reference, "hamming_distance", spy)
    queries, database = random_codes(20, 16, 0), random_codes(700, 16, 1)
    reference.hamming_topk(queries, database, k)
    assert max(sizes) <= max(512, k)
    assert sum(sizes) == 20 * 700
    if k == 700:
        assert len(sizes) == 20  # the full ranking sorts each row once: many blocks merged would be quadratic
    sizes.clear()
    reference.hamming_range(queries, database, 3)
    assert max(sizes) <= 512
    assert sum(sizes) == 20 * 700


@pytest.mark.parametrize("num_bits", [1, 8, 9, 4089, 4096])
def test_extreme_distances(num_bits: int) -> None:
    ones = torch.ones(1, num_bits)
    queries, database = pack_codes(ones), pack_codes(torch.cat((-ones, ones, -ones, ones)))
    distances, indices = hamming_topk(queries, database, 4)
    assert distances.tolist() == [[0, 0, num_bits, num_bits]]
    assert indices.tolist() == [[1, 3, 0, 2]]
    assert range_triples(hamming_range(queries, database, num_bits - 1)) == [(0, 0, 1), (0, 0, 3)]
    assert len(range_triples(hamming_range(queries, database, num_bits))) == 4
    assert len(range_triples(hamming_range(queries, database, 10**30))) == 4


def test_sorted_database_and_long_codes() -> None:
    database = pack_codes(torch.ones(300, 300).tril() - 0.5)
    assert_topk(hamming_topk(database[::60], database, 300), brute_topk(database[::60], database, 300))
    queries, database = random_codes(3, 4096, 0), random_codes(600, 4096, 1)
    assert_topk(hamming_topk(queries, database, 600), brute_topk(queries, database, 600))


@pytest.mark.usefixtures("autocast")
def test_exact_under_autocast() -> None:
    queries, database = random_codes(5, 4001, 0), random_codes(200, 4001, 1)
    assert_topk(hamming_topk(queries, database, 200), brute_topk(queries, database, 200))
    assert range_triples(hamming_range(queries, database, 2000)) == brute_range(queries, database, 2000)


@pytest.mark.usefixtures("reduced_precision")
def test_exact_with_reduced_precision_products() -> None:
    queries, database = random_codes(5, 4001, 0), random_codes(200, 4001, 1)
    assert_topk(hamming_topk(queries, database, 200), brute_topk(queries, database, 200))


@pytest.mark.parametrize("allowed", [[], [4], [0, 129], [5, 6, 7, 8, 9, 10, 11]])
@pytest.mark.parametrize("k", [1, 5, 130, 140])
def test_mask(allowed: list[int], k: int) -> None:
    queries, database = random_codes(6, 20, 0), random_codes(130, 20, 1, 7)
    mask = torch.zeros(130, dtype=torch.bool)
    mask[allowed] = True
    assert_topk(hamming_topk(queries, database, k, mask=mask), brute_topk(queries, database, k, mask))


def test_padding_is_never_a_distance() -> None:
    queries = random_codes(3, 24, 0)
    distances, indices = hamming_topk(queries, queries[:0], 2)
    assert distances.tolist() == [[NO_DISTANCE] * 2] * 3
    assert indices.tolist() == [[-1] * 2] * 3
    distances, indices = hamming_topk(queries, queries, 5)
    assert distances[:, 3:].tolist() == [[NO_DISTANCE] * 2] * 3
    assert indices[:, 3:].tolist() == [[-1] * 2] * 3


def test_empty_sides() -> None:
    codes = random_codes(3, 24, 0)
    distances, indices = hamming_topk(codes[:0], codes, 2)
    assert distances.shape == indices.shape == (0, 2)
    assert range_triples(hamming_range(codes[:0], codes, 3)) == []
    offsets, distances, indices = hamming_range(codes, codes[:0], 3)
    assert (offsets.tolist(), len(distances), len(indices)) == ([0, 0, 0, 0], 0, 0)


def test_strided_inputs_and_inputs_unchanged() -> None:
    wide_queries, wide_database = random_codes(12, 96, 0), random_codes(400, 96, 1)
    queries, database = wide_queries[::2, ::3], wide_database.T.contiguous().T[1::2, 1:9:2]
    mask = (torch.arange(400) % 3 > 0)[::2]
    before = [tensor.clone() for tensor in (wide_queries, wide_database, mask)]
    assert_topk(hamming_topk(queries, database, 50, mask=mask), brute_topk(queries, database, 50, mask))
    assert range_triples(hamming_range(queries, database, 12)) == brute_range(queries, database, 12)
    expanded = queries[:1].expand(5, -1)
    assert_topk(hamming_topk(expanded, database, 9), brute_topk(expanded, database, 9))
    for tensor, copy in zip((wide_queries, wide_database, mask), before, strict=True):
        assert torch.equal(tensor, copy)


def test_flipping_the_same_bits_everywhere_changes_nothing() -> None:
    queries, database = random_codes(7, 64, 0), random_codes(300, 64, 1)
    flip = random_codes(1, 64, 2)
    for before, after in zip(
        (*hamming_topk(queries, database, 300), *hamming_range(queries, database, 30)),
        (
            *hamming_topk(queries ^ flip, database ^ flip, 300),
            *hamming_range(queries ^ flip, database ^ flip, 30),
        ),
        strict=True,
    ):
        assert torch.equal(before, after)


def test_range_is_a_prefix_of_the_full_ranking() -> None:
    queries, database = random_codes(4, 16, 0), random_codes(200, 16, 1)
    distances, indices = hamming_topk(queries, database, 200)
    offsets, range_distances, range_indices = hamming_range(queries, database, 6)
    for i, count in enumerate(offsets.diff().tolist()):
        assert torch.equal(range_distances[offsets[i] : offsets[i + 1]], distances[i, :count])
        assert torch.equal(range_indices[offsets[i] : offsets[i + 1]], indices[i, :count])


@pytest.mark.parametrize("n", [0, 1, 70])
def test_opcheck(n: int) -> None:
    queries, database = random_codes(5, 20, 0), random_codes(n, 20, 1)
    for k in (1, n + 2):
        torch.library.opcheck(op.hamming_topk, (queries, database, k, None))
        torch.library.opcheck(op.hamming_topk, (queries, database, k, torch.arange(n) % 2 == 0))
    for radius in (0, 9, 24):
        torch.library.opcheck(op.hamming_range, (queries, database, radius))


def test_fake_tensors_have_the_right_shapes() -> None:
    with FakeTensorMode():
        queries, database = torch.empty(5, 3, dtype=torch.uint8), torch.empty(70, 3, dtype=torch.uint8)
        distances, indices = hamming_topk(queries, database, 80, mask=torch.empty(70, dtype=torch.bool))
        assert (distances.shape, distances.dtype) == ((5, 80), torch.int32)
        assert (indices.shape, indices.dtype) == ((5, 80), torch.int64)


@pytest.mark.parametrize("dynamic", [False, True])
def test_topk_compiles_to_one_graph(dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda queries, database, k, mask: hamming_topk(queries, database, k, mask=mask)[1] + 1,
        fullgraph=True,
        dynamic=dynamic,
    )
    for q, n, k in ((5, 70, 7), (3, 90, 7), (3, 90, 100)):
        queries, database = random_codes(q, 20, 0), random_codes(n, 20, 1)
        mask = torch.arange(n) % 3 > 0
        expected = brute_topk(queries, database, k, mask)[1] + 1
        np.testing.assert_array_equal(compiled(queries, database, k, mask).numpy(), expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_range_compiles_to_one_graph(dynamic: bool) -> None:
    def search(queries: Tensor, database: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offsets, distances, indices = hamming_range(queries, database, 8)
        return offsets, distances, indices + 1

    torch._dynamo.reset()
    compiled = torch.compile(search, fullgraph=True, dynamic=dynamic)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for q, n in ((5, 70), (3, 90)):
            queries, database = random_codes(q, 20, 0), random_codes(n, 20, 1)
            offsets, distances, indices = compiled(queries, database)
            assert range_triples((offsets, distances, indices - 1)) == brute_range(queries, database, 8)


CODES = random_codes(4, 24, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((CODES.numpy(), CODES, 1), TypeError, "queries: expected a torch.Tensor, got ndarray"),
        ((CODES.long(), CODES, 1), TypeError, "queries: expected packed codes of dtype torch.uint8"),
        (
            (CODES, CODES[0], 1),
            ValueError,
            r"database: expected shape \[N, ceil\(num_bits / 8\)\], got \[3\]",
        ),
        ((CODES, CODES[:, :2], 1), ValueError, "database: expected 3 bytes a code as in queries, got 2"),
        ((CODES[:, :0], CODES[:, :0], 1), ValueError, "queries: expected 1 to 512 bytes a code, got 0"),
        ((CODES, CODES.to("meta"), 1), ValueError, "database: expected the device of queries, cpu, got meta"),
    ],
)
def test_bad_codes_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    for function in (hamming_topk, hamming_range):
        with pytest.raises(error, match=message):
            function(*arguments)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "k: expected an integer at least 1, got 0"),
        (-3, ValueError, "k: expected an integer at least 1, got -3"),
        (2.0, TypeError, r"k: expected an integer at least 1, got 2\.0"),
        (True, TypeError, "k: expected an integer at least 1, got True"),
    ],
)
def test_bad_k_is_refused(k: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hamming_topk(CODES, CODES, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True] * 4, TypeError, "mask: expected a torch.Tensor, got list"),
        (torch.ones(4), TypeError, "mask: expected dtype torch.bool, got torch.float32"),
        (
            torch.ones(3, dtype=torch.bool),
            ValueError,
            r"mask: expected shape \[4\], one entry a database code, got \[3\]",
        ),
        (torch.ones(4, 1, dtype=torch.bool), ValueError, r"mask: expected shape \[4\]"),
        (
            torch.ones(4, dtype=torch.bool, device="meta"),
            ValueError,
            "mask: expected the device of database, cpu",
        ),
    ],
)
def test_bad_mask_is_refused(mask: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hamming_topk(CODES, CODES, 1, mask=mask)  # type: ignore[arg-type]


def test_bad_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="radius: expected an integer at least 0, got -1"):
        hamming_range(CODES, CODES, -1)
    with pytest.raises(TypeError, match=r"radius: expected an integer at least 0, got 1\.5"):
        hamming_range(CODES, CODES, 1.5)  # type: ignore[arg-type]
