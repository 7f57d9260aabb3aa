"""Lists of paths with 0/1 labels, as hashing papers share them."""

import json
from pathlib import Path

import pytest
import torch

from adsq import data
from adsq.data import make_split
from hashing_files import picture, write_lists

LINES = {
    "database.txt": ["images/3.png 1 0 1", "images/1.png 0 1 0", "images/2.png 0 0 0", "images/my photo 5.png 1 0 0"],
    "train.txt": ["images/2.png 0 0 0", "images/4.png 1 1 0", "images/3.png 1 0 1"],
    "test.txt": ["images/0.png 0 0 1"],
}


def write(root: Path, lines: dict[str, list[str]] = LINES) -> Path:
    for number in range(5):
        picture(root / "images" / f"{number}.png", number)
    picture(root / "images" / "my photo 5.png", 5)
    return write_lists(root, lines)


def test_three_lists(tmp_path: Path) -> None:
    dataset = data.load("list", root=write(tmp_path / "small"), image_size=8)
    assert dataset.__getitems__(range(6))[:, 0, 0, 0].tolist() == [3, 1, 2, 5, 4, 0]
    assert dataset.labels.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert (dataset.name, dataset.class_names, dataset.labels.dtype) == ("small", ["0", "1", "2"], torch.uint8)
    assert dataset.facts == {"database.txt": 4, "train.txt": 3, "test.txt": 1, "missing": 0}
    split = make_split(dataset, data.default_protocol(dataset), 0)
    assert split.database.tolist() == [0, 1, 2, 3], "ties of a search go by the order of database.txt"
    assert (split.training.tolist(), split.query.tolist()) == ([0, 2, 4], [5])
    assert data.load(**json.loads(json.dumps(dataset.spec))).digest() == dataset.digest()


def test_one_label_each_is_a_class_id(tmp_path: Path) -> None:
    lines = {name: ["images/1.png 0 1", "images/3.png 1 0"] for name in ("database.txt", "train.txt")}
    dataset = data.load("list", root=write(tmp_path, lines | {"test.txt": ["images/2.png 0 1"]}))
    assert dataset.labels.dtype == torch.int64 and dataset.labels.tolist() == [1, 0, 1]


def test_lists_may_lie_elsewhere_and_hold_absolute_paths(tmp_path: Path) -> None:
    write(tmp_path / "pictures")
    absolute = [f"{tmp_path}/pictures/images/1.png 1 0", "images/2.png 0 1"]
    lists = {"database.txt": absolute, "train.txt": absolute, "test.txt": ["images/0.png 1 0"]}
    write_lists(tmp_path / "lists", lists)
    dataset = data.load("list", root=tmp_path / "pictures", lists=tmp_path / "lists")
    assert dataset.__getitems__([0, 1, 2])[:, 0, 0, 0].tolist() == [1, 2, 0]
    assert dataset.name == "lists" and data.load(**dataset.spec).digest() == dataset.digest()


def test_missing_images_are_refused_or_dropped(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 listed images are missing, such as .*images/2\.png"):
        data.load("list", root=tmp_path)
    dataset = data.load("list", root=tmp_path, drop_missing=True)
    assert dataset.facts["missing"] == 1 and dataset.facts["database.txt"] == 4
    split = make_split(dataset, "given", 0)
    assert (split.database.tolist(), split.training.tolist(), split.query.tolist()) == ([0, 1, 2], [0, 3], [4])
    assert dataset.__getitems__(range(5))[:, 0, 0, 0].tolist() == [3, 1, 5, 4, 0]


def test_a_query_that_is_searched_is_refused(tmp_path: Path) -> None:
    dataset = data.load("list", root=write(tmp_path, LINES | {"test.txt": ["images/1.png 0 1 0"]}))
    with pytest.raises(ValueError, match=r"1 database images are also queries: .*images/1\.png"):
        make_split(dataset, "given", 0)


def test_other_labels_or_paths_are_another_digest(tmp_path: Path) -> None:
    """Sizes alone, which decide the split's digest here, would not show it."""
    before = data.load("list", root=write(tmp_path))
    for old, new in (("images/1.png 0 1 0", "images/1.png 0 1 1"), ("images/1.png 0 1 0", "./images/1.png 0 1 0")):
        changed = [line.replace(old, new) for line in LINES["database.txt"]]
        after = data.load("list", root=write(tmp_path, LINES | {"database.txt": changed}))
        assert make_split(after, "given", 0).digest == make_split(before, "given", 0).digest
        assert after.digest() != before.digest()


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("database.txt", ["images/1.png"], r"database\.txt, line 1: expected a path and labels of 0 and 1"),
        ("database.txt", ["images/1.png 2 0"], r"database\.txt, line 2: .*expected a path and 1 labels"),
        ("train.txt", ["images/1.png 0 1"], r"train\.txt, line 1: expected a path and 3 labels"),
        ("train.txt", ["images/1.png 0 1 0 0"], r"train\.txt, line 1: expected a path and 3 labels"),
        ("train.txt", ["images/2.png 0 0 0", "images/1.png 0 1 2"], r"train\.txt, line 2: expected a path and 3"),
        ("train.txt", ["images/1.png 1 1 0"], r"train\.txt, line 1: path images/1\.png has other labels than before"),
        ("test.txt", ["images/0.png 1 0 0"] * 2, r"test\.txt, line 2: path images/0\.png is in this list already"),
        ("test.txt", ["images/0.png 1 0 0", "", "images/4.png 1 1 0"], r"test\.txt: line 2 is blank"),
        ("test.txt", [], r"test\.txt: no lines"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, name: str, lines: list[str], message: str) -> None:
    if name == "database.txt":
        lines = [*lines, "images/2.png 0 0 0"]
    with pytest.raises(ValueError, match=message):
        data.load("list", root=write(tmp_path, LINES | {name: lines}))


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt"):
        data.load("list", root=tmp_path)
