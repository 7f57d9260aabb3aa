import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from adsq.index import HammingIndex


@pytest.mark.parametrize("distinct", [False, True])
def test_concurrent_searches_equal_serial_ones(random_codes: Callable, distinct: bool) -> None:
    codes, ids = (
        random_codes(500, 64)[np.random.default_rng(0).integers(0, 500, 1200)],
        np.random.default_rng(2).permutation(1200),
    )
    serial = HammingIndex(64)
    serial.add(codes, ids)
    parts = [codes[start : start + 5] for start in range(0, 200, 5)]
    expected = [serial.search(part, 10) for part in parts]
    for _ in range(5):
        index = HammingIndex(64, distinct)
        for start in range(0, 1200, 200):  # out of order, so that the first search has runs to merge
            index.add(codes[start : start + 200], ids[start : start + 200])
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(index.search, parts, [10] * len(parts)))
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("ascending", [True, False])
def test_searches_of_8_threads_during_adds_see_a_state_between_two_adds(
    random_codes: Callable, ascending: bool, distinct: bool
) -> None:
    rows, piece = 600, 10
    codes = random_codes(rows, 16)
    ids = np.arange(rows) if ascending else np.arange(rows)[::-1].copy()
    query = codes[:1]
    distance = np.unpackbits(codes ^ query, axis=1).sum(1)
    order = np.lexsort((ids, distance))
    index = HammingIndex(16, distinct)
    index.add(codes[:piece], ids[:piece])

    def add() -> None:
        for start in range(piece, rows, piece):
            index.add(codes[start : start + piece], ids[start : start + piece])
            time.sleep(0.001)  # some searches see this state, others a change

    def search(number: int, adds: Future) -> set[int]:
        seen = [piece]
        while not adds.done():
            if number % 2:
                distances, found = (result[0] for result in index.search(query, rows))
            else:
                _, distances, found = index.range_search(query, 16)
            size = int((found >= 0).sum())
            assert size % piece == 0
            assert size >= seen[-1]
            state = order[order < size]  # what is in after so many rows, in the order of the results
            assert found[:size].tolist() == ids[state].tolist()
            assert distances[:size].tolist() == distance[state].tolist()
            assert np.array_equal(index.reconstruct(ids[:size]), codes[:size])
            seen.append(size)
        return set(seen)

    with ThreadPoolExecutor(9) as pool:
        adds = pool.submit(add)
        searches = [pool.submit(search, number, adds) for number in range(8)]
        seen = [one.result() for one in searches]
        adds.result()
    assert len(set.union(*seen)) > 2  # else the searches came before or after all adds


def test_searches_during_adds_and_removes_see_whole_states(random_codes: Callable) -> None:
    codes = random_codes(400, 16)
    index = HammingIndex(16)

    def change() -> None:
        for start in range(0, 400, 10):
            index.add(codes[start : start + 10])
        for start in range(0, 400, 10):
            index.remove(range(start, start + 10))

    with ThreadPoolExecutor(3) as pool:
        changing = pool.submit(change)
        while not changing.done():
            ids = index.search(codes[:1], 400)[1]
            assert (ids >= 0).sum() % 10 == 0
        changing.result()
    assert len(index) == 0
