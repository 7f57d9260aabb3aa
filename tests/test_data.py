"""Images by index and in batches, in the order asked for; what a data set refuses."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adsq import data
from adsq.data import FileImageDataset, ImageDataset, TensorImageDataset, batches

NAMES = ["a", "b", "c"]


def tensor_dataset(n: int = 20, image_size: int | None = None, channels: int = 1) -> TensorImageDataset:
    images = torch.randint(0, 256, (n, channels, 6, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    return TensorImageDataset(images, torch.arange(n) % 3, NAMES, name="test", image_size=image_size)


def draw(path: Path, shade: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, 255 - shade)).save(path)


def numbered_files(root: Path, n: int) -> FileImageDataset:
    for index in range(n):
        draw(root / f"{index}.png", index, (200, 200) if index % 5 == 0 else (4, 4))
    files = [f"{index}.png" for index in range(n)]
    return FileImageDataset(root, files, torch.zeros(n, dtype=torch.int64), ["x"], image_shape=(1, 4, 4), name="n")


# Reading by index


@pytest.mark.parametrize("make", [lambda path: tensor_dataset(), lambda path: numbered_files(path, 20)])
def test_items_and_batches_agree(tmp_path: Path, make: Callable[[Path], ImageDataset]) -> None:
    dataset = make(tmp_path)
    indices = [3, 0, 19, 3]
    together = dataset.__getitems__(indices)
    assert together.dtype == torch.uint8
    assert together.shape == (4, *dataset.image_shape)
    assert torch.equal(together, torch.stack([dataset[index] for index in indices]))
    for kind in (
        np.array(indices),
        np.array(indices, dtype=np.uint8),
        torch.tensor(indices, dtype=torch.uint8),
    ):
        assert torch.equal(dataset.__getitems__(kind), together)
    assert dataset.__getitems__([]).shape == (0, *dataset.image_shape)
    assert len(list(dataset)) == len(dataset) == 20


@pytest.mark.parametrize("index", [-1, 20, 2**40])
def test_indices_outside_are_refused(index: int) -> None:
    dataset = tensor_dataset()
    for read in (
        lambda: dataset[index],
        lambda: dataset.__getitems__([0, index]),
        lambda: batches(dataset, [index], 4),
    ):
        with pytest.raises(IndexError, match=rf"{index} is outside 0\.\.19"):
            read()


@pytest.mark.parametrize("index", [-1, 2])
def test_paths_outside_are_refused(tmp_path: Path, index: int) -> None:
    dataset = numbered_files(tmp_path, 2)
    assert dataset.path(1) == str(tmp_path / "1.png")
    with pytest.raises(IndexError, match=rf"{index} is outside 0\.\.1"):
        dataset.path(index)


def test_indices_of_another_kind_are_refused() -> None:
    dataset = tensor_dataset()
    with pytest.raises(TypeError, match=r"expected integers, got torch\.bool"):
        dataset.__getitems__(torch.ones(20, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"expected integers, got torch\.float32"):
        dataset.__getitems__([0.0])
    with pytest.raises(ValueError, match=r"one dimension, got shape \[1, 2\]"):
        dataset.__getitems__(torch.tensor([[0, 1]]))


def test_memory_is_resized_as_a_picture_from_disk_is(tmp_path: Path) -> None:
    for channels in (1, 3):
        raw, resized = tensor_dataset(channels=channels), tensor_dataset(channels=channels, image_size=9)
        assert resized.image_shape == (channels, 9, 9)
        assert resized.__getitems__([]).shape == (0, channels, 9, 9)
        pixels = raw[5].permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(pixels).save(tmp_path / "5.png")
        assert torch.equal(resized[5], data.load_image(tmp_path / "5.png", resized.image_shape))
        assert resized.content_hashes() == raw.content_hashes()


def test_strided_images_are_read_right() -> None:
    images = tensor_dataset().__getitems__(range(20))
    flipped = TensorImageDataset(images.transpose(2, 3)[::2], torch.zeros(10, dtype=torch.int64), ["x"], name="t")
    assert torch.equal(flipped[3], images[6].transpose(1, 2))
    assert flipped.content_hashes()[3] == hashlib.sha256(images[6].transpose(1, 2).contiguous().numpy()).digest()


# Batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_keep_the_order(tmp_path: Path, num_workers: int) -> None:
    dataset = numbered_files(tmp_path, 23)
    indices = torch.randperm(23, generator=torch.Generator().manual_seed(1)).repeat(2)[:41]
    read = list(batches(dataset, indices, 4, num_workers))
    assert [len(batch) for batch in read] == [4] * 10 + [1]
    assert torch.equal(torch.cat(read)[:, 0, 0, 0], dataset.__getitems__(indices)[:, 0, 0, 0])
    # The drawing of number i in luminance: 0.299 i + 0.587 i + 0.114 (255 - i)
    assert (torch.cat(read)[:, 0, 0, 0] - (29 + 0.772 * indices)).abs().max() < 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_leave_the_random_state_alone(num_workers: int) -> None:
    before = torch.get_rng_state()
    list(batches(tensor_dataset(), range(20), 8, num_workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_indices_are_no_batches() -> None:
    assert list(batches(tensor_dataset(), [], 8)) == []
    assert list(batches(tensor_dataset(), torch.tensor([], dtype=torch.int64), 8, 1)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_picture_is_named_without_a_traceback(tmp_path: Path, num_workers: int) -> None:
    dataset = numbered_files(tmp_path, 6)
    (tmp_path / "4.png").write_text("not a picture")
    reader = batches(dataset, range(6), 2, num_workers)
    assert [len(next(reader)), len(next(reader))] == [2, 2]
    with pytest.raises(OSError) as error:
        next(reader)
    assert str(error.value) == f"cannot read image {tmp_path / '4.png'}: not a picture in a known format"


def test_batch_arguments_are_checked_at_the_call() -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        batches(tensor_dataset(), [0], 0)
    with pytest.raises(ValueError, match="num_workers: expected at least 0, got -1"):
        batches(tensor_dataset(), [0], 1, -1)
    with pytest.raises(TypeError):
        batches(tensor_dataset(), [0], 1.5)


def test_data_sets_travel_to_workers(tmp_path: Path) -> None:
    for dataset in (tensor_dataset(), numbered_files(tmp_path, 2)):
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy[1], dataset[1])


# What a data set refuses


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 3]), ValueError, r"class ids 0\.\.2, got 3 at image 1"),
        (torch.tensor([-1, 0]), ValueError, r"class ids 0\.\.2, got -1 at image 0"),
        (torch.tensor([[0, 1, 0], [0, 0, 2]], dtype=torch.uint8), ValueError, "0 or 1, got 2 at image 1"),
        (torch.zeros(2, 4, dtype=torch.uint8), ValueError, r"uint8 \[N, 3\], got torch.uint8 \[2, 4\]"),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, r"got torch.int64 \[2, 3\]"),
        (torch.zeros(2), TypeError, "got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "one row for each of 2 images, got 3"),
    ],
)
def test_wrong_labels_are_refused(labels: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorImageDataset(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels, NAMES, name="t")


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.full((2, 1, 4, 4), float("nan")), TypeError, "expected uint8 .* got torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), ValueError, r"\[N, C, H, W\], got shape \[2, 4, 4\]"),
        (torch.zeros(2, 5, 4, 4, dtype=torch.uint8), ValueError, "1 or 3, height, width"),
    ],
)
def test_wrong_images_are_refused(images: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TensorImageDataset(images, torch.tensor([0, 1]), NAMES, name="t")


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        TensorImageDataset(
            torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), NAMES, name="t"
        )


def test_as_many_labels_as_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one row for each of 1 files, got 2"):
        FileImageDataset(tmp_path, ["a"], torch.tensor([0, 0]), ["x"], image_shape=(3, 4, 4), name="t")
