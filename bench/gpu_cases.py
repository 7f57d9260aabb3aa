"""The cases of gpu.py: what each function is called with, what that takes at least, and the check before timing."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from loss_cases import (
    PAIR_CASES,
    SIGN_CASES,
    PairCase,
    PairInputs,
    forward_and_backward,
    pair_inputs,
    sign_inputs,
    sign_step,
)
from torch import Tensor

from adsq import kernels

Tensors: TypeAlias = tuple[Tensor, ...]
FAMILIES = ("codes", "hamming_topk", "hamming_ranking", "pairwise_similarity", "sign_quantization")
CODES = [(1_000_000, 64), (54_000, 48)]  # codes, bits
TOPK = [  # codes, bits, queries, k
    (10_000_000, 64, 1, 10),
    (100_000_000, 64, 1, 10),
    (1_000_000, 64, 1000, 10),
    (1_000_000, 64, 1000, 100),
    (1_000_000, 32, 1000, 100),
    (1_000_000, 128, 1000, 100),
    (1_000_000, 256, 64, 100),
    (54_000, 48, 1000, 54_000),
]
RANGE = (1_000_000, 64, 100, 12)  # codes, bits, queries, radius
RANKING = (59_000, 48, 1000)  # codes, bits, queries
CLASSES = 10
ROUGH = 2e-5  # of the largest entry: what plain PyTorch in float32 may be off before its own error counts as wrong


def call(function: Callable[..., Any], inputs: Tensors, **options: Any) -> Tensors:
    """Call a function that has no gradient."""
    found = function(*inputs, **options)
    return found if isinstance(found, tuple) else (found,)


def pair_step(function: Callable[..., Tensor], inputs: Tensors, **options: Any) -> Tensors:
    """Run forward and backward of the pair loss, and leave nothing behind in the inputs."""
    return _without_gradients(inputs, forward_and_backward(function, PairInputs(*inputs, options)))


def quantization_step(function: Callable[..., tuple[Tensor, Tensor]], inputs: Tensors) -> Tensors:
    """Run forward and backward of sign quantization, and leave nothing behind in the inputs."""
    return _without_gradients(inputs, sign_step(function, inputs))


def _without_gradients(inputs: Tensors, found: Tensors) -> Tensors:
    for tensor in inputs:
        tensor.grad = None
    return found


@dataclass(frozen=True)
class Case:
    """A row of the table: a function of a family, and what it is called with."""

    family: str
    function: str  # its name in adsq.kernels and in the reference
    sizes: str
    inputs: Callable[[torch.device], Tensors]
    options: dict[str, Any] = field(default_factory=dict)
    step: Callable[..., Tensors] = call
    counted: int = 0  # as in Work
    multiplied: int = 0

    def __str__(self) -> str:
        return f"{self.function}: {self.sizes}"

    @property
    def ours(self) -> Callable[..., Any]:
        """The public function."""
        return getattr(kernels, self.function)

    @property
    def plain(self) -> Callable[..., Any]:
        """The same in plain PyTorch."""
        return getattr(importlib.import_module(f"adsq.kernels.{self.family}.reference"), self.function)

    def run(self, function: Callable[..., Any], inputs: Tensors) -> Tensors:
        """Return all that a call gives, gradients included."""
        return self.step(function, inputs, **self.options)


def cases(quick: bool = False) -> list[Case]:
    """Return all cases; with `quick` tiny ones, to try the script."""
    less = 1000 if quick else 1

    def small(codes: int, bits: int, queries: int, wanted: int) -> tuple[int, int, int, int]:
        codes //= less
        return codes, bits, min(queries, 10) if quick else queries, min(wanted, codes)

    ranking = small(*RANKING, 0)[:3]
    return [
        *(codes_case(name, n // less, bits) for name in ("pack_codes", "unpack_codes") for n, bits in CODES),
        *(topk_case(*small(*sizes)) for sizes in TOPK),
        range_case(*small(*RANGE)),
        ranking_case("hamming_relevance_histogram", *ranking),
        *(ranking_case("hamming_average_precision", *ranking, ties=ties) for ties in ("index", "expected")),
        *map(pair_case, PAIR_CASES[:1] if quick else PAIR_CASES),
        *map(quantization_case, SIGN_CASES[:1] if quick else SIGN_CASES),
    ]


def codes_case(name: str, codes: int, bits: int) -> Case:
    """Packing of random float32 codes, or the way back."""
    sizes = f"{codes:,} x {bits} float32"
    if name == "pack_codes":
        return Case("codes", name, sizes, partial(_real, bits, codes))
    return Case("codes", name, sizes, partial(_packed, bits, codes), {"num_bits": bits})


def topk_case(codes: int, bits: int, queries: int, k: int) -> Case:
    """The k nearest of random codes."""
    sizes = f"{codes:,} x {bits} bits, {_queries(queries)}, k = {k:,}"
    return _search("hamming_topk", "hamming_topk", sizes, codes, bits, queries, k=k)


def range_case(codes: int, bits: int, queries: int, radius: int) -> Case:
    """All random codes within a radius."""
    sizes = f"{codes:,} x {bits} bits, {_queries(queries)}, radius {radius}"
    return _search("hamming_topk", "hamming_range", sizes, codes, bits, queries, radius=radius)


def ranking_case(function: str, codes: int, bits: int, queries: int, **options: str) -> Case:
    """A measure of the full ranking of random codes with class ids."""
    sizes = ", ".join([f"{codes:,} x {bits} bits", _queries(queries), *(f"ties {x}" for x in options.values())])
    return _search("hamming_ranking", function, sizes, codes, bits, queries, CLASSES, **options)


def _queries(queries: int) -> str:
    return "1 query" if queries == 1 else f"{queries:,} queries"


def _search(
    family: str, function: str, sizes: str, codes: int, bits: int, queries: int, classes: int = 0, **options: Any
) -> Case:
    words = queries * codes * math.ceil(bits / 32)
    return Case(family, function, sizes, partial(_packed, bits, queries, codes, classes=classes), options, call, words)


def _real(bits: int, codes: int, device: torch.device) -> Tensors:
    generator = torch.Generator(device).manual_seed(0)
    return (torch.randn(codes, bits, device=device, generator=generator),)


def _packed(bits: int, *rows_and_device: Any, classes: int = 0) -> Tensors:
    *rows, device = rows_and_device
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randint, device=device, generator=generator)
    codes = [draw(256, (n, bits // 8), dtype=torch.uint8) for n in rows]
    return (*codes, *(draw(classes, (n,)) for n in rows)) if classes else tuple(codes)


def pair_case(case: PairCase) -> Case:
    """Forward and backward of the pair loss: one product of codes for the loss, and one for each gradient."""
    products = 3 * 2 * case.n * case.m * case.bits
    options = {"similarity": case.similarity}
    family = "pairwise_similarity"
    inputs = partial(_moved, lambda: pair_inputs(case)[:4])
    return Case(family, f"{family}_loss", str(case), inputs, options, pair_step, multiplied=products)


def quantization_case(case: tuple[int, int, int]) -> Case:
    """Forward and backward of sign quantization: few operations an entry, so that memory is all that counts."""
    family = "sign_quantization"
    sizes = "{:,} x {}, {} features".format(*case)
    return Case(family, f"{family}_loss", sizes, partial(_moved, partial(sign_inputs, case)), step=quantization_step)


def _moved(make: Callable[[], Iterable[Tensor]], device: torch.device) -> Tensors:
    return tuple(x.detach().to(device).requires_grad_(x.requires_grad) for x in make())


def on_cpu(inputs: Tensors, *, wide: bool) -> Tensors:
    """Return the inputs on the CPU; `wide` ones with float64 for float32."""
    wider = {torch.float32: torch.float64} if wide else {}
    return tuple(x.detach().cpu().to(wider.get(x.dtype, x.dtype)).requires_grad_(x.requires_grad) for x in inputs)


def agrees(found: Tensors, exact: Tensors, plain: Tensors | None = None) -> bool:
    """Tell whether results are right, all on the CPU.

    Whole numbers have to be equal. Floating-point numbers may be off by twice as much as those of plain PyTorch, and by
    a rounding of the largest. Those of plain PyTorch itself, for which `plain` is None, must be about right.

    Args:
        found: What is checked.
        exact: The same from float64 inputs.
        plain: The same from plain PyTorch and the inputs as they are.
    """
    if len(found) != len(exact):
        return False
    for i, (got, want) in enumerate(zip(found, exact, strict=True)):
        if got.shape != want.shape or got.is_floating_point() != want.is_floating_point():
            return False
        if not got.is_floating_point():
            if not torch.equal(got, want):
                return False
            continue
        if not got.numel():
            continue
        largest = float(want.abs().max())
        # float64 is as wide as what it is compared with: only the order of a sum may differ
        rounding = 1e-12 if got.dtype == torch.float64 else torch.finfo(got.dtype).eps
        rough = ROUGH * largest if got.dtype != torch.float64 else 0.0
        allowed = 2 * _error(plain[i], want) if plain is not None else rough
        if not _error(got, want) <= allowed + rounding * largest:  # also where it is NaN
            return False
    return True


def _error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).abs().max())
