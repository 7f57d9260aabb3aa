from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsq import files
from adsq.index import HammingIndex
from adsq.kernels import pack_codes

PADDING = 2147483647
WIDTHS = [1, 7, 8, 13, 33, 64, 130]


def random_codes(rows: int, num_bits: int, seed: int = 0) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 2, (rows, num_bits), dtype=np.uint8)
    return np.packbits(bits, axis=1, bitorder="little")


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


def filled(num_bits: int = 16, rows: int = 20) -> tuple[HammingIndex, np.ndarray]:
    codes = random_codes(rows, num_bits)
    index = HammingIndex(num_bits)
    index.add(codes)
    return index, codes


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


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    num_bits=st.sampled_from(WIDTHS),
    spread=st.sampled_from([1, 2, 2**31]),
    steps=steps,
    seed=st.integers(0, 99),
)
def test_any_sequence_of_calls_equals_the_oracle(
    tmp_path: Path, num_bits: int, spread: int, steps: list[tuple[str, Any]], seed: int
) -> None:
    pool = random_codes(64, num_bits, seed)[: min(spread, 64)]  # few codes: many equal distances
    random = np.random.default_rng(seed)
    index, oracle, next_id = HammingIndex(num_bits), Oracle(), 0
    for number, (step, argument) in enumerate(steps):
        queries = random_codes(3, num_bits, number)
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


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_an_empty_index(num_bits: int, tmp_path: Path) -> None:
    index = HammingIndex(num_bits)
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


def test_order_does_not_depend_on_the_order_of_the_adds() -> None:
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


def test_small_pieces_move_each_row_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from adsq._storage import FlatRows

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


def test_equal_codes_come_in_the_order_of_their_ids() -> None:
    index = HammingIndex(13)
    same = np.tile(random_codes(1, 13), (50, 1))
    index.add(same[:25], list(range(100, 50, -2)))
    index.add(same[25:], list(range(51, 101, 2)))
    assert index.search(same[:1], 60)[1][0].tolist() == [*range(51, 101), *[-1] * 10]
    assert index.range_search(same[:1], 0)[2].tolist() == list(range(51, 101))


def test_default_ids_follow_the_largest_ever() -> None:
    index, codes = filled(rows=4)
    index.remove([3])
    index.add(codes[:1])
    assert index.search(codes[:1], 9)[1].max() == 4
    index.add(codes[:1], [2**63 - 1])
    with pytest.raises(ValueError, match=r"none are left after 9223372036854775807"):
        index.add(codes[:1])
    assert len(index) == 5


def test_removed_ids_stay_used_after_a_reload(tmp_path: Path) -> None:
    index, codes = filled(rows=4)
    index.remove([0, 1, 2, 3])
    index.save(tmp_path / "a")
    index = HammingIndex.load(tmp_path / "a")
    index.add(codes[:1])
    assert index.search(codes[:1], 1)[1].tolist() == [[4]]


def test_torch_in_torch_out_numpy_in_numpy_out() -> None:
    index, codes = filled()
    for queries, kind in [(codes[:3], np.ndarray), (torch.from_numpy(codes[:3]), torch.Tensor)]:
        results = [*index.search(queries, 2), *index.range_search(queries, 2)]
        assert all(isinstance(result, kind) for result in results)
    assert isinstance(index.reconstruct(np.array([0])), np.ndarray)
    assert isinstance(index.reconstruct([0]), torch.Tensor)


