"""Sizes and inputs of the benchmarks of losses, and the check that comes before timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adsq.kernels.pairwise_similarity import reference


class PairCase(NamedTuple):
    """n codes of `bits` bits against m, with labels of `classes` classes: class ids, or rows with about two labels."""

    n: int
    m: int
    bits: int
    classes: int
    labels: str = "ids"
    similarity: str = "shared"

    def __str__(self) -> str:
        kind = f"{self.labels} of {self.classes}" + (", cosine" if self.similarity == "cosine" else "")
        return f"{self.n:,} x {self.m:,}, {self.bits} bits, {kind}"


PAIR_CASES = [
    PairCase(64, 64, 48, 10),
    PairCase(128, 5000, 48, 10),
    PairCase(256, 59_000, 48, 10),
    PairCase(256, 59_000, 48, 10, "rows"),
    PairCase(256, 59_000, 48, 21, "rows", "cosine"),
    PairCase(2000, 59_000, 64, 21, "rows"),
    PairCase(4096, 4096, 64, 100),
    PairCase(4096, 4096, 64, 100, "rows"),
]
SIGN_CASES = [(64, 48, 1), (64, 48, 2), (1024, 64, 2), (59_000, 48, 1), (59_000, 48, 2)]  # rows, bits, features


class PairInputs(NamedTuple):
    """What a pair loss takes."""

    u: Tensor
    v: Tensor
    labels_u: Tensor
    labels_v: Tensor
    options: dict[str, Any]


def pair_inputs(case: PairCase) -> PairInputs:
    """Return random relaxed codes that want gradients, and labels."""
    generator = torch.Generator().manual_seed(0)
    sizes = case.n, case.m
    codes = (torch.randn(size, case.bits, generator=generator).tanh().requires_grad_() for size in sizes)
    if case.labels == "ids":
        labels = (torch.randint(0, case.classes, (size,), generator=generator) for size in sizes)
    else:
        labels = ((torch.rand(size, case.classes, generator=generator) < 2 / case.classes).float() for size in sizes)
    return PairInputs(*codes, *labels, {"similarity": case.similarity})


def forward(function: Callable[..., Tensor], inputs: PairInputs) -> Tensor:
    """Return the loss."""
    return function(*inputs[:4], **inputs.options)


def forward_and_backward(function: Callable[..., Tensor], inputs: PairInputs) -> tuple[Tensor, ...]:
    """Return the loss, and leave the gradients in u and v, as a training step does."""
    inputs.u.grad = inputs.v.grad = None
    loss = forward(function, inputs)
    loss.backward()
    assert inputs.u.grad is not None and inputs.v.grad is not None
    return loss.detach(), inputs.u.grad, inputs.v.grad


def check(function: Callable[..., Tensor], inputs: PairInputs, expected: tuple[Tensor, ...] | None = None) -> None:
    """Refuse to time what is wrong: loss and gradients have to be those of plain PyTorch, up to its own rounding."""
    expected = expected or forward_and_backward(reference.pairwise_similarity_loss, inputs)
    for got, want in zip(forward_and_backward(function, inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=2e-5 * float(want.abs().max()))


def sign_inputs(case: tuple[int, int, int]) -> list[Tensor]:
    """Return random features that want gradients."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(case[:2], generator=generator).requires_grad_() for _ in range(case[2])]


def sign_step(function: Callable[..., tuple[Tensor, Tensor]], features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return loss and codes of sign quantization, and the gradients, which it leaves in the features."""
    for feature in features:
        feature.grad = None
    loss, codes = function(*features)
    loss.backward()
    return loss.detach(), codes, *(feature.grad for feature in features if feature.grad is not None)
