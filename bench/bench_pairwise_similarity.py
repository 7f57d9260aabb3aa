"""The pair loss and the similarity of labels against their PyTorch references, eager and compiled. Run by `make bench`.

Results are compared before anything is timed. Peak memory goes into the JSON file (--benchmark-json), as extra_info.
`losses.py` compares the same in interleaved rounds, and writes the table of kernels/pairwise_similarity/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from loss_cases import PAIR_CASES, PairCase, check, forward, forward_and_backward, pair_inputs
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from adsq.kernels import mean_pairwise_similarity, pairwise_similarity, pairwise_similarity_loss
from adsq.kernels.pairwise_similarity import reference
from memory import peak_extra_memory

Loss = Callable[..., Tensor]
compiled = torch.compile(reference.pairwise_similarity_loss, dynamic=False)
cases = pytest.mark.parametrize("case", PAIR_CASES, ids=str)
LARGE = 50_000_000  # from so many pairs on a call takes seconds


@pytest.fixture
def function(loss_variant: str) -> Loss:
    """What to time."""
    torch._dynamo.reset()  # one compilation a shape: none is left out for having too many
    losses = {"reference": reference.pairwise_similarity_loss, "compile": compiled}
    return losses.get(loss_variant, pairwise_similarity_loss)


def measure(benchmark: BenchmarkFixture, case: PairCase, call: Callable[[], object]) -> None:
    benchmark.extra_info["peak_bytes"] = peak_extra_memory(call)
    if case.n * case.m > LARGE:
        benchmark.pedantic(call, rounds=3, iterations=1)
    else:
        benchmark(call)


@cases
def test_forward(benchmark: BenchmarkFixture, case: PairCase, function: Loss) -> None:
    inputs = pair_inputs(case)
    check(function, inputs)
    measure(benchmark, case, partial(forward, function, inputs))


@cases
def test_backward(benchmark: BenchmarkFixture, case: PairCase, function: Loss) -> None:
    """adsq makes its gradients in forward, and hands them out here."""
    inputs = pair_inputs(case)
    check(function, inputs)

    # A graph of its own for each run: compiled code may write results over what it saved, and runs once.
    def graph() -> tuple[Tensor]:
        return (forward(function, inputs),)

    def backward(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (inputs.u, inputs.v))

    benchmark.extra_info["peak_bytes"] = peak_extra_memory(backward, graph)
    rounds = 3 if case.n * case.m > LARGE else 50
    benchmark.pedantic(backward, setup=lambda: (graph(), {}), rounds=rounds, warmup_rounds=1)


@cases
def test_forward_and_backward(benchmark: BenchmarkFixture, case: PairCase, function: Loss) -> None:
    inputs = pair_inputs(case)
    check(function, inputs)
    measure(benchmark, case, partial(forward_and_backward, function, inputs))


@pytest.mark.parametrize("case", PAIR_CASES[1:6], ids=str)
@pytest.mark.parametrize("name", ["pairwise_similarity", "mean_pairwise_similarity"])
def test_similarity(benchmark: BenchmarkFixture, case: PairCase, name: str, variant: str) -> None:
    inputs = pair_inputs(case)
    ours = {"pairwise_similarity": pairwise_similarity, "mean_pairwise_similarity": mean_pairwise_similarity}[name]
    plain = getattr(reference, name)
    arguments = inputs.labels_u, inputs.labels_v, case.similarity
    torch.testing.assert_close(ours(*arguments), plain(*arguments))
    measure(benchmark, case, partial(plain if variant == "reference" else ours, *arguments))
