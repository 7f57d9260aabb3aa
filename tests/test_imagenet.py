"""ImageNet-100: small folders in the true format."""

import json
from pathlib import Path

import pytest
import torch

from adsq import data
from adsq.data import make_split
from hashing_files import picture, write_imagenet


def test_val_is_queried_and_train_is_searched(tmp_path: Path) -> None:
    ids = write_imagenet(tmp_path)
    dataset = data.load("imagenet100", root=tmp_path, image_size=8)
    assert dataset.class_names == ids
    assert dataset.labels.tolist() == [0] * 9 + [1] * 9 + [2] * 9 + [0, 0, 1, 1, 2, 2]
    assert dataset.in_words() == "imagenet100: 33 images of 3 classes, 3 x 8 x 8 (train 27, val 6, other files 0)"
    shades = dataset.__getitems__(range(33))[:, 0, 4, 4]
    assert (shades - torch.arange(33)).abs().max() <= 2  # JPEG is inexact
    split = make_split(dataset, "given/4/rest", 0)
    assert split.query.tolist() == list(range(27, 33)) and split.database.tolist() == list(range(27))
    assert dataset.labels[split.training].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert set(split.training.tolist()) <= set(range(27))
    assert split.digest != make_split(dataset, "given/4/rest", 1).digest
    assert data.default_protocol(dataset).name == "imagenet100-5k-10k"
    with pytest.raises(ValueError, match=r"class 'n00000101' has too few images: 100 training images needed, 9 found"):
        make_split(dataset, "imagenet100-5k-10k", 0)


def test_the_classes_come_from_a_list(tmp_path: Path) -> None:
    ids = write_imagenet(tmp_path / "images", classes=4)
    (tmp_path / "images" / "train" / ids[0] / "notes.txt").touch()
    classes = tmp_path / "classes.txt"
    classes.write_text(f"{ids[2]} tench, Tinca tinca\n{ids[0]}\n")
    dataset = data.load("imagenet100", root=tmp_path / "images", classes=classes)
    assert dataset.class_names == [ids[0], ids[2]]
    assert dataset.facts == {"train": 18, "val": 4, "other files": 1}
    assert dataset.path(9) == str(tmp_path / "images" / "train" / ids[2] / f"{ids[2]}_0.JPEG")
    assert data.load(**json.loads(json.dumps(dataset.spec))).digest() == dataset.digest()
    assert data.load("imagenet100", root=tmp_path / "images").num_classes == 4


def test_the_sizes_of_the_papers(tmp_path: Path) -> None:
    """On classes of 140 empty files: a split opens none."""
    for part, count in (("train", 140), ("val", 50)):
        for name in ("n01440764", "n01443537"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / part / name / f"{number}.JPEG").touch()
    dataset = data.load("imagenet100", root=tmp_path)
    for protocol, training in (("imagenet100-5k-10k", 100), ("imagenet100-5k-13k", 130)):
        split = make_split(dataset, protocol, 0)
        assert (len(split.query), len(split.training), len(split.database)) == (100, 2 * training, 280)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ids = write_imagenet(tmp_path)
    classes = tmp_path / "classes.txt"
    classes.write_text(f"{ids[0]}\n{ids[1]}\n{ids[0]}\n")
    with pytest.raises(ValueError, match=rf"classes\.txt: class {ids[0]} is listed twice"):
        data.load("imagenet100", root=tmp_path, classes=classes)
    classes.write_text(f"{ids[0]}\nn09999999\n")
    with pytest.raises(ValueError, match=r"train: no images for 1 of 2 classes of .*classes\.txt, such as n09999999"):
        data.load("imagenet100", root=tmp_path, classes=classes)
    picture(tmp_path / "train" / "n00000200" / "1.JPEG", 1)
    with pytest.raises(ValueError, match=r"val: no images for 1 of 4 classes of .*train, such as n00000200"):
        data.load("imagenet100", root=tmp_path)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="no class folders"):
        data.load("imagenet100", root=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load("imagenet100", root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="classes: only for the source imagenet100; got classes"):
        data.load("nuswide", root=tmp_path, classes=classes)
