"""Small data sets in the formats of the published ones, written to disk."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CONCEPTS = [f"concept{number:02}" for number in range(23)]


def picture(path: Path, number: int, size: int = 8) -> None:
    """Write a picture whose pixels all tell its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (number % 256, number // 256, 7)).save(path)


def python_2_pickle(value: object) -> bytes:
    """Pickle as Python 2 and the NumPy of its time did the published files: texts and pixels are byte strings."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(each) for pair in value.items() for each in pair) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    uint8 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + _opcodes(-1) * 2 + b"K\x00tb"
    shape = b"(" + b"".join(map(_opcodes, value.shape)) + b"t"
    return empty + b"(K\x01" + shape + uint8 + b"\x89" + _opcodes(value.tobytes()) + b"tb"


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_batch: int = 20) -> Path:
    """Five training batches and a test batch; image i of all is filled with i, its class is i % 10.

    torchvision reads the published files only, by their MD5 sums: these take their place.
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [name for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]]
    sums = []
    for batch, name in enumerate(names):
        numbers = np.arange(batch * per_batch, (batch + 1) * per_batch)
        pixels = np.repeat(numbers.astype(np.uint8)[:, None], 3072, axis=1)
        pixels[:, 1024:2048] = 200  # green
        pixels[:, 31] = 99  # the last pixel of red's first row
        content = {"data": pixels, "labels": (numbers % 10).tolist(), "batch_label": f"batch {batch}"}
        (folder / name).write_bytes(python_2_pickle(content))
        sums.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
    meta = folder / "batches.meta"
    meta.write_bytes(python_2_pickle({"label_names": CIFAR_CLASSES, "num_cases_per_batch": per_batch}))
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(meta.read_bytes()).hexdigest()})
    return root


def nuswide_labels(images: int) -> np.ndarray:
    """0/1 [images, 23]: concept00 and concept01 are the rarest; the last two images have only those, or none."""
    labels = np.zeros((images, len(CONCEPTS)), dtype=np.uint8)
    for number in range(images - 2):
        labels[number, 2 + number % 21] = 1
        labels[number, 2 + (number * 5 + 1) % 21] = 1
    labels[images - 2, :2] = 1
    return labels


def write_nuswide(root: Path, images: int = 86) -> np.ndarray:
    """Image list with Windows paths, 23 label files, and pictures; returns the labels."""
    labels = nuswide_labels(images)
    paths = [f"{'actor' if number % 2 else 'zoo'}\\{number:04}_{number * 7919}.jpg" for number in range(images)]
    (root / "ImageList").mkdir(parents=True)
    (root / "ImageList" / "Imagelist.txt").write_text("".join(f"{path}\r\n" for path in paths), newline="")
    folder = root / "Groundtruth" / "AllLabels"
    folder.mkdir(parents=True)
    for concept, column in zip(CONCEPTS, labels.T, strict=True):
        (folder / f"Labels_{concept}.txt").write_text("".join(f"{label}\n" for label in column))
    for number, path in enumerate(paths):
        picture(root / "Flickr" / path.replace("\\", "/"), number)
    return labels


def write_imagenet(root: Path, classes: int = 3, train: int = 9, val: int = 2) -> list[str]:
    """Class folders of wordnet ids in train and val; returns the ids. Picture numbers count through train, then val."""
    ids = [f"n{number:08}" for number in range(101, 101 + classes)]
    numbers = iter(range(classes * (train + val)))
    for part, count in (("train", train), ("val", val)):
        for name in ids:
            for index in range(count):
                picture(root / part / name / f"{name}_{index}.JPEG", next(numbers))
    return ids


def write_lists(root: Path, lines: dict[str, list[str]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in lines.items():
        (root / name).write_text("".join(f"{line}\n" for line in content))
    return root
