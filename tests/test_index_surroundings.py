"""An index in whatever surroundings: torch's modes, default device, copies and other processes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from adsq import HammingIndex
from adsq.export import search_sql
from search_cases import random_codes

CODES = random_codes(9000, 20, 0, 3000)  # so many that "auto" looks for equal ones


def filled(distinct: bool | str = "auto") -> HammingIndex:
    index = HammingIndex(20, distinct=distinct)  # type: ignore[arg-type]
    index.add(CODES[:8000])
    return index


def assert_same(index: HammingIndex, other: HammingIndex) -> None:
    assert len(index) == len(other)
    for found, expected in zip(index.search(CODES[-50:], 9), other.search(CODES[-50:], 9), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("distinct", [False, True, "auto"])
@pytest.mark.parametrize("inside", ["add", "merge"])
def test_what_is_made_in_inference_mode_can_be_changed_outside(distinct: bool | str, inside: str) -> None:
    index, expected = HammingIndex(20, distinct=distinct), HammingIndex(20, distinct=distinct)  # type: ignore[arg-type]
    pieces = CODES.split([4000, 4000, 40, 40, 1, 1, 918])
    for number, piece in enumerate(pieces):
        with torch.inference_mode(inside == "add" and number < 4):
            index.add(piece)
        with torch.inference_mode(inside == "merge"):
            index.search(piece[:1], 3)
        expected.add(piece)
    assert_same(index, expected)
    for each in (index, expected):
        each.remove([3, 4, 8000])
        each.add(pieces[4])
    assert_same(index, expected)


@pytest.mark.parametrize("distinct", [False, True, "auto"])
def test_the_default_device_does_not_matter(distinct: bool | str, tmp_path: Path) -> None:
    expected = filled(distinct)
    query = CODES[0].numpy()
    sql = search_sql("t", query, 3, 20)
    with torch.device("meta"):
        index = filled(distinct)
        assert index.device == torch.device("cpu")
        index.save(tmp_path / "index")
        for mmap in (False, True):
            assert_same(HammingIndex.load(tmp_path / "index", mmap=mmap), expected)
        assert_same(index, expected)
        assert search_sql("t", query, 3, 20) == sql
        found = index.search(CODES[:2], 5, method="hash"), index.range_search(CODES[:2], 2, method="hash")
    for tensor, other in zip(found[0], expected.search(CODES[:2], 5), strict=True):
        assert torch.equal(tensor, other)
    for tensor, other in zip(found[1], expected.range_search(CODES[:2], 2), strict=True):
        assert torch.equal(tensor, other)


@pytest.mark.parametrize("distinct", [False, True, "auto"])
@pytest.mark.parametrize("make", [copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))])
def test_a_copy_is_an_index_of_its_own(distinct: bool | str, make) -> None:
    index = filled(distinct)
    index.add(CODES[8000:8003])  # in a run of its own
    index.remove([8002])
    index.meta = {"data": {"source": "digits"}}
    other = make(index)
    assert_same(other, index)
    assert other.meta == index.meta and other.meta is not index.meta
    assert type(other._storage.rows()) is type(index._storage.rows())
    other.add(CODES[:1])
    assert other.reconstruct([8003]).shape == (1, 3), "an id that was removed is not given again"
    assert len(index) == 8002 and len(other) == 8003


def test_a_copy_holds_no_more_than_the_rows() -> None:
    index = HammingIndex(8, distinct=False)
    index.add(np.zeros((100_000, 1), np.uint8))
    index.add(np.zeros((1, 1), np.uint8))  # with room for as many again
    assert len(pickle.dumps(index)) < 1_000_000


def test_the_last_id() -> None:
    index = HammingIndex(8)
    index.add(np.zeros((1, 1), np.uint8), ids=[2**63 - 3])
    with pytest.raises(ValueError, match=f"ids: expected your own, since none are left after {2**63 - 3}"):
        index.add(np.zeros((3, 1), np.uint8))
    index.add(np.zeros((2, 1), np.uint8))
    assert index.search(np.zeros((1, 1), np.uint8), 3)[1].tolist() == [[2**63 - 3, 2**63 - 2, 2**63 - 1]]
    with pytest.raises(ValueError, match="ids: expected your own"):
        index.add(np.zeros((1, 1), np.uint8))
    assert len(copy.deepcopy(index)) == 3
