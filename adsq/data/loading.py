"""Batches of images in a given order, read ahead by other processes where asked."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adsq.data.checks import Indices, check_indices
from adsq.data.dataset import ImageDataset


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
    wanted = check_indices(indices, len(dataset)).tolist()
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
