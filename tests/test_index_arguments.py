from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adsq.index import HammingIndex

TWO_CODES = np.array([[1, 2], [255, 31]], np.uint8)  # of 13 bits


def test_torch_in_torch_out_numpy_in_numpy_out(filled: Callable) -> None:
    index, codes = filled()
    tensor = torch.from_numpy(codes[:3])
    for call in (index.search, index.range_search):
        arrays, tensors = call(codes[:3], 5), call(tensor, 5)
        assert all(isinstance(array, np.ndarray) for array in arrays)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors)
        np.testing.assert_equal([tensor.numpy() for tensor in tensors], list(arrays))
    assert isinstance(index.reconstruct(np.array([0])), np.ndarray)
    assert isinstance(index.reconstruct([0]), torch.Tensor)


def test_strided_read_only_and_mapped_arrays(tmp_path: Path, random_codes: Callable, filled: Callable) -> None:
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
def test_strided_and_read_only_ids(random_codes: Callable) -> None:
    codes = random_codes(20, 16)
    wide = np.arange(80)
    wide.flags.writeable = False
    index = HammingIndex(16)
    index.add(codes, wide[::4])
    index.remove(torch.arange(80)[::8])
    assert np.array_equal(index.reconstruct(wide[4::8][::-1]), codes[1::2][::-1])
    assert set(index.search(codes, 20, filter_ids=wide[78::-2])[1].ravel()) == {-1, *range(4, 80, 8)}


def test_the_index_keeps_its_own_copy(random_codes: Callable) -> None:
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
        np.testing.assert_equal(index.search(codes, 3), expected)


@pytest.mark.parametrize(
    ("codes", "ids", "error", "message"),
    [
        (TWO_CODES, [3, 3], ValueError, "ids: 3 is given twice"),
        (TWO_CODES, [30, 0], ValueError, "ids: 0 is in the index already"),
        (TWO_CODES, [30, -1], ValueError, "ids: -1 is negative"),
        (TWO_CODES, [30], ValueError, "ids: expected 2, one for each row of codes, got 1"),
        (TWO_CODES, [[30, 31]], ValueError, r"ids: expected shape \[M\]"),
        (TWO_CODES, [1.0, 2.0], TypeError, "ids: expected integers of dtype int64, got float64"),
        (TWO_CODES, [1, 2**63], TypeError, "ids: expected integers of dtype int64"),
        (TWO_CODES, ["a", "b"], TypeError, "ids: expected integers"),
        (
            TWO_CODES,
            torch.tensor([1, 2], dtype=torch.int32),
            TypeError,
            "ids: expected dtype torch.int64",
        ),
        (TWO_CODES[:, :1], None, ValueError, "codes: expected 2 bytes a code for 13 bits, got 1"),
        (TWO_CODES[0], None, ValueError, "codes: expected shape"),
        (
            TWO_CODES.astype(np.int8),
            None,
            TypeError,
            "codes: expected packed codes of dtype uint8, got int8",
        ),
        (torch.ones(2, 13), None, TypeError, "codes: expected packed codes of dtype torch.uint8"),
        ([[0, 0]], None, TypeError, "codes: expected packed codes in a tensor or a numpy array, got list"),
        (
            np.array([[255, 31], [0, 32]], np.uint8),
            None,
            ValueError,
            "codes: expected zero bits from bit 13.*row 1",
        ),
    ],
)
def test_a_refused_add_changes_nothing(codes: Any, ids: Any, error: type, message: str, filled: Callable) -> None:
    index, kept = filled(13)
    before = index.search(kept, 30)
    with pytest.raises(error, match=message):
        index.add(codes, ids)
    assert len(index) == 20
    np.testing.assert_equal(index.search(kept, 30), before)
    index.add(kept[:1])
    assert 20 in index.search(kept[:1], 30)[1]


