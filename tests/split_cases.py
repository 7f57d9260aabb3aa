"""Data sets and splits that the tests of splits share."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from adsq import data
from adsq.data import ImageDataset, Protocol, Split, TensorImageDataset

SMALL = Protocol("small", 2, 3)


def dataset_of(labels: Tensor, copies: dict[int, int] | None = None) -> TensorImageDataset:
    """Distinct images with these labels; copies {a: b} makes image a a copy of image b."""
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    numbers = torch.arange(len(labels))
    for copy, original in (copies or {}).items():
        numbers[copy] = original
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 256, numbers // 256
    num_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    return TensorImageDataset(images, labels, [f"class {index}" for index in range(num_classes)], name="test")


def classes(*counts: int) -> Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]


def hand_made(query: list[int], training: list[int], database: list[int]) -> Split:
    return Split(SMALL, 0, torch.tensor(query), torch.tensor(training), torch.tensor(database))


def save(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), shade).save(path)


def folder_dataset(root: Path) -> ImageDataset:
    """Classes a and b, four pictures each; b/3.png is a copy of a/0.png."""
    for shade in range(8):
        save(root / "ab"[shade // 4] / f"{shade % 4}.png", shade)
    (root / "b" / "3.png").write_bytes((root / "a" / "0.png").read_bytes())
    return data.load(root, image_size=4)
