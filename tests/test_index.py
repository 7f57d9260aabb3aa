from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsq.index import HammingIndex
from adsq.kernels import pack_codes

PADDING = 2147483647
WIDTHS = [1, 7, 8, 13, 33, 64, 130]


class Oracle:
    """The index as a dict of ids and codes, searched by sorting all of (distance, id)."""

    def __init__(self) -> None:
        self.codes: dict[int, np.ndarray] = {}

    def neighbours(self, query: np.ndarray, allowed: set[int] | None = None) -> list[tuple[int, int]]:
        return sorted(
            (int(np.unpackbits(query ^ code).sum()), id_)
            for id_, code in self.codes.items()
            if allowed is None or id_ in allowed
        )

    def search(self, queries: np.ndarray, k: int, allowed: set[int] | None = None) -> tuple[list, list]:
        rows = [(self.neighbours(query, allowed) + [(PADDING, -1)] * k)[:k] for query in queries]
        return [[d for d, _ in row] for row in rows], [[i for _, i in row] for row in rows]


def assert_searches_equal(index: HammingIndex, oracle: Oracle, queries: np.ndarray, k: int) -> None:
    distances, ids = index.search(queries, k)
    expected = oracle.search(queries, k)
    assert distances.dtype == np.int32
    assert ids.dtype == np.int64
    assert (distances.tolist(), ids.tolist()) == expected


