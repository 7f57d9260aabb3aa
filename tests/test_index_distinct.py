"""An index that stores equal codes once: when it does, what it holds, and its file. Its results: test_index.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adsq import files
from adsq._distinct import DistinctRows, mostly_distinct
from adsq._rows import FlatRows
from adsq.export import to_parquet
from adsq.index import HammingIndex
from adsq.kernels import distinct_codes


def is_distinct(index: HammingIndex) -> bool:
    return isinstance(index._storage.rows(), DistinctRows)


def repeated(rows: int, distinct: int, seed: int = 0) -> np.ndarray:
    """Codes of 64 bits, `distinct` of them, each about as often."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, 256, (distinct, 8), dtype=np.uint8)
    return codes[np.concatenate([np.arange(distinct), random.integers(0, distinct, rows - distinct)])]


def test_auto_decides_by_the_share_of_distinct_codes() -> None:
    for distinct, expected in [(20_000, False), (17_000, False), (15_000, True), (10, True), (1, True)]:
        index = HammingIndex(64)
        index.add(repeated(20_000, distinct))
        assert is_distinct(index) == expected, distinct
        for forced in (False, True):
            index = HammingIndex(64, forced)
            index.add(repeated(20_000, distinct))
            assert is_distinct(index) == forced


def test_auto_looks_again_when_the_rows_have_doubled_and_does_not_swing() -> None:
    index = HammingIndex(64)
    seen = []
    parts = [(4000, 10), (200, 10), (3000, 3000), (9000, 9000), (20_000, 20_000), (40_000, 40_000)]
    for number, (rows, distinct) in enumerate(parts):
        index.add(repeated(rows, distinct, number))
        seen.append((len(index), is_distinct(index)))
    # 4,000 rows are too few to look; 36,200 have 88 % distinct codes, between the two marks; 76,200 have 94 %.
    assert seen == [(4000, False), (4200, True), (7200, True), (16_200, True), (36_200, True), (76_200, False)]


def test_a_sample_is_sure_only_where_nearly_all_codes_are_distinct() -> None:
    random = torch.Generator().manual_seed(0)
    unique = torch.arange(300_000).view(torch.uint8).reshape(-1, 8)
    assert mostly_distinct(unique, 0.7)
    assert not mostly_distinct(unique[:100], 0.7)  # too few to sample
    for twice in (unique[:90_000], unique[:150_000]):  # in 70 % and in 50 % distinct codes
        codes = torch.cat([twice, unique[: 300_000 - len(twice)]])
        if len(twice) == 90_000:
            codes = torch.cat([unique[:210_000], twice])
        for order in (torch.arange(300_000), torch.randperm(300_000, generator=random)):
            assert not mostly_distinct(codes[order], 0.7)
        assert not mostly_distinct(codes[torch.from_numpy(np.lexsort(codes.numpy().T))], 0.7)
    one_often = unique.clone()
    one_often[torch.rand(300_000, generator=random) < 0.3] = 7
    assert not mostly_distinct(one_often, 0.7)


def test_codes_are_numbered_by_their_smallest_id_through_all_changes() -> None:
    codes = repeated(3000, 40)
    ids = np.random.default_rng(1).permutation(3000)
    index = HammingIndex(64, distinct=True)
    for start in range(0, 3000, 500):
        index.add(codes[start : start + 500], ids[start : start + 500])
    index.remove(np.arange(0, 3000, 7))
    index.remove(ids[(codes == codes[0]).all(1) & (ids % 7 > 0)])  # a code that is gone then
    by_id = codes[np.argsort(ids)]
    left = np.array([i for i in range(3000) if i % 7 and not (by_id[i] == codes[0]).all()])
    rows = index._storage.rows()
    assert isinstance(rows, DistinctRows)
    first, numbers = distinct_codes(torch.from_numpy(by_id[left]))
    assert rows.codes.tolist() == by_id[left][first].tolist()
    assert len(rows.codes) == 39
    assert rows.ids.tolist() == left.tolist()
    assert rows._numbers.tolist() == numbers.tolist()
    for c in range(39):
        assert rows.rows[rows.offsets[c] : rows.offsets[c + 1]].tolist() == (numbers == c).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("num_queries", [1, 40])
