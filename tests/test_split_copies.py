"""Splits keep copies of an image apart, and refuse what was split otherwise."""

import dataclasses
from pathlib import Path

import pytest
import torch

from adsq.data import Protocol, check_split, make_split
from split_cases import SMALL, classes, dataset_of, folder_dataset, hand_made


def test_images_with_a_copy_are_never_queries() -> None:
    dataset = dataset_of(classes(12, 12), {3: 0, 7: 0, 20: 11})
    for seed in range(20):
        split = make_split(dataset, Protocol("p", 5, 2), seed)
        assert not {0, 3, 7, 11, 20} & set(split.query.tolist())
        assert split.copies == 5


def test_images_with_a_copy_may_be_trained_on() -> None:
    dataset = dataset_of(torch.zeros(6, dtype=torch.int64), {1: 0, 2: 0, 3: 0})
    split = make_split(dataset, "2/4/rest", 0)
    assert split.query.tolist() == [4, 5]
    assert split.training.tolist() == [0, 1, 2, 3]


def test_too_few_images_without_a_copy() -> None:
    dataset = dataset_of(torch.tensor([0] * 9 + [1] * 4), {10: 9, 11: 0})
    message = r"class 'class 1' .* 2 query images needed, 1 found \(4 in the class, 0 already drawn, 3 with"
    with pytest.raises(ValueError, match=message):
        make_split(dataset, SMALL, 0)


def test_files_with_the_same_bytes_are_refused(tmp_path: Path) -> None:
    dataset = folder_dataset(tmp_path)
    message = f"1 database images are also queries: {tmp_path}/b/3.png has the content of query {tmp_path}/a/0.png"
    with pytest.raises(ValueError, match=message):
        check_split(dataset, hand_made([0, 1], [2, 3], [4, 5, 6, 7]))
    check_split(dataset, hand_made([1, 2], [0, 3], [4, 5, 6, 7]))
    for seed in range(5):
        split = make_split(dataset, "2/1/rest", seed)
        assert not {0, 7} & set(split.query.tolist())
        assert split.copies == 2


def test_arrays_with_the_same_pixels_are_refused() -> None:
    dataset = dataset_of(classes(5, 5), {8: 1})
    with pytest.raises(
        ValueError, match="1 training images are also queries: image 8 has the content of query image 1"
    ):
        check_split(dataset, hand_made([0, 1], [8], [2, 3]))
    with pytest.raises(
        ValueError, match="1 database images are also queries: image 1 has the content of query image 8"
    ):
        check_split(dataset, hand_made([0, 8], [2], [2, 1]))


def test_shared_numbers_are_refused(tmp_path: Path) -> None:
    dataset = dataset_of(classes(5, 5))
    with pytest.raises(ValueError, match=r"4 database images are also queries: image 0; image 1; image 2$"):
        check_split(dataset, hand_made([0, 1, 2, 3], [4], list(range(10))))
    with pytest.raises(ValueError, match=r"1 training images are also queries: image 3$"):
        check_split(dataset, hand_made([0, 3], [3, 4], [5]))
    with pytest.raises(ValueError, match=f"1 database images are also queries: {tmp_path}/a/1.png$"):
        check_split(folder_dataset(tmp_path), hand_made([1], [2], [1]))


def test_hand_made_splits_are_checked() -> None:
    dataset = dataset_of(classes(5, 5))
    check_split(dataset, hand_made([9], [0, 1], [0, 1, 2]))
    good = hand_made([9], [0, 1], [0, 1, 2])
    empty = torch.empty(0, dtype=torch.int64)
    for change, error, message in [
        ({"query": torch.tensor([10])}, ValueError, r"query: expected indices in 0\.\.9, got 10\.\.10"),
        (
            {"database": torch.tensor([-1, 2])},
            ValueError,
            r"database: expected indices in 0\.\.9, got -1\.\.2",
        ),
        ({"training": torch.tensor([1, 3, 1])}, ValueError, "training: image 1 occurs more than once"),
        ({"database": empty}, ValueError, r"database: expected indices \[n\] with n >= 1, got shape \[0\]"),
        ({"query": torch.tensor([[9]])}, ValueError, r"query: .* got shape \[1, 1\]"),
        ({"training": torch.tensor([0.0])}, TypeError, "training: expected int64 indices, got torch.float32"),
    ]:
        with pytest.raises(error, match=message):
            check_split(dataset, dataclasses.replace(good, **change))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    dataset = folder_dataset(tmp_path)
    (tmp_path / "a" / "2.png").unlink()
    with pytest.raises(OSError, match=r"a/2\.png"):
        make_split(dataset, "1/1/rest", 0)
