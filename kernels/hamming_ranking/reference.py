"""Plain PyTorch ranking measures: the oracle of tests, the baseline of the benchmark, and the path without native code.

A Hamming distance is a small integer, so no ranking is ever stored: how many items, and how many relevant ones, lie at
each distance tells where each distance starts in the ranking, and running counts give the place within it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adsq.kernels.hamming_topk import reference as search

# Harmonic numbers up to here are summed, beyond it an expansion is exact to float64.
TABLE = 32


def hamming_relevance_histogram(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, num_bits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Count all and the relevant codes at each distance of each query: int64 [Q, K + 1] twice."""
    num_bits = 8 * queries.shape[1] if num_bits is None else num_bits
    total = queries.new_zeros((queries.shape[0], num_bits + 1), dtype=torch.int64)
    relevant = torch.zeros_like(total)
    queries_a_block, _ = search.block_sizes(queries.shape[0], 1)
    for rows, block in search.blocks(queries, queries_a_block):
        for distances, shares in _scan(block, database, query_labels[rows], database_labels, num_bits):
            counts = _count(distances, shares, num_bits)
            total[rows] += counts[0]
            relevant[rows] += counts[1]
    return total, relevant


def hamming_average_precision(
    queries: Tensor,
    database: Tensor,
    query_labels: Tensor,
    database_labels: Tensor,
    *,
    k: int | None = None,
    ties: str = "index",
) -> tuple[Tensor, Tensor]:
    """Return each query's average precision, float64 [Q], and number of relevant codes in the database, int64 [Q]."""
    k = database.shape[0] if k is None else k
    precision_sums = queries.new_zeros(queries.shape[0], dtype=torch.float64)
    num_relevant = queries.new_zeros(queries.shape[0], dtype=torch.int64)
    queries_a_block, _ = search.block_sizes(queries.shape[0], 1)
    for rows, block in search.blocks(queries, queries_a_block):
        scan = block, database, query_labels[rows], database_labels
        total, relevant = hamming_relevance_histogram(*scan)
        num_relevant[rows] = relevant.sum(dim=1)
        if ties == "expected":
            precision_sums[rows] = expected_precision_sum(total, relevant, k)
        else:
            precision_sums[rows] = _precision_sum(*scan, total, relevant, k)
    return precision_sums / num_relevant.clamp(min=1), num_relevant


def _precision_sum(
    queries: Tensor,
    database: Tensor,
    query_labels: Tensor,
    database_labels: Tensor,
    total: Tensor,
    relevant: Tensor,
    k: int,
) -> Tensor:
    """Sum the precision at the rank of each relevant code among the first k by (distance, index): float64 [Q]."""
    num_bits = 8 * queries.shape[1]
    sums = queries.new_zeros(queries.shape[0], dtype=torch.float64)
    # How many (relevant) codes rank before the next code at each distance.
    before, relevant_before = _exclusive_sum(total), _exclusive_sum(relevant)
    for distances, shares in _scan(queries, database, query_labels, database_labels, num_bits):
        counts, relevant_counts = _count(distances, shares, num_bits)
        distances, order = distances.sort(dim=1, stable=True)
        distances = distances.long()
        shares = shares.gather(1, order)
        # Codes of smaller distance within the block are part of `before` already.
        place = torch.arange(1, distances.shape[1] + 1, device=distances.device)
        rank = place + (before - _exclusive_sum(counts)).gather(1, distances)
        hits = shares.cumsum(1) + (relevant_before - _exclusive_sum(relevant_counts)).gather(1, distances)
        sums += (hits.double() / rank).masked_fill_(~shares | (rank > k), 0).sum(dim=1)
        before += counts
        relevant_before += relevant_counts
    return sums


def expected_precision_sum(total: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Return what `_precision_sum` is on average over all orders within the distances, from counts [Q, K + 1]."""
    before, relevant_before = _exclusive_sum(total).double(), _exclusive_sum(relevant).double()
    total, relevant = total.double(), relevant.double()
    taken = (k - before).clamp(min=0).minimum(total)
    slope = (relevant - 1) / (total - 1).clamp(min=1)
    harmonic = _harmonic_difference(before, before + taken)
    linear = taken - (before + 1) * harmonic  # the sum of (j - 1) / (before + j) for j = 1..taken
    expected = relevant / total.clamp(min=1) * ((relevant_before + 1) * harmonic + slope * linear)
    return expected.sum(dim=1)


def _harmonic_difference(low: Tensor, high: Tensor) -> Tensor:
    """Return 1 / (low + 1) + ... + 1 / high for whole float64 numbers, precise also where high is near low."""
    numbers = torch.arange(1, TABLE + 1, dtype=torch.float64, device=low.device)
    table = torch.cat((numbers.new_zeros(1), (1 / numbers).cumsum(0)))
    summed = table[high.clamp(max=TABLE).long()] - table[low.clamp(max=TABLE).long()]
    low, high = low.clamp(min=TABLE) + 0.5, high.clamp(min=TABLE) + 0.5
    return summed + torch.log1p((high - low) / low) + (_harmonic_rest(high) - _harmonic_rest(low))


def _harmonic_rest(x: Tensor) -> Tensor:
    """Return H(x - 1/2) - log(x) - Euler's constant, to float64 for x > TABLE."""
    y = 1 / x.square()
    return y * (1 / 24 - y * (7 / 960 - y * (31 / 8064 - y * (127 / 30720))))


def _scan(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, num_bits: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (distances int32, relevant bool), both [Q, block], for blocks of the database in order."""
    _, codes_a_block = search.block_sizes(queries.shape[0], 1)
    for columns, block in search.blocks(database, codes_a_block):
        distances = search.hamming_distance(queries, block, num_bits)
        yield distances, shared_labels(query_labels, database_labels[columns]) > 0


def shared_labels(query_labels: Tensor, database_labels: Tensor) -> Tensor:
    """Count the labels that a query and an item of a block share: int32 [Q, N]; for class ids 1 or 0."""
    if query_labels.dim() == 1:
        return (query_labels.unsqueeze(1) == database_labels).int()
    shared = query_labels.new_empty((query_labels.shape[0], database_labels.shape[0]), dtype=torch.int32)
    present = (query_labels > 0).float()
    with torch.autocast(present.device.type, enabled=False):  # it would round counts beyond 256
        for columns, part in search.blocks(database_labels, max(1, search.BLOCK // max(1, present.shape[1]))):
            shared[:, columns] = (present @ (part > 0).float().T).int()
    return shared


def _count(distances: Tensor, shares: Tensor, num_bits: int) -> tuple[Tensor, Tensor]:
    """Count all and the relevant codes of a block at each distance: int64 [Q, num_bits + 1] twice."""
    rows = torch.arange(distances.shape[0], dtype=torch.int32, device=distances.device).unsqueeze(1)
    cells = ((rows * (num_bits + 1) + distances) * 2 + shares).flatten()
    counts = cells.bincount(minlength=2 * (num_bits + 1) * distances.shape[0]).view(-1, num_bits + 1, 2)
    return counts.sum(dim=2), counts[..., 1]


def _exclusive_sum(counts: Tensor) -> Tensor:
    return counts.cumsum(1) - counts
