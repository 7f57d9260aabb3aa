"""Ranking measures against their PyTorch reference, in each SIMD variant. Run by `make bench`; results come first."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from adsq import kernels
from adsq.kernels.hamming_ranking import reference


class Case(NamedTuple):
    """Random codes; 0 labels mean class ids of ten classes, others are columns of label rows."""

    queries: int
    codes: int
    bits: int
    labels: int

    def __str__(self) -> str:
        labels = f"{self.labels} labels" if self.labels else "class ids"
        return f"{self.queries} in {self.codes} x {self.bits}, {labels}"


CASES = [Case(100, 59_000, 48, 0), Case(100, 59_000, 48, 21), Case(100, 20_000, 128, 0), Case(10, 20_000, 32, 100)]


@functools.cache
def prepared(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = case.queries, case.codes
    codes = (torch.randint(256, (n, case.bits // 8), dtype=torch.uint8, generator=generator) for n in rows)
    if case.labels:
        labels = (torch.rand(n, case.labels, generator=generator) < 2 / case.labels for n in rows)
    else:
        labels = (torch.randint(10, (n,), generator=generator) for n in rows)
    return (*codes, *labels)


@functools.cache
def expected(case: Case, function: str, **options: str) -> tuple[Tensor, Tensor]:
    return getattr(reference, function)(*prepared(case), **options)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_histogram(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    run(benchmark, case, variant, "hamming_relevance_histogram")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_precision_by_index(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    run(benchmark, case, variant, "hamming_average_precision", ties="index")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_precision_expected(benchmark: BenchmarkFixture, case: Case, variant: str) -> None:
    run(benchmark, case, variant, "hamming_average_precision", ties="expected")


def run(benchmark: BenchmarkFixture, case: Case, variant: str, name: str, **options: str) -> None:
    function = getattr(reference if variant == "reference" else kernels, name)
    for found, reference_found in zip(
        function(*prepared(case), **options), expected(case, name, **options), strict=True
    ):
        if found.dtype == torch.float64:
            torch.testing.assert_close(found, reference_found, rtol=1e-12, atol=0)  # the order of a sum is free
        else:
            assert torch.equal(found, reference_found)
    benchmark(function, *prepared(case), **options)
