"""Sign quantization against its PyTorch reference, eager and compiled. Run by `make bench`.

Results are compared before anything is timed. Peak memory goes into the JSON file (--benchmark-json), as extra_info.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from adsq.kernels import sign_quantization_loss
from adsq.kernels.sign_quantization import reference
from memory import peak_extra_memory

CASES = [
    (rows, bits, count)
    for rows, bits in ((64, 48), (128, 32), (1024, 64), (4096, 64), (59_000, 48))
    for count in (1, 2)
]
Loss = Callable[..., tuple[Tensor, Tensor]]
compiled = torch.compile(reference.sign_quantization_loss, dynamic=False)


@pytest.fixture
def function(loss_variant: str) -> Loss:
    """What to time."""
    torch._dynamo.reset()  # one compilation a shape: none is left out for having too many
    return {"reference": reference.sign_quantization_loss, "compile": compiled}.get(
        loss_variant, sign_quantization_loss
    )


def features_of(case: tuple[int, int, int]) -> list[Tensor]:
    torch.manual_seed(0)
    rows, bits, count = case
    return [torch.randn(rows, bits, requires_grad=True) for _ in range(count)]


def forward_and_backward(function: Loss, features: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(*features)[0], features)


def measure(benchmark: BenchmarkFixture, call: Callable[[], object]) -> None:
    benchmark.extra_info["peak_bytes"] = peak_extra_memory(call)
    benchmark(call)


def check(function: Loss, features: list[Tensor]) -> None:
    """Refuse to time what is wrong."""
    (loss, codes), (want, signs) = function(*features), reference.sign_quantization_loss(*features)
    torch.testing.assert_close(loss, want)
    assert torch.equal(codes, signs)
    gradients = forward_and_backward(function, features)
    torch.testing.assert_close(gradients, forward_and_backward(reference.sign_quantization_loss, features))


def name(case: tuple[int, int, int]) -> str:
    return "{} x {}, {} features".format(*case)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_codes_and_loss(benchmark: BenchmarkFixture, case: tuple[int, int, int], function: Loss) -> None:
    features = features_of(case)
    check(function, features)

    @torch.no_grad()
    def call() -> object:
        return function(*features)

    measure(benchmark, call)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward(benchmark: BenchmarkFixture, case: tuple[int, int, int], function: Loss) -> None:
    features = features_of(case)
    check(function, features)
    measure(benchmark, partial(function, *features))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_backward(benchmark: BenchmarkFixture, case: tuple[int, int, int], function: Loss) -> None:
    features = features_of(case)
    check(function, features)

    # A graph of its own for each run: compiled code may write results over what it saved, and runs once.
    def forward() -> tuple[Tensor]:
        return (function(*features)[0],)

    def backward(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, features)

    benchmark.extra_info["peak_bytes"] = peak_extra_memory(backward, forward)
    benchmark.pedantic(backward, setup=lambda: (forward(), {}), rounds=200, warmup_rounds=5)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward_and_backward(benchmark: BenchmarkFixture, case: tuple[int, int, int], function: Loss) -> None:
    features = features_of(case)
    check(function, features)
    measure(benchmark, partial(forward_and_backward, function, features))
