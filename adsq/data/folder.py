"""A folder of class folders."""

import os
import warnings
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from adsq.data.dataset import FileImageDataset
from adsq.data.image import check_image_size

# Side of folder and CSV images where none is given: small enough to train on a CPU.
DEFAULT_IMAGE_SIZE = 64


def load_folder(root: str | Path, image_size: int | None = None) -> FileImageDataset:
    """Images root/<class>/**/<image>, labelled with the folder's name.

    Classes are sorted by name, images by path within their class (by code point, the same everywhere). Names
    that begin with a dot are ignored. Images are known by their suffix (torchvision's list: .jpg, .png, ...);
    files that are none, or that lie outside a class folder, are left out and counted in a warning. Links are
    followed, each folder of a class once. The folder is listed once; no image is opened here.

    Args:
        root: Folder of class folders.
        image_size: Side of the square images; None: DEFAULT_IMAGE_SIZE.

    Returns:
        RGB images, uint8 [3, image_size, image_size] each, with labels int64 [N].

    Raises:
        OSError: A folder that does not exist or cannot be listed.
        ValueError: No class folders, or class folders without an image.
    """
    root = Path(root).expanduser().absolute()
    size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
    with os.scandir(root) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in visible if entry.is_dir())
    others = sorted(entry.name for entry in visible if not entry.is_dir())
    if not classes:
        found = f"{len(others)} files, such as {others[0]}" if others else "nothing"
        raise ValueError(f"no class folders in {root}: expected <class>/<image> below it, found {found}")

    files: list[str] = []
    counts = []
    for name in classes:
        images, rest = list_class(root, name)
        files += images
        others += rest
        counts.append(len(images))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        listed = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise ValueError(f"class folders without an image in {root}: {listed} ({' '.join(IMG_EXTENSIONS)})")
    if others:
        warnings.warn(
            f"{root}: {len(others)} files left out that are no images in a class folder, such as {others[0]} "
            f"(images are {' '.join(IMG_EXTENSIONS)})",
            stacklevel=2,
        )
    return FileImageDataset(
        root,
        files,
        torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(counts)),
        classes,
        image_shape=(3, size, size),
        name=root.name,
        spec={"source": str(root), "image_size": size},
    )


def list_class(root: Path, name: str) -> tuple[list[str], list[str]]:
    """Paths below root of the images and of the other files of one class, sorted."""
    images: list[str] = []
    others: list[str] = []
    seen = set()
    for folder, subfolders, names in os.walk(root / name, onerror=_raise, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link back up would be walked for ever
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(each for each in subfolders if not each.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        for each in names:
            if not each.startswith("."):
                is_image = each.lower().endswith(IMG_EXTENSIONS)
                (images if is_image else others).append(f"{below}/{each}")
    return sorted(images), sorted(others)


def _raise(error: OSError) -> None:
    raise error
