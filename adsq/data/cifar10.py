"""CIFAR-10 from the files of its Python version."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from adsq.data.dataset import TensorImageDataset
from adsq.data.disk import cache_folder


def load_cifar10(
    root: str | Path | None = None, image_size: int | None = None, download: bool = False
) -> TensorImageDataset:
    """60,000 RGB images, 32 x 32, ten classes: the 50,000 of data_batch_1 to 5, then the 10,000 of test_batch.

    The files are pickles, which can run code when read. torchvision reads them, and only after their MD5 sums have
    shown that they are the published ones.

    Args:
        root: The folder cifar-10-batches-py, or the one that holds it. None: adsq in the user's cache folder
            ($XDG_CACHE_HOME or ~/.cache).
        image_size: Side to which images are resized when read; None: 32.
        download: Fetch the files to root, by torchvision, where one is missing or damaged.

    Returns:
        uint8 [60000, 3, 32, 32] with labels int64 [60000]. It gives the test images as queries, and the others
        as training images and database.

    Raises:
        FileNotFoundError: Files missing and download not asked for.
        OSError: The download failed.
        ValueError: A file that is not the published one.
    """
    root = (cache_folder() if root is None else Path(root).expanduser()).absolute()
    parent = root.parent if root.name == CIFAR10.base_folder else root
    folder = parent / CIFAR10.base_folder
    sums = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    sums[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    if not download:
        missing = [name for name in sums if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"no CIFAR-10 in {folder}: {', '.join(missing)} missing of {', '.join(sums)}. Give the folder that "
                f"holds {CIFAR10.base_folder} as root, or allow the download (download=True)."
            )
        for name, md5 in sums.items():
            if not check_integrity(folder / name, md5):
                raise ValueError(f"{folder / name}: damaged, or not the published file: its MD5 sum is not {md5}")
    try:
        train, test = (CIFAR10(parent, train=part, download=download) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"CIFAR-10 could not be {'downloaded to' if download else 'read from'} {folder}: {error}"
        ) from error
    pixels = np.concatenate([train.data, test.data])
    numbers = torch.arange(len(pixels))
    first, last = numbers[: len(train.data)], numbers[len(train.data) :]
    return TensorImageDataset(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(train.targets + test.targets, dtype=torch.int64),
        train.classes,
        name="cifar10",
        spec={"source": "cifar10", "root": str(root), "image_size": image_size},
        image_size=image_size,
        parts={"query": last, "training": first, "database": first},
        facts={"train": len(first), "test": len(last)},
    )
