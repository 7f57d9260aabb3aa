"""What the benchmarks share."""

from __future__ import annotations

import pytest
import torch

from adsq.kernels import _extension


@pytest.fixture(params=["reference", *_extension.simd_variants()])
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hold adsq to each SIMD variant of this machine in turn, on one thread; "reference" asks for plain PyTorch."""
    torch.set_num_threads(1)
    if request.param != "reference":
        monkeypatch.setenv("ADSQ_SIMD", request.param)
    return request.param
