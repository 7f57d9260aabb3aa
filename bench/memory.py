"""Memory that a call takes on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def peak_extra_memory(function: Callable[..., object], prepare: Callable[[], tuple[object, ...]] = tuple) -> int:
    """Return the most bytes by which one call of `function` makes this process larger: results, and all it needs.

    What the C library has kept for reuse is given back first, so that all that is touched counts, whoever allocates
    it. Linux only. The least of three calls: other parts of a process grow too, if rarely. `prepare` is called before
    each, and returns the arguments: it drops what an earlier call left, such as gradients, or makes what is used up.
    """
    function(*prepare())  # what is made once and kept, such as compiled code, is not counted
    return max(0, min(_growth(function, prepare) for _ in range(3)))


def _growth(function: Callable[..., object], prepare: Callable[[], tuple[object, ...]]) -> int:
    arguments = prepare()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = _kilobytes("VmRSS")
    kept = function(*arguments)
    after = _kilobytes("VmHWM")
    del kept
    return 1024 * (after - before)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
