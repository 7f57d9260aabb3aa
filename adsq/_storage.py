"""How an index keeps its rows. `HammingIndex` knows nothing else of it than the methods here."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from adsq.kernels.hamming_topk import op

LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class FlatRows:
    """Rows in ascending order of id, each with its code. Never changes, so a search needs no lock.

    The buffers may be longer than `size`: rows are appended in place, where no older `FlatRows` looks. Searches
    call the ops and not their public functions, since `HammingIndex` has checked the arguments.
    """

    code_buffer: Tensor  # uint8 [>= size, B]
    id_buffer: Tensor  # int64 [>= size]
    size: int

    @cached_property
    def codes(self) -> Tensor:
        """The codes, uint8 [size, B]."""
        return self.code_buffer[: self.size]

    @cached_property
    def ids(self) -> Tensor:
        """The ids, int64 [size], ascending."""
        return self.id_buffer[: self.size]

    @cached_property
    def _names(self) -> Tensor | None:
        """What an op turns row numbers into: ids, or None where the ids are the row numbers."""
        return None if self.size == 0 or int(self.ids[-1]) == self.size - 1 else self.ids

    def find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the position of each id, int64 [M], and whether it is there at all, bool [M]."""
        if self.size == 0:
            return torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        positions = torch.searchsorted(self.ids, ids).clamp_(max=self.size - 1)
        return positions, self.ids[positions] == ids

    def topk(self, queries: Tensor, k: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return distances and ids [Q, k] of the nearest rows, of those with an id in `allowed` if given."""
        mask = None
        if allowed is not None:
            positions, found = self.find(allowed)
            mask = torch.zeros(self.size, dtype=torch.bool, device=self.ids.device)
            mask[positions[found]] = True
        return op.hamming_topk(queries, self.codes, k, mask, self._names)

    def range(self, queries: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [Q + 1], distances and ids of all rows within `radius`."""
        radius = min(radius, 8 * self.codes.shape[1])  # the op takes no more than an int64
        return op.hamming_range(queries, self.codes, radius, self._names)

    def precedes(self, other: FlatRows) -> bool:
        """Whether every id here is below every id there."""
        return self.size == 0 or other.size == 0 or bool(self.ids[-1] < other.ids[0])

    def merged(self, other: FlatRows) -> FlatRows:
        """Return the rows of both, which share no id. Only the newest rows of a buffer may be merged."""
        size = self.size + other.size
        if not self.precedes(other):
            ids, order = torch.cat([self.ids, other.ids]).sort()
            return FlatRows(torch.cat([self.codes, other.codes])[order], ids, size)
        code_buffer, id_buffer = self.code_buffer, self.id_buffer
        if size > id_buffer.shape[0]:
            room = max(size, 2 * self.size)  # so that many small appends copy each row only a few times
            code_buffer = _new_codes(room, code_buffer)
            id_buffer = id_buffer.new_empty(room)
            code_buffer[: self.size], id_buffer[: self.size] = self.codes, self.ids
        code_buffer[self.size : size], id_buffer[self.size : size] = other.codes, other.ids
        return FlatRows(code_buffer, id_buffer, size)

    def without(self, positions: Tensor) -> FlatRows:
        """Return the rows that are not at `positions`."""
        keep = torch.ones(self.size, dtype=torch.bool, device=self.ids.device)
        keep[positions] = False
        ids = self.ids[keep]
        return FlatRows(self.codes[keep], ids, ids.shape[0])


class FlatStorage:
    """One row for every id. Threads may call any method at the same time, `to` apart.

    New rows wait in runs, each sorted by id and more than twice as large as the next. So N rows added in
    small pieces, in any order, are each moved about log N times at most. Whoever needs all rows merges the
    runs first.
    """

    def __init__(self, codes: Tensor, ids: Tensor, next_id: int) -> None:
        """Keep codes, uint8 [N, B], with ids, int64 [N] and ascending; new ids begin at `next_id`."""
        self._runs = [FlatRows(codes, ids, ids.shape[0])]
        self._next_id = next_id
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(run.size for run in self._runs)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._runs[0].ids.device

    def rows(self) -> FlatRows:
        """Return all rows."""
        runs = self._runs  # replaced by changes, never changed itself: one run needs no lock
        return runs[0] if len(runs) == 1 else self.snapshot()[0]

    def snapshot(self) -> tuple[FlatRows, int]:
        """Return all rows and the id that the next row gets by default."""
        with self._lock:
            return self._merged(), self._next_id

    def add(self, codes: Tensor, ids: Tensor | None) -> None:
        """Add rows; `ids`, none negative, come in any order. If one is there already, nothing is added."""
        count = codes.shape[0]
        if count == 0:
            return
        if ids is not None and not bool((ids[1:] > ids[:-1]).all()):
            ids, order = ids.sort()
            codes = codes[order]
            refuse(ids[1:][ids[1:] == ids[:-1]], "is given twice")
        with self._lock:
            if ids is None:
                if self._next_id + count - 1 > LARGEST_ID:
                    raise ValueError(f"ids: expected your own, since none are left after {self._next_id - 1}")
                ids = torch.arange(self._next_id, self._next_id + count, device=self.device)
            new = FlatRows(codes, ids, count)
            for run in self._runs:
                if not run.precedes(new):
                    refuse(ids[run.find(ids)[1]], "is in the index already")
            runs = [*self._runs, new]
            while len(runs) > 1 and (runs[-2].size <= 2 * runs[-1].size or runs[-2].precedes(runs[-1])):
                runs[-2:] = [runs[-2].merged(runs[-1])]
            if runs[-1] is new:  # not copied by a merge, and the caller's tensors may change later
                runs[-1] = FlatRows(_new_codes(count, codes).copy_(codes), ids.clone(), count)
            self._runs, self._next_id = runs, max(self._next_id, int(ids[-1]) + 1)

    def remove(self, ids: Tensor) -> None:
        """Remove the rows with these ids. When one is not there, nothing is removed."""
        with self._lock:
            rows = self._merged()
            positions, found = rows.find(ids)
            refuse(ids[~found], "is not in the index")
            self._runs = [rows.without(positions)]

    def to(self, device: str | torch.device) -> None:
        """Move all rows to a device."""
        with self._lock:
            rows = self._merged()
            self._runs = [FlatRows(rows.codes.to(device), rows.ids.to(device), rows.size)]

    def _merged(self) -> FlatRows:
        runs = list(self._runs)
        while len(runs) > 1:
            runs[-2:] = [runs[-2].merged(runs[-1])]
        self._runs = runs
        return runs[0]


def _new_codes(rows: int, like: Tensor) -> Tensor:
    """Return uninitialised codes. numpy asks for huge pages where torch does not, and a scan is faster over them."""
    if like.device.type != "cpu":
        return like.new_empty(rows, like.shape[1])
    return torch.from_numpy(np.empty((rows, like.shape[1]), dtype=np.uint8))


def refuse(ids: Tensor, why: str) -> None:
    """Raise ValueError naming the first of the ids, if there is one."""
    if ids.shape[0]:
        raise ValueError(f"ids: {int(ids[0])} {why}")
