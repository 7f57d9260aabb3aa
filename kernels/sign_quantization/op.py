"""Schema, fake kernel and autograd. The function of the op runs where no native kernel is registered.

Gradients are made in the same pass as the loss: backward only multiplies them by the scalar that comes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adsq.kernels import _extension
from adsq.kernels._ops import plain_op


@plain_op("adsq::sign_quantization_loss")
def sign_quantization_loss(
    features: Sequence[Tensor],
    codes: Tensor | None,
    anchor: Tensor | None,
    anchor_weight: float,
    p: int,
    mean: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, K] each, and which of them need a gradient -> loss, codes [N, K], gradients [needed, N, K].

    Codes that were given are not returned again: no elements. Loss and gradients have the dtype computed in.
    """
    dtype = compute_dtype(features[0])
    values = [feature.to(dtype) for feature in features]
    made = features[0].new_empty(0)
    if codes is None:
        total = sum(values[1:], values[0])
        if anchor is not None:
            total = total + anchor_weight * anchor.to(dtype)
        codes = made = torch.where(total >= 0, 1.0, -1.0).to(features[0].dtype)
    unit = 1 / max(1, len(features) * features[0].numel()) if mean else 1.0
    loss = torch.zeros((), dtype=torch.float64, device=codes.device)
    gradients = values[0].new_empty((sum(needs), *codes.shape))
    slots = iter(gradients)
    for value, need in zip(values, needs, strict=True):
        difference = value - codes
        loss += (difference.square() if p == 2 else difference.abs()).sum()
        if need:
            # the sign of a number that is none is 0 in PyTorch: it must not get lost
            slope = difference if p == 2 else torch.where(difference.isnan(), difference, difference.sign())
            torch.mul(slope, p * unit, out=next(slots))
    return (loss * unit).to(dtype), made, gradients


@torch.library.register_fake("adsq::sign_quantization_loss")
def _(
    features: Sequence[Tensor],
    codes: Tensor | None,
    anchor: Tensor | None,
    anchor_weight: float,
    p: int,
    mean: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    first, dtype = features[0], compute_dtype(features[0])
    return (
        first.new_empty((), dtype=dtype),
        first.new_empty(first.shape if codes is None else (0,)),
        first.new_empty((sum(needs), *first.shape), dtype=dtype),
    )


def compute_dtype(feature: Tensor) -> torch.dtype:
    """Return the dtype that the loss and its gradients are computed in."""
    return torch.float64 if feature.dtype == torch.float64 else torch.float32


class Loss(torch.autograd.Function):
    """The op with its gradients, as `torch.compile` traces it; eager calls go through `_ops.fused_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor | None,
        anchor: Tensor | None,
        anchor_weight: float,
        p: int,
        mean: bool,
        *features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Call the op. Keep the gradients, and the features that they belong to."""
        needs = ctx.needs_input_grad[5:]
        loss, made, gradients = sign_quantization_loss(features, codes, anchor, anchor_weight, p, mean, needs)
        ctx.mark_non_differentiable(made)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradients, *(f for f, need in zip(features, needs, strict=True) if need))
        return loss, made

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        """Give the features their gradients."""
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        gradients, *features = ctx.saved_tensors
        scaled = iter(scale_gradients(grad, features, gradients))
        return tuple(next(scaled) if need else None for need in ctx.needs_input_grad)


def scale_gradients(grad: Tensor, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the gradients of the forward pass times the incoming scalar, in the dtypes of the features."""
    count = len(features)
    return (
        Scaled.apply(count, grad, *features, *gradients)
        if torch.is_grad_enabled()
        else [(gradient * grad).to(feature.dtype) for feature, gradient in zip(features, gradients, strict=True)]
    )


class Scaled(torch.autograd.Function):
    """Gradients times the incoming scalar.

    The features give the dtype. They are arguments also so that autograd sees that the result depends on them, and a
    second derivative raises instead of coming out as zero.
    """

    @staticmethod
    def forward(ctx: Any, count: int, grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take the features, `count` of them, then their gradients."""
        return tuple(scale_gradients(grad, tensors[:count], tensors[count:]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        """Raise: what the pass over the features made does not hold for a second derivative."""
        raise RuntimeError(
            "sign_quantization_loss has no second derivative: use adsq.kernels.sign_quantization.reference, "
            "which is plain differentiable PyTorch"
        )


_extension.register_triton(
    "adsq.kernels.sign_quantization.triton_kernel", "sign_quantization_loss", sign_quantization_loss.__wrapped__
)
