"""Schemas and fake kernels of distinct codes. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels._ops import plain_op
from adsq.kernels.distinct_codes import reference
from adsq.kernels.hamming_topk import op as search


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
    queries: Tensor, codes: Tensor, k: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """uint8 [Q, B], distinct codes [D, B], lists of their rows -> distances int32 [Q, k], rows or ids int64 [Q, k]."""
    return reference.distinct_topk(queries, codes, k, offsets, rows, ids, search=search.hamming_topk)


@torch.library.register_fake("adsq::distinct_topk")
def _(
    queries: Tensor, codes: Tensor, k: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("adsq::distinct_topk_out", mutates_args=("distances", "found"))
def distinct_topk_out(
    queries: Tensor, codes: Tensor, offsets: Tensor, rows: Tensor, ids: Tensor | None, distances: Tensor, found: Tensor
) -> None:
    """As `distinct_topk`, into int32 [Q, k] and int64 [Q, k]."""
    results = distinct_topk(queries, codes, distances.shape[1], offsets, rows, ids)
    distances.copy_(results[0])
    found.copy_(results[1])


def topk(
    queries: Tensor,
    codes: Tensor,
    k: int,
    offsets: Tensor,
    rows: Tensor,
    ids: Tensor | None,
    out: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Search into `out` if it is given, else into new tensors."""
    if out is None:
        return distinct_topk(queries, codes, k, offsets, rows, ids)
    distinct_topk_out(queries, codes, offsets, rows, ids, *out)
    return out


@plain_op("adsq::distinct_range")
def distinct_range(
    queries: Tensor, codes: Tensor, radius: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As above -> offsets int64 [Q + 1], distances int32 [total], rows (or ids) int64 [total]."""
    return reference.distinct_range(queries, codes, radius, offsets, rows, ids, search=search.hamming_range)


@torch.library.register_fake("adsq::distinct_range")
def _(
    queries: Tensor, codes: Tensor, radius: int, offsets: Tensor, rows: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return (
        queries.new_empty(queries.shape[0] + 1, dtype=torch.int64),
        queries.new_empty(total, dtype=torch.int32),
        queries.new_empty(total, dtype=torch.int64),
    )
