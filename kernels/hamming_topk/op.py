"""Schemas and fake kernels of the search ops. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import _extension
from adsq.kernels._ops import plain_op
from adsq.kernels.hamming_topk import reference


@plain_op("adsq::hamming_topk")
def hamming_topk(
    queries: Tensor, database: Tensor, k: int, mask: Tensor | None, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B], bool [N], int64 [N] -> distances int32 [Q, k], indices or their ids int64 [Q, k]."""
    if queries.is_cuda:
        _extension.warn_without_cuda_library()
    distances, indices = reference.hamming_topk(queries, database, k, mask=mask)
    return distances, indices if ids is None else _ids_of(indices, ids)


@torch.library.register_fake("adsq::hamming_topk")
def _(
    queries: Tensor, database: Tensor, k: int, mask: Tensor | None, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("adsq::hamming_topk_out", mutates_args=("distances", "indices"))
def hamming_topk_out(
    queries: Tensor, database: Tensor, mask: Tensor | None, ids: Tensor | None, distances: Tensor, indices: Tensor
) -> None:
    """As `hamming_topk`, into int32 [Q, k] and int64 [Q, k]."""
    found = hamming_topk(queries, database, distances.shape[1], mask, ids)
    distances.copy_(found[0])
    indices.copy_(found[1])


def topk(
    queries: Tensor,
    database: Tensor,
    k: int,
    mask: Tensor | None,
    ids: Tensor | None,
    out: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Search into `out` if it is given, else into new tensors."""
    if out is None:
        return hamming_topk(queries, database, k, mask, ids)
    hamming_topk_out(queries, database, mask, ids, *out)
    return out


@plain_op("adsq::hamming_range")
def hamming_range(
    queries: Tensor, database: Tensor, radius: int, ids: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 [Q, B], uint8 [N, B] -> offsets int64 [Q + 1], distances int32 [total], indices (or ids) int64 [total]."""
    if queries.is_cuda:
        _extension.warn_without_cuda_library()
    offsets, distances, indices = reference.hamming_range(queries, database, radius)
    return offsets, distances, indices if ids is None else _ids_of(indices, ids)


@torch.library.register_fake("adsq::hamming_range")
def _(queries: Tensor, database: Tensor, radius: int, ids: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return (
        queries.new_empty(queries.shape[0] + 1, dtype=torch.int64),
        queries.new_empty(total, dtype=torch.int32),
        queries.new_empty(total, dtype=torch.int64),
    )


def _ids_of(indices: Tensor, ids: Tensor) -> Tensor:
    """Return ids[indices], and -1 where there is no index."""
    if ids.shape[0] == 0:
        return indices
    return ids[indices.clamp(min=0)].masked_fill_(indices < 0, reference.NO_INDEX)
