"""What the benchmarks share."""

from __future__ import annotations

import pytest
import torch

from adsq.kernels import _extension


@pytest.fixture(params=["reference", *_extension.simd_variants()])
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Hold adsq to each SIMD variant of this machine in turn, on one thread; "reference" asks for plain PyTorch."""
    return _hold(request.param, monkeypatch)


@pytest.fixture(params=["reference", "compile", *_extension.simd_variants()])
def loss_variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `variant`; "compile" asks for torch.compile of plain PyTorch, which losses have to be faster than too."""
    return _hold(request.param, monkeypatch)


def _hold(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    torch.set_num_threads(1)
    if name in _extension.simd_variants():
        monkeypatch.setenv("ADSQ_SIMD", name)
    return name