@pytest.mark.parametrize("mmap", [False, True])
def test_forced_either_way_gives_the_same_at_size(tmp_path: Path, num_queries: int, mmap: bool) -> None:
    codes = repeated(30_000, 700)
    codes[codes[:, 0] < 128] = codes[0]
    queries = np.concatenate([codes[:num_queries], ~codes[:1], repeated(num_queries, 1, 5)])
    indexes = {distinct: HammingIndex(64, distinct) for distinct in (False, True)}
    for distinct, index in indexes.items():
        index.add(codes, 2**33 + np.random.default_rng(3).permutation(30_000))
        index.save(tmp_path / "a")
        indexes[distinct] = HammingIndex.load(tmp_path / "a", mmap)
        assert is_distinct(indexes[distinct]) == distinct
    flat, distinct_index = indexes.values()
    allowed = 2**33 + np.arange(0, 31_000, 3)
    for k in (1, 100, 29_999, 30_000, 30_001):
        np.testing.assert_equal(distinct_index.search(queries, k), flat.search(queries, k))
        np.testing.assert_equal(distinct_index.search(queries, k, allowed), flat.search(queries, k, allowed))
    for radius in (0, 20, 63, 64, 99):
        np.testing.assert_equal(distinct_index.range_search(queries, radius), flat.range_search(queries, radius))
    np.testing.assert_equal(distinct_index.reconstruct(allowed[:9]), flat.reconstruct(allowed[:9]))


def test_the_setting_and_the_layout_are_saved(tmp_path: Path) -> None:
    codes = repeated(5000, 100)
    for distinct in (False, True, "auto"):
        for rows in (10, 5000):
            index = HammingIndex(64, distinct)
            index.add(codes[:rows])
            index.save(tmp_path / "a")
            loaded = HammingIndex.load(tmp_path / "a")
            assert is_distinct(loaded) == is_distinct(index)
            loaded.add(codes)
            assert is_distinct(loaded) == (distinct is not False)
            index.add(codes)
            np.testing.assert_equal(loaded.search(codes[:3], 9), index.search(codes[:3], 9))
    assert (tmp_path / "a").stat().st_size < 10_000 * 13 + 3000


