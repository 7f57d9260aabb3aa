"""Measures of the first places of a ranking: precision, nDCG, weighted AP, and how many are relevant there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adsq.kernels import hamming_topk, pairwise_similarity

# Entries of a block of queries x database items that numbers of shared labels are looked up in.
BLOCK = 1 << 22


@dataclass(frozen=True)
class Data:
    """Packed codes and labels of queries and database, as `evaluate` takes them, checked."""

    query_codes: Tensor
    database_codes: Tensor
    query_labels: Tensor
    database_labels: Tensor

    def queries(self, rows: slice | Tensor) -> Data:
        """Return the same database with some of the queries."""
        return Data(self.query_codes[rows], self.database_codes, self.query_labels[rows], self.database_labels)

    def shared(self) -> Tensor:
        """Return how many labels each query shares with each item, float32 [Q, N]."""
        if self.query_labels.dim() == 1:
            return pairwise_similarity(self.query_labels, self.database_labels)
        return (self.query_labels > 0).float() @ (self.database_labels > 0).float().T

    def ranked(self, depth: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the queries in blocks; ties of the ranking by index.

        Yields:
            How many labels a query shares with the items it ranks first, float64 [q, depth], and with all items,
            float32 [q, N].
        """
        step = max(1, BLOCK // len(self.database_codes))
        for first in range(0, len(self.query_codes), step):
            block = self.queries(slice(first, first + step))
            _, order = hamming_topk(block.query_codes, block.database_codes, depth)
            shared = block.shared()
            yield shared.gather(1, order).double(), shared


def relevant_among_first(data: Data, k: int) -> Tensor:
    """Return how many of the first k items of each query's ranking are relevant, int64 [Q]; ties by index."""
    depth = min(k, len(data.database_codes))
    if not depth or not len(data.query_codes):
        return torch.zeros(len(data.query_codes), dtype=torch.int64, device=data.query_codes.device)
    return torch.cat([(ranked > 0).sum(dim=1) for ranked, _ in data.ranked(depth)])


def precision_and_ndcg(
    data: Data, sizes: list[int], curve: list[int], gain: str
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """Return precision at sizes, nDCG at sizes, and precision at the places of a curve: means over queries."""
    depth = max([*sizes, *curve], default=0)
    if not depth:
        return {}, {}, {}
    places = torch.arange(1, depth + 1, dtype=torch.float64, device=data.query_codes.device)
    precision, ndcg = torch.zeros_like(places), torch.zeros_like(places)
    for ranked, shared in data.ranked(depth):
        precision += ((ranked > 0).cumsum(dim=1) / places).sum(dim=0)
        ideal = shared.topk(depth, dim=1).values.double()
        gains = ranked, ideal
        if gain == "exponential":  # over the power of two that the best has, which changes no bit, and no sum overflows
            most = ideal[:, :1]
            gains = (ranked - most).exp2() - (-most).exp2(), (ideal - most).exp2() - (-most).exp2()
        gained, possible = ((values / torch.log2(places + 1)).cumsum(dim=1) for values in gains)
        ndcg += (gained / possible).sum(dim=0)
    precision, ndcg = precision / len(data.query_codes), ndcg / len(data.query_codes)
    at = [{n: float(means[n - 1]) for n in ns} for means, ns in ((precision, sizes), (ndcg, sizes), (precision, curve))]
    return at[0], at[1], at[2]


def weighted_average_precision(data: Data, k: int | None, denominators: Tensor) -> Tensor:
    """Return weighted AP of each query, float64 [Q]: docs/method.md, "Retrieval measures".

    Args:
        data: Codes and labels.
        k: Ranks that count; None: all.
        denominators: What each query's sum is divided by, at least 1, int64 [Q].
    """
    depth = len(data.database_codes) if k is None else min(k, len(data.database_codes))
    places = torch.arange(1, depth + 1, dtype=torch.float64, device=data.query_codes.device)
    sums = [((ranked > 0) * ranked.cumsum(dim=1) / places).sum(dim=1) for ranked, _ in data.ranked(depth)]
    return torch.cat(sums) / denominators
