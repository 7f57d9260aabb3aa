"""Search by hash tables against a search of all rows: forced, by choice, and given up in mid-search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import _extension, pack_codes
from adsq.kernels.distinct_codes import op as distinct
from adsq.kernels.hamming_hash import op
from search_cases import assert_equal, brute_range, brute_topk, by_variant, clustered, random_codes

WIDTHS = [1, 16, 31, 33, 48, 63, 64, 65, 128, 256]
native = pytest.mark.skipif(not _extension.simd_variants(), reason="no native library")


def make_tables(codes: Tensor, *lists: Tensor | None) -> list[Tensor]:
    """Tables with rates, as an index has them."""
    tables = op.hash_tables(codes, *lists)
    return [*tables[:-1], op.hash_rates(codes, tables, *lists)]


@settings(max_examples=250)
@given(
    n=st.sampled_from([0, 1, 2, 17, 300, 3000]),
    k=st.sampled_from(["1", "5", "n - 1", "n", "n + 3"]),
    num_bits=st.sampled_from(WIDTHS),
    kind=st.sampled_from(["random", "clustered", "one", "one at 99 %"]),
    lists=st.booleans(),
    force=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_brute_force(n: int, k: str, num_bits: int, kind: str, lists: bool, force: bool, seed: int) -> None:
    wanted = max(1, {"1": 1, "5": 5, "n - 1": n - 1, "n": n, "n + 3": n + 3}[k])
    database = random_codes(n, num_bits, seed) if kind == "random" else clustered(n, num_bits, 0.05, seed)
    if kind.startswith("one") and n:
        some = torch.ones(n, dtype=torch.bool) if kind == "one" else torch.arange(n) % 100 > 0
        database[some] = database[n // 2].clone()
    queries = torch.cat([database[:2], random_codes(1, num_bits, seed + 1), clustered(1, num_bits, 0.05, seed + 2)])
    if num_bits % 8 == 0:
        queries = torch.cat([queries, ~database[:1]])  # the complement
    ids = 2**33 + 2 * torch.arange(n)
    codes, names = database, [None, None, ids]
    if lists:
        first, numbers = distinct.distinct_codes(database)
        codes, names = database[first], [*distinct.distinct_rows(numbers, len(first)), ids]
    tables = make_tables(codes, *names[:2])
    expected = brute_topk(queries, database, wanted, None, ids)
    for variant, found in by_variant(lambda: op.hash_topk(queries, codes, wanted, force, tables, *names)).items():
        assert_equal(found[:2], expected, variant)
        assert not force or variant == "reference" or set(found[2].tolist()) <= {1}
    for radius in (0, 1, 2, 5, num_bits - 1, num_bits, 5000):
        found = op.hash_range(queries, codes, radius, force, tables, *names)
        assert_equal(found[:3], brute_range(queries, database, radius, ids), radius)


@native
@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_searches_that_are_given_up(lists: bool, threads: int) -> None:
    """Near queries end in the tables, far ones begin there, and those whose first buckets are full do not begin."""
    torch.set_num_threads(threads)
    database = torch.cat([random_codes(40_000, 64, 0), clustered(10_000, 64, 0.01, 1, 200)])
    full = torch.zeros(60_000, 8, dtype=torch.uint8)  # one part of all is equal
    full[:, 2:] = random_codes(60_000, 48, 2)
    database = torch.cat([database, full])
    codes, names = database, [None, None, None]
    if lists:
        first, numbers = distinct.distinct_codes(database)
        codes, names = database[first], [*distinct.distinct_rows(numbers, len(first)), None]
    tables = op.hash_tables(codes, *names[:2])
    tables[-1][:7] = torch.tensor([8e3, 8e4, 9e4, 3e5, 4000, 1700, 0.85])  # as measured once: the same every time
    queries = torch.cat([clustered(10, 64, 0.01, 3, 200), random_codes(10, 64, 4), full[:10]])
    queries = queries[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    *found, used = op.hash_topk(queries, codes, 20, False, tables, *names)
    assert_equal(found, brute_topk(queries, database, 20))
    assert set(used.tolist()) == {0, 1, 2}
    planned = op.hash_plans(queries, codes, 20, tables, *names[:2])[:, 0].bool()
    assert planned[used == 1].all() and planned.any()
    for i in range(30):  # alone and together give the same
        assert torch.equal(op.hash_topk(queries[i : i + 1], codes, 20, False, tables, *names)[1][0], found[1][i])
    for radius in (0, 2, 8, 30):
        *found, used = op.hash_range(queries, codes, radius, False, tables, *names)
        assert_equal(found, brute_range(queries, database, radius))
    assert set(used.tolist()) == {0}


@native
@pytest.mark.parametrize("count", [0, 1, 255, 5000, 100_000])
def test_sample_is_of_the_codes(count: int) -> None:
    codes = random_codes(count, 64, 0).sort(dim=0)[0]
    sample = op.hash_tables(codes)[3].numpy().view(np.uint64).ravel()
    assert len(sample) == min(count, max(256, count // 128))
    assert np.isin(sample, codes.numpy().view(np.uint64)).all()


@native
def test_the_last_queries_left_to_a_scan_are_looked_up_as_well() -> None:
    """A share of a scan is cheap for each of many queries only."""
    codes = clustered(400_000, 64, 0.1, 0, 50)
    tables = op.hash_tables(codes)
    tables[-1].copy_(torch.tensor([9e4, 3.6e5, 3.7e5, 1e6, 6000, 1700, 0.85]))  # as measured once: the same every time
    queries = torch.cat([clustered(63, 64, 0.1, 1, 50), clustered(400, 64, 0.2, 2, 50)])
    plans = op.hash_plans(queries, codes, 10, tables)
    order = plans[:, 1].argsort()
    shared, alone = plans[0, 2], op.hash_plans(queries[:1], codes, 10, tables)[0, 2]
    one = (plans[:, 1] - (shared + alone) / 2).abs().argmin()
    assert shared < plans[one, 1] < alone
    easy = torch.cat([queries[one : one + 1], queries[order[:63]]])
    for among, used in [(torch.cat([queries[one : one + 1], queries[order]]), {0, 2}), (easy, {1})]:
        *found, ways = op.hash_topk(among, codes, 10, False, tables)
        assert_equal(found, brute_topk(among, codes, 10))
        assert ways[0].item() in used


@native
def test_equal_codes_are_enough_where_they_have_as_many_rows() -> None:
    codes = torch.cat([random_codes(20_000, 64, 0), clustered(20_000, 64, 0.02, 1)])
    first, numbers = distinct.distinct_codes(codes)
    lists = distinct.distinct_rows(numbers, len(first))
    tables = make_tables(codes[first], *lists)
    rows = torch.bincount(numbers.long())
    queries = codes[first[rows.argsort(descending=True)[:5]]]
    for k in (1, int(rows.max()) - 1, int(rows.max()), int(rows.max()) + 1):
        plans = op.hash_plans(queries[:1], codes[first], k, tables, *lists)
        assert (plans[0, 4] == 0) == (k <= rows.max())
        for force in (False, True):
            found = op.hash_topk(queries, codes[first], k, force, tables, *lists)
            assert_equal(found[:2], brute_topk(queries, codes, k))
            assert found[2][0] == 1 or k > rows.max()


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_a_mask_of_bits_and_an_order_of_bits_change_nothing(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(2, (2000, 64), generator=random) - 1
    flip, order = 2 * torch.randint(2, (64,), generator=random) - 1, torch.randperm(64, generator=random)
    one, other = pack_codes(signs), pack_codes((signs * flip)[:, order])
    results = [op.hash_topk(codes[:5], codes, 50, True, op.hash_tables(codes)) for codes in (one, other)]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@native
def test_bad_tables_are_refused() -> None:
    codes = random_codes(100, 64, 0)
    tables, others = op.hash_tables(codes), op.hash_tables(random_codes(99, 64, 0))
    wrong = [[*tables[:i], others[i], *tables[i + 1 :]] for i in range(4)]
    wrong = [mixed for mixed in wrong if [t.shape for t in mixed] != [t.shape for t in tables]]
    assert len(wrong) >= 3
    for mixed in [*wrong, tables[:-1], [*tables, tables[-1]], [*tables[:-1], tables[-1][1:]], tables[::-1]]:
        with pytest.raises(RuntimeError, match="table"):
            op.hash_topk(codes, codes, 1, True, mixed)
        with pytest.raises(RuntimeError, match="table"):
            op.hash_range(codes, codes, 1, True, mixed)
        with pytest.raises(RuntimeError, match="table"):
            op.hash_plans(codes, codes, 1, mixed)
        with pytest.raises(RuntimeError, match="table"):
            op.hash_rates(codes, mixed)
    for wrong in (torch.zeros(op.LEARNED - 1, dtype=torch.float64), torch.zeros(op.LEARNED)):
        with pytest.raises(RuntimeError, match=f"learned: expected {op.LEARNED} numbers"):
            op.hash_topk(codes, codes, 1, True, tables, None, None, None, wrong)
    with pytest.raises(RuntimeError, match="rows: expected with offsets"):
        op.hash_topk(codes, codes, 1, True, tables, torch.zeros(101, dtype=torch.int32))


def test_opcheck() -> None:
    codes = random_codes(60, 20, 0)
    tables = op.hash_tables(codes)
    torch.library.opcheck(op.hash_tables, (codes,))
    times = ("test_schema", "test_faketensor")  # what is measured differs from call to call
    torch.library.opcheck(op.hash_rates, (codes, tables), test_utils=times)
    torch.library.opcheck(op.hash_topk, (codes[:3], codes, 4, True, tables))
    torch.library.opcheck(op.hash_range, (codes[:3], codes, 4, True, tables))
    torch.library.opcheck(op.hash_plans, (codes[:3], codes, 4, tables))
    learned = torch.zeros(op.LEARNED, dtype=torch.float64)
    for function, bound in [(op.hash_topk, 4), (op.hash_range, 4)]:
        arguments = (codes[:3], codes, bound, True, tables, None, None, None, learned)
        torch.library.opcheck(function, arguments, test_utils=times)


@native
@pytest.mark.parametrize("factor", [0, 1e-3, 1e3, float("nan")])
def test_whatever_is_measured_the_results_are_the_same(factor: float) -> None:
    codes = torch.cat([random_codes(6000, 64, 0), clustered(6000, 64, 0.05, 1)])
    first, numbers = distinct.distinct_codes(codes)
    lists = distinct.distinct_rows(numbers, len(first))
    tables = make_tables(codes[first], *lists)
    assert (tables[-1][:4] > 0).all() and tables[-1][6] > 0
    tables[-1][6] *= factor
    queries = torch.cat([clustered(40, 64, 0.05, 2), random_codes(40, 64, 3)])
    for k in (1, 10, 200):
        assert_equal(op.hash_topk(queries, codes[first], k, False, tables, *lists)[:2], brute_topk(queries, codes, k))
    found = op.hash_range(queries, codes[first], 3, False, tables, *lists)
    assert_equal(found[:3], brute_range(queries, codes, 3))


@native
@pytest.mark.parametrize("number", [0, -3, 3, 1e300, float("inf"), -float("inf"), float("nan")])
def test_whatever_is_learned_the_results_are_the_same(number: float) -> None:
    codes = torch.cat([random_codes(6000, 64, 0), clustered(6000, 64, 0.05, 1)])
    tables = make_tables(codes)
    queries = torch.cat([clustered(150, 64, 0.05, 2), random_codes(150, 64, 3)])
    for force in (False, True):
        for some in (queries[149:150], queries[130:170], queries):
            learned = torch.full((op.LEARNED,), number, dtype=torch.float64)
            rest = [None, None, None, learned]
            assert_equal(op.hash_topk(some, codes, 10, force, tables, *rest)[:2], brute_topk(some, codes, 10))
            assert_equal(op.hash_range(some, codes, 3, force, tables, *rest)[:3], brute_range(some, codes, 3))
            assert len(op.hash_plans(some, codes, 10, tables, None, None, learned)) == len(some)
            assert not force or learned.isfinite().sum() >= (op.LEARNED if abs(number) < 4 else 1)


@native
def test_what_is_learned_decides() -> None:
    """Factors as logarithms, of the tables and of scans; a call writes those of about as many queries as it has."""
    codes = clustered(60_000, 64, 0.05, 0)
    tables = op.hash_tables(codes)
    tables[-1].copy_(torch.tensor([5e3, 4e4, 4.5e4, 1.5e5, 3000, 1700, 0.85]))  # as measured once: the same every time
    queries = clustered(300, 64, 0.05, 1).unique(dim=0)[:256]  # equal ones are searched once
    for place, count in [(0, 7), (8, 8), (8, 255), (16, 256)]:
        learned = torch.zeros(op.LEARNED, dtype=torch.float64)
        for tables_factor, scans_factor, by_hash in [(-3, 3, True), (3, -3, False)]:
            learned[place], learned[place + 1] = tables_factor, scans_factor
            plans = op.hash_plans(queries[:count], codes, 10, tables, None, None, learned)
            assert plans[:, 0].bool().all() if by_hash else not plans[:, 0].any()
        learned.zero_()
        op.hash_topk(queries[:count], codes, 10, True, tables, None, None, None, learned)
        assert learned.nonzero().ravel().tolist() == [place]
        learned.zero_()
        learned[place] = -0.25
        by_hash = []
        for learned[place + 6] in (0, 1):  # all are left to scans, or next to none, which then share nothing
            plans = op.hash_plans(queries[:count], codes, 10, tables, None, None, learned)
            by_hash.append(int(plans[:, 0].sum()))
        assert by_hash[0] < by_hash[1] if count > 100 else by_hash[0] <= by_hash[1]


@native
def test_codes_with_many_rows_are_known() -> None:
    """At most 256 of them, the most rows first; each bucket begins with the codes that have the most."""
    counts = torch.arange(1, 601)
    codes = random_codes(600, 64, 0).repeat_interleave(counts, dim=0)
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    first, numbers = distinct.distinct_codes(codes)
    lists = distinct.distinct_rows(numbers, len(first))
    offsets, positions, _, some, rates = op.hash_tables(codes[first], *lists)
    assert rates[7:].tolist() == list(range(600, 344, -1))
    rows = lists[0].diff().long()
    assert torch.equal(some[256:], codes[first][rows.argsort(descending=True)[:256]])
    tables, begin = len(positions), 0
    for table, codes_by_bucket in enumerate(positions):
        ends = begin + 2 ** (64 * (table + 1) // tables - 64 * table // tables) + 1
        sizes = offsets[begin:ends].diff().tolist()
        for bucket in rows[codes_by_bucket.long()].split(sizes):
            assert torch.equal(bucket, bucket.sort(descending=True)[0])
        begin = ends
    assert op.hash_tables(codes[first])[-1].shape == (7,)  # without lists, none
