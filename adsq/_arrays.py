"""Numpy arrays as tensors, where a person may pass either."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """Return a tensor of an array, on its memory where torch can: not for read-only arrays or negative strides."""
    usable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if usable else array.copy())
