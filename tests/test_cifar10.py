"""CIFAR-10: small files in the true format, its three protocols, and damage."""

from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR10

from adsq import data
from adsq.data import Protocol, TensorImageDataset, cifar10, make_split
from hashing_files import CIFAR_CLASSES, write_cifar10


def test_train_comes_before_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar10(tmp_path, monkeypatch)
    for given in (root, root / "cifar-10-batches-py"):
        dataset = data.load("cifar10", root=given)
        assert (len(dataset), dataset.image_shape, dataset.class_names) == (120, (3, 32, 32), CIFAR_CLASSES)
        assert dataset.labels.tolist() == [number % 10 for number in range(120)]
        images = dataset.__getitems__(range(120))
        assert images[:, 0, 5, 5].tolist() == images[:, 2, 31, 31].tolist() == list(range(120))
        assert (images[:, 1] == 200).all()
        assert (images[:, 0, 0, 31] == 99).all() and (images[:, 0, 31, 0] != 99).sum() >= 119, "rows, not columns"
    assert dataset.in_words() == "cifar10: 120 images of 10 classes, 3 x 32 x 32 (train 100, test 20)"
    again = data.load(**dataset.spec)
    assert again.digest() == dataset.digest()
    assert data.load("cifar10", root=root, image_size=9)[0].shape == (3, 9, 9)


def test_the_official_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = data.load("cifar10", root=write_cifar10(tmp_path, monkeypatch))
    split = make_split(dataset, "cifar10-10k-50k-50k", 3)
    assert split.query.tolist() == list(range(100, 120))
    assert split.training.tolist() == split.database.tolist() == list(range(100))
    assert split.digest == make_split(dataset, "cifar10-10k-50k-50k", 4).digest, "nothing is drawn"
    assert split.summary()["queries_with_a_copy"] == 0
    drawn = make_split(dataset, "given/3/rest", 0)
    assert drawn.query.tolist() == split.query.tolist() and drawn.database.tolist() == list(range(100))
    assert dataset.labels[drawn.training].bincount().tolist() == [3] * 10 and drawn.training.max() < 100


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cifar10-1k-5k-54k", (1000, 5000, 54000)),
        ("cifar10-1k-5k-59k", (1000, 5000, 59000)),
        ("cifar10-10k-50k-50k", (10000, 50000, 50000)),
    ],
)
def test_the_sizes_of_the_papers(name: str, sizes: tuple[int, int, int]) -> None:
    """On a stand-in of 60,000 images of one pixel, since the real ones are not here."""
    numbers = torch.arange(60000)
    pixels = torch.stack([numbers % 256, numbers // 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    parts = {"query": numbers[50000:], "training": numbers[:50000], "database": numbers[:50000]}
    spec = {"source": "cifar10"}
    dataset = TensorImageDataset(pixels, numbers % 10, CIFAR_CLASSES, name="cifar10", spec=spec, parts=parts)
    split = make_split(dataset, name, 0)
    assert (len(split.query), len(split.training), len(split.database)) == sizes
    assert not set(split.query.tolist()) & set(split.database.tolist())
    overlap = len(set(split.training.tolist()) & set(split.database.tolist()))
    assert overlap == (0 if name.endswith("54k") else len(split.training))
    assert data.default_protocol(dataset).name == "cifar10-1k-5k-54k"


def test_given_queries_keep_their_copies_and_count_them() -> None:
    """Others draw none of them: a benchmark's own queries are everybody's."""
    images = torch.tensor([1, 2, 3, 4, 5, 1], dtype=torch.uint8).view(-1, 1, 1, 1)
    parts = {"query": torch.tensor([5, 4]), "training": torch.arange(4)}
    dataset = TensorImageDataset(images, torch.zeros(6, dtype=torch.int64), ["a"], name="t", parts=parts)
    split = make_split(dataset, "given/given/rest", 0)
    assert (split.query.tolist(), split.copies) == ([4, 5], 1)
    assert split.summary()["queries_with_a_copy"] == 1
    assert make_split(dataset, Protocol("p", 1, 1), 0).copies == 2
    with pytest.raises(ValueError, match="takes the database images from the data set, which gives none"):
        make_split(dataset, "given/given/given", 0)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_missing_and_damaged_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = write_cifar10(tmp_path, monkeypatch) / "cifar-10-batches-py" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{name}: damaged, or not the published file: its MD5 sum is not [0-9a-f]+"):
        data.load("cifar10", root=tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no CIFAR-10 in .*: {name} missing of .*download=True"):
        data.load("cifar10", root=tmp_path)


def test_a_damaged_file_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_cifar10(tmp_path, monkeypatch) / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(f"cos\nmkdir\n(S'{tmp_path}/pwned'\ntR.".encode())
    for download in (False, True):
        monkeypatch.setattr(CIFAR10, "download", lambda self: None)
        with pytest.raises((ValueError, OSError)):
            data.load("cifar10", root=tmp_path, download=download)
    assert not (tmp_path / "pwned").exists()


def test_download_only_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(self: CIFAR10) -> None:
        calls.append(self.root)
        raise RuntimeError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "adsq" / "cifar-10-batches-py")):
        data.load("cifar10")
    assert not calls
    with pytest.raises(OSError, match=r"could not be downloaded to .*: no route to host"):
        data.load("cifar10", download=True)
    assert calls == [tmp_path / "adsq"]
    assert cifar10.CIFAR10 is CIFAR10
