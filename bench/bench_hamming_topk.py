"""Search against its PyTorch reference, in each SIMD variant. Run by `make bench`; results are compared first."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from adsq import kernels
from adsq.kernels.hamming_topk import reference


class Case(NamedTuple):
    """Random codes; `wanted` is k, or the radius."""

    queries: int
    codes: int
    bits: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.queries} in {self.codes} x {self.bits}, {self.wanted}"


TOPK = [
    Case(1, 1_000_000, 64, 10),
    Case(4, 200_000, 128, 10),
    *(Case(256, 100_000, bits, 100) for bits in (32, 48, 64, 128, 256)),
    *(Case(256, 100_000, 64, k) for k in (1, 10, 1000)),
    Case(64, 20_000, 48, 20_000),
]
RANGE = [Case(1, 1_000_000, 64, 12), Case(256, 100_000, 64, 18)]


@functools.cache
def prepared(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(rows, case.bits // 8) for rows in (case.queries, case.codes)]
    queries, database = (torch.randint(256, size, dtype=torch.uint8, generator=generator) for size in sizes)
    return queries, database


@functools.cache
def expected(case: Case, function: str) -> tuple[Tensor, ...]:
    return getattr(reference, function)(*prepared(case), case.wanted)


@pytest.mark.parametrize("case", TOPK, ids=str)
def test_topk(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    run(benchmark, case, variant, "hamming_topk")


@pytest.mark.parametrize("case", RANGE, ids=str)
def test_range(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    run(benchmark, case, variant, "hamming_range")


def run(benchmark: BenchmarkFixture, case: Case, variant: str, name: str) -> None:
    function = getattr(reference if variant == "reference" else kernels, name)
    for found, reference_found in zip(function(*prepared(case), case.wanted), expected(case, name), strict=True):
        assert torch.equal(found, reference_found)
    benchmark(function, *prepared(case), case.wanted)
