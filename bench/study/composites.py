"""A multi-label set made of real images: 2 x 2 tiles of Fashion-MNIST, each halved, of one to four classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from adsq.data import ImageDataset, Split, TensorImageDataset

SIZES = {"query": 1000, "training": 5000, "database": 20000}


def composites(dataset: ImageDataset, split: Split) -> tuple[ImageDataset, dict[str, Tensor]]:
    """Return a set of composites and the numbers of its query, training and database images.

    Tiles of query images come from the split's query images, those of training images from its training images, and
    those of the others from images that are neither. The database holds the training composites and the others.
    """
    generator = torch.Generator().manual_seed(split.seed)
    neither = torch.ones(len(dataset), dtype=torch.bool)
    neither[split.query] = neither[split.training] = False
    sources = {"query": split.query, "training": split.training, "database": neither.nonzero().flatten()}
    images, rows = [], []
    for part, source in sources.items():
        made = _compose(dataset, source, SIZES[part], generator)
        images.append(made[0])
        rows.append(made[1])
    numbers = torch.arange(sum(SIZES.values()))
    query, rest = numbers[: SIZES["query"]], numbers[SIZES["query"] :]
    parts = {"query": query, "training": rest[: SIZES["training"]], "database": rest}
    made = TensorImageDataset(torch.cat(images), torch.cat(rows), dataset.class_names, name="composites")
    return made, parts


def _compose(dataset: ImageDataset, source: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw 1 to 4 classes an image, each on at least one tile, and an image of its class for each tile."""
    labels = dataset.labels[source]
    members = [source[labels == label] for label in range(dataset.num_classes)]
    classes = torch.stack([torch.randperm(dataset.num_classes, generator=generator)[:4] for _ in range(count)])
    wanted = torch.randint(1, 5, (count, 1), generator=generator)
    again = (torch.rand((count, 4), generator=generator) * wanted).long()
    tiles = classes.gather(1, torch.where(torch.arange(4) < wanted, torch.arange(4), again))
    tiles = tiles.gather(1, torch.rand((count, 4), generator=generator).argsort(dim=1))
    rows = torch.zeros((count, dataset.num_classes), dtype=torch.uint8).scatter_(1, tiles, 1)
    drawn = torch.rand((count, 4), generator=generator)
    picked = torch.empty((count, 4), dtype=torch.int64)
    for label, own in enumerate(members):
        here = tiles == label
        picked[here] = own[(drawn[here] * len(own)).long()]
    _, height, width = dataset.image_shape
    small = avg_pool2d(dataset.__getitems__(picked.flatten()).float(), 2).round().to(torch.uint8)
    small = small.view(count, 2, 2, -1, height // 2, width // 2)
    return small.permute(0, 3, 1, 4, 2, 5).reshape(count, -1, height, width), rows
