"""NUS-WIDE: small files in the true format, what is missing, and what does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adsq import data
from adsq.data import FileImageDataset, make_split
from hashing_files import CONCEPTS, write_nuswide


def test_the_21_most_frequent_concepts(tmp_path: Path) -> None:
    labels = write_nuswide(tmp_path)
    dataset = data.load("nuswide", root=tmp_path, image_size=8)
    assert dataset.class_names == CONCEPTS[2:]
    assert np.array_equal(dataset.labels, labels[:84, 2:]) and dataset.labels.dtype == torch.uint8
    assert dataset.facts == {"listed": 86, "label files": 23, "without a label": 2, "missing": 0}
    assert dataset.in_words().startswith("nuswide: 84 images of 21 classes, 3 x 8 x 8 (listed 86, ")
    assert dataset.path(1) == f"{tmp_path}/Flickr/actor/0001_7919.jpg"
    shades = dataset.__getitems__(range(84))[:, 0, 4, 4]
    assert (shades - torch.arange(84)).abs().max() <= 2  # JPEG is inexact
    assert data.default_protocol(dataset).name == "nuswide-2100-10500"
    again = data.load(**json.loads(json.dumps(dataset.spec)))
    assert again.digest() == dataset.digest()


def test_concepts_of_equal_frequency_go_by_name(tmp_path: Path) -> None:
    write_nuswide(tmp_path)
    folder = tmp_path / "Groundtruth" / "AllLabels"
    same = "1\n" + "0\n" * 85
    for concept in CONCEPTS:
        (folder / f"Labels_{concept}.txt").write_text(same)
    (folder / "Labels_concept22.txt").write_text("1\n1\n" + "0\n" * 84)
    dataset = data.load("nuswide", root=tmp_path)
    assert dataset.class_names == [*CONCEPTS[:20], "concept22"]
    assert dataset.facts["without a label"] == 84


def test_missing_images_are_counted_and_refused_or_dropped(tmp_path: Path) -> None:
    labels = write_nuswide(tmp_path)
    whole = data.load("nuswide", root=tmp_path)
    gone = [4, 7, 8, 85]  # the last has no label, and is not missed
    for number in gone:
        Path(tmp_path, "Flickr", "actor" if number % 2 else "zoo", f"{number:04}_{number * 7919}.jpg").unlink()
    message = r"3 of 84 listed images are missing, such as .*Flickr/zoo/0004_31676\.jpg; .*--drop-missing"
    with pytest.raises(FileNotFoundError, match=message):
        data.load("nuswide", root=tmp_path)
    dataset = data.load("nuswide", root=tmp_path, drop_missing=True)
    assert dataset.facts["missing"] == 3 and len(dataset) == 81
    left = [number for number in range(84) if number not in gone]
    assert np.array_equal(dataset.labels, labels[left, 2:])
    assert [Path(dataset.path(index)).name[:4] for index in range(81)] == [f"{number:04}" for number in left]
    assert dataset.digest() != whole.digest()
    assert len(data.load(**dataset.spec)) == 81
    for path in (tmp_path / "Flickr").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="84 of 84 listed images are missing"):
        data.load("nuswide", root=tmp_path, drop_missing=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n" * 85, "85 lines, but .*Imagelist.txt lists 86 images"),
        ("0\n" * 87, "87 lines, but .*Imagelist.txt lists 86 images"),
        ("0\n" * 3 + "-1130179\n" + "0\n" * 82, "line 4: expected 0 or 1, got '-1130179'"),
        ("0\n" * 85 + "01\n", "line 86: expected 0 or 1, got '01'"),
        ("", "0 lines, but"),
    ],
)
def test_label_files_that_do_not_fit_are_refused(tmp_path: Path, content: str, message: str) -> None:
    write_nuswide(tmp_path)
    (tmp_path / "Groundtruth" / "AllLabels" / "Labels_concept05.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"Labels_concept05\.txt.*{message}"):
        data.load("nuswide", root=tmp_path)


def test_lists_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="root: expected the folder of the files of nuswide, got none"):
        data.load("nuswide")
    with pytest.raises(FileNotFoundError, match=r"Imagelist\.txt"):
        data.load("nuswide", root=tmp_path)
    write_nuswide(tmp_path)
    image_list = tmp_path / "ImageList" / "Imagelist.txt"
    image_list.write_text(image_list.read_text().replace("\n", "\n\n", 1))
    with pytest.raises(ValueError, match=r"Imagelist\.txt: line 2 is blank"):
        data.load("nuswide", root=tmp_path)
    image_list.write_text("")
    with pytest.raises(ValueError, match=r"Imagelist\.txt: no lines"):
        data.load("nuswide", root=tmp_path)
    for concept in CONCEPTS[:3]:
        (tmp_path / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt").unlink()
    image_list.write_text("a\\1.jpg\n")
    with pytest.raises(ValueError, match=r"AllLabels: expected at least 21 files Labels_<concept>\.txt, found 20"):
        data.load("nuswide", root=tmp_path)


def test_splits_read_no_images(tmp_path: Path) -> None:
    """Neither do digests: on the real 195,834 images that would take as long as an epoch."""
    write_nuswide(tmp_path)
    dataset = data.load("nuswide", root=tmp_path)
    for path in (tmp_path / "Flickr").rglob("*.jpg"):
        path.unlink()
    split = make_split(dataset, "1/2/rest", 0)
    assert (len(split.query), len(split.training), len(split.database)) == (21, 42, 63)
    assert (dataset.labels[split.query].sum(0) >= 1).all() and (dataset.labels[split.training].sum(0) >= 2).all()
    assert split.summary()["copies_excluded_from_queries"] is None
    assert len(dataset.digest()) == 64


def test_the_sizes_of_the_papers(tmp_path: Path) -> None:
    """On made-up labels of 20,000 images whose files are never opened."""
    labels = torch.rand(20000, 21, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.05, 0.5, 21)
    files = [f"{number}.jpg" for number in range(20000)]
    dataset = FileImageDataset(
        tmp_path,
        files,
        labels.to(torch.uint8),
        CONCEPTS[2:],
        image_shape=(3, 8, 8),
        name="nuswide",
        compares_contents=False,
    )
    split = make_split(dataset, "nuswide-2100-10500", 0)
    assert (len(split.query), len(split.training), len(split.database)) == (2100, 10500, 17900)
    assert set(split.training.tolist()) <= set(split.database.tolist())
