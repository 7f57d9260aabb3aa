"""Fashion-MNIST from its idx files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST

from adsq.data.dataset import TensorImageDataset
from adsq.data.disk import cache_folder

_SPLITS = ("train", "t10k")
_NAMES = [f"{split}-{kind}-ubyte" for split in _SPLITS for kind in ("images-idx3", "labels-idx1")]


def load_fashion_mnist(
    root: str | Path | None = None, image_size: int | None = None, download: bool = False
) -> TensorImageDataset:
    """70,000 grey images of clothing, 28 x 28, ten classes: the 60,000 of train, then the 10,000 of t10k.

    Args:
        root: Folder of the four idx files, {train,t10k}-{images-idx3,labels-idx1}-ubyte, each plain or with
            .gz, in the folder itself or in FashionMNIST/raw below it, where torchvision puts them. Debian's
            package dataset-fashion-mnist installs them. None: adsq in the user's cache folder
            ($XDG_CACHE_HOME or ~/.cache).
        image_size: Side to which images are resized when read; None: 28.
        download: Fetch the files to FashionMNIST/raw below root, by torchvision, where they are missing.

    Returns:
        uint8 [70000, 1, 28, 28] with labels int64 [70000]; as many as the files hold, where they hold fewer.

    Raises:
        FileNotFoundError: Files missing and download not asked for.
        OSError: The download failed.
        ValueError: A file that is not idx of the right kind, is truncated or too long, holds a label outside
            0..9, or does not fit the others.
    """
    root = (cache_folder() if root is None else Path(root).expanduser()).absolute()
    files = _find(root)
    if files is None and download:
        try:
            FashionMNIST(root, download=True)
        except (OSError, RuntimeError) as error:
            raise OSError(f"Fashion-MNIST could not be downloaded to {root}: {error}") from error
        files = _find(root)
    if files is None:
        raise FileNotFoundError(
            f"no Fashion-MNIST in {root}: expected {', '.join(_NAMES)}, each plain or with .gz, there or in "
            "FashionMNIST/raw below it. Give their folder as root, or allow the download (download=True)."
        )

    parts = [_read_pair(files[f"{split}-images-idx3-ubyte"], files[f"{split}-labels-idx1-ubyte"]) for split in _SPLITS]
    sizes = {images.shape[1:] for images, _ in parts}
    if len(sizes) > 1:
        raise ValueError(f"Fashion-MNIST in {root}: train and t10k images differ in size: {sorted(sizes)}")
    return TensorImageDataset(
        torch.from_numpy(np.concatenate([images for images, _ in parts])[:, None]),
        torch.from_numpy(np.concatenate([labels for _, labels in parts]).astype(np.int64)),
        FashionMNIST.classes,
        name="fashion-mnist",
        spec={"source": "fashion-mnist", "root": str(root), "image_size": image_size},
        image_size=image_size,
    )


def _find(root: Path) -> dict[str, Path] | None:
    """The four files by name, where one folder holds them all."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        plain = {name: folder / name for name in _NAMES}
        files = {name: path if path.is_file() else folder / f"{name}.gz" for name, path in plain.items()}
        if all(path.is_file() for path in files.values()):
            return files
    return None


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels")
    num_classes = len(FashionMNIST.classes)
    if len(labels) and labels.max() >= num_classes:
        first = int(np.argmax(labels >= num_classes))
        raise ValueError(f"{labels_path}: label {labels[first]} at {first}, expected 0..{num_classes - 1}")
    return images, labels


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """A uint8 array of ndim dimensions from an idx file.

    torchvision's reader opens no .gz and answers damage with bare assertions.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file: {error}") from error
    # Magic number: two zero bytes, 8 for unsigned bytes, the number of dimensions; sizes follow, big endian.
    magic, start = bytes([0, 0, 8, ndim]), 4 + 4 * ndim
    if len(data) < start or data[:4] != magic:
        raise ValueError(
            f"{path}: not an idx file of {ndim}-dimensional uint8: expected {magic.hex()} and {ndim} sizes, "
            f"got {len(data)} bytes that begin with {data[:4].hex() or 'nothing'}"
        )
    shape = [int(size) for size in np.frombuffer(data, ">u4", ndim, 4)]
    expected = int(np.prod(shape, dtype=object))
    if len(data) - start != expected:
        state = "truncated" if len(data) - start < expected else "too long"
        raise ValueError(f"{path}: {state}: its header announces {shape}, {expected} bytes; {len(data) - start} follow")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