ids_lists = st.lists(
    st.one_of(st.integers(0, 30), st.integers(2**32 - 3, 2**32 + 3), st.integers(2**62, 2**62 + 9)),
    max_size=8,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 6)),
        st.tuples(st.just("add_ids"), ids_lists),
        st.tuples(st.just("remove"), ids_lists),
        st.tuples(st.just("remove_known"), st.integers(1, 4)),
        st.tuples(st.just("search"), st.integers(1, 40)),
        st.tuples(st.just("range"), st.integers(0, 140)),
        st.tuples(st.just("filter"), ids_lists),
        st.tuples(st.just("save"), st.booleans()),
    ),
    max_size=14,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_bits=st.sampled_from(WIDTHS),
    spread=st.sampled_from([1, 2, 2**31]),
    distinct=st.sampled_from([False, True, "auto"]),
    steps=steps,
    seed=st.integers(0, 99),
)
def test_any_sequence_of_calls_equals_the_oracle(
    tmp_path: Path,
    num_bits: int,
    spread: int,
    distinct: bool | str,
    steps: list[tuple[str, Any]],
    seed: int,
    random_codes: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adsq._storage.SMALLEST", 2)  # "auto" looks early, and so changes its mind
    monkeypatch.setattr("adsq._distinct._FEW_QUERIES", seed % 2 * 9)
    pool = random_codes(64, num_bits, seed)[: min(spread, 64)]  # few codes: many equal distances
    random = np.random.default_rng(seed)
    index, oracle, next_id = HammingIndex(num_bits, distinct), Oracle(), 0
    for number, (step, argument) in enumerate(steps):
        queries = random_codes(3, num_bits, number)[random.integers(0, 3, 3 + seed % 2 * 7)]
        if step == "add":
            codes = pool[random.integers(0, len(pool), argument)]
            index.add(codes)
            oracle.codes.update({next_id + i: code for i, code in enumerate(codes)})
            next_id += argument
        elif step == "add_ids":
            codes = pool[random.integers(0, len(pool), len(argument))]
            if len(set(argument)) < len(argument) or set(argument) & oracle.codes.keys():
                with pytest.raises(ValueError, match="ids: "):
                    index.add(codes, argument)
            else:
                index.add(codes, argument)
                oracle.codes.update(zip(argument, codes, strict=True))
                next_id = max([next_id, *(i + 1 for i in argument)])
        elif step == "remove":
            if set(argument) <= oracle.codes.keys():
                index.remove(argument)
                for id_ in set(argument):
                    del oracle.codes[id_]
            else:
                with pytest.raises(ValueError, match="is not in the index"):
                    index.remove(argument)
        elif step == "remove_known":
            known = sorted(oracle.codes)[::argument]
            index.remove(known)
            for id_ in known:
                del oracle.codes[id_]
        elif step == "search":
            assert_searches_equal(index, oracle, queries, argument)
        elif step == "range":
            offsets, distances, ids = index.range_search(queries, argument)
            found = list(zip(distances.tolist(), ids.tolist(), strict=True))
            assert offsets[0] == 0
            for i, query in enumerate(queries):
                expected = [pair for pair in oracle.neighbours(query) if pair[0] <= argument]
                assert found[offsets[i] : offsets[i + 1]] == expected
            assert offsets[-1] == len(found)
        elif step == "filter":
            distances, ids = index.search(queries, 5, filter_ids=argument)
            assert (distances.tolist(), ids.tolist()) == oracle.search(queries, 5, set(argument))
        else:
            index.meta = {"step": number}
            index.save(tmp_path / "index")
            index = HammingIndex.load(tmp_path / "index", mmap=argument)
            assert index.num_bits == num_bits
            assert index.meta == {"step": number}
        assert len(index) == len(oracle.codes)
    known = list(oracle.codes)
    assert index.reconstruct(np.array(known, np.int64)).tolist() == [c.tolist() for c in oracle.codes.values()]
    assert_searches_equal(index, oracle, pool, len(known) + 1)


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_an_empty_index(num_bits: int, distinct: bool, tmp_path: Path, random_codes: Callable) -> None:
    index = HammingIndex(num_bits, distinct)
    queries = random_codes(2, num_bits)
    index.add(queries[:0])
    index.add(queries[:0], [])
    index.remove([])
    index.save(tmp_path / "empty")
    for empty in [index, *(HammingIndex.load(tmp_path / "empty", mmap) for mmap in (False, True))]:
        assert len(empty) == 0
        for filter_ids in (None, [], [3]):
            distances, ids = empty.search(queries, 3, filter_ids)
            assert distances.tolist() == [[PADDING] * 3] * 2
            assert ids.tolist() == [[-1] * 3] * 2
        offsets, distances, ids = empty.range_search(queries, num_bits)
        assert (offsets.tolist(), distances.tolist(), ids.tolist()) == ([0, 0, 0], [], [])
        assert empty.reconstruct([]).shape == (0, queries.shape[1])
        assert empty.search(queries[:0], 3)[1].shape == (0, 3)
        empty.add(queries)
        assert empty.search(queries, 1)[0].tolist() == [[0], [0]]


def test_order_does_not_depend_on_the_order_of_the_adds(random_codes: Callable) -> None:
    codes = random_codes(300, 7)
    ids = np.random.default_rng(1).permutation(10_000)[:300]
    oracle = Oracle()
    oracle.codes = dict(zip(ids.tolist(), codes, strict=True))
    orders = [np.argsort(ids), np.argsort(-ids), np.arange(300)]
    for order in orders:
        for piece in (1, 7, 300):
            index = HammingIndex(7)
            for start in range(0, 300, piece):
                part = order[start : start + piece]
                index.add(codes[part], ids[part])
            assert_searches_equal(index, oracle, codes[:5], 301)


def test_small_pieces_move_each_row_few_times(monkeypatch: pytest.MonkeyPatch, random_codes: Callable) -> None:
    from adsq._rows import FlatRows

    moved = 0
    merged = FlatRows.merged

    def counting(self: FlatRows, other: FlatRows) -> FlatRows:
        nonlocal moved
        result = merged(self, other)
        appended = result.id_buffer.data_ptr() == self.id_buffer.data_ptr()
        moved += other.size if appended else result.size
        return result

    monkeypatch.setattr(FlatRows, "merged", counting)
    codes = random_codes(2000, 16)
    for ids in [np.arange(2000), np.arange(2000)[::-1], np.random.default_rng(0).permutation(2000)]:
        index, moved = HammingIndex(16), 0
        for i in range(2000):
            index.add(codes[i : i + 1], ids[i : i + 1])
        index.search(codes[:1], 1)
        assert moved < 2000 * 14  # one by one, to the end of a plain array: 2000 * 1000


def test_equal_codes_come_in_the_order_of_their_ids(random_codes: Callable) -> None:
    index = HammingIndex(13)
    same = np.tile(random_codes(1, 13), (50, 1))
    index.add(same[:25], list(range(100, 50, -2)))
    index.add(same[25:], list(range(51, 101, 2)))
    assert index.search(same[:1], 60)[1][0].tolist() == [*range(51, 101), *[-1] * 10]
    assert index.range_search(same[:1], 0)[2].tolist() == list(range(51, 101))


def test_default_ids_follow_the_largest_ever(filled: Callable) -> None:
    index, codes = filled(rows=4)
    index.remove([3])
    index.add(codes[:1])
    assert index.search(codes[:1], 9)[1].max() == 4
    index.add(codes[:1], [2**63 - 1])
    with pytest.raises(ValueError, match=r"none are left after 9223372036854775807"):
        index.add(codes[:1])
    assert len(index) == 5


def test_codes_of_pack_codes_and_a_real_distance() -> None:
    codes = torch.tensor([[1.0, -1, 1], [-1, -1, -1], [1, 1, 1]])
    index = HammingIndex(3)
    index.add(pack_codes(codes), torch.tensor([2**40, 7, 8]))
    distances, ids = index.search(pack_codes(codes[:1]), 4)
    assert distances.tolist() == [[0, 1, 2, PADDING]]
    assert ids.tolist() == [[2**40, 8, 7, -1]]
    assert repr(index) == "HammingIndex(num_bits=3, len=3, device='cpu')"
    assert index.to("cpu") is index


@pytest.mark.gpu
def test_an_index_on_the_gpu_equals_one_on_the_cpu(tmp_path: Path, filled: Callable) -> None:
    index, codes = filled(33, 500)
    expected = index.search(codes, 20)
    index.to("cuda").add(codes[:3], [2**33, 10**6, 10**6 + 1])
    index.remove([2**33, 10**6, 10**6 + 1])
    for queries in (codes, torch.from_numpy(codes).cuda()):
        for result, wanted in zip(index.search(queries, 20), expected, strict=True):
            assert np.array_equal(result.cpu() if isinstance(result, torch.Tensor) else result, wanted)
    with pytest.raises(ValueError, match="queries: expected the device of the index"):
        index.search(torch.from_numpy(codes), 1)
    index.save(tmp_path / "a")
    assert np.array_equal(HammingIndex.load(tmp_path / "a").search(codes, 20)[1], expected[1])
