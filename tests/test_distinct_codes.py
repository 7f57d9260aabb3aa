"""Distinct codes and the expansion of searches among them, against definitions in Python and a search of all rows."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import distinct_codes
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
    wanted = max(1, min(k, len(codes)))
    found = [torch.from_numpy(array) for array in brute_topk(queries, codes, wanted)]
    assert_equal(both("distinct_topk", *found, k, offsets, rows, ids), brute_topk(queries, database, k, None, ids))
    for radius in (0, num_bits // 2, num_bits):
        found = [torch.from_numpy(array) for array in brute_range(queries, codes, radius)]
        expanded = both("distinct_range", *found, offsets, rows, ids)
        assert_equal(expanded, brute_range(queries, database, radius, ids))


def test_long_lists_at_one_distance() -> None:
    """Enough rows to sort by digits, of lists that cross, and a limit that cuts them at each length."""
    database = torch.randint(0, 256, (40, 1), dtype=torch.uint8)[torch.randint(40, (70_000,))]
    queries = torch.tensor([[0], [255], [170]], dtype=torch.uint8)
    codes, offsets, rows = lists_of(database)
    for k in (1, 3, 1000, 5000, 70_000):
        found = [torch.from_numpy(array) for array in brute_topk(queries, codes, min(k, len(codes)))]
        assert_equal(op.distinct_topk(*found, k, offsets, rows), brute_topk(queries, database, k))
    torch.set_num_threads(2)
    found = [torch.from_numpy(array) for array in brute_range(queries, codes, 8)]
    assert_equal(op.distinct_range(*found, offsets, rows), brute_range(queries, database, 8))


def test_lists_that_are_damaged_are_refused() -> None:
    """As those of a mapped file may be, which nobody has looked at."""
    offsets, rows = torch.tensor([0, 2, 3], dtype=torch.int32), torch.tensor([0, 2, 1], dtype=torch.int32)
    distances, codes = torch.zeros(1, 2, dtype=torch.int32), torch.tensor([[0, 1]])
    assert op.distinct_topk(distances, codes, 3, offsets, rows)[1].tolist() == [[0, 1, 2]]
    for bad, message in [
        ((codes + 1, offsets, rows), "indices: expected numbers of codes"),
        ((codes, offsets + 1, rows), "offsets: expected places"),
        ((codes, offsets - 1, rows), "offsets: expected places"),
        ((codes, offsets, rows + 1), "rows: expected rows"),
        ((codes, offsets, rows - 1), "rows: expected rows"),
        ((codes, offsets.long(), rows), "offsets"),
        ((codes, offsets, rows.long()), "rows"),
    ]:
        index, *lists = bad
        with pytest.raises((RuntimeError, IndexError), match=message):
            op.distinct_topk(distances, index, 3, *lists)
        with pytest.raises((RuntimeError, IndexError), match=message):
            op.distinct_range(torch.tensor([0, 2]), distances[0], index[0], *lists)
    for begins in ([1, 0], [0, 3], [-1, 2]):
        with pytest.raises(RuntimeError, match="query_offsets"):
            op.distinct_range(torch.tensor(begins), distances[0], codes[0], offsets, rows)
    with pytest.raises(RuntimeError, match="numbers: expected 0 to 1"):
        op.distinct_rows(rows, 2)
    with pytest.raises(RuntimeError, match="numbers: expected 0 to 1"):
        op.distinct_rows(rows - 1, 2)


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
    topk = [torch.from_numpy(array) for array in brute_topk(queries, codes, 5)]
    within = [torch.from_numpy(array) for array in brute_range(queries, codes, 8)]
    calls = [
        (op.distinct_codes, (database,)),
        (op.distinct_rows, (op.distinct_codes(database)[1], len(codes))),
        (op.distinct_topk, (*topk, 7, offsets, rows, torch.arange(50))),
        (op.distinct_range, (*within, offsets, rows, None)),
    ]
    for function, arguments in calls:
        torch.library.opcheck(function, arguments)
