"""Image data sets: uint8 images by index, from memory or from files."""

import hashlib
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from adsq.data.checks import Indices, check_indices, check_labels
from adsq.data.image import check_image_shape, check_image_size, fit_image, load_image

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
        parts: Images that the data set itself makes "query", "training" or "database", int64 [n] each; see Protocol.
        facts: What reading found, by name, such as files missing.
        compares_contents: Whether splits look for copies of an image, which reads every file.

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
        parts: Mapping[str, Tensor] | None = None,
        facts: Mapping[str, int] | None = None,
        compares_contents: bool = True,
    ) -> None:
        check_labels(labels, class_names)
        check_image_shape(image_shape)
        self.name = name
        self.spec = spec
        self.labels = labels
        self.class_names = list(class_names)
        self.image_shape = image_shape
        self.parts = dict(parts or {})
        self.facts = dict(facts or {})
        self.compares_contents = compares_contents
        self._hashes: list[bytes] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def class_counts(self) -> list[int]:
        """Images of each class."""
        labels = self.labels
        counts = labels.bincount(minlength=self.num_classes) if labels.ndim == 1 else labels.sum(0)
        return counts.tolist()

    def summary(self) -> dict[str, int]:
        """What was read: images, classes, and the facts."""
        return {"images": len(self), "classes": self.num_classes, **self.facts}

    def in_words(self) -> str:
        """What was read, in a line."""
        shape = " x ".join(map(str, self.image_shape))
        facts = ", ".join(f"{name} {count:,}" for name, count in self.facts.items())
        line = f"{self.name}: {len(self):,} images of {self.num_classes} classes, {shape}"
        return f"{line} ({facts})" if facts else line

    def digest(self) -> str:
        """SHA-256 in hex over class names, labels, and contents of images, or relative paths of files (not read)."""
        parts = [repr(self.class_names).encode(), repr((self.labels.dtype, self.labels.shape)).encode()]
        return hashlib.sha256(b"".join([*parts, self.labels.numpy().tobytes(), self._identity()])).hexdigest()

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
        return self._read(check_indices(indices, len(self)))

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

    def _identity(self) -> bytes:
        """What tells these images from others."""
        return b"".join(self.content_hashes())


class TensorImageDataset(ImageDataset):
    """Images held in memory.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3. Not copied.
        labels: As for ImageDataset, one row an image.
        class_names: As for ImageDataset.
        name: As for ImageDataset.
        spec: As for ImageDataset.
        image_size: Side to which images are resized when read, as `load_image` does; None: as they are.
        parts, facts: As for ImageDataset.

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
        parts: Mapping[str, Tensor] | None = None,
        facts: Mapping[str, int] | None = None,
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
            parts=parts,
            facts=facts,
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
        parts, facts, compares_contents: As for ImageDataset.

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
        parts: Mapping[str, Tensor] | None = None,
        facts: Mapping[str, int] | None = None,
        compares_contents: bool = True,
    ) -> None:
        if len(files) != len(labels):
            raise ValueError(f"labels: expected one row for each of {len(files)} files, got {len(labels)}")
        super().__init__(
            name=name,
            spec=spec or {},
            labels=labels,
            class_names=class_names,
            image_shape=image_shape,
            parts=parts,
            facts=facts,
            compares_contents=compares_contents,
        )
        self._root = root
        self._files = list(files)

    def path(self, index: int) -> str | None:
        (checked,) = check_indices([index], len(self)).tolist()
        return str(self._root / self._files[checked])

    def _read(self, indices: Tensor) -> Tensor:
        images = [load_image(self._root / self._files[index], self.image_shape) for index in indices.tolist()]
        return torch.stack(images) if images else torch.empty(0, *self.image_shape, dtype=torch.uint8)

    def _hash(self) -> list[bytes]:
        quiet = len(self) < _PROGRESS_FROM or not sys.stderr.isatty()
        files = track(self._files, "Hashing images", console=Console(stderr=True), disable=quiet)
        return [hashlib.sha256((self._root / file).read_bytes()).digest() for file in files]

    def _identity(self) -> bytes:
        return "\n".join(self._files).encode()
