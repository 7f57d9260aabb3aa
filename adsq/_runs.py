"""Rows of an index in several runs, which are searched one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from adsq._rows import Found
    from adsq._storage import Rows


@dataclass(frozen=True)
class Runs:
    """A large run and what was added to it since, without an id in common. Never changes, so a search needs no lock."""

    large: Rows
    small: Rows

    def topk(
        self, queries: Tensor, k: int, allowed: Tensor | None, method: str = "auto", out: Found | None = None
    ) -> Found:
        """Return distances and ids [Q, k] of the nearest rows, of those with an id in `allowed` if given."""
        found = [
            self.large.topk(queries, k, allowed, method),
            self.small.topk(queries, min(k, self.small.size), allowed, "scan"),
        ]
        distances, ids = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        order = ids.argsort(dim=1)
        order = order.gather(1, distances.gather(1, order).argsort(dim=1, stable=True))[:, :k]
        return distances.gather(1, order), ids.gather(1, order)

    def range(self, queries: Tensor, radius: int, method: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
        """Return offsets [Q + 1], distances and ids of all rows within `radius`."""
        found = [self.large.range(queries, radius, method), self.small.range(queries, radius, "scan")]
        offsets, distances, ids = zip(*found, strict=True)
        numbers = torch.arange(len(queries), device=queries.device)
        order = torch.cat([numbers.repeat_interleave(ends.diff()) for ends in offsets])
        keys = [torch.cat(ids), torch.cat(distances), order]
        order = keys[0].argsort()
        for key in keys[1:]:
            order = order[key[order].argsort(stable=True)]
        return offsets[0] + offsets[1], keys[1][order], keys[0][order]
