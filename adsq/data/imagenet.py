"""ImageNet-100: class folders of wordnet ids in train and val."""

from collections import Counter
from pathlib import Path

import torch

from adsq.data.dataset import FileImageDataset
from adsq.data.disk import read_lines
from adsq.data.folder import DEFAULT_IMAGE_SIZE, list_class
from adsq.data.image import check_image_size


def load_imagenet100(
    root: str | Path, image_size: int | None = None, classes: str | Path | None = None
) -> FileImageDataset:
    """Images root/train/<wordnet id>/* and root/val/<wordnet id>/*: those of train, then those of val.

    Both are ordered by class, then by path. Which 100 of ImageNet's 1,000 classes are meant differs from paper to
    paper, hence the list. Files that are no images by their suffix are counted and left out. No image is opened here.

    Args:
        root: The folder with train and val.
        image_size: Side of the square images; None: DEFAULT_IMAGE_SIZE.
        classes: Text file with a wordnet id at the start of each line; what follows a blank is ignored. None: all
            class folders of train.

    Returns:
        RGB images, uint8 [3, image_size, image_size] each, with labels int64 [N], classes sorted by id. It gives val
        as queries, and train as training images and database. Splits do not look for copies.

    Raises:
        OSError: A list or folder that does not exist or cannot be read.
        ValueError: A class listed twice or without an image in train or in val; no classes.
    """
    root = Path(root).expanduser().absolute()
    size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
    if classes is None:
        ids = sorted(path.name for path in (root / "train").iterdir() if path.is_dir() and path.name[0] != ".")
        origin = root / "train"
    else:
        origin = Path(classes).expanduser().absolute()
        ids = sorted(line.split()[0] for line in read_lines(origin))
        twice = [name for name, count in Counter(ids).items() if count > 1]
        if twice:
            raise ValueError(f"{origin}: class {twice[0]} is listed twice")
    if not ids:
        raise ValueError(f"{origin}: no class folders")

    files: list[str] = []
    counts: dict[str, list[int]] = {}
    others = 0
    for part in ("train", "val"):
        counts[part] = []
        for name in ids:
            # A class that is listed but not there is said so below, with the others.
            images, rest = list_class(root, f"{part}/{name}") if (root / part / name).is_dir() else ([], [])
            files += images
            others += len(rest)
            counts[part].append(len(images))
        empty = [name for name, count in zip(ids, counts[part], strict=True) if not count]
        if empty:
            raise ValueError(
                f"{root / part}: no images for {len(empty)} of {len(ids)} classes of {origin}, such as {empty[0]}"
            )
    train, val = (
        torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(counts[part])) for part in ("train", "val")
    )
    numbers = torch.arange(len(files))
    first, last = numbers[: len(train)], numbers[len(train) :]
    return FileImageDataset(
        root,
        files,
        torch.cat([train, val]),
        ids,
        image_shape=(3, size, size),
        name="imagenet100",
        spec={
            "source": "imagenet100",
            "root": str(root),
            "image_size": image_size,
            "classes": None if classes is None else str(origin),
        },
        parts={"query": last, "training": first, "database": first},
        facts={"train": len(train), "val": len(val), "other files": others},
        compares_contents=False,
    )
