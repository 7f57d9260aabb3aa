"""What scripts share that compare several ways in one run: rounds, the machine, marked parts of files."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adsq.files import write_text
from adsq.kernels import _extension

FEATURES = ("avx2", "avx512f", "avx512bw", "avx512_vpopcntdq", "asimd", "sve")
ROUNDS = (5, 50)
TURN = 0.02  # seconds that a turn lasts at least, in as many calls as that takes


@dataclass
class Entrant:
    """A call that is timed, with what it runs under."""

    name: str
    call: Callable[[], Any]
    threads: int
    simd: str | None = None
    seconds: list[float] = field(default_factory=list)

    def turn(self, calls: int = 1) -> float:
        """Return the seconds of a call; several follow one that is not timed, since other turns emptied the caches."""
        self.prepare()
        if calls > 1:
            self.call()
        return self.clock(calls) / calls

    def clock(self, calls: int) -> float:
        """Return the seconds of so many calls in a row."""
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        return time.perf_counter() - start

    def prepare(self) -> None:
        """Set the number of threads and the SIMD variant that adsq is held to."""
        torch.set_num_threads(self.threads)
        if self.simd:
            os.environ["ADSQ_SIMD"] = self.simd
        else:
            os.environ.pop("ADSQ_SIMD", None)


def race(entrants: list[Entrant], budget: float) -> dict[str, list[float]]:
    """Time the entrants in interleaved rounds for about `budget` seconds; returns the seconds of each round by name."""
    first = [entrant.turn() for entrant in entrants]
    calls = [math.ceil(TURN / seconds) for seconds in first]
    a_round = sum(max(TURN, seconds) for seconds in first)
    for _ in range(min(max(ROUNDS[0], int(budget / a_round)), ROUNDS[1])):
        for entrant, number in zip(entrants, calls, strict=True):
            entrant.seconds.append(float(f"{entrant.turn(number):.4g}"))
    return {entrant.name: entrant.seconds for entrant in entrants}


def machine(threads: int, cpu: int | None, versions: list[str]) -> dict[str, Any]:
    """Name the processor, its SIMD features, adsq's variant, torch, and the versions given."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = facts.get("flags", facts.get("Features", "")).split()
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts:  # a virtual machine's name may not tell the generation
        name += f", family {facts['cpu family']} model {facts['model']}"
    variants = _extension.simd_variants() or ("PyTorch",)
    return {
        "cpu": name,
        "features": [feature for feature in FEATURES if feature in flags],
        "threads": threads,
        "pinned_to": cpu,
        "versions": [f"adsq {version('adsq')} ({variants[0]})", *versions, f"torch {version('torch')}"],
    }


def describe(facts: dict[str, Any]) -> str:
    """Return machine, threads and versions as one line."""
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    if facts["pinned_to"] is not None:
        threads += " on one CPU"
    return f"{facts['cpu']} ({', '.join(facts['features'])}), {threads}; {', '.join(facts['versions'])}"


def cell(ratio: float | None) -> str:
    """Write a ratio with two digits that count."""
    if ratio is None:
        return "-"
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 0.995 else f"{ratio:.2g}"


def write_between(path: Path, name: str, text: str) -> None:
    """Put text between the markers <!-- name:begin --> and <!-- name:end --> of a file.

    Raises:
        ValueError: The file does not have each marker once, in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = path.read_text()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(end) < old.index(begin):
        raise ValueError(f"{path}: expected {begin} and {end} once each, in this order")
    write_text(path, f"{old.split(begin)[0]}{begin}\n{text}\n{end}{old.split(end)[1]}")
