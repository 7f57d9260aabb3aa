"""Settings and helpers of all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from emulation import Emulator
from hypothesis import settings

from adsq.index import HammingIndex

settings.register_profile("adsq", deadline=None, derandomize=True)  # a shared machine has no steady clock
settings.load_profile("adsq")


os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and rich keeps what it finds when it is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out GPU tests where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tests run side by side; those about threads choose their own number


@pytest.fixture(scope="session")
def random_codes() -> Callable[..., np.ndarray]:
    """Give a maker of packed codes, uint8 [rows, ceil(num_bits / 8)]."""

    def make(rows: int, num_bits: int, seed: int = 0) -> np.ndarray:
        bits = np.random.default_rng(seed).integers(0, 2, (rows, num_bits), dtype=np.uint8)
        return np.packbits(bits, axis=1, bitorder="little")

    return make


@pytest.fixture(scope="session")
def filled(random_codes: Callable[..., np.ndarray]) -> Callable[..., tuple[HammingIndex, np.ndarray]]:
    """Give a maker of an index with ids from 0, and of the codes in it."""

    def make(num_bits: int = 16, rows: int = 20) -> tuple[HammingIndex, np.ndarray]:
        codes = random_codes(rows, num_bits)
        index = HammingIndex(num_bits)
        index.add(codes)
        return index, codes

    return make


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """Give the programs of tests/cuda_emulator, built when they are first asked for: once for all of pytest-xdist."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulator"
    folder.mkdir(exist_ok=True)
    return Emulator(folder)
