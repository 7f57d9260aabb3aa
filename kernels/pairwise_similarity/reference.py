"""Plain PyTorch: the n x m matrices in full and autograd. The oracle of the tests and the baseline of the benchmark."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def pairwise_similarity(
    labels_u: Tensor, labels_v: Tensor, kind: str = "shared", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return S [n, m] of `dtype`, each entry in 0..1 for labels of 0 and 1."""
    if labels_u.dim() == 1:
        return (labels_u.unsqueeze(1) == labels_v).to(dtype)
    rows_u, rows_v = labels_u.to(dtype), labels_v.to(dtype)
    if kind == "cosine":
        return normalize(rows_u, dim=1, eps=1e-12) @ normalize(rows_v, dim=1, eps=1e-12).T
    products = rows_u @ rows_v.T
    return (products > 0).to(dtype) if kind == "shared" else products.clamp(0, 1)


def mean_pairwise_similarity(
    labels_u: Tensor, labels_v: Tensor, kind: str = "shared", column_weights: Tensor | None = None
) -> Tensor:
    """Return the mean of S, column j counted `column_weights[j]` times."""
    similarity = pairwise_similarity(labels_u, labels_v, kind, torch.float64)
    weights = torch.ones_like(similarity[0]) if column_weights is None else column_weights.double()
    return ((similarity @ weights).mean() / weights.sum()).float()


def pairwise_similarity_loss(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    *,
    similarity: str = "shared",
    form: str = "likelihood",
    scale: float | Tensor | None = None,
    bias: float | Tensor = 0.0,
    positive_weight: float | Tensor = 1.0,
    negative_weight: float | Tensor = 1.0,
    column_weights: Tensor | None = None,
    exclude_diagonal: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return the scalar loss in the dtype of `u`."""
    if scale is None:
        scale = 0.5 if form == "likelihood" else 1 / u.shape[1]
    s = pairwise_similarity(labels_u, labels_v, similarity, u.dtype)
    x = scale * (u @ v.T) + bias
    if form == "likelihood":
        # softplus(x) - s x, finite for every x and free of cancellation
        loss = x.clamp(min=0) - s * x + torch.log1p(torch.exp(-x.abs()))
    else:
        loss = (x - (2 * s - 1)) ** 2
    columns = torch.ones_like(s) if column_weights is None else column_weights.to(s).expand_as(s)
    if exclude_diagonal:
        columns = columns - torch.diag(columns.diagonal())
    total = (columns * (positive_weight * s + negative_weight * (1 - s)) * loss).sum()
    if reduction == "sum":
        return total
    count = columns.sum()
    return total / torch.where(count > 0, count, torch.ones_like(count))
