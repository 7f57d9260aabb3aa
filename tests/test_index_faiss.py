import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adsq.index import HammingIndex

faiss = pytest.importorskip("faiss")

IDS = {
    "row numbers": lambda rows: np.arange(rows),
    "with gaps": lambda rows: np.arange(rows) * 3 + 1,
    "unordered": lambda rows: np.random.default_rng(rows).permutation(10 * rows + 1)[:rows],
    "large": lambda rows: 2**62 - np.arange(rows) * 2**33,
}


def faiss_index(codes: np.ndarray, ids: np.ndarray | None = None, kind: str = "IndexBinaryIDMap") -> faiss.IndexBinary:
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    if ids is None:
        index.add(codes)
    else:
        index = getattr(faiss, kind)(index)
        index.add_with_ids(codes, ids)
    return index


def assert_found_alike(ours: HammingIndex, theirs: faiss.IndexBinary, queries: np.ndarray, k: int) -> None:
    """Compare distances, and ids but for those at the largest distance, of which each side may choose others."""
    distances, ids = ours.search(queries, k)
    their_distances, their_ids = theirs.search(queries, k)
    assert np.array_equal(distances, their_distances)
    for row in range(len(queries)):
        inside = distances[row] < (distances[row, -1] if k <= len(ours) else 2147483647)
        expected = sorted(zip(their_distances[row, inside], their_ids[row, inside], strict=True))
        assert list(zip(distances[row, inside], ids[row, inside], strict=True)) == expected


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
@pytest.mark.parametrize("ids_name", IDS)
@pytest.mark.parametrize("num_bits", [8, 64, 4096])
def test_there_and_back(num_bits: int, ids_name: str, rows: int, random_codes: Callable) -> None:
    codes, ids, queries = random_codes(rows, num_bits), IDS[ids_name](rows), random_codes(5, num_bits, 1)
    index = HammingIndex(num_bits)
    index.add(codes, ids)
    there = index.to_faiss()
    plain = rows == 0 or sorted(ids) == list(range(rows))
    assert type(there) is (faiss.IndexBinaryFlat if plain else faiss.IndexBinaryIDMap)
    assert (there.d, there.ntotal) == (num_bits, rows)
    back = HammingIndex.from_faiss(there)
    assert (back.num_bits, len(back)) == (num_bits, rows)
    assert np.array_equal(back.reconstruct(ids), codes)
    for k in (3, rows + 2):
        assert_found_alike(index, there, queries, k)
        np.testing.assert_equal(back.search(queries, k), index.search(queries, k))


@pytest.mark.parametrize("kind", ["IndexBinaryIDMap", "IndexBinaryIDMap2"])
def test_what_faiss_built_and_read_from_a_file(tmp_path: Path, kind: str, random_codes: Callable) -> None:
    codes, ids = random_codes(300, 24), IDS["unordered"](300) + 2**33
    for theirs, names in [(faiss_index(codes), np.arange(300)), (faiss_index(codes, ids, kind), ids)]:
        faiss.write_index_binary(theirs, str(tmp_path / "a"))
        for source in (theirs, faiss.read_index_binary(str(tmp_path / "a"))):
            ours = HammingIndex.from_faiss(source)
            assert (ours.num_bits, len(ours), ours.device.type) == (24, 300, "cpu")
            assert np.array_equal(ours.reconstruct(names), codes)
            assert_found_alike(ours, theirs, codes[:4], 20)
            ours.add(codes[:1])
            assert ours.search(codes[:1], 2)[1].max() == max(names) + 1
            assert source.ntotal == 300


def test_the_copies_do_not_depend_on_each_other(random_codes: Callable) -> None:
    codes, ids = random_codes(50, 64), IDS["with gaps"](50)
    theirs = faiss_index(codes, ids)
    ours = HammingIndex.from_faiss(theirs)
    back = ours.to_faiss()
    theirs.reset()
    ours.remove(ids[:49])
    del theirs, ours
    gc.collect()
    assert np.array_equal(back.search(codes, 1)[1][:, 0], ids)


def test_an_id_map_owns_its_flat_index(random_codes: Callable) -> None:
    codes, ids = random_codes(50, 64), IDS["with gaps"](50)
    ours = HammingIndex(64)
    ours.add(codes, ids)
    for _ in range(200):  # an index deleted twice, or too early, would end the process
        index = ours.to_faiss()
        assert index.own_fields
        del index.referenced_objects  # what keeps the flat index of Python alive
        gc.collect(0)
        other = faiss_index(np.zeros_like(codes))  # takes the place of what was deleted
        assert np.array_equal(index.search(codes, 1)[1][:, 0], ids)
        del index, other


