"""Schemas, fake kernels and autograd. The functions here run where no native kernel is registered.

They walk over blocks of rows, so that no n x m matrix is held, and take the gradients in the same pass as the loss:
backward only multiplies them by the gradient that comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from adsq.kernels import _extension
from adsq.kernels.pairwise_similarity import reference

# Entries of a block of rows x columns, 8 MB in float32: what bounds the memory.
BLOCK_ENTRIES = 1 << 21


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK_ENTRIES // max(1, columns))
    return (slice(first, first + step) for first in range(0, rows, step))


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums and gradients are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.custom_op("adsq::pairwise_similarity", mutates_args=())
def pairwise_similarity(labels_u: Tensor, labels_v: Tensor, kind: str) -> Tensor:
    """Labels of n and m items -> S float32 [n, m]."""
    with torch.autocast(labels_u.device.type, enabled=False):
        return reference.pairwise_similarity(labels_u, labels_v, kind)


@pairwise_similarity.register_fake
def _(labels_u: Tensor, labels_v: Tensor, kind: str) -> Tensor:
    return labels_u.new_empty((labels_u.shape[0], labels_v.shape[0]), dtype=torch.float32)


@torch.library.custom_op("adsq::mean_pairwise_similarity", mutates_args=())
def mean_pairwise_similarity(labels_u: Tensor, labels_v: Tensor, column_weights: Tensor | None, kind: str) -> Tensor:
    """Labels of n and m items, weights [m] -> scalar float32."""
    weights = labels_v.new_ones(labels_v.shape[0], dtype=torch.float64) if column_weights is None else column_weights
    total = torch.zeros((), dtype=torch.float64, device=labels_u.device)
    with torch.autocast(labels_u.device.type, enabled=False):
        for rows in _row_blocks(labels_u.shape[0], labels_v.shape[0]):
            # float32 is exact for 0 and 1; only the sum over many columns needs more
            total += (reference.pairwise_similarity(labels_u[rows], labels_v, kind) @ weights.float()).double().sum()
    count = labels_u.shape[0] * weights.double().sum()
    return (total / torch.where(count > 0, count, torch.ones_like(count))).float()


@mean_pairwise_similarity.register_fake
def _(labels_u: Tensor, labels_v: Tensor, column_weights: Tensor | None, kind: str) -> Tensor:
    return labels_u.new_empty((), dtype=torch.float32)


@torch.library.custom_op("adsq::pairwise_similarity_loss", mutates_args=())
def pairwise_similarity_loss(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    column_weights: Tensor | None,
    parameters: Tensor,
    similarity: str,
    form: str,
    exclude_diagonal: bool,
    mean: bool,
    needs_u: bool,
    needs_v: bool,
    needs_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [n, K] and [m, K], parameters [4] (scale, bias, positive and negative weight)
    -> loss, its gradients by u [n, K], v [m, K] and parameters [4]; an unwanted gradient has no elements.
    """
    dtype = compute_dtype(u.dtype)
    n, m = u.shape[0], v.shape[0]
    scale, bias, positive, negative = parameters.to(dtype).unbind()
    features_u, features_v = u.to(dtype), v.to(dtype)
    columns = None if column_weights is None else column_weights.to(dtype)
    total = torch.zeros((), dtype=torch.float64, device=u.device)
    grad_u = torch.empty_like(features_u) if needs_u else features_u.new_empty(0)
    grad_v = torch.zeros_like(features_v) if needs_v else features_v.new_empty(0)
    grad_parameters = torch.zeros(4 if needs_parameters else 0, dtype=dtype, device=u.device)
    with torch.autocast(u.device.type, enabled=False):
        for rows in _row_blocks(n, m):
            products = features_u[rows] @ features_v.T
            s = reference.pairwise_similarity(labels_u[rows], labels_v, similarity, dtype)
            weights = torch.lerp(negative, positive, s)
            if columns is not None:
                weights *= columns
            if exclude_diagonal:
                weights.diagonal(rows.start).zero_()
            x = products * scale + bias
            if form == "likelihood":
                loss = x.abs().neg_().exp_().log1p_().add_(x.clamp(min=0)).addcmul_(s, x, value=-1)
                slope = torch.sigmoid(x).sub_(s).mul_(weights)
            else:
                difference = x - (2 * s - 1)
                loss = difference.square()
                slope = difference.mul_(2).mul_(weights)
            total += loss.mul_(weights).sum()  # PyTorch sums a block pairwise; the blocks add up in float64
            if needs_u:
                grad_u[rows] = slope @ features_v
            if needs_v:
                grad_v.addmm_(slope.T, features_u[rows])
            if needs_parameters:
                grad_parameters[0] += (slope * products).sum()
                grad_parameters[1] += slope.sum()
    factor = torch.ones((), dtype=torch.float64, device=u.device)
    if mean:
        counted = columns.double().sum() if columns is not None else torch.full_like(factor, m)
        count = (n - exclude_diagonal) * counted  # the diagonal holds every column once
        factor = 1 / torch.where(count > 0, count, torch.ones_like(count))
    unit = factor.to(dtype)
    return (
        (total * factor).to(dtype),
        grad_u.mul_(unit * scale),
        grad_v.mul_(unit * scale),
        grad_parameters.mul_(unit),
    )


@pairwise_similarity_loss.register_fake
def _(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    column_weights: Tensor | None,
    parameters: Tensor,
    similarity: str,
    form: str,
    exclude_diagonal: bool,
    mean: bool,
    needs_u: bool,
    needs_v: bool,
    needs_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = compute_dtype(u.dtype)
    return (
        u.new_empty((), dtype=dtype),
        u.new_empty(u.shape if needs_u else (0,), dtype=dtype),
        v.new_empty(v.shape if needs_v else (0,), dtype=dtype),
        u.new_empty(4 if needs_parameters else 0, dtype=dtype),
    )


@torch.library.custom_op("adsq::pairwise_similarity_loss_backward", mutates_args=())
def backward(grad: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Multiply the gradients of the forward pass by the incoming scalar.

    The inputs give the dtypes. They are arguments also so that autograd sees that the result depends on them, and a
    second derivative raises instead of coming out as zero.
    """
    return [(grad * gradient).to(x.dtype) for x, gradient in zip(inputs, gradients, strict=True)]


@backward.register_fake
def _(grad: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    return [torch.empty_like(gradient, dtype=x.dtype) for x, gradient in zip(inputs, gradients, strict=True)]


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    u, v, parameters = inputs[0], inputs[1], inputs[5]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(u, v, parameters, *output[1:])
    ctx.needs = inputs[-3:]


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    gradients = backward(grad, saved[:3], saved[3:])
    grad_u, grad_v, grad_parameters = (g if need else None for g, need in zip(gradients, ctx.needs, strict=True))
    return grad_u, grad_v, None, None, None, grad_parameters, *(None,) * 7


def _second_derivative(ctx: Any, *grads: Any) -> None:
    raise RuntimeError(
        "pairwise_similarity_loss has no second derivative: use adsq.kernels.pairwise_similarity.reference, "
        "which is plain differentiable PyTorch"
    )


pairwise_similarity_loss.register_autograd(_backward, setup_context=_save_gradients)
backward.register_autograd(_second_derivative)

for _op in (pairwise_similarity, mean_pairwise_similarity, pairwise_similarity_loss):
    _extension.register_triton("adsq.kernels.pairwise_similarity.triton_launch", _op._name, _op._init_fn)
