"""NUS-WIDE: its image list, its label files, and the subset of the most frequent concepts (TC-21)."""

from pathlib import Path

import numpy as np
import torch

from adsq.data.dataset import FileImageDataset
from adsq.data.disk import files_there, read_lines
from adsq.data.folder import DEFAULT_IMAGE_SIZE
from adsq.data.image import check_image_size

NUM_CONCEPTS = 21


def load_nuswide(root: str | Path, image_size: int | None = None, drop_missing: bool = False) -> FileImageDataset:
    """The images of NUS-WIDE with at least one of its 21 most frequent concepts, in the order of its list.

    Files below root, as published: ImageList/Imagelist.txt with a line `folder\\file.jpg` for each image,
    Groundtruth/AllLabels/Labels_<concept>.txt with a line 0 or 1 for each image, and Flickr/folder/file.jpg. No
    image is opened here; that each exists is checked by one listing of every folder.

    Concepts are counted over the whole list; of equally frequent ones the first by name is taken. The full data
    set lists 269,648 images with 81 concepts, of which 195,834 have one of the 21.

    Args:
        root: The folder with ImageList, Groundtruth and Flickr.
        image_size: Side of the square images; None: DEFAULT_IMAGE_SIZE.
        drop_missing: Leave out images that are not on disk, and count them, instead of refusing.

    Returns:
        RGB images, uint8 [3, image_size, image_size] each, with multi-hot labels uint8 [N, 21] in the order of the
        concepts' names. Splits do not look for copies.

    Raises:
        OSError: A list that does not exist or cannot be read; images missing and not to be dropped, or all missing.
        ValueError: A label file with another number of lines than the image list, or with others than 0 and 1; fewer
            than 21 label files; no image with a label; a list that is no text.
    """
    root = Path(root).expanduser().absolute()
    size = check_image_size(DEFAULT_IMAGE_SIZE if image_size is None else image_size)
    image_list = root / "ImageList" / "Imagelist.txt"
    listed = ["Flickr/" + line.replace("\\", "/") for line in read_lines(image_list)]
    label_files = {path.stem.removeprefix("Labels_"): path for path in _label_files(root)}
    columns = {concept: _read_column(path, len(listed), image_list) for concept, path in label_files.items()}
    frequent = sorted(columns, key=lambda concept: (-int(columns[concept].sum()), concept))[:NUM_CONCEPTS]
    concepts = sorted(frequent)
    labels = np.stack([columns[concept] for concept in concepts], axis=1)

    labelled = np.flatnonzero(labels.any(axis=1))
    if not len(labelled):
        raise ValueError(f"{root}: none of {len(listed):,} listed images has a label")
    there = files_there(root, [listed[number] for number in labelled], drop_missing)
    kept = labelled[there]
    return FileImageDataset(
        root,
        [listed[number] for number in kept],
        torch.from_numpy(labels[kept]),
        concepts,
        image_shape=(3, size, size),
        name="nuswide",
        spec={"source": "nuswide", "root": str(root), "image_size": image_size, "drop_missing": drop_missing},
        facts={
            "listed": len(listed),
            "label files": len(columns),
            "without a label": len(listed) - len(labelled),
            "missing": len(labelled) - len(kept),
        },
        compares_contents=False,
    )


def _label_files(root: Path) -> list[Path]:
    # AllLabels and not TrainTestLabels: those are parts of the same, and the published Labels_lake_Train.txt is broken.
    folder = root / "Groundtruth" / "AllLabels"
    paths = sorted(folder.glob("Labels_*.txt"))
    if len(paths) < NUM_CONCEPTS:
        raise ValueError(f"{folder}: expected at least {NUM_CONCEPTS} files Labels_<concept>.txt, found {len(paths)}")
    return paths


def _read_column(path: Path, num_images: int, image_list: Path) -> np.ndarray:
    """One label file as uint8 [num_images] of 0 and 1."""
    lines = path.read_bytes().split()
    if len(lines) != num_images:
        raise ValueError(f"{path}: {len(lines):,} lines, but {image_list} lists {num_images:,} images")
    other = set(lines) - {b"0", b"1"}
    if other:
        first = min(map(lines.index, other))
        raise ValueError(f"{path}, line {first + 1}: expected 0 or 1, got {lines[first].decode(errors='replace')!r}")
    return np.frombuffer(b"".join(lines), dtype=np.uint8) - ord("0")
