"""Plain PyTorch Hamming search: the oracle of tests, the baseline of the benchmark, and the path without native code.

For codes a and b of +1 and -1 the distance is (K - a.b) / 2: a block of distances is one matrix product. The database
passes by in blocks, and only the neighbours found so far are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adsq.kernels.codes.reference import unpack_codes

# Distances held at a time (or the k neighbours of one query, where they are more), and bits unpacked at a time.
BLOCK = 1 << 20
# Enough queries a block to pay for unpacking the database once more.
QUERIES = 64
# A pair's place in the order is distance << INDEX_BITS | index: room for 2^40 codes and any distance up to 4096.
INDEX_BITS = 40
NO_INDEX = -1
NO_DISTANCE = torch.iinfo(torch.int32).max


def hamming_topk(queries: Tensor, database: Tensor, k: int, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the k nearest codes of each query, ordered by (distance, index): int32 [Q, k] and int64 [Q, k]."""
    allowed = None if mask is None else mask.nonzero().squeeze(1)
    candidates = database if allowed is None else database[allowed]
    found = min(k, candidates.shape[0])
    distances = queries.new_full((queries.shape[0], k), NO_DISTANCE, dtype=torch.int32)
    indices = queries.new_full((queries.shape[0], k), NO_INDEX, dtype=torch.int64)
    queries_a_block, codes_a_block = block_sizes(queries.shape[0], found)
    for rows, block in blocks(queries, queries_a_block):
        best = queries.new_empty((block.shape[0], 0), dtype=torch.int64)
        for columns, codes_block in blocks(candidates, codes_a_block):
            places = torch.arange(columns.start, columns.stop, device=database.device)
            keys = hamming_distance(block, codes_block).to(torch.int64) << INDEX_BITS | places
            keys = torch.cat((best, keys), dim=1)
            best = keys.topk(min(found, keys.shape[1]), dim=1, largest=False).values
        places = best & ((1 << INDEX_BITS) - 1)
        distances[rows, :found] = (best >> INDEX_BITS).to(torch.int32)
        indices[rows, :found] = places if allowed is None else allowed[places]
    return distances, indices


def hamming_range(queries: Tensor, database: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return all codes with distance <= radius by (distance, index): int64 [Q + 1], int32 and int64 [total]."""
    counts = queries.new_zeros(queries.shape[0] + 1, dtype=torch.int64)
    found = [(queries.new_empty(0, dtype=torch.int32), queries.new_empty(0, dtype=torch.int64))]
    queries_a_block, codes_a_block = block_sizes(queries.shape[0], 1)
    for rows, block in blocks(queries, queries_a_block):
        hits = [_hits(block, part, radius, columns.start) for columns, part in blocks(database, codes_a_block)]
        if hits:
            row, distance, index = (torch.cat(pieces) for pieces in zip(*hits, strict=True))
            counts[1:][rows] = row.bincount(minlength=block.shape[0])
            # Indices ascend within each (query, distance) already, and a stable sort leaves them so.
            order = (row * (8 * queries.shape[1] + 1) + distance).sort(stable=True).indices
            found.append((distance[order], index[order]))
    distances, indices = (torch.cat(pieces) for pieces in zip(*found, strict=True))
    return counts.cumsum(0), distances, indices


def _hits(queries: Tensor, database: Tensor, radius: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
    distances = hamming_distance(queries, database)
    row, column = (distances <= radius).nonzero(as_tuple=True)
    return row, distances[row, column], column + first


def hamming_distance(queries: Tensor, database: Tensor, num_bits: int | None = None) -> Tensor:
    """Return the distances of a block, int32 [Q, N], over the first `num_bits` bits (all by default)."""
    width = 8 * queries.shape[1] if num_bits is None else num_bits
    distances = queries.new_empty((queries.shape[0], database.shape[0]), dtype=torch.int32)
    codes = unpack_codes(queries, width)
    # Sums of up to 4096 products of +-1 are exact in float32, also where tf32 or bf16 multiplies them; autocast would
    # round the sums themselves.
    with torch.autocast(queries.device.type, enabled=False):
        for columns, part in blocks(database, max(1, BLOCK // width)):
            distances[:, columns] = (width - codes @ unpack_codes(part, width).T) / 2
    return distances


def block_sizes(num_queries: int, k: int) -> tuple[int, int]:
    """Return how many queries and codes a block has. At least k codes, so that merging stays linear in N."""
    codes = max(k, BLOCK // max(1, min(num_queries, QUERIES)), 1)
    return max(1, BLOCK // codes), codes


def blocks(rows: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice, rows of the slice) for blocks of at most `size` rows, in order."""
    for first in range(0, rows.shape[0], size):
        part = rows[first : first + size]
        yield slice(first, first + part.shape[0]), part
