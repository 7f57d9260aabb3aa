"""Schemas and fake kernels of distinct codes. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels._ops import plain_op
from adsq.kernels.distinct_codes import reference


@plain_op("adsq::distinct_codes")
def distinct_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 [N, B] -> first row of each code int64 [D], number of each row's code int32 [N]."""
    return reference.distinct_codes(codes)


@torch.library.register_fake("adsq::distinct_codes")
def _(codes: Tensor) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return codes.new_empty(count, dtype=torch.int64), codes.new_empty(codes.shape[0], dtype=torch.int32)


@plain_op("adsq::distinct_rows")
def distinct_rows(numbers: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """int32 [N] -> offsets int32 [num_codes + 1], rows by code int32 [N]."""
    return reference.distinct_rows(numbers, num_codes)


@torch.library.register_fake("adsq::distinct_rows")
def _(numbers: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    return numbers.new_empty(num_codes + 1), numbers.new_empty(numbers.shape[0])


@plain_op("adsq::distinct_topk")
def distinct_topk(
    distances: Tensor, indices: Tensor, k: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes found, int32 and int64 [Q, c], lists of their rows -> int32 [Q, k], rows or their ids int64 [Q, k]."""
    return reference.distinct_topk(distances, indices, k, offsets, rows, ids)


@torch.library.register_fake("adsq::distinct_topk")
def _(
    distances: Tensor, indices: Tensor, k: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return distances.new_empty(distances.shape[0], k), indices.new_empty(distances.shape[0], k)


@plain_op("adsq::distinct_range")
def distinct_range(
    query_offsets: Tensor, distances: Tensor, indices: Tensor, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes found, int64 [Q + 1], int32 and int64 [total], and their rows -> the same of all rows (or their ids)."""
    return reference.distinct_range(query_offsets, distances, indices, offsets, rows, ids)


@torch.library.register_fake("adsq::distinct_range")
def _(
    query_offsets: Tensor, distances: Tensor, indices: Tensor, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return torch.empty_like(query_offsets), distances.new_empty(total), indices.new_empty(total)
