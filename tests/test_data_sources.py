"""Where images come from: digits, folders of class folders, CSV tables."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits as load_from_scikit_learn

from adsq import data


def draw(path: Path, shade: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, 255 - shade)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes bird (3), cat (4, nested), dog (2); shade 10 x class + number."""
    root = tmp_path / "pets"
    for shade, file in enumerate(["b0.png", "b1.JPG", "b2.bmp"]):
        draw(root / "bird" / file, shade)
    for shade, file in enumerate(["c0.png", "old/c1.png", "old/deep/c2.png", "older/c3.png"], 10):
        draw(root / "cat" / file, shade)
    for shade, file in enumerate(["d0.png", "d1.png"], 20):
        draw(root / "dog" / file, shade, (30 + shade, 17))
    return root


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError), (True, TypeError)])
def test_wrong_image_sizes_are_refused(folder: Path, size: int, error: type[Exception]) -> None:
    for source in ("digits", folder):
        with pytest.raises(error, match="image_size"):
            data.load(source, image_size=size)


# Digits


def test_digits() -> None:
    original = load_from_scikit_learn()
    digits = data.load("digits")
    assert (len(digits), digits.image_shape, digits.num_classes) == (1797, (1, 8, 8), 10)
    assert np.array_equal(digits.labels, original.target)
    exact = original.images * 255 / 16
    images = digits.__getitems__(range(1797))[:, 0].numpy()
    assert np.abs(images - exact).max() == 0.5
    assert (images[exact == 127.5] == 128).all()
    assert (images.min(), images.max()) == (0, 255)
    assert digits.path(3) is None
    assert digits.content_hashes()[7] == hashlib.sha256(images[7].tobytes()).digest()


# Folders


