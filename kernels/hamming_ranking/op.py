"""Schemas and fake kernels of the ranking ops. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import _extension
from adsq.kernels.hamming_ranking import reference


@torch.library.custom_op("adsq::hamming_relevance_histogram", mutates_args=())
def hamming_relevance_histogram(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, num_bits: int
) -> tuple[Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B], labels of Q and N items -> total and relevant, int64 [Q, num_bits + 1]."""
    if queries.is_cuda:
        _extension.warn_without_cuda_library()
    return reference.hamming_relevance_histogram(queries, database, query_labels, database_labels, num_bits)


@hamming_relevance_histogram.register_fake
def _(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, num_bits: int
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], num_bits + 1)
    return queries.new_empty(shape, dtype=torch.int64), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("adsq::hamming_average_precision", mutates_args=())
def hamming_average_precision(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, k: int | None, expected: bool
) -> tuple[Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B], labels of Q and N items -> AP float64 [Q], relevant items int64 [Q]."""
    if queries.is_cuda:
        _extension.warn_without_cuda_library()
    ties = "expected" if expected else "index"
    return reference.hamming_average_precision(queries, database, query_labels, database_labels, k=k, ties=ties)


@hamming_average_precision.register_fake
def _(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, k: int | None, expected: bool
) -> tuple[Tensor, Tensor]:
    rows = queries.shape[0]
    return queries.new_empty(rows, dtype=torch.float64), queries.new_empty(rows, dtype=torch.int64)
