"""Settings of all tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("adsq", deadline=None, derandomize=True)  # a shared machine has no steady clock
settings.load_profile("adsq")


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
