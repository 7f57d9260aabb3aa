"""Packing against its PyTorch reference. Run by `make bench`; results are compared before anything is timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from adsq.kernels import pack_codes, unpack_codes
from adsq.kernels.codes import reference

CASES = [(1000, 64), (100_000, 48), (1_000_000, 64)]
PACK = {"adsq": pack_codes, "reference": reference.pack_codes}
UNPACK = {"adsq": unpack_codes, "reference": reference.unpack_codes}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"pack {case[0]} x {case[1]}")
@pytest.mark.parametrize("function", PACK.values(), ids=PACK.keys())
def test_pack(benchmark: BenchmarkFixture, case: tuple[int, int], function: Callable) -> None:
    codes = torch.randn(case)
    assert torch.equal(function(codes), reference.pack_codes(codes))
    benchmark(function, codes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"unpack {case[0]} x {case[1]}")
@pytest.mark.parametrize("function", UNPACK.values(), ids=UNPACK.keys())
def test_unpack(benchmark: BenchmarkFixture, case: tuple[int, int], function: Callable) -> None:
    packed = pack_codes(torch.randn(case))
    assert torch.equal(function(packed, case[1]), reference.unpack_codes(packed, case[1]))
    benchmark(function, packed, case[1])
