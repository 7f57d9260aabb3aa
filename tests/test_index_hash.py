"""Hash tables of an index: when they are made, searched, kept and dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import adsq._hash
from adsq.index import HammingIndex
from adsq.kernels import _extension
from adsq.kernels.hamming_hash import op
from search_cases import clustered, random_codes

native = pytest.mark.skipif(not _extension.simd_variants(), reason="no native library")


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
    monkeypatch.setattr(adsq._hash, "CALL", 0)
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
        rates = index._storage.rows().hash._tables[-1]
        rates[:7] = torch.tensor([5e3, 4e4, 4.5e4, 1.5e5, 3000, 1700, 0.85])  # as measured once: the same every time
        for learned in index._storage.rows().hash._learned:
            learned.tensor.zero_()
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


def near_queries(count: int) -> tuple[HammingIndex, Tensor, tuple]:
    """Return an index with tables, queries, and what scans find: the 5 nearest, and all within 2 bits."""
    index = HammingIndex(64)
    index.add(clustered(20_000, 64, 0.01, 0, 50))
    queries = clustered(count, 64, 0.01, 1, 50)
    expected = index.search(queries, 5, method="scan"), index.range_search(queries, 2, method="scan")
    index.search(queries, 5, method="hash")
    return index, queries, expected


def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with the searches by the tables."""
    calls = []
    topk, within = op.hash_topk, op.hash_range
    monkeypatch.setattr(adsq._hash.op, "hash_topk", lambda *args: (calls.append("topk"), topk(*args))[1])
    monkeypatch.setattr(adsq._hash.op, "hash_range", lambda *args: (calls.append("range"), within(*args))[1])
    return calls


@native
def test_few_queries_do_not_call_tables_where_a_scan_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    index, queries, expected = near_queries(12)
    calls = recorded_calls(monkeypatch)
    for call, wanted in [(1e12, []), (0, ["topk", "range"])]:
        monkeypatch.setattr(adsq._hash, "CALL", call)
        calls.clear()
        assert torch.equal(index.search(queries[:11], 5)[1], expected[0][1][:11])
        assert torch.equal(index.range_search(queries[:11], 2)[2], expected[1][2][: expected[1][0][11]])
        assert calls == wanted
        plan = index.explain(queries[:11], 5)[0]
        assert ("too little to call" in plan.reason) is (call > 0)
        calls.clear()
        index.search(queries, 5)  # many share what a call takes
        assert calls == ["topk"]


@native
def test_few_queries_are_scanned_where_those_before_lost_by_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """For some calls; then others try the tables again."""
    monkeypatch.setattr(adsq._hash, "CALL", 0)
    index, queries, expected = near_queries(10)
    calls = recorded_calls(monkeypatch)
    numbers = [learned.tensor for learned in index._storage.rows().hash._learned]
    for tensor in numbers:
        tensor[op.WAITING] = 5
    for i in range(6):
        calls.clear()
        assert ("took longer by the tables" in index.explain(queries[:1], 5)[0].reason) is (i < 5)
        assert torch.equal(index.search(queries[:3], 5)[1], expected[0][1][:3])
        assert torch.equal(index.range_search(queries[:3], 2)[2], expected[1][2][: expected[1][0][3]])
        assert calls == ([] if i < 5 else ["topk", "range"])
    for tensor in numbers:
        tensor[op.WAITING] = 5
        tensor[op.LEARNED // 3 + op.WAITING] = 1
    calls.clear()
    assert "took longer by the tables" in index.explain(queries, 5)[0].reason
    index.search(queries, 5)  # these are more than few
    assert "by scan" in index.explain(queries, 5)[0].reason
    index.search(queries[:3], 5, method="hash")
    index.search(queries[:3], 50)  # other searches than for about five
    numbers[1][op.WAITING] = 0
    index.search(queries[:3], 50)
    assert calls == ["topk"] * 3
