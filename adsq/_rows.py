"""Rows of an index, each with its code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from adsq._hash import Hash
from adsq.kernels.hamming_topk import op

if TYPE_CHECKING:
    from adsq._distinct import DistinctRows

Found: TypeAlias = tuple[Tensor, Tensor]  # distances int32 [Q, k], ids int64 [Q, k]


@dataclass(frozen=True)
class FlatRows:
    """Rows in ascending order of id, each with its code. Never changes, so a search needs no lock.

    The buffers may be longer than `size`: rows are appended in place, where no older `FlatRows` looks. Searches
    call the ops and not their public functions, since `HammingIndex` has checked the arguments.
    """

    code_buffer: Tensor  # uint8 [>= size, B]
    id_buffer: Tensor  # int64 [>= size]
    size: int
    hash: Hash = field(default_factory=Hash, compare=False, repr=False)

    @property
    def large(self) -> FlatRows:
        """The rows, as of `Runs`."""
        return self

    @cached_property
    def codes(self) -> Tensor:
        """The codes, uint8 [size, B]."""
        return self.code_buffer[: self.size]

    @cached_property
    def ids(self) -> Tensor:
        """The ids, int64 [size], ascending."""
        return self.id_buffer[: self.size]

    @cached_property
    def names(self) -> Tensor | None:
        """What an op turns row numbers into: ids, or None where the ids are the row numbers."""
        return None if self.size == 0 or int(self.ids[-1]) == self.size - 1 else self.ids

    def find(self: FlatRows | DistinctRows, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the position of each id, int64 [M], and whether it is there at all, bool [M]."""
        if self.size == 0:
            return torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        positions = torch.searchsorted(self.ids, ids).clamp_(max=self.size - 1)
        return positions, self.ids[positions] == ids

    def lists(self) -> tuple[None, None]:
        """Return no lists: each code has one row."""
        return None, None

    def topk(
        self, queries: Tensor, k: int, allowed: Tensor | None, method: str = "auto", out: Found | None = None
    ) -> Found:
        """Return distances and ids [Q, k] of the nearest rows, of those with an id in `allowed` if given.

        They need not be in `out`: where it is given, it may be used.
        """
        mask = None
        if allowed is not None:
            positions, found = self.find(allowed)
            mask = torch.zeros(self.size, dtype=torch.bool, device=self.ids.device)
            mask[positions[found]] = True
            method = "scan"
        scan = partial(op.topk, queries, self.codes, k, mask, self.names, out)
        return self.hash.topk(self, queries, k, method, scan)

    def range(self, queries: Tensor, radius: int, method: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [Q + 1], distances and ids of all rows within `radius`."""
        radius = min(radius, 8 * self.codes.shape[1])  # the op takes no more than an int64
        scan = partial(op.hamming_range, queries, self.codes, radius, self.names)
        return self.hash.range(self, queries, radius, method, scan)

    def codes_at(self, positions: Tensor) -> Tensor:
        """Return the codes of rows."""
        return self.codes[positions]

    def flat(self) -> FlatRows:
        """Return the same rows, each with its code."""
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds, by name."""
        return {"codes": self.codes, "ids": self.ids}

    def to(self, device: str | torch.device) -> FlatRows:
        """Return the rows on a device."""
        return FlatRows(self.codes.to(device), self.ids.to(device), self.size)

    def takes(self, other: FlatRows | DistinctRows) -> bool:
        """Whether to add rows now, and not later with others."""
        return self.size <= 2 * other.size or self.precedes(other)

    def precedes(self: FlatRows | DistinctRows, other: FlatRows | DistinctRows) -> bool:
        """Whether every id here is below every id there."""
        return self.size == 0 or other.size == 0 or bool(self.ids[-1] < other.ids[0])

    def merged(self, other: FlatRows | DistinctRows) -> FlatRows:
        """Return the rows of both, which share no id. Only the newest rows of a buffer may be merged."""
        size = self.size + other.size
        if not self.precedes(other):
            ids, order = torch.cat([self.ids, other.ids]).sort()
            return FlatRows(torch.cat([self.codes, other.codes])[order], ids, size)
        code_buffer, id_buffer = self.code_buffer, self.id_buffer
        if size > id_buffer.shape[0]:
            room = max(size, 2 * self.size)  # so that many small appends copy each row only a few times
            with torch.inference_mode(False):  # they are written to again, in whatever mode
                code_buffer, id_buffer = new_codes(room, code_buffer), id_buffer.new_empty(room)
            code_buffer[: self.size], id_buffer[: self.size] = self.codes, self.ids
        code_buffer[self.size : size], id_buffer[self.size : size] = other.codes, other.ids
        return FlatRows(code_buffer, id_buffer, size)

    def without(self, positions: Tensor) -> FlatRows:
        """Return the rows that are not at `positions`."""
        keep = torch.ones(self.size, dtype=torch.bool, device=self.ids.device)
        keep[positions] = False
        ids = self.ids[keep]
        return FlatRows(self.codes[keep], ids, ids.shape[0])


def new_codes(rows: int, like: Tensor) -> Tensor:
    """Return uninitialised codes. numpy asks for huge pages where torch does not, and a scan is faster over them."""
    if like.device.type != "cpu":
        return like.new_empty(rows, like.shape[1])
    return torch.from_numpy(np.empty((rows, like.shape[1]), dtype=np.uint8))
