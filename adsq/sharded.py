"""Exact Hamming search over codes that are spread over the processes of a `torch.distributed` group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from adsq._arrays import as_ids, like
from adsq.distributed import check_same, gather_objects
from adsq.index import HammingIndex, Ids

__all__ = ["ShardedHammingIndex"]

Array = TypeVar("Array", Tensor, np.ndarray)

_NO_DISTANCE = 2147483647
_LAST = 2**63 - 1  # sorts after every key
_DISTANCE_BITS = 13  # distances go up to 4096


class _Report(NamedTuple):
    """What each rank tells the others before anything is gathered."""

    error: str | None
    arguments: dict[str, Any]  # that must be the same on all ranks
    found: int
    first_id: int | None


class ShardedHammingIndex:
    """The codes of all processes of a group, each with a `HammingIndex` of its own, searched as one.

    Results are bit for bit those of one index that holds all codes, and the same on every rank. A rank may hold
    any number of codes, also none. Ids must be unique over all ranks: give them when you add, or cut one index by
    `HammingIndex.shard`. Every rank adds to, removes from, saves and loads its own index, `index`.

    `len`, `search` and `range_search` are collective: all ranks call them, in the same order, with the same
    arguments; numpy or torch, on the device of the rank's own index. Where one rank cannot do its part, all raise:
    it its own error, the others RuntimeError with its rank and message. Unlike a `HammingIndex`, one thread at a
    time may use it.

    The group's backend must serve the device of the indexes: gloo the CPU, nccl a GPU.

    Attributes:
        index: The codes of this rank.
        group: The process group; None is the default one.
    """

    def __init__(self, index: HammingIndex, group: dist.ProcessGroup | None = None) -> None:
        """Search the indexes of all ranks of the group as one. Not collective.

        Args:
            index: The codes of this rank.
            group: The processes; by default all.

        Raises:
            RuntimeError: `torch.distributed` has no process group yet.
            TypeError: `index` is no HammingIndex.
            ValueError: This process is not in the group.
        """
        if not isinstance(index, HammingIndex):
            raise TypeError(f"index: expected a HammingIndex, got {type(index).__name__}")
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("torch.distributed has no process group yet: call its init_process_group first")
        self.index, self.group = index, group
        self._rank, self._world_size = dist.get_rank(group), dist.get_world_size(group)
        if self._rank < 0:
            raise ValueError(f"group: expected one with this process in it, rank {dist.get_rank()} is not")

    def __len__(self) -> int:
        reports = self._agree({"call": "len"}, len(self.index), None)
        return sum(report.found for report in reports)

    def __repr__(self) -> str:
        return f"ShardedHammingIndex({self.index}, rank={self._rank}, world_size={self._world_size})"

    def search(
        self,
        queries: Array,
        k: int,
        filter_ids: Ids | None = None,
        method: Literal["auto", "scan", "hash"] = "auto",
    ) -> tuple[Array, Array]:
        """Find the k nearest codes of each query among those of all ranks; arguments and results as in `HammingIndex`.

        Args:
            queries: Packed codes, uint8 [Q, ceil(num_bits / 8)].
            k: Number of neighbours, at least 1; may be larger than all shards together.
            filter_ids: Only these ids are found, int64 [M], each on whichever rank it is.
            method: How each rank searches; need not be the same everywhere.

        Returns:
            Distances int32 [Q, k] in 0..num_bits and ids int64 [Q, k], each row sorted by (distance, id).
            Where there are fewer than k codes, the rest is distance 2147483647 and id -1.

        Raises:
            RuntimeError: Another rank failed.
            TypeError: As in `HammingIndex.search`.
            ValueError: Too, or the ranks' arguments differ, or the smallest id of two ranks is the same, as by default.
        """

        def local() -> tuple[Tensor, Tensor, dict[str, Any]]:
            distances, ids = map(torch.as_tensor, self.index.search(queries, k, filter_ids, method))
            arguments = {"queries": _digest(queries), "k": int(k), "filter_ids": None}
            if filter_ids is not None:
                arguments["filter_ids"] = _digest(as_ids(filter_ids, "filter_ids"))
            found = int((ids >= 0).any(0).sum())  # padding is at the end of each row
            return distances[:, :found].long(), ids[:, :found], arguments

        keys, ids, _ = self._searched("search", local)
        distances = _resized(keys, k, _NO_DISTANCE).clamp_(max=_NO_DISTANCE).int()
        return like(queries, distances), like(queries, _resized(ids, k, -1))

    def range_search(
        self, queries: Array, radius: int, method: Literal["auto", "scan", "hash"] = "auto"
    ) -> tuple[Array, Array, Array]:
        """Find all codes of all ranks within a distance of each query; arguments and results as in `HammingIndex`.

        Args:
            queries: Packed codes, uint8 [Q, ceil(num_bits / 8)].
            radius: Largest distance that is found, in bits, at least 0.
            method: As in `search`.

        Returns:
            Offsets int64 [Q + 1], distances int32 [R] and ids int64 [R]: the neighbours of query i lie in
            offsets[i]..offsets[i + 1], sorted by (distance, id).

        Raises:
            As `search`.
        """

        def local() -> tuple[Tensor, Tensor, dict[str, Any]]:
            offsets, distances, ids = map(torch.as_tensor, self.index.range_search(queries, radius, method))
            numbers = torch.arange(len(queries), device=offsets.device).repeat_interleave(offsets.diff())
            arguments = {"queries": _digest(queries), "radius": int(radius)}
            return numbers << _DISTANCE_BITS | distances, ids, arguments

        keys, ids, found = self._searched("range_search", local)
        keys, ids = keys[:found], ids[:found]  # the rest is padding
        ends = torch.arange(len(queries) + 1, device=keys.device) << _DISTANCE_BITS
        distances = (keys & ((1 << _DISTANCE_BITS) - 1)).int()
        return like(queries, torch.searchsorted(keys, ends)), like(queries, distances), like(queries, ids)

    def _searched(
        self, call: str, local: Callable[[], tuple[Tensor, Tensor, dict[str, Any]]]
    ) -> tuple[Tensor, Tensor, int]:
        """Search on every rank.

        Args:
            call: Name of the method.
            local: Searches this rank, and returns keys to sort by and ids, both int64 [..., n] with any n, and the
                arguments that must be the same on all ranks.

        Returns:
            Keys and ids of all ranks, int64 [..., m], sorted by (key, id), padded by the largest keys; and the sum of
            the ranks' n.
        """
        try:
            keys, ids, arguments = local()
        except Exception as error:
            self._agree({"call": call}, 0, error)
            raise
        reports = self._agree({"call": call, **arguments}, keys.shape[-1], None)
        width = max(report.found for report in reports)
        mine = torch.stack([_resized(keys, width, _LAST), _resized(ids, width, -1)]).to(self.index.device)
        parts = [torch.empty_like(mine) for _ in reports]
        dist.all_gather(parts, mine, group=self.group)
        keys, ids = torch.cat(parts, -1)
        order = ids.argsort(dim=-1)
        order = order.gather(-1, keys.gather(-1, order).argsort(dim=-1, stable=True))
        return keys.gather(-1, order), ids.gather(-1, order), sum(report.found for report in reports)

    def _agree(self, arguments: dict[str, Any], found: int, error: Exception | None) -> list[_Report]:
        """Return the reports of all ranks, or raise on all of them: nobody waits for a rank that has given up."""
        said = None if error is None else f"{type(error).__name__}: {error}"
        arguments = {**arguments, "num_bits": self.index.num_bits}
        mine = _Report(said, arguments, found, self.index._storage.first_id())
        reports = gather_objects(mine, self.group)
        for rank, report in enumerate(reports):
            if report.error is not None and error is None:
                raise RuntimeError(f"rank {rank}: {report.error}")
        if error is not None:
            return reports
        check_same([report.arguments for report in reports])
        # Finding every id that is there twice would take a gather of all; ids by default on every rank show at once.
        holders: dict[int, int] = {}
        for rank, report in enumerate(reports):
            if report.first_id is not None and holders.setdefault(report.first_id, rank) != rank:
                raise ValueError(
                    f"ids: expected unique ones over all ranks, {report.first_id} is on rank "
                    f"{holders[report.first_id]} and on rank {rank}"
                )
        return reports


def _digest(values: Tensor | np.ndarray) -> str:
    """Return shape and checksum, short enough to compare between ranks and to read."""
    array = np.ascontiguousarray(values.cpu().numpy() if isinstance(values, Tensor) else values)
    return f"{list(array.shape)} with SHA-256 {hashlib.sha256(array.data).hexdigest()[:16]}"


def _resized(values: Tensor, width: int, fill: int) -> Tensor:
    """Return a copy with the last dimension cut or filled up."""
    resized = values.new_full((*values.shape[:-1], width), fill)
    count = min(width, values.shape[-1])
    resized[..., :count] = values[..., :count]
    return resized
