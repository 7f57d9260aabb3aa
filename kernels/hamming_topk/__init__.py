"""Exact search by Hamming distance. See README.md in this folder for the order, the padding and the cost."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import _checks
from adsq.kernels.hamming_topk import op

__all__ = ["hamming_range", "hamming_topk"]


def hamming_topk(
    queries: Tensor,
    database: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the k nearest database codes of each query, exactly.

    Neighbours are ordered by (distance, index), so ties go to the lower index, on every device. There is no cap on k:
    k = N is the full ranking. See docs/method.md, "Codes".

    Args:
        queries: Packed codes, uint8 [Q, B], see `pack_codes`. Pad bits are zero.
        database: Packed codes, uint8 [N, B], on the device of `queries`.
        k: Neighbours a query, at least 1.
        mask: bool [N]: only codes whose entry is True are returned. None allows all.
        out: Tensors that the results are written to, contiguous and apart from all others in memory: distances int32
            [Q, k] and indices int64 [Q, k]. Where a search returns much, new memory costs more than the search.

    Returns:
        The tensors of `out`, or new ones:
        distances: int32 [Q, k], in bits; 2147483647 where fewer than k codes exist or are allowed.
        indices: int64 [Q, k], rows of `database`; -1 in those places.

    Raises:
        TypeError: A code is not uint8, `mask` is not bool, `k` is no integer, or `out` has other dtypes.
        ValueError: Shapes or devices do not fit, k < 1 or above 2^40, or `out` cannot be written to in place.
    """
    _checks.check_packed_pair(queries, database)
    k = _checks.check_k(k)
    if mask is not None:
        _check_mask(mask, database)
    if out is not None:
        out = _checks.check_out(out, (queries.shape[0], k), queries.device, (queries, database, mask))
    return op.topk(queries, database, k, mask, None, out)


def hamming_range(queries: Tensor, database: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find all database codes within a Hamming radius of each query.

    The neighbours of query i are distances[offsets[i]:offsets[i + 1]], and indices likewise, ordered by
    (distance, index). See docs/method.md, "Codes".

    Args:
        queries: Packed codes, uint8 [Q, B], see `pack_codes`. Pad bits are zero.
        database: Packed codes, uint8 [N, B], on the device of `queries`.
        radius: Largest distance returned, in bits, at least 0. One beyond the code's length returns everything.

    Returns:
        offsets: int64 [Q + 1], from 0 to the total number of neighbours.
        distances: int32 [total], in bits.
        indices: int64 [total], rows of `database`.

    Raises:
        TypeError: A code is not uint8, or `radius` is no integer.
        ValueError: Shapes or devices do not fit, or radius < 0.
    """
    _checks.check_packed_pair(queries, database)
    radius = _checks.check_int(radius, "radius", 0)
    return op.hamming_range(queries, database, min(radius, 8 * queries.shape[1]))


def _check_mask(mask: Tensor, database: Tensor) -> None:
    _checks.check_tensor(mask, "mask")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected dtype torch.bool, got {mask.dtype}")
    if mask.shape != database.shape[:1]:
        raise ValueError(
            f"mask: expected shape [{database.shape[0]}], one entry a database code, got {list(mask.shape)}"
        )
    _checks.check_same(mask, "mask", database, "database", dtype=False)