def test_files_of_version_1_without_a_setting_are_read(tmp_path: Path, random_codes: Callable) -> None:
    codes = random_codes(20, 13)
    tensors = {"codes": torch.from_numpy(codes), "ids": torch.arange(20)}
    files.write_tensors(
        tmp_path / "a", tensors, kind="index", version=1, meta={"num_bits": 13, "next_id": 20, "meta": {}}
    )
    index = HammingIndex.load(tmp_path / "a")
    assert index.search(codes[3:4], 1)[1].tolist() == [[3]]
    assert isinstance(index._storage.rows(), FlatRows)
    assert index._storage.distinct == "auto"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offsets": torch.tensor([0, 1, 2, 3])}, "offsets torch.int64"),
        ({"rows": torch.tensor([0, 2, 1])}, "rows torch.int64"),
        ({"offsets": torch.tensor([0, 2], dtype=torch.int32)}, r"2 codes with \[2\] offsets"),
        ({"rows": torch.tensor([0, 1], dtype=torch.int32)}, "3 ids with 2 rows"),
        ({"ids": torch.arange(3)[:, None]}, "ids torch.int64"),
        ({"ids": torch.tensor([0, 2, 1])}, "ids not in ascending order"),
        ({"offsets": torch.tensor([0, 3, 3], dtype=torch.int32)}, "offsets that are not ascending"),
        ({"offsets": torch.tensor([1, 2, 3], dtype=torch.int32)}, "offsets that are not ascending"),
        ({"offsets": torch.tensor([0, 2, 4], dtype=torch.int32)}, "offsets that are not ascending"),
        ({"rows": torch.tensor([0, 2, 2], dtype=torch.int32)}, "rows that are not each there once"),
        ({"rows": torch.tensor([0, 3, 1], dtype=torch.int32)}, "rows that are not each there once"),
        ({"rows": torch.tensor([2, 0, 1], dtype=torch.int32)}, "rows not in ascending order"),
        ({"rows": torch.tensor([1, 2, 0], dtype=torch.int32)}, "rows not in ascending order"),
        ({"codes": torch.tensor([[1, 1], [1, 1]], dtype=torch.uint8)}, "codes that are there twice"),
        ({"codes": torch.tensor([[1, 1], [1, 255]], dtype=torch.uint8)}, "expected zero bits"),
        ({"distinct": "no"}, "distinct"),
        ({"offsets": None}, "offsets"),
    ],
)
def test_a_wrong_file_with_right_checksums_is_refused(tmp_path: Path, change: dict, reason: str) -> None:
    tensors: dict[str, Any] = {
        "codes": torch.tensor([[1, 1], [2, 2]], dtype=torch.uint8),
        "offsets": torch.tensor([0, 2, 3], dtype=torch.int32),
        "rows": torch.tensor([0, 2, 1], dtype=torch.int32),
        "ids": torch.arange(3),
    }
    meta: dict[str, Any] = {"num_bits": 13, "next_id": 3, "meta": {}, "distinct": True}
    path = tmp_path / "a"
    files.write_tensors(path, tensors, kind="index", version=2, meta=meta)
    assert HammingIndex.load(path).reconstruct([0, 1, 2]).tolist() == [[1, 1], [2, 2], [1, 1]]
    for name, value in change.items():
        (tensors if name in tensors else meta)[name] = value
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    files.write_tensors(path, tensors, kind="index", version=2, meta=meta)
    with pytest.raises(ValueError, match=rf"a: not a valid index \(.*{reason}"):
        HammingIndex.load(path)


def test_more_rows_than_lists_can_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsq._storage.MAX_ROWS", 5000)
    monkeypatch.setattr("adsq._distinct.MAX_ROWS", 5000)
    codes = repeated(4500, 10)
    forced, auto = HammingIndex(64, distinct=True), HammingIndex(64)
    for index in (forced, auto):
        index.add(codes)
        assert is_distinct(index)
    with pytest.raises(ValueError, match="codes: expected at most 5000 in all"):
        forced.add(codes)
    assert len(forced) == 4500
    auto.add(codes)
    assert not is_distinct(auto)
    assert auto.search(codes[:1], 1)[1].tolist() == [[0]]


def test_parts_and_exports_hold_each_row_with_its_code(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    codes, ids = torch.from_numpy(repeated(500, 20)), torch.arange(500) * 3
    index = HammingIndex(64, distinct=True)
    index.add(codes, ids)
    parts = [index.shard(rank, 3) for rank in range(3)]
    assert [len(part) for part in parts] == [166, 167, 167]
    own = ids.split([166, 167, 167])
    found = [part.reconstruct(some) for part, some in zip(parts, own, strict=True)]
    assert torch.equal(torch.cat(found), codes)
    to_parquet(index, tmp_path / "codes.parquet")
    table = parquet.read_table(tmp_path / "codes.parquet")
    assert table["id"].to_pylist() == list(range(0, 1500, 3))
    assert table["w0"].to_pylist() == codes.numpy().view("<u8").ravel().tolist()


@pytest.mark.gpu
def test_auto_stores_each_row_with_its_code_on_a_gpu() -> None:
    codes = repeated(20_000, 10)
    index, forced = HammingIndex(64), HammingIndex(64, distinct=True)
    for each in (index, forced):
        each.add(codes)
        each.to("cuda")
    assert not is_distinct(index) and is_distinct(forced)
    queries = torch.from_numpy(codes[:5]).cuda()
    for found, same in zip(index.search(queries, 30), forced.search(queries, 30), strict=True):
        assert torch.equal(found, same)
