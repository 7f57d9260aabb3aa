"""The list format that hashing papers share: database.txt, train.txt and test.txt, a path and 0/1 labels a line."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adsq.data.dataset import FileImageDataset
from adsq.data.disk import files_there, read_lines
from adsq.data.folder import DEFAULT_IMAGE_SIZE
from adsq.data.image import check_image_size

_FILES = {"database": "database.txt", "training": "train.txt", "query": "test.txt"}


def load_lists(
    root: str | Path, image_size: int | None = None, lists: str | Path | None = None, drop_missing: bool = False
) -> FileImageDataset:
    """Images named in database.txt, train.txt and test.txt, lines such as `images/7.jpg 0 1 0`.

    An image is known by its path: one that is in several lists, as training images mostly are in database.txt too,
    counts once. Images are numbered in the order of database.txt, then what only train.txt and test.txt add. No
    image is opened here; that each exists is checked by one listing of every folder named.

    Args:
        root: Folder to which the paths are relative.
        image_size: Side of the square images; None: DEFAULT_IMAGE_SIZE.
        lists: Folder of the three lists; None: root.
        drop_missing: Leave out images that are not on disk, and count them, instead of refusing.

    Returns:
        RGB images, uint8 [3, image_size, image_size] each. Labels are class ids, int64 [N], where every line has
        exactly one 1, else multi-hot uint8 [N, C]; classes are called by their column, from 0. It gives test.txt as
        queries, train.txt as training images and database.txt as database. Splits do not look for copies.

    Raises:
        OSError: A list that does not exist or cannot be read; images missing and not to be dropped, or all missing.
        ValueError: With the file and line: no labels, another number of labels than on the first line, a label that
            is not 0 or 1, a path twice in one list, or with other labels than before. Also: a list that is empty or
            no text.
    """
    root = Path(root).expanduser().absolute()
    folder = root if lists is None else Path(lists).expanduser().absolute()
    size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
    labels_of: dict[str, str] = {}
    named = {role: _read(folder / name, labels_of) for role, name in _FILES.items()}
    files = list(labels_of)
    there = files_there(root, files, drop_missing)
    number_of = {file: number for number, file in enumerate(np.array(files, dtype=object)[there])}
    parts = {
        role: torch.tensor([number_of[file] for file in paths if file in number_of], dtype=torch.int64)
        for role, paths in named.items()
    }
    return FileImageDataset(
        root,
        list(number_of),
        _labels([labels_of[file] for file in number_of]),
        [str(column) for column in range(len(labels_of[files[0]]))],
        image_shape=(3, size, size),
        name=folder.name,
        spec={
            "source": "list",
            "root": str(root),
            "image_size": image_size,
            "lists": None if lists is None else str(folder),
            "drop_missing": drop_missing,
        },
        parts=parts,
        facts={name: len(named[role]) for role, name in _FILES.items()} | {"missing": len(files) - len(number_of)},
        compares_contents=False,
    )


def _read(path: Path, labels_of: dict[str, str]) -> list[str]:
    """Paths of one list, in order. Adds the labels of new ones, as a text of 0 and 1, to labels_of."""
    seen: dict[str, None] = {}  # a set that keeps the order
    for line_number, line in enumerate(read_lines(path), 1):
        known = next(iter(labels_of.values()), None)
        # A path may hold blanks: labels are counted from the end of the line, on the first line as far as they go.
        count = len(known) if known is not None else _trailing_labels(line)
        file, *labels = line.rsplit(maxsplit=count) if count else [line]
        row = "".join(labels)
        problem = None
        if not count:
            problem = f"expected a path and labels of 0 and 1, got {line!r}"
        elif len(labels) < count or set(labels) - {"0", "1"} or _trailing_labels(file):
            problem = f"expected a path and {count} labels of 0 or 1, as on the first line read, got {line!r}"
        elif file in seen:
            problem = f"path {file} is in this list already"
        elif labels_of.setdefault(file, row) != row:
            problem = f"path {file} has other labels than before"
        if problem is not None:
            raise ValueError(f"{path}, line {line_number}: {problem}")
        seen[file] = None
    return list(seen)


def _trailing_labels(line: str) -> int:
    """How many words at the end of a line, its first word apart, are 0 or 1."""
    words = line.split()[:0:-1]
    return next((number for number, word in enumerate(words) if word not in ("0", "1")), len(words))


def _labels(rows: list[str]) -> Tensor:
    multi_hot = torch.from_numpy(np.frombuffer("".join(rows).encode(), np.uint8).reshape(len(rows), -1) - ord("0"))
    return multi_hot.argmax(dim=1) if bool((multi_hot.sum(dim=1) == 1).all()) else multi_hot
