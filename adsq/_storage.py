"""How an index keeps its rows. `HammingIndex` knows nothing else of it than the methods here."""

from __future__ import annotations

import threading
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from adsq._distinct import DistinctRows, mostly_distinct
from adsq._rows import FlatRows, new_codes
from adsq._runs import Runs
from adsq.kernels.distinct_codes import MAX_ROWS

LARGEST_ID = 2**63 - 1
# "auto" stores equal codes once below the first share of distinct codes, and each row with its code above the second;
# it looks whenever the rows have doubled, from so many rows on.
REPEATED, DISTINCT, SMALLEST = 0.8, 0.9, 4096
# To add rows to distinct codes costs as much as reading all of them. Up to such a share of them, new rows are searched
# beside them, until the results put together are as many as these.
APART = 1 / 8

Rows: TypeAlias = FlatRows | DistinctRows


class Storage:
    """One row for every id. Threads may call any method at the same time, `to` apart.

    New rows wait in runs, each sorted by id and more than twice as large as the next. So N rows added in
    small pieces, in any order, are each moved about log N times at most. Whoever needs all rows merges the
    runs first.
    """

    def __init__(self, rows: Rows, next_id: int, distinct: bool | Literal["auto"]) -> None:
        """Keep rows; new ids begin at `next_id`. `distinct` is whether equal codes are stored once."""
        self.distinct = distinct
        if distinct is True and isinstance(rows, FlatRows):
            rows = DistinctRows.of(rows)
        self._runs: list[Rows] = [rows]
        self._next_id = next_id
        self._judged = rows.size  # rows when "auto" looked last
        self._apart = 0  # results of searches in two runs since
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[dict[str, Tensor], int, bool | Literal["auto"]]:
        rows, next_id = self.snapshot()
        return {name: tensor.clone() for name, tensor in rows.tensors().items()}, next_id, self.distinct

    def __setstate__(self, state: tuple[dict[str, Tensor], int, bool | Literal["auto"]]) -> None:
        tensors, next_id, distinct = state
        codes, ids = tensors["codes"], tensors["ids"]
        rows: Rows = FlatRows(codes, ids, len(ids))
        if "rows" in tensors:
            rows = DistinctRows(codes, tensors["offsets"], tensors["rows"], ids)
        Storage.__init__(self, rows, next_id, distinct)

    def __len__(self) -> int:
        return sum(run.size for run in self._runs)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._runs[0].ids.device

    def rows(self) -> Rows:
        """Return all rows."""
        runs = self._runs  # replaced by changes, never changed itself: one run needs no lock
        return runs[0] if len(runs) == 1 else self.snapshot()[0]

    def searched(self, results: int) -> Rows | Runs:
        """Return all rows for a search with so many results, or about that: maybe in two runs."""
        runs = self._runs  # as in `rows`
        if len(runs) == 1:
            return runs[0]
        with self._lock:
            first = self._runs[0]
            self._apart += results
            if isinstance(first, FlatRows) or len(self) - first.size > APART * first.size or self._apart > first.size:
                return self._merged()
            while len(self._runs) > 2:
                self._runs = [*self._runs[:-2], self._runs[-2].merged(self._runs[-1].flat())]
            return Runs(first, self._runs[1]) if len(self._runs) > 1 else first

    def first_id(self) -> int | None:
        """Return the smallest id; None where there are no rows."""
        return min((int(run.ids[0]) for run in self._runs if run.size), default=None)

    def snapshot(self) -> tuple[Rows, int]:
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
                ids = torch.arange(count, device=self.device) + self._next_id  # whose end may be no int64
            new = FlatRows(codes, ids, count)
            for run in self._runs:
                if not run.precedes(new):
                    refuse(ids[run.find(ids)[1]], "is in the index already")
            runs = [*self._runs, new]
            if len(self) + count > MAX_ROWS:
                if self.distinct is True:
                    raise ValueError(f"codes: expected at most {MAX_ROWS} in all where equal ones are stored once")
                runs[0] = runs[0].flat()
            while len(runs) > 1 and runs[-2].takes(runs[-1].flat()):  # all runs but the first are flat
                runs[-2:] = [runs[-2].merged(runs[-1].flat())]
            if runs[-1] is new:  # not copied by a merge, and the caller's tensors may change later
                runs[-1] = FlatRows(new_codes(count, codes).copy_(codes), ids.clone(), count)
            self._runs, self._next_id = runs, max(self._next_id, int(ids[-1]) + 1)
            if self.distinct == "auto" and self._looks() and len(self) >= max(SMALLEST, 2 * self._judged):
                self._judged = len(self)
                self._runs = [_suited(self._merged())]

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
            self._runs = [self._merged().to(device)]
            if self.distinct == "auto" and not self._looks():
                self._runs = [self._runs[0].flat()]

    def _looks(self) -> bool:
        """Whether "auto" asks for equal codes: on a GPU nothing native searches them."""
        return self.device.type == "cpu"

    def _merged(self) -> Rows:
        runs = list(self._runs)
        while len(runs) > 1:
            runs[-2:] = [runs[-2].merged(runs[-1].flat())]
        self._runs, self._apart = runs, 0
        return runs[0]


def _suited(rows: Rows) -> Rows:
    """Return the rows as "auto" wants them."""
    if isinstance(rows, DistinctRows):
        return rows.flat() if rows.share > DISTINCT else rows
    if mostly_distinct(rows.codes, REPEATED):
        return rows
    distinct = DistinctRows.of(rows)
    return distinct if distinct.share < REPEATED else rows


def refuse(ids: Tensor, why: str) -> None:
    """Raise ValueError naming the first of the ids, if there is one."""
    if ids.shape[0]:
        raise ValueError(f"ids: {int(ids[0])} {why}")
