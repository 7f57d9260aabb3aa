"""Distinct codes in plain PyTorch: the oracle of tests, and the path without native code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adsq.kernels.hamming_topk.reference import BLOCK, NO_DISTANCE, NO_INDEX, blocks, hamming_range, hamming_topk

# A row's place in the order is (query, distance) << ROW_BITS | row: room for 2^31 rows and 2^19 queries at a time.
ROW_BITS = 31
MAX_DISTANCE = 4096


def distinct_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row of each distinct code, int64 [D], and the number of each row's code, int32 [N]."""
    if codes.shape[0] == 0:
        return codes.new_empty(0, dtype=torch.int64), codes.new_empty(0, dtype=torch.int32)
    unique, sorted_numbers = torch.unique(codes, dim=0, return_inverse=True)
    rows = torch.arange(codes.shape[0], device=codes.device)
    first = torch.full((unique.shape[0],), codes.shape[0], device=codes.device)
    first, order = first.scatter_reduce_(0, sorted_numbers, rows, "amin").sort()
    numbers = torch.empty_like(order, dtype=torch.int32)
    numbers[order] = torch.arange(len(order), dtype=torch.int32, device=codes.device)
    return first, numbers[sorted_numbers]


def distinct_rows(numbers: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Return the rows by their code: offsets int32 [num_codes + 1] into rows, int32 [N], ascending for each code."""
    offsets = numbers.new_zeros(num_codes + 1)
    offsets[1:] = torch.bincount(numbers, minlength=num_codes).cumsum(0)
    return offsets, numbers.sort(stable=True).indices.to(torch.int32)


def distinct_topk(
    queries: Tensor,
    codes: Tensor,
    k: int,
    offsets: Tensor,
    rows: Tensor,
    ids: Tensor | None = None,
    *,
    search: Callable[..., tuple[Tensor, Tensor]] = hamming_topk,
) -> tuple[Tensor, Tensor]:
    """Return the k nearest rows by (distance, row): distances int32 [Q, k] and rows or their ids int64 [Q, k]."""
    distances, indices = search(queries, codes, max(1, min(k, codes.shape[0])), mask=None)
    found_distances = distances.new_full((queries.shape[0], k), NO_DISTANCE)
    found = indices.new_full((queries.shape[0], k), NO_INDEX)
    if codes.shape[0] == 0:
        return found_distances, found
    counts = offsets.diff()[indices].clamp(max=k)
    largest = max(1, int(counts.sum(dim=1).max()) if counts.numel() else 1)
    for part, some in blocks(counts, min(1 << 16, max(1, BLOCK // largest))):
        query, distance, row = _expand(some, distances[part], indices[part], offsets, rows)
        place = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        kept = place < k
        query, place = query[kept] + part.start, place[kept]
        found_distances[query, place], found[query, place] = distance[kept], _ids_of(row[kept], ids)
    return found_distances, found


def distinct_range(
    queries: Tensor,
    codes: Tensor,
    radius: int,
    offsets: Tensor,
    rows: Tensor,
    ids: Tensor | None = None,
    *,
    search: Callable[..., tuple[Tensor, Tensor, Tensor]] = hamming_range,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return all rows within a radius by (distance, row): offsets int64 [Q + 1], int32 and int64 [total]."""
    begins, distances, indices = search(queries, codes, radius)
    found_offsets = torch.zeros_like(begins)
    found = [(distances[:0], indices[:0])]
    for query in range(queries.shape[0]):
        some = slice(int(begins[query]), int(begins[query + 1]))
        counts = offsets.diff()[indices[some]]
        _, distance, row = _expand(counts[None], distances[None, some], indices[None, some], offsets, rows)
        found_offsets[query + 1] = found_offsets[query] + len(row)
        found.append((distance, _ids_of(row, ids)))
    found_distances, found_rows = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    return found_offsets, found_distances, found_rows


def _expand(
    counts: Tensor, distances: Tensor, indices: Tensor, offsets: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (query, distance, row) of the first `counts` rows of each code, all [Q, codes], in ascending order."""
    counts = counts.long()
    queries = torch.arange(counts.shape[0], device=counts.device)[:, None].expand_as(counts)
    each = counts.reshape(-1)
    starts = offsets[indices.reshape(-1)].long() - (each.cumsum(0) - each)
    places = starts.repeat_interleave(each) + torch.arange(int(each.sum()), device=counts.device)
    groups = (queries * (MAX_DISTANCE + 1) + distances).reshape(-1).repeat_interleave(each)
    keys = (groups << ROW_BITS | rows[places]).sort().values
    groups = keys >> ROW_BITS
    return groups // (MAX_DISTANCE + 1), (groups % (MAX_DISTANCE + 1)).int(), keys & ((1 << ROW_BITS) - 1)


def _ids_of(rows: Tensor, ids: Tensor | None) -> Tensor:
    return rows if ids is None else ids[rows]