def test_strided_read_only_and_mapped_arrays(tmp_path: Path) -> None:
    codes = random_codes(20, 33)
    wide = np.zeros((40, 10), np.uint8)
    wide[::2, ::2] = codes
    backwards = np.ascontiguousarray(codes[::-1])[::-1]
    frozen = codes.copy()
    frozen.flags.writeable = False
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    expected = filled(33)[0].search(codes, 5)
    for same in [
        wide[::2, ::2],
        backwards,
        frozen,
        mapped,
        np.asfortranarray(codes),
        torch.from_numpy(wide)[::2, ::2],
    ]:
        index = HammingIndex(33)
        index.add(same, np.arange(40)[::2] // 2)
        found = index.search(same, 5)
        for result, wanted in zip(found, expected, strict=True):
            assert np.array_equal(np.asarray(result), wanted)


@pytest.mark.filterwarnings("error")
def test_strided_and_read_only_ids() -> None:
    codes = random_codes(20, 16)
    wide = np.arange(80)
    wide.flags.writeable = False
    index = HammingIndex(16)
    index.add(codes, wide[::4])
    index.remove(torch.arange(80)[::8])
    assert np.array_equal(index.reconstruct(wide[4::8][::-1]), codes[1::2][::-1])
    assert set(index.search(codes, 20, filter_ids=wide[78::-2])[1].ravel()) == {-1, *range(4, 80, 8)}


def test_the_index_keeps_its_own_copy() -> None:
    codes, ids = random_codes(6, 16), np.array([5, 9, 11, 20, 21, 22])
    for first in (slice(0, 6), slice(4, 6)):  # the second case leaves a run that no merge has copied
        index = HammingIndex(16)
        rest = [i for i in range(6) if i not in range(6)[first]]
        parts = [(codes[first].copy(), ids[first].copy())]
        if rest:
            parts.append((codes[rest][:1].copy(), ids[rest][:1].copy()))
        for part in parts:
            index.add(*part)
        expected = index.search(codes, 3)
        for part in parts:
            part[0][:] = 0
            part[1][:] = 77
        for result, wanted in zip(index.search(codes, 3), expected, strict=True):
            assert np.array_equal(result, wanted)


@pytest.mark.parametrize(
    ("codes", "ids", "error", "message"),
    [
        (random_codes(2, 13), [3, 3], ValueError, "ids: 3 is given twice"),
        (random_codes(2, 13), [30, 0], ValueError, "ids: 0 is in the index already"),
        (random_codes(2, 13), [30, -1], ValueError, "ids: -1 is negative"),
        (random_codes(2, 13), [30], ValueError, "ids: expected 2, one for each row of codes, got 1"),
        (random_codes(2, 13), [[30, 31]], ValueError, r"ids: expected shape \[M\]"),
        (random_codes(2, 13), [1.0, 2.0], TypeError, "ids: expected integers of dtype int64, got float64"),
        (random_codes(2, 13), [1, 2**63], TypeError, "ids: expected integers of dtype int64"),
        (random_codes(2, 13), ["a", "b"], TypeError, "ids: expected integers"),
        (
            random_codes(2, 13),
            torch.tensor([1, 2], dtype=torch.int32),
            TypeError,
            "ids: expected dtype torch.int64",
        ),
        (random_codes(2, 8), None, ValueError, "codes: expected 2 bytes a code for 13 bits, got 1"),
        (random_codes(2, 13)[0], None, ValueError, "codes: expected shape"),
        (
            random_codes(2, 13).astype(np.int8),
            None,
            TypeError,
            "codes: expected packed codes of dtype uint8, got int8",
        ),
        (torch.ones(2, 13), None, TypeError, "codes: expected packed codes of dtype torch.uint8"),
        ([[0, 0]], None, TypeError, "codes: expected a torch.Tensor, got list"),
        (
            np.array([[255, 31], [0, 32]], np.uint8),
            None,
            ValueError,
            "codes: expected zero bits from bit 13.*row 1",
        ),
    ],
)
def test_a_refused_add_changes_nothing(codes: Any, ids: Any, error: type, message: str) -> None:
    index, kept = filled(13)
    before = index.search(kept, 30)
    with pytest.raises(error, match=message):
        index.add(codes, ids)
    assert len(index) == 20
    for result, wanted in zip(index.search(kept, 30), before, strict=True):
        assert np.array_equal(result, wanted)
    index.add(kept[:1])
    assert 20 in index.search(kept[:1], 30)[1]


def test_bad_arguments() -> None:
    index, codes = filled(13)
    for num_bits in (0, -1, 4097):
        with pytest.raises(ValueError, match="num_bits"):
            HammingIndex(num_bits)
    with pytest.raises(NotImplementedError, match="distinct"):
        HammingIndex(13, distinct=True)
    with pytest.raises(ValueError, match="distinct"):
        HammingIndex(13, distinct="yes")  # type: ignore[arg-type]
    assert len(HammingIndex(4096, distinct=False)) == 0
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"k: .*got {k}"):
            index.search(codes, k)
    for bad in (1.0, True, None, "3"):
        with pytest.raises(TypeError, match="k: "):
            index.search(codes, bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"radius: .*got -1"):
        index.range_search(codes, -1)
    for call in (index.search, index.range_search):
        with pytest.raises(ValueError, match="queries: expected zero bits from bit 13"):
            call(np.array([[0, 64]], np.uint8), 1)
        with pytest.raises(NotImplementedError, match="hash"):
            call(codes, 1, method="hash")
        with pytest.raises(ValueError, match="method"):
            call(codes, 1, method="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ids: 99 is not in the index"):
        index.reconstruct([1, 99])
    with pytest.raises(ValueError, match="ids: 99 is not in the index"):
        index.remove([1, 99])
    with pytest.raises(TypeError, match="filter_ids: expected"):
        index.search(codes, 1, filter_ids=[True])
    assert len(index) == 20


