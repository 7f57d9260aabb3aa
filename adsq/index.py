"""Exact Hamming search over packed codes with ids of the caller's choice."""

from __future__ import annotations

import copy
import os
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from adsq import _faiss, _index_file
from adsq._arrays import as_ids, from_numpy, like, out_tensors
from adsq._hash import MAX_BITS, Plan
from adsq._rows import FlatRows
from adsq._storage import Storage, refuse
from adsq.kernels import _checks

__all__ = ["HammingIndex"]

Array = TypeVar("Array", Tensor, np.ndarray)
Ids: TypeAlias = "Tensor | np.ndarray | list[int] | range"


class HammingIndex:
    """Packed codes that are searched by Hamming distance, exactly.

    Results are sorted by (distance, id), so they depend on what is in the index and not on the order of
    the adds, the device or the number of threads. Codes and queries are packed, uint8 [N, ceil(num_bits / 8)]
    (`adsq.kernels.pack_codes`), as torch tensors on the device of the index or as numpy arrays; a numpy
    argument gets numpy results. Ids are int64 and not negative, in a tensor, an array or a list.

    Any number of threads may call any of the methods at the same time, `to` apart: each call sees the
    index as it is before or after each other call, so concurrent searches equal serial ones. A copy by
    `copy.deepcopy` or a pickle holds the codes and ids; tables for faster searches are made again.

    Attributes:
        num_bits: Length of a code, K.
        meta: What JSON can hold, for the caller; `save` and `load` carry it.
    """

    def __init__(self, num_bits: int, distinct: bool | Literal["auto"] = "auto") -> None:
        """Make an empty index on the CPU.

        Args:
            num_bits: Length of a code, 1 to 4096.
            distinct: Whether equal codes are stored and searched once, with a list of their ids: less memory and
                faster searches where codes repeat, as trained ones do, with the same results. "auto" looks at what
                has been added whenever that has doubled, and does so where fewer than 70 % of the codes are distinct
                (on the CPU; on a GPU it never does).

        Raises:
            TypeError, ValueError: An argument is not one of these.
        """
        self.num_bits = _checks.check_num_bits(num_bits)
        if not (isinstance(distinct, bool | np.bool_) or (isinstance(distinct, str) and distinct == "auto")):
            raise (ValueError if isinstance(distinct, str) else TypeError)(
                f"distinct: expected True, False or 'auto', got {distinct!r}"
            )
        self.meta: dict[str, Any] = {}
        width = (self.num_bits + 7) // 8
        no_codes = torch.empty(0, width, dtype=torch.uint8, device="cpu")  # whatever torch's default is
        no_ids = torch.empty(0, dtype=torch.int64, device="cpu")
        self._storage = Storage(FlatRows(no_codes, no_ids, 0), 0, bool(distinct) if distinct != "auto" else distinct)

    def __len__(self) -> int:
        return len(self._storage)

    def __repr__(self) -> str:
        return f"HammingIndex(num_bits={self.num_bits}, len={len(self)}, device={str(self.device)!r})"

    @property
    def device(self) -> torch.device:
        """Where the codes are, and where torch arguments must be."""
        return self._storage.device

    def add(self, codes: Tensor | np.ndarray, ids: Ids | None = None) -> None:
        """Add codes. When anything is refused, nothing is added.

        Ascending ids are the fast case. An index on a mapped file is copied to memory first.

        Args:
            codes: Packed codes, uint8 [N, ceil(num_bits / 8)].
            ids: Their ids, int64 [N]. By default the N numbers after the largest id that the index ever
                had, from 0; an id that was removed is not given again.

        Raises:
            TypeError: A wrong type or dtype.
            ValueError: A wrong shape or device, set pad bits, a negative id, or an id that is there already.
        """
        codes = self._codes(codes, "codes")
        if ids is not None:
            ids = self._ids(ids, "ids")
            if ids.shape[0] != codes.shape[0]:
                raise ValueError(f"ids: expected {codes.shape[0]}, one for each row of codes, got {ids.shape[0]}")
            refuse(ids[ids < 0], "is negative (and -1 is the padding of results)")
        self._storage.add(codes, ids)

    def remove(self, ids: Ids) -> None:
        """Remove the codes with these ids. When an id is unknown, nothing is removed.

        One call rewrites the index, so remove many ids at once. An index on a mapped file is copied to
        memory.

        Args:
            ids: int64 [M], in any order; an id given twice is removed once.

        Raises:
            TypeError: A wrong type or dtype.
            ValueError: A wrong shape, or an id that is not in the index.
        """
        self._storage.remove(self._ids(ids, "ids"))

    def search(
        self,
        queries: Array,
        k: int,
        filter_ids: Ids | None = None,
        method: Literal["auto", "scan", "hash"] = "auto",
        out: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Find the k nearest codes of each query.

        Args:
            queries: Packed codes, uint8 [Q, ceil(num_bits / 8)].
            k: Number of neighbours, at least 1; may be larger than the index.
            filter_ids: Only these ids are found, int64 [M]. Ids that are not in the index are ignored.
            method: "scan" compares each query with all codes; "hash" looks it up in hash tables, which are made at the
                first such search since a change and take several times the memory of the codes; "auto" takes, query by
                query, what should cost less, and makes the tables once it has scanned so often that they would
                have paid. The results are the same. See `explain`.
            out: Distances and ids of earlier searches to be overwritten, or other memory of the same shapes, dtypes and
                kind (numpy or torch) as the results: contiguous, writeable, apart from all else. Where a search returns
                much, new memory costs more than the search.

        Returns:
            Distances int32 [Q, k] in 0..num_bits and ids int64 [Q, k], each row sorted by (distance, id).
            Where there are fewer than k codes, the rest is distance 2147483647 and id -1. With `out`, they are its own.

        Raises:
            TypeError: A wrong type or dtype.
            ValueError: A wrong shape or device, set pad bits, k < 1 or above 2^40, an `out` that cannot be written
                to in place; or "hash" with `filter_ids`, on a GPU, or for codes of more than 256 bits.
        """
        self._check_method(method)
        if method == "hash" and filter_ids is not None:
            raise ValueError("method: 'hash' does not go with filter_ids")
        k = _checks.check_k(k)
        packed = self._codes(queries, "queries")
        allowed = None if filter_ids is None else self._ids(filter_ids, "filter_ids")
        if out is None:
            distances, found = self._storage.searched(packed.shape[0] * k).topk(packed, k, allowed, method)
            return like(queries, distances), like(queries, found)
        device = torch.device("cpu") if isinstance(queries, np.ndarray) else self.device
        places = _checks.check_out(out_tensors(out, queries), (packed.shape[0], k), device, (packed,))
        rows = self._storage.searched(packed.shape[0] * k)
        results = rows.topk(packed, k, allowed, method, places if device == self.device else None)
        for place, result in zip(places, results, strict=True):
            if result is not place:
                place.copy_(result)
        return out[0], out[1]

    def range_search(
        self, queries: Array, radius: int, method: Literal["auto", "scan", "hash"] = "auto"
    ) -> tuple[Array, Array, Array]:
        """Find all codes within a distance of each query.

        Args:
            queries: Packed codes, uint8 [Q, ceil(num_bits / 8)].
            radius: Largest distance that is found, in bits, at least 0.
            method: As in `search`.

        Returns:
            Offsets int64 [Q + 1], distances int32 [R] and ids int64 [R]: the neighbours of query i lie in
            offsets[i]..offsets[i + 1], sorted by (distance, id).

        Raises:
            TypeError: A wrong type or dtype.
            ValueError: A wrong shape or device, set pad bits, a negative radius, or "hash" as in `search`.
        """
        self._check_method(method)
        radius = _checks.check_int(radius, "radius", 0)
        packed = self._codes(queries, "queries")
        offsets, distances, found = self._storage.searched(packed.shape[0]).range(packed, radius, method)
        return like(queries, offsets), like(queries, distances), like(queries, found)

    def explain(self, queries: Tensor | np.ndarray, k: int) -> list[Plan]:
        """Say for each query how `search` with method="auto" goes about it, and why; this costs far less than a scan.

        In one call of many queries of which most end in a scan, `search` saves itself the look into tables for others.

        Args, errors: As in `search`, for all queries of one call.

        Returns:
            A `Plan` a query: method, "hash" or "scan"; reason, in words; hash_cost and scan_cost, in ns, or None.
        """
        k = _checks.check_k(k)
        rows = self._storage.searched(0).large
        return rows.hash.explain(rows, self._codes(queries, "queries"), k)

    def reconstruct(self, ids: Ids) -> Tensor | np.ndarray:
        """Return the codes with these ids.

        Args:
            ids: int64 [M], in any order, repeated or not.

        Returns:
            Packed codes, uint8 [M, ceil(num_bits / 8)], in the order of `ids`; numpy if `ids` is numpy.

        Raises:
            TypeError: A wrong type or dtype.
            ValueError: A wrong shape, or an id that is not in the index.
        """
        wanted = self._ids(ids, "ids")
        rows = self._storage.rows()
        positions, found = rows.find(wanted)
        refuse(wanted[~found], "is not in the index")
        return like(ids, rows.codes_at(positions))

    def to(self, device: str | torch.device) -> HammingIndex:
        """Move the index to a device, in place as in `torch.nn.Module.to`, and return it."""
        self._storage.to(device)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, in place of an older one only when complete (`adsq.files`).

        Raises:
            TypeError: `meta` is not JSON.
            ValueError: `meta` is larger than about 100 MB.
            OSError: The file cannot be written; an older one is as it was.
        """
        rows, next_id = self._storage.snapshot()
        _index_file.write(path, _index_file.Content(self.num_bits, self._storage.distinct, next_id, self.meta, rows))

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = False) -> HammingIndex:
        """Read an index from the file that `save` wrote.

        Args:
            path: The file.
            mmap: Map the file instead of reading it: at once there, shared between processes, paged in by the
                searches, and not limited by the memory. The codes are then not verified. The file must not be
                changed in place; saving over it is safe. `add` and `remove` copy to memory and leave the file alone.

        Returns:
            The index, on the CPU.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: The file is damaged, truncated, or not an index; the message says which.
        """
        content = _index_file.read(path, mmap)
        index = cls(content.num_bits, content.distinct)
        index.meta = content.meta
        index._storage = Storage(content.rows, content.next_id, content.distinct)
        return index

    def shard(self, rank: int, world_size: int) -> HammingIndex:
        """Return the part for one of several processes (`adsq.sharded`): parts are contiguous in ids and equal in size.

        Codes and ids are shared with this index, not copied, until one of the two changes; codes that are stored once
        are copied. New codes need ids of your own: by default every part gives the same.

        Args:
            rank: Which part, 0 to world_size - 1.
            world_size: Number of parts; where it does not divide the codes, some have one more.

        Raises:
            TypeError: An argument is no integer.
            ValueError: An argument is out of range.
        """
        world_size = _checks.check_int(world_size, "world_size", 1)
        rank = _checks.check_int(rank, "rank", 0, world_size - 1)
        rows, next_id = self._storage.snapshot()
        part = slice(rows.size * rank // world_size, rows.size * (rank + 1) // world_size)
        new = HammingIndex(self.num_bits)
        new.meta = copy.deepcopy(self.meta)
        flat = FlatRows(rows.flat().codes[part], rows.ids[part], part.stop - part.start)
        new._storage = Storage(flat, next_id, self._storage.distinct)
        return new

    @classmethod
    def from_faiss(cls, index: Any, num_bits: int | None = None) -> HammingIndex:
        """Copy the codes and ids of a flat binary index of FAISS. The bits are the same; the order of results is ours.

        Args:
            index: A `faiss.IndexBinaryFlat`, whose row numbers become the ids, or a `faiss.IndexBinaryIDMap` (or
                IDMap2) over one, which has ids.
            num_bits: Length of a code, at most FAISS's d and more than d - 8. By default d, which FAISS has in
                multiples of 8 only.

        Returns:
            The index, on the CPU.

        Raises:
            ImportError: FAISS is not installed (`pip install faiss-cpu`).
            TypeError: `index` is anything else.
            ValueError: An id is negative or there twice, `num_bits` does not fit, or bits from num_bits on are set.
        """
        codes, ids = _faiss.read(index)
        width = codes.shape[1]
        new = cls(8 * width if num_bits is None else num_bits)
        if (new.num_bits + 7) // 8 != width:
            raise ValueError(f"num_bits: expected {8 * width - 7} to {8 * width} for d = {8 * width}, got {num_bits}")
        new.add(codes, ids)
        return new

    def to_faiss(self) -> Any:
        """Copy the codes and ids to a flat binary index of FAISS. `meta` and removed ids are not kept.

        Returns:
            A `faiss.IndexBinaryFlat` if the ids are 0 to N - 1, else a `faiss.IndexBinaryIDMap` over one, which it
            owns. Its d is num_bits, rounded up to a multiple of 8: pad bits are zero, so the distances are the same.

        Raises:
            ImportError: FAISS is not installed (`pip install faiss-cpu`).
        """
        rows = self._storage.rows().flat()
        return _faiss.write(rows.codes.cpu().numpy(), rows.ids.cpu().numpy())

    def _codes(self, codes: Tensor | np.ndarray, name: str) -> Tensor:
        if isinstance(codes, np.ndarray):
            if codes.dtype != np.uint8:
                raise TypeError(f"{name}: expected packed codes of dtype uint8, got {codes.dtype}")
            codes = from_numpy(codes, name).to(self.device)
        elif not isinstance(codes, Tensor):
            raise TypeError(f"{name}: expected packed codes in a tensor or a numpy array, got {type(codes).__name__}")
        _checks.check_packed(codes, name, self.num_bits)
        if codes.device != self.device:
            raise ValueError(f"{name}: expected the device of the index, {self.device}, got {codes.device}")
        _checks.check_pad_bits(codes, name, self.num_bits)
        return codes

    def _ids(self, ids: object, name: str) -> Tensor:
        """Check ids and move them to the device: they are small, and often come from elsewhere."""
        return as_ids(ids, name).to(self.device).contiguous()

    def _check_method(self, method: str) -> None:
        _checks.check_choice(method, "method", ("auto", "scan", "hash"))
        if method == "hash" and (self.num_bits > MAX_BITS or self.device.type != "cpu"):
            which = f"{self.num_bits} bits on {self.device}"
            raise ValueError(f"method: 'hash' expects codes of up to {MAX_BITS} bits on the CPU, got {which}")
