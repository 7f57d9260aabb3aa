"""Distinct codes and the expansion of searches among them, against definitions in Python and a search of all rows."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import _extension, distinct_codes
from adsq.kernels.distinct_codes import op, reference
from search_cases import assert_equal, assert_same, brute_range, brute_topk, code_lengths, random_codes
from search_cases import distinct_codes as few_codes

sizes = st.sampled_from([0, 1, 2, 7, 33, 200, 2500])


def both(name: str, *arguments: object) -> list[Tensor]:
    """The native result, equal to that of the reference."""
    results = {path: getattr(module, name)(*arguments) for path, module in (("native", op), ("reference", reference))}
    for result in results.values():
        assert [tensor.dtype for tensor in result] == [tensor.dtype for tensor in results["native"]]
    assert_same(results)
    return list(results["native"])


def lists_of(codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, numbers = both("distinct_codes", codes)
    return codes[first], *both("distinct_rows", numbers, len(first))


@settings(max_examples=200)
@given(n=sizes, num_bits=code_lengths, distinct=few_codes, seed=st.integers(0, 999))
def test_codes_are_numbered_by_their_first_rows(n: int, num_bits: int, distinct: int | None, seed: int) -> None:
    codes = random_codes(n, num_bits, seed, distinct)
    first, numbers = both("distinct_codes", codes)
    places: dict[bytes, int] = {}
    expected = [places.setdefault(bytes(row), len(places)) for row in codes.numpy()]
    assert numbers.tolist() == expected
    assert first.tolist() == [expected.index(c) for c in range(len(places))]
    offsets, rows = both("distinct_rows", numbers, len(first))
    for c in range(len(places)):
        assert rows[offsets[c] : offsets[c + 1]].tolist() == [row for row in range(n) if expected[row] == c]
    assert offsets[0] == 0
    assert offsets[-1] == n


def test_many_distinct_codes_and_codes_that_differ_in_one_place() -> None:
    codes = torch.arange(300_000).view(torch.uint8).reshape(-1, 8)[torch.randperm(300_000)]
    first, numbers = op.distinct_codes(torch.cat([codes, codes]))
    assert torch.equal(first, torch.arange(300_000))
    assert torch.equal(numbers, torch.arange(300_000, dtype=torch.int32).repeat(2))
    wide = torch.eye(512, dtype=torch.uint8)
    assert torch.equal(op.distinct_codes(wide[:, :511])[0], torch.arange(512))
    strided = wide.repeat(2, 1)[::2]
    assert torch.equal(distinct_codes(strided)[0], torch.arange(256))


@settings(max_examples=300)
@given(
    n=sizes,
    q=st.sampled_from([0, 1, 3, 20]),
    k=st.sampled_from([1, 2, 10, 100, 3000]),
    num_bits=code_lengths,
    distinct=few_codes,
    named=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_nearest_codes_hold_the_nearest_rows(
    n: int, q: int, k: int, num_bits: int, distinct: int | None, named: bool, seed: int
) -> None:
    queries, database = random_codes(q, num_bits, seed + 1), random_codes(n, num_bits, seed, distinct)
    ids = 2**33 + 3 * torch.arange(n) if named else None
    codes, offsets, rows = lists_of(database)
    queries = queries[torch.randint(0, max(1, q), (q,), generator=torch.Generator().manual_seed(seed))]
    assert_equal(
        both("distinct_topk", queries, codes, k, offsets, rows, ids), brute_topk(queries, database, k, None, ids)
    )
    for radius in (0, num_bits // 2, num_bits):
        expanded = both("distinct_range", queries, codes, radius, offsets, rows, ids)
        assert_equal(expanded, brute_range(queries, database, radius, ids))


@pytest.mark.parametrize("kind", ["even", "one has nearly all", "far ones have all"])
@pytest.mark.parametrize("threads", [1, 2])
def test_long_lists_at_one_distance(kind: str, threads: int) -> None:
    """Enough rows to sort by digits, lists that cross, k that cut them anywhere, and first guesses of any quality."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(5)
    numbers = torch.randint(3000, (40_000,), generator=generator)
    codes = random_codes(3000, 16, 0)
    if kind == "one has nearly all":
        numbers[torch.rand(40_000, generator=generator) < 0.95] = 7
    if kind == "far ones have all":  # all codes near the queries have one row
        near = (codes[:, 0] == 0).nonzero().squeeze(1)
        numbers = torch.cat([near, near.new_full((40_000,), int((codes[:, 0] == 255).nonzero()[0]))])
    database = codes[numbers]
    queries = torch.tensor([[0, 0], [255, 0], [0, 85], [0, 0], [1, 1], [0, 255], [0, 85], [7, 85]], dtype=torch.uint8)
    codes, offsets, rows = lists_of(database)
    for k in (1, 3, 65, 1000, 5000, len(database) // 4, len(database) // 4 + 1, len(database)):  # many: rows are ranked
        assert_equal(op.distinct_topk(queries, codes, k, offsets, rows), brute_topk(queries, database, k))
    for radius in (0, 3, 8):
        assert_equal(op.distinct_range(queries, codes, radius, offsets, rows), brute_range(queries, database, radius))


@pytest.mark.parametrize("order", ["as drawn", "frequent codes last", "frequent codes first"])
@pytest.mark.parametrize("num_bits", [16, 64, 200])
@pytest.mark.parametrize("threads", [1, 2])
def test_codes_that_have_k_rows_bound_the_search(order: str, num_bits: int, threads: int) -> None:
    """More of them than are looked at, queries that are one, that lie beside one, and that are far from all."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(num_bits)
    frequent = random_codes(300, num_bits, 1)
    numbers = torch.randint(300, (9000,), generator=generator) ** 2 // 300  # 10 rows for some, hundreds for others
    alone = random_codes(12_000, num_bits, 2)
    beside = frequent.repeat(4, 1)
    beside[:, 0] ^= torch.randint(1, 256, (len(beside),), generator=generator, dtype=torch.uint8)
    parts = [frequent[numbers], alone, beside]
    database = torch.cat(parts if order == "frequent codes first" else parts[::-1])
    if order == "as drawn":
        database = database[torch.randperm(len(database), generator=generator)]
    close = frequent[:60].clone()
    close[:, -1] ^= 1
    queries = torch.cat([frequent[:40], close, frequent[5:9], random_codes(20, num_bits, 3), frequent[-5:]])
    codes, offsets, rows = lists_of(database)
    for k in (1, 9, 10, 11, 40, 300, 2000):
        expected = brute_topk(queries, database, k)
        assert_equal(op.distinct_topk(queries, codes, k, offsets, rows), expected)
        assert_equal(op.distinct_topk(queries[:40], codes, k, offsets, rows), [part[:40] for part in expected])


def test_a_bound_within_which_the_sample_has_fewer_than_are_sought() -> None:
    """A code with more rows than the sample is first counted for, near the queries, and nearly all others far."""
    rare = torch.arange(1, 160_001).view(torch.uint8).reshape(-1, 8) | torch.tensor(
        [0, 0, 0, 0] + [255] * 4, dtype=torch.uint8
    )
    database = torch.cat([rare, torch.zeros(31_000, 8, dtype=torch.uint8)])[torch.randperm(191_000)]
    queries = torch.zeros(40, 8, dtype=torch.uint8)
    queries[:, 0] = torch.arange(1, 41)
    codes, offsets, rows = lists_of(database)
    for k in (30_000, 31_001):
        assert_equal(op.distinct_topk(queries, codes, k, offsets, rows), brute_topk(queries, database, k))


@pytest.mark.skipif(not _extension.simd_variants(), reason="no native library")
def test_lists_that_are_damaged_are_refused() -> None:
    """As those of a mapped file may be, which nobody has looked at."""
    offsets, rows = torch.tensor([0, 2, 3], dtype=torch.int32), torch.tensor([0, 2, 1], dtype=torch.int32)
    codes = torch.zeros(2, 1, dtype=torch.uint8)
    assert op.distinct_topk(codes, codes, 3, offsets, rows)[1].tolist() == [[0, 1, 2]] * 2
    for bad, message in [
        ((offsets + 1, rows), "offsets: expected places"),
        ((offsets - 1, rows), "offsets: expected places"),
        ((offsets, rows + 1), "rows: expected rows"),
        ((offsets, rows - 1), "rows: expected rows"),
        ((offsets[:2], rows), "offsets"),
        ((offsets.long(), rows), "offsets"),
        ((offsets, rows.long()), "rows"),
        ((offsets, rows, torch.arange(2)), "ids"),
    ]:
        with pytest.raises((RuntimeError, IndexError), match=message):
            op.distinct_topk(codes, codes, 3, *bad)
        with pytest.raises((RuntimeError, IndexError), match=message):
            op.distinct_range(codes, codes, 0, *bad)
    many = torch.arange(17, dtype=torch.uint8)[:, None]  # codes enough for rows to be ranked
    offsets, rows = torch.arange(18, dtype=torch.int32), torch.arange(17, dtype=torch.int32)
    assert_equal(op.distinct_topk(many, many, 17, offsets, rows), brute_topk(many, many, 17))
    for bad, message in [
        ((offsets + 1, rows), "offsets: expected places"),
        ((offsets, rows + 1), "rows: expected rows"),
        ((offsets, rows - 1), "rows: expected rows"),
    ]:
        with pytest.raises((RuntimeError, IndexError), match=message):
            op.distinct_topk(many, many, 17, *bad)
    rows = torch.tensor([0, 2, 1], dtype=torch.int32)
    for numbers in (rows, rows - 1):
        with pytest.raises(RuntimeError, match="numbers: expected 0 to 1"):
            op.distinct_rows(numbers, 2)


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"codes: expected packed codes of dtype torch.uint8"):
        distinct_codes(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="codes: expected shape"):
        distinct_codes(torch.zeros(3, dtype=torch.uint8))
    monkeypatch.setattr(sys.modules["adsq.kernels.distinct_codes"], "MAX_ROWS", 2)
    with pytest.raises(ValueError, match="codes: expected at most 2 rows, got 3"):
        distinct_codes(torch.zeros(3, 1, dtype=torch.uint8))


def test_ops_are_well_formed() -> None:
    database, queries = random_codes(50, 16, 0, 9), random_codes(4, 16, 1)
    codes, offsets, rows = lists_of(database)
    calls = [
        (op.distinct_codes, (database,)),
        (op.distinct_rows, (op.distinct_codes(database)[1], len(codes))),
        (op.distinct_topk, (queries, codes, 7, offsets, rows, torch.arange(50))),
        (op.distinct_range, (queries, codes, 8, offsets, rows, None)),
    ]
    for function, arguments in calls:
        torch.library.opcheck(function, arguments)
