"""Plain PyTorch with autograd: the oracle of the tests and the baseline of the benchmark."""

from __future__ import annotations

import torch
from torch import Tensor


def sign_quantization_loss(
    u: Tensor,
    *others: Tensor,
    codes: Tensor | None = None,
    anchor: Tensor | None = None,
    anchor_weight: float = 1.0,
    p: int = 2,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Return the scalar loss in the dtype of `u`, and the codes."""
    features = torch.stack((u, *others))
    if codes is None:
        total = features.detach().sum(dim=0)
        if anchor is not None:
            total = total + anchor_weight * anchor.detach()
        codes = torch.where(total >= 0, 1.0, -1.0).to(u.dtype)
    difference = (features - codes).abs()
    loss = difference.square().sum() if p == 2 else difference.sum()
    return loss / max(1, features.numel()) if reduction == "mean" else loss, codes
