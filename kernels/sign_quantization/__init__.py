"""Sign quantization: shared binary codes and the distance of features to them. See README.md in this folder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from adsq.kernels import _checks, _ops
from adsq.kernels.sign_quantization import op

__all__ = ["sign_quantization_loss"]


def sign_quantization_loss(
    u: Tensor,
    *others: Tensor,
    codes: Tensor | None = None,
    anchor: Tensor | None = None,
    anchor_weight: float = 1.0,
    p: int = 2,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Return the distance of features to their shared codes, and the codes.

        codes = sgn(sum_k F_k + anchor_weight anchor),   sgn(0) = +1, NaN gives -1
        loss  = mean over the features F_k and their entries of |F_k - codes|^p

    For p = 2 these codes are the +-1 matrix nearest to the features and the anchor. They are constants of the loss.
    See docs/method.md, "Sign quantization".

    Args:
        u: First features F_1, [N, K] of float16, bfloat16, float32 or float64.
        *others: More features of the same shape and dtype; under autocast halves are taken as float32.
        codes: Targets to use in place of the signs, [N, K] of the dtype of `u`.
        anchor: A further vote on the codes, [N, K] of the dtype of `u`. Gets no gradient.
        anchor_weight: The weight of that vote.
        p: 1 or 2.
        reduction: "mean", 0 where there are no entries, or "sum".

    Returns:
        The loss, a scalar: float64 for float64 features, else float32. The codes, [N, K] of the dtype of `u`: those
        given, or the signs, +1 and -1. A second derivative of the loss, `torch.func.grad` and forward mode raise.

    Raises:
        TypeError, ValueError: An argument has another shape, dtype or device than said here.
    """
    named = {"u": u}
    for i, feature in enumerate(others):
        named[f"others[{i}]"] = feature
    if codes is not None:
        named["codes"] = codes
    if anchor is not None:
        named["anchor"] = anchor
    for name, tensor in named.items():
        _checks.check_matrix(tensor, name, "[N, K]")
    tensors = _checks.autocast_to_float32(*named.values())
    u = tensors[0]
    _checks.check_float(u, "u")
    for name, tensor in zip(named, tensors, strict=True):
        _checks.check_same(tensor, name, u, "u")
        if tensor.shape != u.shape:
            raise ValueError(f"{name}: expected the shape of u, {list(u.shape)}, got {list(tensor.shape)}")
    if p not in (1, 2):
        raise ValueError(f"p: expected 1 or 2, got {p!r}")
    mean = _checks.check_reduction(reduction)
    features = tensors[: 1 + len(others)]
    targets = tensors[len(features)].detach() if codes is not None else None
    vote = tensors[-1].detach() if anchor is not None else None
    settings = targets, vote, float(anchor_weight), p, mean
    wants = [torch.is_grad_enabled() and feature.requires_grad for feature in features]
    if torch.compiler.is_compiling() and any(wants):
        loss, made = op.Loss.apply(*settings, *features)
    elif any(wants) or forward_ad._current_level >= 0:

        def compute(*tensors: Tensor | None) -> tuple[tuple[Tensor, Tensor], list[Tensor | None]]:
            *features, targets, vote = tensors
            loss, made, gradients = op.sign_quantization_loss(features, targets, vote, *settings[2:], wants)
            slots = iter(gradients)
            return (loss, made), [next(slots) if want else None for want in wants]

        name = "sign_quantization_loss"
        loss, made = _ops.fused_loss(name, compute, op.scale_gradients, features, (targets, vote))
    else:
        loss, made, _ = op.sign_quantization_loss(features, *settings, wants)
    return loss, made if targets is None else targets
