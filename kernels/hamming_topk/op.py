"""Schemas and fake kernels of the search ops. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels.hamming_topk import reference


@torch.library.custom_op("adsq::hamming_topk", mutates_args=())
def hamming_topk(queries: Tensor, database: Tensor, k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B], bool [N] -> distances int32 [Q, k], indices int64 [Q, k]."""
    return reference.hamming_topk(queries, database, k, mask=mask)


@hamming_topk.register_fake
def _(queries: Tensor, database: Tensor, k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("adsq::hamming_range", mutates_args=())
def hamming_range(queries: Tensor, database: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B] -> offsets int64 [Q + 1], distances int32 [total], indices int64 [total]."""
    return reference.hamming_range(queries, database, radius)


@hamming_range.register_fake
def _(queries: Tensor, database: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return (
        queries.new_empty(queries.shape[0] + 1, dtype=torch.int64),
        queries.new_empty(total, dtype=torch.int32),
        queries.new_empty(total, dtype=torch.int64),
    )
