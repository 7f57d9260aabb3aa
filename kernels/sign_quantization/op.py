"""Schemas, fake kernels and autograd. The functions here run where no native kernel is registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("adsq::sign_quantization_loss", mutates_args=())
def sign_quantization_loss(
    features: Sequence[Tensor],
    codes: Tensor | None,
    anchor: Tensor | None,
    anchor_weight: float,
    p: int,
    mean: bool,
) -> tuple[Tensor, Tensor]:
    """Features [N, K] each -> (loss, codes [N, K]). Codes that were given are not returned again: no elements."""
    dtype = _compute_dtype(features[0])
    made = features[0].new_empty(0)
    if codes is None:
        total = sum((f.to(dtype) for f in features[1:]), features[0].to(dtype))
        if anchor is not None:
            total = total + anchor_weight * anchor.to(dtype)
        codes = made = torch.where(total >= 0, 1.0, -1.0).to(features[0].dtype)
    loss = torch.zeros((), dtype=torch.float64, device=codes.device)
    for feature in features:
        difference = feature.to(dtype) - codes
        loss += (difference.square_() if p == 2 else difference.abs_()).sum()
    return (loss * _factor(features, mean)).to(dtype), made


@sign_quantization_loss.register_fake
def _(
    features: Sequence[Tensor],
    codes: Tensor | None,
    anchor: Tensor | None,
    anchor_weight: float,
    p: int,
    mean: bool,
) -> tuple[Tensor, Tensor]:
    first = features[0]
    loss = first.new_empty((), dtype=_compute_dtype(first))
    return loss, first.new_empty(first.shape if codes is None else (0,))


@torch.library.custom_op("adsq::sign_quantization_loss_backward", mutates_args=())
def sign_quantization_loss_backward(
    grad: Tensor, features: Sequence[Tensor], codes: Tensor, p: int, mean: bool
) -> list[Tensor]:
    """Incoming scalar, features and codes [N, K] -> gradients by the features."""
    dtype = _compute_dtype(features[0])
    factor = grad.to(dtype) * (p * _factor(features, mean))
    gradients = []
    for feature in features:
        difference = feature.to(dtype) - codes
        gradients.append(((difference if p == 2 else difference.sign()) * factor).to(feature.dtype))
    return gradients


@sign_quantization_loss_backward.register_fake
def _(grad: Tensor, features: Sequence[Tensor], codes: Tensor, p: int, mean: bool) -> list[Tensor]:
    return [feature.new_empty(feature.shape) for feature in features]


def _compute_dtype(feature: Tensor) -> torch.dtype:
    return torch.float64 if feature.dtype == torch.float64 else torch.float32


def _factor(features: Sequence[Tensor], mean: bool) -> float:
    return 1 / max(1, len(features) * features[0].numel()) if mean else 1.0


def _save_features(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, codes, _, _, ctx.p, ctx.mean = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1] if codes is None else codes, *features)


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Any, ...]:
    codes, *features = ctx.saved_tensors
    gradients = torch.ops.adsq.sign_quantization_loss_backward(grad, features, codes, ctx.p, ctx.mean)
    return gradients, *(None,) * 5


def _second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "sign_quantization_loss has no second derivative: use adsq.kernels.sign_quantization.reference, "
        "which is plain differentiable PyTorch"
    )


sign_quantization_loss.register_autograd(_backward, setup_context=_save_features)
sign_quantization_loss_backward.register_autograd(_second_derivative)