def test_bad_arguments(filled: Callable) -> None:
    index, codes = filled(13)
    for num_bits in (0, -1, 4097):
        with pytest.raises(ValueError, match="num_bits"):
            HammingIndex(num_bits)
    with pytest.raises(ValueError, match="distinct"):
        HammingIndex(13, distinct="yes")  # type: ignore[arg-type]
    for bad in (1, None, ["auto"]):
        with pytest.raises(TypeError, match="distinct: expected True, False or 'auto', got"):
            HammingIndex(13, distinct=bad)  # type: ignore[arg-type]
    assert HammingIndex(13, distinct=np.True_)._storage.distinct is True  # type: ignore[arg-type]
    assert len(HammingIndex(4096, distinct=False)) == 0
    for k in (0, -3):
        with pytest.raises(ValueError, match=f"k: .*got {k}"):
            index.search(codes, k)
    for bad in (1.0, True, None, "3"):
        with pytest.raises(TypeError, match="k: "):
            index.search(codes, bad)  # type: ignore[arg-type]
    for huge in (2**40 + 1, 2**63, 2**70):
        with pytest.raises(ValueError, match=f"k: expected an integer from 1 to {2**40}, got {huge}"):
            index.search(codes, huge)
    for method in ("fast", np.array(["scan", "auto"]), ["scan"]):
        with pytest.raises(ValueError, match="method: expected one of"):
            index.search(codes, 1, method=method)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="queries: expected packed codes in a tensor or a numpy array, got list"):
        index.search([[1, 2]], 1)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"ids: expected shape \[M\]"):
        index.remove([[1, 2], [3]])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"radius: .*got -1"):
        index.range_search(codes, -1)
    assert len(index.range_search(codes, 2**70)[2]) == 20 * 20
    for call in (index.search, index.range_search):
        with pytest.raises(ValueError, match="queries: expected zero bits from bit 13"):
            call(np.array([[0, 64]], np.uint8), 1)
        with pytest.raises(
            ValueError, match=r"method: 'hash' expects codes of up to 256 bits on the CPU, got 257 bits"
        ):
            call = getattr(HammingIndex(257), call.__name__)
            call(np.zeros((1, 33), np.uint8), 1, method="hash")
        call = getattr(index, call.__name__)
        with pytest.raises(ValueError, match="method"):
            call(codes, 1, method="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ids: 99 is not in the index"):
        index.reconstruct([1, 99])
    with pytest.raises(ValueError, match="ids: 99 is not in the index"):
        index.remove([1, 99])
    with pytest.raises(ValueError, match="method: 'hash' does not go with filter_ids"):
        index.search(codes, 1, filter_ids=[1], method="hash")
    with pytest.raises(ValueError, match="k: "):
        index.explain(codes, 0)
    with pytest.raises(ValueError, match="queries: "):
        index.explain(codes[:, :1], 1)
    with pytest.raises(TypeError, match="filter_ids: expected"):
        index.search(codes, 1, filter_ids=[True])
    assert len(index) == 20


def test_ids_within_records_of_an_array() -> None:
    """Whose stride is no multiple of their size."""
    records = np.zeros(3, [("id", "i8"), ("more", "u1")])
    records["id"] = [5, 1, 3]
    index = HammingIndex(8)
    index.add(np.zeros((3, 1), np.uint8), ids=records["id"])
    assert index.search(np.zeros((1, 1), np.uint8), 3)[1].tolist() == [[1, 3, 5]]
    with pytest.raises(TypeError, match="ids: expected integers of dtype int64, got >i8"):
        index.add(np.zeros((3, 1), np.uint8), ids=np.array([7, 8, 9], ">i8"))


def test_one_row_of_results_may_have_any_stride() -> None:
    index = HammingIndex(8)
    index.add(np.arange(5, dtype=np.uint8)[:, None])
    out = np.zeros((1, 3), np.int32)[::-1], np.zeros((1, 3), np.int64)
    found = index.search(np.zeros((1, 1), np.uint8), 3, out=out)
    assert found[0] is out[0] and out[0].tolist() == [[0, 1, 1]] and out[1].tolist() == [[0, 1, 2]]
