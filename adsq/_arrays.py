"""Numpy arrays as tensors, where a person may pass either."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def from_numpy(array: np.ndarray, name: str) -> Tensor:
    """Return a tensor of an array, on its memory where torch can: not for read-only arrays, nor for some strides."""
    size = max(1, array.itemsize)
    usable = array.flags.writeable and all(stride >= 0 and stride % size == 0 for stride in array.strides)
    try:
        return torch.from_numpy(array if usable else array.copy())
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of numbers in native byte order, got {array.dtype!r}") from error


def as_ids(ids: object, name: str) -> Tensor:
    """Return ids, a tensor, an array or a list, as a tensor int64 [M], or refuse them."""
    if not isinstance(ids, Tensor):
        try:
            array = np.asarray(ids)
        except ValueError as error:
            raise ValueError(f"{name}: expected shape [M], got {error}") from error
        if array.size == 0 and not isinstance(ids, np.ndarray):
            array = array.astype(np.int64)  # numpy takes [] for floats
        if array.dtype != np.int64:
            raise TypeError(f"{name}: expected integers of dtype int64, got {array.dtype}")
        ids = from_numpy(array, name)
    if ids.dtype != torch.int64:
        raise TypeError(f"{name}: expected dtype torch.int64, got {ids.dtype}")
    if ids.dim() != 1:
        raise ValueError(f"{name}: expected shape [M], got {list(ids.shape)}")
    return ids


def out_tensors(out: object, queries: object) -> object:
    """Return tensors on the memory of the arrays that results go to, where queries are an array, or refuse them."""
    if not isinstance(queries, np.ndarray) or not isinstance(out, tuple | list):
        return out
    for i, array in enumerate(out):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"out[{i}]: expected a numpy array, as queries are, got {type(array).__name__}")
        if array.dtype not in (np.int32, np.int64):
            raise TypeError(f"out[{i}]: expected dtype {('int32', 'int64')[i % 2]}, got {array.dtype}")
        if not array.flags.carray:
            raise ValueError(f"out[{i}]: expected a contiguous, aligned and writeable array")
    # A row of one has any stride in numpy; torch takes none below 0.
    return tuple(torch.from_numpy(array.reshape(-1).reshape(array.shape)) for array in out)


def like(argument: object, result: Tensor) -> Any:
    """Return a result as an array if the argument was one."""
    return result.cpu().numpy() if isinstance(argument, np.ndarray) else result
