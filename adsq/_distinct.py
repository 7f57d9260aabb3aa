"""Rows of an index whose codes repeat: each code is kept and searched once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from adsq._hash import Hash
from adsq._rows import FlatRows, Found
from adsq.kernels.distinct_codes import MAX_ROWS, op

_FEW_QUERIES = 32  # below that, a filter is not worth finding the codes it leaves


@dataclass(frozen=True)
class DistinctRows:
    """Rows in ascending order of id, equal codes stored once. Never changes, so a search needs no lock.

    Codes are numbered by their first rows. So the k nearest codes hold the k nearest rows, also where distances are
    equal (kernels/distinct_codes/README.md).
    """

    codes: Tensor  # uint8 [D, B]
    offsets: Tensor  # int32 [D + 1]: the rows of code c are rows[offsets[c]:offsets[c + 1]], ascending
    rows: Tensor  # int32 [N]
    ids: Tensor  # int64 [N], ascending
    hash: Hash = field(default_factory=Hash, compare=False, repr=False)

    @classmethod
    def of(cls, flat: FlatRows) -> DistinctRows:
        """Find the distinct codes of some rows."""
        first, numbers = op.distinct_codes(flat.codes)
        offsets, rows = op.distinct_rows(numbers, len(first))
        return cls(flat.codes[first], offsets, rows, flat.ids.clone())

    @classmethod
    def _renumbered(cls, codes: Tensor, numbers: Tensor, ids: Tensor) -> DistinctRows:
        """Take codes in any order, also some without rows, and the number of each row's code."""
        first, new = op.distinct_codes(numbers.view(torch.uint8).reshape(-1, 4))
        offsets, rows = op.distinct_rows(new, len(first))
        return cls(codes[numbers[first]], offsets, rows, ids)

    @property
    def large(self) -> DistinctRows:
        """The rows, as of `Runs`."""
        return self

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.ids.shape[0]

    @property
    def share(self) -> float:
        """Distinct codes a row; 1 where there are no rows."""
        return self.codes.shape[0] / self.size if self.size else 1.0

    @cached_property
    def _numbers(self) -> Tensor:
        """The number of each row's code, int32 [N]."""
        numbers = torch.empty_like(self.rows)
        each = torch.arange(self.codes.shape[0], dtype=torch.int32, device=numbers.device)
        numbers[self.rows] = each.repeat_interleave(self.offsets.diff(), output_size=self.size)
        return numbers

    @cached_property
    def names(self) -> Tensor | None:
        """What an op turns row numbers into: ids, or None where the ids are the row numbers."""
        return None if self.size == 0 or int(self.ids[-1]) == self.size - 1 else self.ids

    find = FlatRows.find
    precedes = FlatRows.precedes

    def codes_at(self, positions: Tensor) -> Tensor:
        """Return the codes of rows."""
        return self.codes[self._numbers[positions]]

    def flat(self) -> FlatRows:
        """Return the same rows, each with its code."""
        return FlatRows(self.codes[self._numbers], self.ids, self.size)

    def lists(self) -> tuple[Tensor, Tensor]:
        """Return the lists of rows as the ops take them."""
        return self.offsets, self.rows

    def topk(
        self, queries: Tensor, k: int, allowed: Tensor | None, method: str = "auto", out: Found | None = None
    ) -> Found:
        """Return distances and ids [Q, k] of the nearest rows, of those with an id in `allowed` if given.

        They need not be in `out`: where it is given, it may be used.
        """
        if allowed is not None:
            return self._among(allowed, few=queries.shape[0] < _FEW_QUERIES).topk(queries, k, None, "scan", out)
        scan = partial(op.topk, queries, self.codes, k, self.offsets, self.rows, self.names, out)
        return self.hash.topk(self, queries, k, method, scan)

    def range(self, queries: Tensor, radius: int, method: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [Q + 1], distances and ids of all rows within `radius`."""
        radius = min(radius, 8 * self.codes.shape[1])  # the op takes no more than an int64
        scan = partial(op.distinct_range, queries, self.codes, radius, self.offsets, self.rows, self.names)
        return self.hash.range(self, queries, radius, method, scan)

    def _among(self, allowed: Tensor, few: bool) -> DistinctRows | FlatRows:
        positions, found = self.find(allowed)
        kept = torch.zeros(self.size, dtype=torch.bool, device=self.ids.device)
        kept[positions[found]] = True
        positions = kept.nonzero().squeeze(1)
        if few:
            return FlatRows(self.codes_at(positions), self.ids[positions], len(positions))
        return self._renumbered(self.codes, self._numbers[positions], self.ids[positions])

    def takes(self, other: FlatRows | DistinctRows) -> bool:
        """Whether to add rows now: that costs as much as reading all rows, whatever their ids."""
        return self.size <= 2 * other.size

    def merged(self, other: FlatRows | DistinctRows) -> DistinctRows:
        """Return the rows of both, which share no id."""
        known = self.codes.shape[0]
        first, numbers = op.distinct_codes(torch.cat([self.codes, other.codes]))
        codes = torch.cat([self.codes, other.codes[first[known:] - known]])
        numbers = torch.cat([self._numbers, numbers[known:]])
        ids = torch.cat([self.ids, other.ids])
        if self.precedes(other):
            offsets, rows = op.distinct_rows(numbers, len(first))
            return DistinctRows(codes, offsets, rows, ids)
        ids, order = ids.sort()
        return self._renumbered(codes, numbers[order], ids)

    def without(self, positions: Tensor) -> DistinctRows:
        """Return the rows that are not at `positions`."""
        keep = torch.ones(self.size, dtype=torch.bool, device=self.ids.device)
        keep[positions] = False
        return self._renumbered(self.codes, self._numbers[keep], self.ids[keep])

    def to(self, device: str | torch.device) -> DistinctRows:
        """Return the rows on a device."""
        codes, offsets, rows, ids = (part.to(device) for part in (self.codes, self.offsets, self.rows, self.ids))
        return DistinctRows(codes, offsets, rows, ids)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds, by name."""
        return {"codes": self.codes, "offsets": self.offsets, "rows": self.rows, "ids": self.ids}


def mostly_distinct(codes: Tensor, share: float) -> bool:
    """Tell quickly, from a sample, that more than a share of the codes is distinct. False: that is not sure."""
    count = codes.shape[0]
    if count > MAX_ROWS:
        return True
    # Of N rows (1 - share) N repeat an earlier one: so many pairs at least are equal, and a sample of s = 16 sqrt(N)
    # rows holds (1 - share) s^2 / N = 256 (1 - share) of them, give or take the root of that. Four of these are room.
    size = int(16 * count**0.5)
    if 4 * size > count:
        return False
    random = torch.Generator("cpu").manual_seed(count)
    sample = torch.randint(count, (size,), generator=random, device="cpu").unique().to(codes.device)
    expected = 256 * (1 - share)
    repeated = len(sample) - len(op.distinct_codes(codes[sample])[0])
    return repeated < expected * (len(sample) / size) ** 2 - 4 * expected**0.5
