"""Image data sets: uint8 images by index, from memory or from files, and batches of them in a given order."""

import hashlib
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adsq.data.image import check_image_shape, check_image_size, fit_image, load_image

Indices = Tensor | np.ndarray | Sequence[int]

# Hashing fewer files than this is over before a progress bar could be read.
_PROGRESS_FROM = 5000


class ImageDataset(Dataset[Tensor], ABC):
    """Images of one shape with their labels, read by index.

    Args:
        name: Name for reports.
        spec: JSON dict with which `adsq.data.load(**spec)` gives this data set again; {} where there is none.
        labels: Class ids int64 [N], each in 0..C-1, or multi-hot uint8 [N, C] of 0 and 1.
        class_names: C names.
        image_shape: (channels, height, width) of every image; 1 (grey) or 3 (RGB) channels.

    Raises:
        TypeError: Labels of another dtype.
        ValueError: No images, labels of another shape or out of range, or an impossible image shape.
    """

    def __init__(
        self,
        *,
        name: str,
        spec: dict[str, Any],
        labels: Tensor,
        class_names: Sequence[str],
        image_shape: tuple[int, int, int],
    ) -> None:
        _check_labels(labels, class_names)
        check_image_shape(image_shape)
        self.name = name
        self.spec = spec
        self.labels = labels
        self.class_names = list(class_names)
        self.image_shape = image_shape
        self._hashes: list[bytes] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as uint8 [C, H, W]; IndexError outside 0..N-1."""
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: Indices) -> Tensor:
        """Images `indices`, in that order, as uint8 [B, C, H, W].

        Raises:
            IndexError: An index outside 0..N-1. Negative ones are no exception: a search pads its results
                with -1, which must not show as the last image.
            OSError: An image that cannot be read, with its path.
        """
        return self._read(_check_indices(indices, len(self)))

    def content_hashes(self) -> list[bytes]:
        """SHA-256 of every image (32 bytes each), computed at the first call and kept.

        Images in memory: of their pixels as they were given, before any resizing. Files: of the file's bytes,
        so that the same picture saved in two formats counts as two contents.
        """
        if self._hashes is None:
            self._hashes = self._hash()
        return self._hashes

    @abstractmethod
    def path(self, index: int) -> str | None:
        """Path of image `index`, IndexError outside 0..N-1; None where the images live in memory."""

    @abstractmethod
    def _read(self, indices: Tensor) -> Tensor:
        """Images at checked int64 indices [B]."""

    @abstractmethod
    def _hash(self) -> list[bytes]: ...


class TensorImageDataset(ImageDataset):
    """Images held in memory.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3. Not copied.
        labels: As for ImageDataset, one row an image.
        class_names: As for ImageDataset.
        name: As for ImageDataset.
        spec: As for ImageDataset.
        image_size: Side to which images are resized when read, as `load_image` does; None: as they are.

    Raises:
        TypeError: Images that are not uint8; floats in particular, whose range (and NaN) would be guesswork.
        ValueError: Images that are not [N, C, H, W] with one label row each; labels as in ImageDataset.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        name: str,
        spec: dict[str, Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8 (0..255), got {images.dtype}")
        if images.ndim != 4:
            raise ValueError(f"images: expected [N, C, H, W], got shape {list(images.shape)}")
        if len(images) != len(labels):
            raise ValueError(f"labels: expected one row for each of {len(images)} images, got {len(labels)}")
        channels, height, width = images.shape[1:]
        if image_size is not None:
            height = width = check_image_size(image_size)
        super().__init__(
            name=name,
            spec=spec or {},
            labels=labels,
            class_names=class_names,
            image_shape=(channels, height, width),
        )
        self._images = images

    def path(self, index: int) -> str | None:
        return None

    def _read(self, indices: Tensor) -> Tensor:
        images = self._images[indices]
        if self._images.shape[1:] == self.image_shape or not len(images):
            return images.reshape(-1, *self.image_shape)
        pixels = images.permute(0, 2, 3, 1).numpy()
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        return torch.stack([fit_image(Image.fromarray(picture), self.image_shape) for picture in pixels])

    def _hash(self) -> list[bytes]:
        return [hashlib.sha256(image.tobytes()).digest() for image in self._images.numpy()]


class FileImageDataset(ImageDataset):
    """Images decoded from files when they are read, as `load_image` does.

    Args:
        root: Folder to which the files are relative.
        files: N paths below root (absolute ones stay as they are).
        labels: As for ImageDataset, one row a file.
        class_names: As for ImageDataset.
        image_shape: As for ImageDataset.
        name: As for ImageDataset.
        spec: As for ImageDataset.

    Raises:
        TypeError, ValueError: As ImageDataset; also ValueError for files and labels of unequal number.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        labels: Tensor,
        class_names: Sequence[str],
        *,
        image_shape: tuple[int, int, int],
        name: str,
        spec: dict[str, Any] | None = None,
    ) -> None:
        if len(files) != len(labels):
            raise ValueError(f"labels: expected one row for each of {len(files)} files, got {len(labels)}")
        super().__init__(name=name, spec=spec or {}, labels=labels, class_names=class_names, image_shape=image_shape)
        self._root = root
        self._files = list(files)

    def path(self, index: int) -> str | None:
        (checked,) = _check_indices([index], len(self)).tolist()
        return str(self._root / self._files[checked])

    def _read(self, indices: Tensor) -> Tensor:
        images = [load_image(self._root / self._files[index], self.image_shape) for index in indices.tolist()]
        return torch.stack(images) if images else torch.empty(0, *self.image_shape, dtype=torch.uint8)

    def _hash(self) -> list[bytes]:
        quiet = len(self) < _PROGRESS_FROM or not sys.stderr.isatty()
        files = track(self._files, "Hashing images", console=Console(stderr=True), disable=quiet)
        return [hashlib.sha256((self._root / file).read_bytes()).digest() for file in files]


def batches(dataset: ImageDataset, indices: Indices, batch_size: int, num_workers: int = 0) -> Iterator[Tensor]:
    """Read images in batches, in the order of `indices` whatever the workers do.

    Args:
        dataset: Where the images come from.
        indices: Image numbers, int [M], each in 0..N-1; repeats and zero length accepted.
        batch_size: Images a batch; the last batch holds what is left.
        num_workers: Processes that read ahead; 0 reads in this one.

    Returns:
        Iterator of uint8 [B, C, H, W]: row i of all batches together is image indices[i].

    Raises:
        TypeError, ValueError, IndexError: At the call: indices, batch_size or num_workers that cannot be.
        OSError: While iterating: an image that cannot be read, with its path.
    """
    wanted = _check_indices(indices, len(dataset)).tolist()
    for argument, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if operator.index(value) < least:
            raise ValueError(f"{argument}: expected at least {least}, got {value}")
    loader: DataLoader[Tensor] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_size=batch_size,
        sampler=wanted,
        num_workers=num_workers,
        collate_fn=_unchanged,
        # An own generator: the loader draws a seed, and reading images must not move the global random state.
        generator=torch.Generator(),
    )
    return _raise_errors(loader)


class _ErrorsAsValues(Dataset[Tensor]):
    """Returns a reader's error instead of raising it.

    Raised in a worker process, it would reach the user wrapped in the text of the worker's traceback.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitems__(self, indices: list[int]) -> Tensor | OSError:
        try:
            return self._dataset.__getitems__(indices)
        except OSError as error:
            return error


def _raise_errors(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    for batch in loader:
        if isinstance(batch, OSError):
            raise batch
        yield batch


def _unchanged(batch: Any) -> Any:
    return batch


def _check_indices(indices: Indices, size: int) -> Tensor:
    """Indices as int64 [M] in 0..size-1."""
    index = torch.as_tensor(indices)
    if index.ndim != 1:
        raise ValueError(f"indices: expected one dimension, got shape {list(index.shape)}")
    if not index.numel():
        return torch.empty(0, dtype=torch.int64)
    if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        raise TypeError(f"indices: expected integers, got {index.dtype}")
    index = index.to("cpu", torch.int64)
    lowest, highest = int(index.min()), int(index.max())
    if lowest < 0 or highest >= size:
        raise IndexError(f"index {lowest if lowest < 0 else highest} is outside 0..{size - 1}")
    return index


def _check_labels(labels: Tensor, class_names: Sequence[str]) -> None:
    num_classes = len(class_names)
    if labels.dtype not in (torch.int64, torch.uint8):
        raise TypeError(f"labels: expected int64 class ids or uint8 multi-hot, got {labels.dtype}")
    if labels.ndim and not len(labels):
        raise ValueError("labels: the data set holds no images")
    if labels.dtype == torch.int64 and labels.ndim == 1:
        wrong, expected = (labels < 0) | (labels >= num_classes), f"class ids 0..{num_classes - 1}"
    elif labels.dtype == torch.uint8 and labels.ndim == 2 and labels.shape[1] == num_classes:
        wrong, expected = labels > 1, "0 or 1"
    else:
        expected = f"int64 [N] or uint8 [N, {num_classes}]"
        raise ValueError(f"labels: expected {expected}, got {labels.dtype} {list(labels.shape)}")
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        raise ValueError(f"labels: expected {expected}, got {int(labels[tuple(place)])} at image {place[0]}")
