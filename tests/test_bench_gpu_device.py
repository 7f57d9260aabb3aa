"""What the benchmark of the GPU knows of the device: times, memory, copies of inputs, the roofline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gpu_device
import pytest
import torch
from gpu_device import Ceilings, Work


def test_copies_cover_the_bytes_asked_for() -> None:
    inputs = torch.zeros(100, requires_grad=True), torch.arange(50)
    assert gpu_device.num_bytes(inputs) == 800
    rotation = gpu_device.copies(inputs, 8001, 10**6)
    assert len(rotation) == 11 and sum(map(gpu_device.num_bytes, rotation)) >= 8001
    assert len({tensors[0].data_ptr() for tensors in rotation}) == 11
    for first, second in rotation:
        assert first.requires_grad and first.is_leaf and not second.requires_grad and torch.equal(second, inputs[1])
    assert len(gpu_device.copies(inputs, 8001, 2400)) == 3  # no room for more
    assert len(gpu_device.copies((torch.zeros(1),), 10**7, 10**7)) == gpu_device.MOST_COPIES
    assert len(gpu_device.copies(inputs, 8001, 1)) == len(gpu_device.copies(inputs, 1, 10**6)) == 1


def test_times_and_memory_are_those_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def synchronize(self) -> None:
            order.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 30.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    entrant = gpu_device.entrant("x", lambda: order.append("call"), torch.device("cuda"))
    assert entrant.turn(3) == 0.01
    assert order == ["call", "event", "call", "call", "call", "event", "wait"]

    for name, value in dict(synchronize=None, reset_peak_memory_stats=None, memory_allocated=100).items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 350)
    assert gpu_device.peak_memory(list, torch.device("cuda")) == 250


def test_roofline_by_hand() -> None:
    ceilings = Ceilings(moved=3e12, counted=4e12, multiplied=5e13, clock="")
    assert ceilings.roofline(Work(moved=6 * 10**9)) == (0.002, "memory")
    assert ceilings.roofline(Work(moved=6 * 10**9, counted=4 * 10**10)) == (0.01, "popc")
    assert ceilings.roofline(Work(moved=6 * 10**9, counted=4 * 10**9)) == (0.002, "memory")
    assert ceilings.roofline(Work(moved=3, multiplied=10**12)) == (0.02, "fma")
    assert replace(ceilings, counted=None).roofline(Work(moved=1, counted=1)) is None
    assert replace(ceilings, counted=None).roofline(Work(moved=3 * 10**12)) == (1.0, "memory")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (
            dict(name="NVIDIA H100 80GB HBM3", clock_rate=1_980_000),
            (16 * 132 * 1.98e9, "1,980 MHz (device properties)"),
        ),
        (dict(name="NVIDIA H100 PCIe"), (16 * 132 * 1.755e9, "1,755 MHz (table by name)")),
        (dict(name="Some GPU"), (None, "")),
    ],
)
def test_popc_rate(monkeypatch: pytest.MonkeyPatch, properties: dict, expected: tuple) -> None:
    class Properties:
        multi_processor_count = 132

    def no_driver() -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    for name, value in properties.items():
        setattr(Properties, name, value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "clock_rate", no_driver)
    assert gpu_device._popcounts(list) == expected
    if "clock_rate" not in properties:
        monkeypatch.setattr(torch.cuda, "clock_rate", lambda: 1000)
        assert gpu_device._popcounts(list) == (16 * 132 * 1e9, "1,000 MHz (read under load)")
