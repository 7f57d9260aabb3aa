"""Checks of image numbers and labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from adsq._arrays import from_numpy

Indices = Tensor | np.ndarray | Sequence[int]


def check_indices(indices: Indices, size: int) -> Tensor:
    """Indices as int64 [M] in 0..size-1."""
    index = from_numpy(indices, "indices") if isinstance(indices, np.ndarray) else torch.as_tensor(indices)
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


def check_labels(labels: Tensor, class_names: Sequence[str]) -> None:
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
