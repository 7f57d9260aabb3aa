"""Fashion-MNIST: small files in the true format, and damage to them."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import FashionMNIST

from adsq import data
from adsq.data import fashion_mnist

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def contents(train: int = 7, test: int = 4) -> dict[str, np.ndarray]:
    """Image i is filled with i, its label is i % 10, counted through train and test."""
    shades = np.arange(train + test)
    images = np.broadcast_to(shades[:, None, None], (train + test, 28, 28))
    parts = [images[:train], shades[:train] % 10, images[train:], shades[train:] % 10]
    return dict(zip(NAMES, parts, strict=True))


def write(folder: Path, arrays: dict[str, np.ndarray], compressed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    return folder


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_train_comes_before_test(tmp_path: Path, compressed: bool, below: str) -> None:
    write(tmp_path / below, contents(), compressed)
    dataset = data.load("fashion-mnist", root=tmp_path)
    assert (len(dataset), dataset.image_shape, dataset.num_classes) == (11, (1, 28, 28), 10)
    assert dataset.class_names[9] == "Ankle boot"
    assert dataset.labels.tolist() == [*range(10), 0]
    assert all((dataset[index] == index).all() for index in range(11))
    again = data.load(**dataset.spec)
    assert torch.equal(again[10], dataset[10])


def test_the_files_are_read_as_torchvision_reads_them(tmp_path: Path) -> None:
    arrays = contents()
    arrays[NAMES[0]] = np.random.default_rng(0).integers(0, 256, (7, 28, 28))
    write(tmp_path / "FashionMNIST" / "raw", arrays)
    theirs = FashionMNIST(tmp_path, train=True)
    ours = data.load("fashion-mnist", root=tmp_path)
    assert torch.equal(ours.__getitems__(range(7))[:, 0], theirs.data)
    assert torch.equal(ours.labels[:7], theirs.targets)


def test_plain_and_compressed_files_mix(tmp_path: Path) -> None:
    arrays = contents()
    write(tmp_path, dict(list(arrays.items())[:2]), compressed=True)
    write(tmp_path, dict(list(arrays.items())[2:]))
    assert len(data.load("fashion-mnist", root=tmp_path)) == 11


@pytest.mark.parametrize("missing", NAMES)
def test_a_missing_file_says_what_to_do(tmp_path: Path, missing: str) -> None:
    write(tmp_path, contents())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing}.*root.*download=True"):
        data.load("fashion-mnist", root=tmp_path)


def test_without_a_root_the_cache_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "adsq")):
        data.load("fashion-mnist")
    write(tmp_path / "adsq", contents())
    assert len(data.load("fashion-mnist")) == 11


def test_download_is_torchvisions_and_only_where_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Download:
        classes = FashionMNIST.classes

        def __init__(self, root: Path, download: bool) -> None:
            calls.append(root)
            write(root / "FashionMNIST" / "raw", contents())

    monkeypatch.setattr(fashion_mnist, "FashionMNIST", Download)
    for _ in range(2):
        assert len(data.load("fashion-mnist", root=tmp_path, download=True)) == 11
    assert calls == [tmp_path]


def test_a_failed_download_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Download:
        def __init__(self, root: Path, download: bool) -> None:
            raise RuntimeError("no route to host")

    monkeypatch.setattr(fashion_mnist, "FashionMNIST", Download)
    with pytest.raises(OSError, match=f"could not be downloaded to {tmp_path}: no route to host"):
        data.load("fashion-mnist", root=tmp_path, download=True)


def test_images_and_labels_must_match(tmp_path: Path) -> None:
    arrays = contents()
    write(tmp_path, arrays | {NAMES[1]: arrays[NAMES[1]][:-1]})
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte holds 7 images, .*train-labels-idx1-ubyte 6 labels"):
        data.load("fashion-mnist", root=tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    arrays = contents()
    write(tmp_path, arrays | {NAMES[3]: np.array([0, 1, 10, 255])})
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte: label 10 at 2, expected 0\.\.9"):
        data.load("fashion-mnist", root=tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, contents() | {NAMES[2]: np.zeros((4, 14, 56))})
    with pytest.raises(ValueError, match="differ in size"):
        data.load("fashion-mnist", root=tmp_path)


def test_files_without_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, contents(0, 0))
    with pytest.raises(ValueError, match="no images"):
        data.load("fashion-mnist", root=tmp_path)


WHOLE = idx(contents()[NAMES[0]])


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "got 0 bytes that begin with nothing"),
        (WHOLE[:10], "expected 00000803 and 3 sizes, got 10 bytes"),
        (WHOLE[:-1], r"truncated: its header announces \[7, 28, 28\], 5488 bytes; 5487 follow"),
        (WHOLE + b"\0", "too long"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated"),
        (b"\x00\x00\x08\x01" + WHOLE[4:], "expected 00000803"),
        (b"\x00\x00\x0d\x03" + WHOLE[4:], "expected 00000803"),
        (b"<html>404 Not Found</html>", "expected 00000803"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_named(tmp_path: Path, damaged: bytes, message: str, compressed: bool) -> None:
    write(tmp_path, contents(), compressed)
    name = f"{NAMES[0]}.gz" if compressed else NAMES[0]
    (tmp_path / name).write_bytes(gzip.compress(damaged) if compressed else damaged)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        data.load("fashion-mnist", root=tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: b"plain", lambda raw: raw[:12] + b"\xff" * 20])
def test_damaged_gzip_is_named(tmp_path: Path, damage: object) -> None:
    write(tmp_path, contents(), compressed=True)
    path = tmp_path / f"{NAMES[2]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path.name}: damaged gzip file"):
        data.load("fashion-mnist", root=tmp_path)
