"""Search by hash tables against a search of all rows: forced, by choice, and given up in mid-search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import adsq._hash
from adsq.index import HammingIndex
from adsq.kernels import _extension, pack_codes
from adsq.kernels.distinct_codes import op as distinct
from adsq.kernels.hamming_hash import op
from search_cases import assert_equal, brute_range, brute_topk, by_variant, random_codes

WIDTHS = [1, 16, 31, 33, 48, 63, 64, 65, 128, 256]
native = pytest.mark.skipif(not _extension.simd_variants(), reason="no native library")


def clustered(rows: int, num_bits: int, flips: float, seed: int, centres: int = 5) -> Tensor:
    """Codes about few centres, each bit flipped with some chance; bit 0 is constant."""
    random = torch.Generator().manual_seed(seed)
    signs = torch.randn(centres, num_bits, generator=torch.Generator().manual_seed(1)).sign()
    codes = signs[torch.randint(centres, (rows,), generator=random)]
    codes = torch.where(torch.rand(rows, num_bits, generator=random) < flips, -codes, codes)
    codes[:, 0] = 1
    return pack_codes(codes)


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
    tables = make_tables(codes, *names[:2])
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
    tables = make_tables(codes)
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
    signs = torch.randn(2000, 64, generator=torch.Generator().manual_seed(seed)).sign()
    flip, order = torch.randn(64).sign(), torch.randperm(64)
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


def has_tables(index: HammingIndex) -> bool:
    return index._storage.rows().hash._tables is not None


@pytest.mark.parametrize("distinct_rows", [False, True])
def test_every_method_of_an_index_gives_the_same(distinct_rows: bool) -> None:
    codes = clustered(6000, 33, 0.05, 0).numpy()
    index = HammingIndex(33, distinct_rows)
    index.add(codes[:5000], 2**32 + np.random.default_rng(0).permutation(5000))
    queries = np.concatenate([codes[4990:5010], codes[:1]])
    for step in range(3):
        for k in (1, 10, 5000, 7000):
            scan = index.search(queries, k, method="scan")
            for method in ("hash", "auto"):
                np.testing.assert_equal(index.search(queries, k, method=method), scan)
            np.testing.assert_equal(
                index.search(queries, k, [2**32 + 5]), index.search(queries, k, [2**32 + 5], "scan")
            )
        for radius in (0, 2, 32, 33):
            scan = index.range_search(queries, radius, method="scan")
            for method in ("hash", "auto"):
                np.testing.assert_equal(index.range_search(queries, radius, method=method), scan)
        assert has_tables(index)
        if step == 0:
            index.add(codes[5000:])
        else:
            index.remove(index.search(queries[:1], 300)[1][0])
        assert not has_tables(index)  # they go with the rows they are made of


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("distinct_rows", [False, True])
def test_a_saved_index_has_the_same_tables_again(tmp_path: Path, distinct_rows: bool, mmap: bool) -> None:
    codes = clustered(3000, 48, 0.05, 0)
    index = HammingIndex(48, distinct_rows)
    index.add(codes, 2**33 + 3 * torch.arange(3000))
    index.save(tmp_path / "codes.adsq")
    loaded = HammingIndex.load(tmp_path / "codes.adsq", mmap=mmap)
    queries = codes[::200]
    for found, wanted in zip(loaded.search(queries, 20, method="hash"), index.search(queries, 20), strict=True):
        assert torch.equal(found, wanted)
    rows = index._storage.rows()
    same = zip(loaded._storage.rows().hash._tables[:-1], op.hash_tables(rows.codes, *rows.lists())[:-1], strict=True)
    assert all(torch.equal(part, other) for part, other in same)


@native
def test_auto_makes_tables_once_scans_have_cost_as_much_and_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adsq._hash, "SCANS", 40)
    for database, queries, pays in [
        (clustered(60_000, 64, 0.03, 0, 400), clustered(50, 64, 0.03, 1, 400), True),
        (random_codes(60_000, 64, 0), random_codes(50, 64, 1), False),
    ]:
        index = HammingIndex(64)
        index.add(database)
        assert [plan.method for plan in index.explain(queries, 10)] == ["scan"] * 50
        assert "no hash tables" in index.explain(queries, 10)[0].reason
        for i in range(50):
            index.search(queries[i : i + 1], 10, method="scan")
        assert not has_tables(index)
        for i in range(50):
            assert has_tables(index) == (pays and i >= 40)
            index.search(queries[i : i + 1], 10)
        index.search(queries[:1], 10, method="hash")
        plans = [index.explain(queries[i : i + 1], 10)[0] for i in range(50)]
        by_hash = sum(plan.method == "hash" for plan in plans)
        assert by_hash > 25 if pays else by_hash == 0
        assert all(plan.hash_cost > 0 and plan.scan_cost > 0 and "us by scan" in plan.reason for plan in plans)
        for i in range(50):
            index.range_search(queries[i : i + 1], 1)
    assert has_tables(index)


@native
def test_auto_does_not_make_large_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adsq._hash, "SCANS", 4)
    index = HammingIndex(64, distinct=False)
    index.add(clustered(60_000, 64, 0.03, 0, 400))
    for most, made in [(5 * 60_000 * 12 - 1, False), (5 * 60_000 * 12, True)]:
        monkeypatch.setattr(adsq._hash, "MOST_BYTES", most)
        assert ("only, as they take 0.0 GiB" in index.explain(index.reconstruct([0]), 1)[0].reason) is not made
        for i in range(8):
            index.search(index.reconstruct([i]), 10)
        assert has_tables(index) is made
    assert sum(part.nbytes for part in index._storage.rows().hash._tables[1:3]) == most


def test_explain_says_what_is_left_to_the_scan() -> None:
    few, long, enough = HammingIndex(64), HammingIndex(300), HammingIndex(64)
    few.add(random_codes(100, 64, 0))
    long.add(random_codes(5000, 300, 0))
    enough.add(random_codes(5000, 64, 0))
    enough.search(random_codes(1, 64, 0), 1, method="hash")
    queries = random_codes(101, 64, 1)
    for index, some, reason in [
        (few, queries[:2], "100 codes are few"),
        (long, random_codes(2, 300, 1), "more than 256 bits"),
        (enough, queries, "us by scan"),
    ]:
        plans = index.explain(some, 1)
        assert len(plans) == len(some)
        assert all(plan.method == "scan" and reason in plan.reason for plan in plans)
    assert enough.explain(queries[:0], 1) == []


def test_one_thread_makes_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = []
    make = op.hash_tables
    monkeypatch.setattr(adsq._hash.op, "hash_tables", lambda *args: (made.append(1), make(*args))[1])
    codes = random_codes(5000, 64, 0)
    index = HammingIndex(64)
    index.add(codes)
    expected = index.search(codes[:1], 5, method="scan")[1]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: index.search(codes[:1], 5, method="hash")[1], range(32)))
    assert all(torch.equal(ids, expected) for ids in found)
    assert len(made) == 1


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
