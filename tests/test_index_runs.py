"""What is added to distinct codes is searched beside them at first, with the results of one index of all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from adsq._runs import Runs
from adsq.index import HammingIndex

ROWS, DISTINCT = 8000, 300


def codes_of(rows: int, distinct: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (distinct, 6), dtype=np.uint8)[random.integers(0, distinct, rows)]


@pytest.fixture
def indexes() -> list[HammingIndex]:
    """The same rows, equal codes once and each with its code; ids with gaps, in any order."""
    made = [HammingIndex(48, distinct) for distinct in (True, False)]
    for index in made:
        index.add(codes_of(ROWS, DISTINCT, 0), 10 * np.random.default_rng(1).permutation(ROWS))
    return made


def runs(index: HammingIndex) -> int:
    return len(index._storage._runs)


def assert_equal(indexes: list[HammingIndex], queries: np.ndarray, k: int, method: str = "auto") -> None:
    distinct, flat = indexes
    np.testing.assert_equal(distinct.search(queries, k, method=method), flat.search(queries, k, method="scan"))
    allowed = np.arange(0, 10 * ROWS, 7)
    np.testing.assert_equal(distinct.search(queries, k, allowed), flat.search(queries, k, allowed))
    out = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.int64)
    assert distinct.search(queries, k, out=out)[0] is out[0]
    np.testing.assert_equal(out, flat.search(queries, k))
    for radius in (0, 3, 48):
        found = distinct.range_search(queries, radius, method)
        np.testing.assert_equal(found, flat.range_search(queries, radius, method="scan"))


@pytest.mark.parametrize("method", ["scan", "hash", "auto"])
def test_the_same_as_one_run(indexes: list[HammingIndex], method: str) -> None:
    distinct, _ = indexes
    distinct.search(codes_of(1, 1, 0), 1, method="hash")
    tables = distinct._storage.rows().hash._tables
    queries = np.concatenate([codes_of(3, DISTINCT, 0), codes_of(3, 50, 2)])
    for step in range(6):
        seed = 2 * (step % 2)  # codes that are there already, and others
        new = codes_of(100, 50, seed)
        ids = 10 * (100 * step + np.arange(100)) + 5 if step < 4 else None  # among the others, then after them
        for index in indexes:
            index.add(new, ids)
        for k in (1, 20):
            assert_equal(indexes, queries, k, method)
        assert runs(distinct) == 2
        assert isinstance(distinct._storage.searched(0), Runs)
        assert distinct._storage._runs[0].hash._tables is tables
    assert_equal(indexes, queries, 9000, method)  # so many results that they cost more than the rows
    assert runs(distinct) == 1
    for index in indexes:
        index.remove([5, 15, 0])
    assert_equal(indexes, queries, 20, method)


def test_many_new_rows_are_merged(indexes: list[HammingIndex]) -> None:
    distinct, _ = indexes
    for index in indexes:
        index.add(codes_of(ROWS // 8, 50, 3))
    distinct.search(codes_of(1, 1, 0), 1)
    assert runs(distinct) == 2
    for index in indexes:
        index.add(codes_of(1, 50, 3))
    assert_equal(indexes, codes_of(5, 50, 3), 5)
    assert runs(distinct) == 1


def test_what_needs_all_rows_merges_them(tmp_path: Path) -> None:
    for look in (lambda index: index.reconstruct([10 * ROWS + 1]), lambda index: index.save(tmp_path / "a")):
        distinct = HammingIndex(48, distinct=True)
        distinct.add(codes_of(ROWS, DISTINCT, 0))
        distinct.add(codes_of(9, 50, 3), 10 * ROWS + np.arange(9))
        distinct.search(codes_of(1, 1, 0), 1)
        assert len(distinct) == ROWS + 9
        assert distinct._storage.first_id() == 0
        assert runs(distinct) == 2
        distinct.explain(codes_of(1, 1, 0), 1)
        assert runs(distinct) == 2
        look(distinct)
        assert runs(distinct) == 1


def test_threads_that_search_while_others_add() -> None:
    index = HammingIndex(48, distinct=True)
    index.add(codes_of(ROWS, DISTINCT, 0))
    queries = codes_of(4, DISTINCT, 0)
    expected = index.search(queries, 5)

    def work(number: int) -> None:
        if number % 4 == 0:
            index.add(~codes_of(50, 50, number))  # farther than what is found
        np.testing.assert_equal(index.search(queries, 5), expected)
        np.testing.assert_equal(index.range_search(queries, 0)[2][:5], expected[1][0])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(80)))
    assert len(index) == ROWS + 20 * 50