def test_concurrent_searches_equal_serial_ones() -> None:
    codes, ids = random_codes(1200, 64), np.random.default_rng(2).permutation(1200)
    serial = HammingIndex(64)
    serial.add(codes, ids)
    parts = [codes[start : start + 5] for start in range(0, 200, 5)]
    expected = [serial.search(part, 10) for part in parts]
    for _ in range(5):
        index = HammingIndex(64)
        for start in range(0, 1200, 200):  # out of order, so that the first search has runs to merge
            index.add(codes[start : start + 200], ids[start : start + 200])
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(index.search, parts, [10] * len(parts)))
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one[0], other[0])
            assert np.array_equal(one[1], other[1])


def test_searches_during_adds_and_removes_see_whole_states() -> None:
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


def test_a_mapped_index_is_changed_in_memory_only(tmp_path: Path) -> None:
    path = tmp_path / "a"
    index, codes = filled(13)
    index.save(path)
    content = path.read_bytes()
    mapped = HammingIndex.load(path, mmap=True)
    mapped.add(codes[:5])
    mapped.remove([0, 7])
    assert path.read_bytes() == content
    mapped.save(path)
    reloaded, still = HammingIndex.load(path), HammingIndex.load(path, mmap=True)
    still.save(path)
    for other in (reloaded, still, HammingIndex.load(path)):
        for result, wanted in zip(other.search(codes, 30), mapped.search(codes, 30), strict=True):
            assert np.array_equal(result, wanted)


def test_saving_equal_indexes_gives_equal_files(tmp_path: Path) -> None:
    codes = random_codes(30, 33)
    one, other = HammingIndex(33), HammingIndex(33)
    one.add(codes)
    for i in reversed(range(30)):
        other.add(codes[i : i + 1], [i])
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": torch.arange(20).flip(0)}, "ids not in ascending order"),
        ({"ids": torch.arange(20) - 1}, "ids not in ascending order"),
        ({"ids": torch.arange(19)}, "20, 2. codes with ids"),
        ({"ids": torch.arange(20.0)}, "float32"),
        ({"codes": torch.full((20, 2), 255, dtype=torch.uint8)}, "expected zero bits"),
        ({"codes": torch.zeros(20, 3, dtype=torch.uint8)}, "expected 2 bytes a code"),
        ({"codes": None}, "codes"),
        ({"num_bits": 0}, "num_bits"),
        ({"next_id": "many"}, "next_id"),
    ],
)
def test_a_wrong_index_with_right_checksums_is_refused(tmp_path: Path, change: dict, reason: str) -> None:
    tensors = {"codes": torch.from_numpy(random_codes(20, 13)), "ids": torch.arange(20)}
    meta: dict[str, Any] = {"num_bits": 13, "next_id": 20, "meta": {}}
    path = tmp_path / "a"
    files.write_tensors(path, tensors, kind="index", version=1, meta=meta)
    assert len(HammingIndex.load(path)) == 20
    for name, value in change.items():
        (tensors if name in tensors else meta)[name] = value
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    files.write_tensors(path, tensors, kind="index", version=1, meta=meta)
    with pytest.raises(ValueError, match=rf"a: not a valid index \(.*{reason}"):
        HammingIndex.load(path)


def test_files_that_are_no_index_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        HammingIndex.load(path)
    filled()[0].save(path)
    for mmap in (False, True):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match="truncated"):
            HammingIndex.load(path, mmap)
    files.write_tensors(path, {}, kind="checkpoint", version=1, meta={})
    with pytest.raises(ValueError, match="expected a file of kind 'index', got one of kind 'checkpoint'"):
        HammingIndex.load(path)


def test_a_failed_save_leaves_index_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, codes = filled()
    index.save(tmp_path / "a")
    index.meta = {"x": {1, 2}}
    with pytest.raises(TypeError, match="meta: expected what JSON can hold"):
        index.save(tmp_path / "a")
    loaded = HammingIndex.load(tmp_path / "a")
    assert np.array_equal(loaded.search(codes, 3)[1], index.search(codes, 3)[1])


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
def test_an_index_on_the_gpu_equals_one_on_the_cpu(tmp_path: Path) -> None:
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