def test_folder(folder: Path) -> None:
    dataset = data.load(folder, image_size=5)
    assert dataset.name == "pets"
    assert dataset.class_names == ["bird", "cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert dataset.image_shape == (3, 5, 5)
    shades = dataset.__getitems__(range(9))[:, 0, 2, 2]
    assert (shades - torch.tensor([0, 1, 2, 10, 11, 12, 13, 20, 21])).abs().max() <= 2  # JPEG is inexact
    assert dataset.path(5) == str(folder / "cat/old/deep/c2.png")
    assert dataset.content_hashes()[5] == hashlib.sha256(Path(dataset.path(5)).read_bytes()).digest()
    assert data.load(str(folder)).image_shape == (3, 64, 64)


def test_folder_ignores_hidden_and_reports_other_files(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    (folder / ".cache").mkdir()
    (folder / "dog" / ".thumbnails").mkdir()
    draw(folder / "dog" / ".thumbnails" / "d0.png", 1)
    draw(folder / "dog" / ".d2.png", 1)
    assert len(data.load(folder)) == 9
    assert not recwarn.list
    (folder / "dog" / "notes.txt").write_text("good dog")
    draw(folder / "loose.png", 1)
    with pytest.warns(UserWarning, match=r"2 files left out .* such as loose\.png"):
        assert len(data.load(folder)) == 9


def test_folder_follows_links_once(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "d2.png", 22)
    (folder / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "loop").symlink_to(folder / "dog")
    dataset = data.load(folder)
    assert [Path(dataset.path(index)).name for index in range(7, len(dataset))] == [
        "d0.png",
        "d1.png",
        "d2.png",
    ]


def test_empty_folders_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "ant").mkdir()
    (folder / "zebra").mkdir()
    (folder / "zebra" / "list.txt").touch()
    with pytest.raises(ValueError, match=r"without an image in .*pets: ant, zebra \("):
        data.load(folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"no class folders in .*nothing: .* found nothing"):
        data.load(tmp_path / "nothing")
    draw(tmp_path / "nothing" / "a.png", 1)
    with pytest.raises(ValueError, match=r"found 1 files, such as a\.png"):
        data.load(tmp_path / "nothing")


def test_a_text_file_called_png_is_named_when_read(folder: Path) -> None:
    (folder / "bird" / "a.png").write_text("hello")
    dataset = data.load(folder)
    with pytest.raises(OSError, match=r"bird/a\.png: not a picture"):
        dataset[0]


# CSV tables


def write_table(root: Path, *rows: str, header: str = "path,labels") -> Path:
    for shade in range(4):
        draw(root / "images" / f"{shade}.png", shade)
    table = root / "list.csv"
    table.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return table


def test_table_with_one_label_each(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a,b.png"
    draw(elsewhere, 9)
    table = write_table(tmp_path / "t", "images/1.png,night", " images/0.png , day ", f'"{elsewhere}",night')
    dataset = data.load(table, image_size=8)
    assert (dataset.name, dataset.class_names) == ("list", ["day", "night"])
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.__getitems__(range(3))[:, 0, 0, 0].tolist() == [1, 0, 9]
    assert dataset.path(2) == str(elsewhere)


def test_table_with_several_labels(tmp_path: Path) -> None:
    table = write_table(tmp_path, "images/1.png,sky; sea", "images/0.png,sea", "images/3.png,été;sea;sky")
    dataset = data.load(table)
    assert dataset.class_names == ["sea", "sky", "été"]
    assert dataset.labels.dtype == torch.uint8
    assert dataset.labels.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


def test_table_from_a_spreadsheet(tmp_path: Path) -> None:
    table = write_table(tmp_path, "images/1.png,x", "images/2.png,y")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert data.load(table).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["images/0.png,a", "images/9.png,a"], r"line 3: no such image file: .*images/9\.png"),
        (["nowhere/0.png,a"], "line 2: no such image file"),
        (["images,a"], "line 2: no such image file"),
        (["images/0.png,"], "line 2: no label"),
        (["images/0.png,a", "images/1.png,a;;b"], "line 3: empty label in 'a;;b'"),
        (["images/0.png,a; a"], "line 2: a label twice"),
        ([" ,a"], "line 2: empty path"),
        (["images/0.png,a", "", "images/1.png,a"], "line 3: blank row"),
        (["images/0.png,a", " , "], "line 3: blank row"),
        (["images/0.png,a", ""], "line 3: blank row"),
        (["images/0.png,a,b"], "line 2: expected 2 columns .* got 3"),
        (["images/0.png"], "line 2: expected 2 columns .* got 1"),
        (["images/0.png,a", "path,labels"], "line 3: the header a second time"),
        (
            ["images/0.png,a", "images/1.png,a", "images/0.png,b"],
            r"line 4: path images/0\.png is on line 2 already",
        ),
        (["images/0.png,a", '"images/1.png,a'], "line 3: unexpected end of data"),
        ([], "no rows below the header"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"list\.csv.*{message}"):
        data.load(write_table(tmp_path, *rows))


@pytest.mark.parametrize("header", ["path,path", "path,labels,labels", "images/0.png,a", "labels,path", ""])
def test_another_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(ValueError, match=r"line 1: expected the header path,labels, got "):
        data.load(write_table(tmp_path, "images/1.png,a", header=header))


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_bytes(b"path,labels\n\xff\xfe.png,a\n")
    with pytest.raises(ValueError, match=r"list\.csv: not UTF-8"):
        data.load(table)
    table.write_bytes(b"")
    with pytest.raises(ValueError, match=r"line 1: expected the header path,labels, got nothing"):
        data.load(table)


# load


def test_spec_loads_the_same_data_again(folder: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t", "images/1.png,x;y", "images/2.png,y")
    for source, size in (("digits", None), ("digits", 12), (folder, None), (folder, 7), (table, 7)):
        dataset = data.load(source, image_size=size)
        again = data.load(**json.loads(json.dumps(dataset.spec)))
        assert (again.spec, again.name, again.image_shape) == (
            dataset.spec,
            dataset.name,
            dataset.image_shape,
        )
        assert torch.equal(again.labels, dataset.labels)
        assert torch.equal(again[1], dataset[1])


def test_spec_holds_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert data.load("pets").spec["source"] == str(folder)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    possible = r'"digits".*"fashion-mnist".*folder of class folders.*\.csv'
    with pytest.raises(FileNotFoundError, match=f"no file or folder .*cifar10; possible are {possible}"):
        data.load(tmp_path / "cifar10")
    (tmp_path / "images.tar").touch()
    with pytest.raises(ValueError, match=rf"images\.tar is a file but no \.csv; possible are {possible}"):
        data.load(tmp_path / "images.tar")
    with pytest.raises(ValueError, match="root: only for the source fashion-mnist, cifar10, "):
        data.load("digits", root=tmp_path)