@pytest.mark.parametrize("num_bits", [1, 7, 13, 130])
def test_pad_bits_come_and_go(num_bits: int, random_codes: Callable, filled: Callable) -> None:
    index, codes = filled(num_bits, 40)
    there = index.to_faiss()
    width = (num_bits + 7) // 8
    assert there.d == 8 * width
    assert_found_alike(index, there, codes[:5], 10)
    assert HammingIndex.from_faiss(there).num_bits == 8 * width
    back = HammingIndex.from_faiss(there, num_bits=num_bits)
    assert back.num_bits == num_bits
    np.testing.assert_equal(back.search(codes, 50), index.search(codes, 50))
    for wrong in (8 * width - 8, 8 * width + 1):
        with pytest.raises(ValueError, match=f"num_bits: expected .*got {wrong}"):
            HammingIndex.from_faiss(there, num_bits=wrong)
    with pytest.raises(TypeError, match="num_bits"):
        HammingIndex.from_faiss(there, num_bits=8.0)  # type: ignore[arg-type]
    there.add(np.full((1, width), 255, np.uint8))
    with pytest.raises(ValueError, match=f"codes: expected zero bits from bit {num_bits}.*row 40"):
        HammingIndex.from_faiss(there, num_bits=num_bits)


def test_what_is_no_flat_binary_index_is_refused() -> None:
    flat = faiss.IndexBinaryFlat(16)
    for other, name in [
        (faiss.IndexBinaryHNSW(16), "IndexBinaryHNSW"),
        (faiss.IndexBinaryIDMap(faiss.IndexBinaryHNSW(16)), "IndexBinaryIDMap over IndexBinaryHNSW"),
        (faiss.IndexBinaryIDMap(faiss.IndexBinaryIDMap2(flat)), "IndexBinaryIDMap over IndexBinaryIDMap2"),
        (faiss.IndexBinaryIVF(flat, 16, 1), "IndexBinaryIVF"),
        (faiss.IndexFlatL2(16), "IndexFlatL2"),
        (HammingIndex(16), "HammingIndex"),
        (None, "NoneType"),
    ]:
        with pytest.raises(TypeError, match=rf"index: expected a faiss.IndexBinaryFlat, .*, got {name}$"):
            HammingIndex.from_faiss(other)
    with pytest.raises(ValueError, match="num_bits: expected an integer from 1 to 4096, got 4104"):
        HammingIndex.from_faiss(faiss.IndexBinaryFlat(4104))


@pytest.mark.parametrize(
    ("ids", "message"),
    [([5, 9, 5], "ids: 5 is given twice"), ([5, -1, 9], "ids: -1 is negative"), ([-(2**63), 1, 2], "is negative")],
)
def test_ids_that_an_index_cannot_have_are_refused(ids: list[int], message: str, random_codes: Callable) -> None:
    with pytest.raises(ValueError, match=message):
        HammingIndex.from_faiss(faiss_index(random_codes(3, 16), np.array(ids)))


def test_rows_without_an_id_are_refused(random_codes: Callable) -> None:
    theirs = faiss_index(random_codes(3, 16), np.arange(3))
    theirs.index.add(random_codes(1, 16))  # behind the back of the map
    with pytest.raises(ValueError, match="ids: expected 4, one for each row of codes, got 3"):
        HammingIndex.from_faiss(theirs)


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, filled: Callable) -> None:
    index, _ = filled()
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (index.to_faiss, lambda: HammingIndex.from_faiss(None)):
        with pytest.raises(ImportError, match="pip install faiss-cpu"):
            call()


def test_after_removes_and_from_a_map(tmp_path: Path, filled: Callable) -> None:
    index, codes = filled(64, 30)
    index.remove(range(20, 30))
    assert type(index.to_faiss()) is faiss.IndexBinaryFlat
    index.remove([0])
    index.save(tmp_path / "a")
    for source in (index, HammingIndex.load(tmp_path / "a", mmap=True)):
        there = source.to_faiss()
        assert there.search(codes[1:20], 1)[1].ravel().tolist() == list(range(1, 20))


@pytest.mark.gpu
def test_from_the_gpu(filled: Callable) -> None:
    index, codes = filled(64, 30)
    expected = index.search(codes, 5)
    there = index.to("cuda").to_faiss()
    np.testing.assert_equal(HammingIndex.from_faiss(there).search(codes, 5), expected)
