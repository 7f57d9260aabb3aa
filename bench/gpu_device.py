"""What gpu.py needs to know of the device: its clock, its memory, and how fast anything can be on it at most."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from race import Entrant
from torch import Tensor

from memory import peak_extra_memory

POPCOUNTS = 16  # 32-bit words whose bits an SM counts in a clock, compute capability 8.0 to 12.0
MEGAHERTZ = {"H100 PCIe": 1755, "H100": 1980, "H200": 1980, "A100": 1410}  # where the driver does not tell
ROTATED = 4  # times the L2 cache that the copies of the inputs fill
SHARE = 4  # the part of the free memory that the copies may take is 1 / SHARE
MOST_COPIES = 1 << 15


class DeviceEntrant(Entrant):
    """An entrant whose calls are timed by the GPU."""

    def clock(self, calls: int) -> float:
        """Return the seconds between two events around so many calls in a row."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            self.call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000


def entrant(name: str, call: Callable[[], object], device: torch.device) -> Entrant:
    """Return an entrant that is timed as its device allows."""
    return (DeviceEntrant if device.type == "cuda" else Entrant)(name, call, torch.get_num_threads())


@dataclass(frozen=True)
class Work:
    """What a call cannot do without."""

    moved: int  # bytes: each input read once, each output written once
    counted: int = 0  # 32-bit words whose bits are counted
    multiplied: int = 0  # floating-point operations of matrix products


@dataclass(frozen=True)
class Ceilings:
    """What the device does at most in a second; None where that is not known."""

    moved: float
    counted: float | None
    multiplied: float
    clock: str  # what `counted` is of, and who says so

    def roofline(self, work: Work) -> tuple[float, str] | None:
        """Return the least seconds that the work takes, and by what: "memory", "popc" or "fma"."""
        if work.counted and self.counted is None:
            return None
        return max(
            (work.moved / self.moved, "memory"),
            (work.counted / (self.counted or math.inf), "popc"),
            (work.multiplied / self.multiplied, "fma"),
        )


def measure_ceilings(device: torch.device) -> Ceilings:
    """Time a large copy, 1 GiB on a GPU, and a large product in float32; the popc rate follows from the clock."""
    on_gpu = device.type == "cuda"
    source = torch.randint(256, (1 << (30 if on_gpu else 24),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _median(entrant("copy", lambda: target.copy_(source), device))
    side = 8192 if on_gpu else 512
    a, b = torch.randn(2, side, side, device=device)
    product = _median(entrant("product", lambda: a @ b, device))
    counted, clock = _popcounts(lambda: [a @ b for _ in range(10)]) if on_gpu else (None, "")
    return Ceilings(2 * source.numel() / copy, counted, 2 * side**3 / product, clock)


def _median(entrant: Entrant) -> float:
    return statistics.median(entrant.turn(5) for _ in range(7))


def _popcounts(work: Callable[[], object]) -> tuple[float | None, str]:
    properties = torch.cuda.get_device_properties("cuda")
    megahertz, source = getattr(properties, "clock_rate", 0) / 1000, "device properties"
    if not megahertz:
        try:
            work()  # the clock is low while nothing runs
            megahertz, source = torch.cuda.clock_rate(), "read under load"
        except (ModuleNotFoundError, RuntimeError):  # no pynvml, or no driver that it understands
            known = (clock for name, clock in MEGAHERTZ.items() if name in properties.name)
            megahertz, source = next(known, 0), "table by name"
    if not megahertz:
        return None, ""
    return POPCOUNTS * properties.multi_processor_count * megahertz * 1e6, f"{megahertz:,.0f} MHz ({source})"


def num_bytes(tensors: tuple[Tensor, ...]) -> int:
    """Return the bytes of dense tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copies(inputs: tuple[Tensor, ...], wanted: int, allowed: int) -> list[tuple[Tensor, ...]]:
    """Return the inputs and copies of them: `wanted` bytes or more, unless `allowed` or MOST_COPIES is less."""
    size = max(1, num_bytes(inputs))
    count = max(1, min(math.ceil(wanted / size), allowed // size, MOST_COPIES))
    more = (tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs) for _ in range(count - 1))
    return [inputs, *more]


def rotation_bytes(device: torch.device) -> tuple[int, int]:
    """Return how many bytes of inputs defeat the cache, and how many there is room for."""
    if device.type != "cuda":
        return 1 << 20, 1 << 24  # a rehearsal: more than one copy is all it takes
    torch.cuda.empty_cache()  # what is kept for reuse is not free otherwise
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return ROTATED * cache, torch.cuda.mem_get_info(device)[0] // SHARE


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that a call allocates beyond what is there: results, and all it needs on the way."""
    if device.type != "cuda":
        return peak_extra_memory(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = call()
    torch.cuda.synchronize(device)
    del kept
    return torch.cuda.max_memory_allocated(device) - before
