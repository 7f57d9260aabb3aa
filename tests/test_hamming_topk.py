"""hamming_topk against a brute force in numpy. See test_hamming_search_large.py for large databases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adsq.kernels import hamming_range, hamming_topk, pack_codes, unpack_codes
from adsq.kernels.hamming_topk import op, reference
from search_cases import (
    NO_DISTANCE,
    all_distances,
    assert_equal,
    assert_same,
    brute_topk,
    by_variant,
    check_range,
    check_topk,
    code_lengths,
    database_sizes,
    distinct_codes,
    ladder,
    query_counts,
    random_codes,
)

# Up to N // 4 neighbours are selected, more are ranked.
neighbour_counts = {
    "1": lambda n: 1,
    "5": lambda n: 5,
    "N // 9": lambda n: n // 9,
    "N // 4": lambda n: n // 4,
    "N // 4 + 1": lambda n: n // 4 + 1,
    "N": lambda n: n,
    "N + 3": lambda n: n + 3,
}


def some_mask(kind: str, n: int, seed: int) -> Tensor | None:
    numbers = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    masks = {"none": numbers < 0, "one": numbers == numbers.max() if n else numbers < 0, "all": numbers >= 0}
    return masks[kind] if kind in masks else numbers < float(kind)


@settings(max_examples=500)
@given(
    n=database_sizes,
    q=query_counts,
    k=st.sampled_from(list(neighbour_counts)),
    num_bits=code_lengths,
    distinct=distinct_codes,
    masked=st.sampled_from([None, "none", "one", "0.1", "0.5", "all"]),
    seed=st.integers(0, 9999),
)
def test_topk_equals_brute_force(
    n: int, q: int, k: str, num_bits: int, distinct: int | None, masked: str | None, seed: int
) -> None:
    queries = random_codes(q, num_bits, seed, distinct)
    database = random_codes(n, num_bits, seed + 1, distinct)
    mask = None if masked is None else some_mask(masked, n, seed)
    check_topk(queries, database, max(1, neighbour_counts[k](n)), mask)


def test_brute_force_by_definition() -> None:
    """The oracle itself, with loops."""
    queries, database, mask = random_codes(4, 21, 0), random_codes(50, 21, 1, 9), torch.arange(50) % 3 > 0
    bits = [[f"{int.from_bytes(bytes(row), 'little'):024b}" for row in codes.tolist()] for codes in (queries, database)]
    found = brute_topk(queries, database, 40, mask)
    for i, query in enumerate(bits[0]):
        distances = [sum(a != b for a, b in zip(query, code, strict=True)) for code in bits[1]]
        assert all_distances(queries, database)[i].tolist() == distances
        order = sorted((distance, j) for j, distance in enumerate(distances) if mask[j])
        padded = order + [(NO_DISTANCE, -1)] * (40 - len(order))
        assert list(zip(found[0][i].tolist(), found[1][i].tolist(), strict=True)) == padded


@pytest.mark.parametrize("block", [1, 7, 64, 1000, 1 << 20])
@pytest.mark.parametrize("k", [1, 5, 130, 200])
def test_any_block_size_gives_the_same(block: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BLOCK", block)
    queries, database = random_codes(9, 37, 0, 5), random_codes(130, 37, 1, 40)
    check_topk(queries, database, k)
    check_range(queries, database, 15)


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


@pytest.mark.parametrize("num_bits", [1, 8, 9, 256, 4089, 4096])
@pytest.mark.parametrize("q", [1, 30])
def test_extreme_distances(num_bits: int, q: int) -> None:
    ones = torch.ones(1, num_bits)
    queries, database = pack_codes(ones).expand(q, -1), pack_codes(torch.cat((-ones, ones, -ones, ones)))
    for distances, indices in by_variant(lambda: hamming_topk(queries, database, 4)).values():
        assert distances.tolist() == [[0, 0, num_bits, num_bits]] * q
        assert indices.tolist() == [[1, 3, 0, 2]] * q


@pytest.mark.parametrize("q", [1, 5, 30])
@pytest.mark.parametrize("num_bits", [16, 48, 64, 100, 128, 192, 256, 300, 1000])
def test_every_distance_and_every_cut(num_bits: int, q: int) -> None:
    """Each distance from 0 to K occurs four times, near codes first or last."""
    database = ladder(num_bits).repeat(4, 1)
    queries = database[torch.linspace(0, num_bits, q).long()]
    for codes in (database, database.flip(0)):
        for k in (1, 4, 5, len(database) // 4, len(database)):
            check_topk(queries, codes, k)


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


@pytest.mark.usefixtures("autocast")
def test_exact_under_autocast() -> None:
    queries, database = random_codes(5, 4001, 0), random_codes(200, 4001, 1)
    check_topk(queries, database, 200)
    check_range(queries, database, 2000)


@pytest.mark.usefixtures("reduced_precision")
def test_exact_with_reduced_precision_products() -> None:
    check_topk(random_codes(5, 4001, 0), random_codes(200, 4001, 1), 200)


@pytest.mark.parametrize("allowed", [[], [4], [0, 129], [5, 6, 7, 8, 9, 10, 11]])
@pytest.mark.parametrize("k", [1, 5, 130, 140])
def test_mask(allowed: list[int], k: int) -> None:
    mask = torch.zeros(130, dtype=torch.bool)
    mask[allowed] = True
    check_topk(random_codes(6, 20, 0), random_codes(130, 20, 1, 7), k, mask)


@pytest.mark.parametrize("value", [2, 128, 255])
@pytest.mark.parametrize("k", [1, 400, 1001])
def test_any_byte_but_zero_is_true(value: int, k: int) -> None:
    """As for torch: so a mask may come that is a view of bytes."""
    queries, database = random_codes(3, 64, 0), random_codes(1000, 64, 1)
    for some in (slice(0, 1), slice(0, 1000), slice(3, 1000, 7)):
        mask = torch.arange(1000) % 2 == 0
        expected = brute_topk(queries, database, k, mask)
        allowed = mask.to(torch.uint8)
        allowed[some] *= value
        for variant, found in by_variant(
            lambda allowed=allowed: hamming_topk(queries, database, k, mask=allowed.view(torch.bool))
        ).items():
            assert_equal(found, expected, variant)


def test_padding_is_never_a_distance() -> None:
    queries = random_codes(3, 24, 0)
    for distances, indices in by_variant(lambda: hamming_topk(queries, queries[:0], 2)).values():
        assert distances.tolist() == [[NO_DISTANCE] * 2] * 3
        assert indices.tolist() == [[-1] * 2] * 3
    for distances, indices in by_variant(lambda: hamming_topk(queries, queries, 5)).values():
        assert distances[:, 3:].tolist() == [[NO_DISTANCE] * 2] * 3
        assert indices[:, 3:].tolist() == [[-1] * 2] * 3


def test_empty_sides() -> None:
    codes = random_codes(3, 24, 0)
    for distances, indices in by_variant(lambda: hamming_topk(codes[:0], codes, 2)).values():
        assert distances.shape == indices.shape == (0, 2)


def test_strided_inputs_and_inputs_unchanged() -> None:
    wide_queries, wide_database = random_codes(60, 96, 0), random_codes(400, 96, 1)
    queries, database = wide_queries[::2, ::3], wide_database.T.contiguous().T[1::2, 1:9:2]
    mask = (torch.arange(400) % 3 > 0)[::2]
    before = [tensor.clone() for tensor in (wide_queries, wide_database, mask)]
    for some in (queries, queries[:2], queries[:1].expand(5, -1)):
        check_topk(some, database, 9)
        check_topk(some, database, 60, mask)
        check_topk(some, database[:1].expand(200, -1), 9)
        check_topk(some, database, 9, mask[:1].expand(200))
        check_range(some, database, 12)
    for tensor, copy in zip((wide_queries, wide_database, mask), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("offset", [1, 3, 8])
@pytest.mark.parametrize("width", [6, 8, 16, 32, 40])
def test_rows_at_any_address(width: int, offset: int) -> None:
    """Aligned rows of 8, 16 and 32 bytes are read where they lie, others are not."""
    memory = torch.randint(0, 256, (offset + 700 * width,), generator=torch.Generator().manual_seed(0))
    database = memory.to(torch.uint8)[offset:].view(700, width)
    for q in (1, 2, 3, 30):
        check_topk(database[5 : 5 + q], database, 7)
        check_topk(database[5 : 5 + q], database, 300)
        check_range(database[5 : 5 + q], database, 4 * width - 8)


def test_the_same_flips_and_the_same_order_of_bits_change_nothing() -> None:
    queries, database = random_codes(30, 64, 0), random_codes(900, 64, 1)
    flip, order = random_codes(1, 64, 2), torch.randperm(64, generator=torch.Generator().manual_seed(3))
    shuffled = [pack_codes(unpack_codes(codes, 64)[:, order]) for codes in (queries, database)]
    assert not torch.equal(shuffled[0], queries)

    def search(queries: Tensor, database: Tensor) -> tuple[Tensor, ...]:
        return (
            *hamming_topk(queries, database, 9),
            *hamming_topk(queries, database, 900),
            *hamming_range(queries, database, 26),
        )

    found = by_variant(lambda: search(queries, database))
    found |= {f"{v}, flipped": r for v, r in by_variant(lambda: search(queries ^ flip, database ^ flip)).items()}
    found |= {f"{v}, shuffled": r for v, r in by_variant(lambda: search(*shuffled)).items()}
    assert_same(found)


@pytest.mark.parametrize("q", [2, 30])
@pytest.mark.parametrize("k", [1, 20, 90, 110])
def test_ids_take_the_place_of_indices(q: int, k: int) -> None:
    queries, database, mask = random_codes(q, 40, 0), random_codes(100, 40, 1, 30), torch.arange(100) % 3 > 0
    ids = (torch.randperm(100, generator=torch.Generator().manual_seed(2)) * 10**11 - 3)[::2].repeat_interleave(2)
    for allowed in (None, mask):
        expected = brute_topk(queries, database, k, allowed, ids)
        for variant, found in by_variant(
            lambda allowed=allowed: op.hamming_topk(queries, database, k, allowed, ids)
        ).items():
            assert_equal(found, expected, variant)
    for distances, indices in by_variant(lambda: op.hamming_topk(queries, database[:0], k, None, ids[:0])).values():
        assert (distances == NO_DISTANCE).all() and (indices == -1).all()


@pytest.mark.parametrize("n", [0, 1, 70])
def test_opcheck(n: int) -> None:
    queries, database, ids = random_codes(5, 20, 0), random_codes(n, 20, 1), torch.arange(n) * 3
    for k in (1, n + 2):
        torch.library.opcheck(op.hamming_topk, (queries, database, k, None))
        torch.library.opcheck(op.hamming_topk, (queries, database, k, torch.arange(n) % 2 == 0))
        torch.library.opcheck(op.hamming_topk, (queries, database, k, torch.arange(n) % 2 == 0, ids))


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
