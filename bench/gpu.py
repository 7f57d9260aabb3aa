"""All kernels of adsq on a GPU, beside plain PyTorch, torch.compile and the roofline. Run by `make bench-gpu`.

Needs adsq, torch and nothing else. Results are compared first, and what is wrong is not timed. Then all take their turn
in every round, over inputs that the L2 cache cannot hold. Writes bench/results/gpu-<device>.json after each case, and
from it the table, gpu-<device>.md. `--device cpu --quick` rehearses all of it where there is no GPU.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_cases import FAMILIES, Case, Tensors, agrees, cases, on_cpu
from gpu_device import Work, copies, entrant, measure_ceilings, num_bytes, peak_memory, rotation_bytes
from gpu_report import COMPILED, EAGER, OURS, markdown
from race import machine, race

from adsq import kernels
from adsq.files import write_text

ROOT = Path(__file__).parent.parent


class TooLong(BaseException):
    """The patience is over. No Exception: torch.compile would take it for a reason to go another way."""


@dataclass(frozen=True)
class Limits:
    """Seconds."""

    budget: float  # of rounds a case
    slow: float  # a call, beyond which it is timed once
    patience: float  # for a first call
    compiling: float  # the same with torch.compile, which unrolls the loops of a search


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise TooLong when the body takes longer, as soon as it comes back to Python."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(call: Callable[[], Any], seconds: float) -> tuple[Any, str]:
    """Return what a call gives, and nothing; or None and what went wrong."""
    try:
        with patience(seconds):
            return call(), ""
    except TooLong:
        wrong = f"cut after {seconds:g} s"
    except (torch.OutOfMemoryError, MemoryError):
        wrong = "out of memory"
    except Exception as error:  # whatever it is, the other cases go on
        wrong = f"fails: {type(error).__name__}"
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    gc.collect()  # the traceback held tensors
    torch.cuda.empty_cache()
    return None, wrong


def oracle(case: Case, device: torch.device) -> Callable[..., Any]:
    """Return what tells, on the CPU, what is right: adsq where a GPU is measured, plain PyTorch in a rehearsal."""
    return case.ours if device.type == "cuda" else case.plain


def measure(case: Case, device: torch.device, limits: Limits, compiled: bool) -> dict[str, Any]:
    """Check who takes part in a case, time those who are right, and return the record of it."""
    torch._dynamo.reset()
    record: dict[str, Any] = {"case": str(case), "family": case.family, "device": device_name(device)}
    functions = {EAGER: case.plain, OURS: case.ours}
    if compiled:
        functions[COMPILED] = torch.compile(case.plain, dynamic=False)
    record |= {"wrong": {}, "seconds": {}, "peak_bytes": {}}
    inputs, wrong = attempt(lambda: case.inputs(device), limits.patience)
    if wrong:
        return record | {"wrong": dict.fromkeys(functions, wrong)}
    judge = oracle(case, device)
    exact = case.run(judge, on_cpu(inputs, wide=True))
    plain: Tensors | None = None
    for name, function in functions.items():
        first = limits.compiling if name == COMPILED else limits.patience
        found, wrong = attempt(lambda function=function: to_cpu(case.run(function, inputs)), first)
        if not wrong and not agrees(found, exact, plain):
            wrong = "differs"
        if name == EAGER:
            plain = case.run(judge, on_cpu(inputs, wide=False)) if wrong else found
        if wrong:
            record["wrong"][name] = wrong
    assert plain is not None
    record["work"] = asdict(Work(num_bytes(inputs) + num_bytes(plain), case.counted, case.multiplied))
    rotation = copies(inputs, *rotation_bytes(device))
    record["copies"] = len(rotation)
    time_calls(record, case, functions, rotation, device, limits)
    return record


def time_calls(
    record: dict[str, Any],
    case: Case,
    functions: dict[str, Callable[..., Any]],
    rotation: list[Tensors],
    device: torch.device,
    limits: Limits,
) -> None:
    """Time those with nothing wrong in interleaved rounds, and the slow ones once; then measure their peak memory."""
    entrants = []
    for name, function in functions.items():
        if name in record["wrong"]:
            continue
        turns = itertools.cycle(rotation)
        one = entrant(name, lambda function=function, turns=turns: case.run(function, next(turns)), device)
        once, wrong = attempt(one.turn, limits.patience)
        if wrong:
            record["wrong"][name] = wrong
            continue
        record["peak_bytes"][name] = peak_memory(one.call, device)
        if once > limits.slow:
            record["seconds"][name] = [float(f"{once:.4g}")]
        else:
            entrants.append(one)
    if entrants:
        record["seconds"] |= race(entrants, limits.budget)


def compile_something(device: torch.device) -> None:
    """Let torch.compile load what it needs, so that this does not count for the first case."""
    torch.compile(lambda x: x.sin().sum())(torch.ones(8, device=device, requires_grad=True)).backward()


def to_cpu(found: Tensors) -> Tensors:
    """Return results on the CPU, so that nobody's memory counts for another."""
    return tuple(x.detach().cpu() for x in found)


def device_name(device: torch.device) -> str:
    """Return the name of the GPU; "CPU" in a rehearsal."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def facts(device: torch.device) -> dict[str, Any]:
    """Name the device and its host, the versions, and what each function of adsq runs on."""
    versions = []
    if device.type == "cuda":
        import triton

        major, minor = torch.cuda.get_device_capability(device)
        versions = [f"compute capability {major}.{minor}", f"CUDA {torch.version.cuda}", f"triton {triton.__version__}"]
    place = "GPU" if device.type == "cuda" else "CPU"
    uses = {row.op: row.uses for row in kernels.implementations() if row.device == place}
    return {"device": device_name(device), "machine": machine(torch.get_num_threads(), None, versions), "uses": uses}


def main(arguments: list[str] | None = None) -> None:
    """Measure all cases, or those of some families, and write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to try this script")
    parser.add_argument("--only", choices=FAMILIES, action="append", help="measure this family; may be repeated")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of rounds a case, if 5 do not take longer")
    parser.add_argument("--slow", type=float, default=1.0, help="seconds a call beyond which it is timed once")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which a first call is cut")
    parser.add_argument("--compiling", type=float, default=15.0, help="the same for torch.compile")
    parser.add_argument("--root", type=Path, help="where bench/results is; without it a rehearsal is only printed")
    parser.add_argument("--tests", default="not run", help="what the table says of the GPU tests")
    chosen = parser.parse_args(arguments)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: torch sees no CUDA device; --device cpu --quick rehearses without one")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    rehearsal = chosen.quick or device.type == "cpu"
    record = facts(device) | {"rehearsal": rehearsal, "tests": chosen.tests, "cases": []}
    slug = re.sub(r"[^a-z0-9]+", "-", record["device"].lower()).strip("-")
    root = chosen.root or (None if rehearsal else ROOT)
    results = root / "bench" / "results" / f"gpu-{slug}.json" if root else None
    work = [case for case in cases(chosen.quick) if case.family in (chosen.only or FAMILIES)]
    if results:
        results.parent.mkdir(parents=True, exist_ok=True)
        if chosen.only and results.exists():  # each row is of one run; the others stay
            record["cases"] = json.loads(results.read_text())["cases"]
    ceilings = measure_ceilings(device)
    record["ceilings"] = asdict(ceilings)
    limits = Limits(chosen.budget, chosen.slow, chosen.patience, chosen.compiling)
    order = [str(case) for case in cases(chosen.quick)]
    if not chosen.no_compile:
        attempt(lambda: compile_something(device), limits.patience)
    for number, case in enumerate(work, 1):
        print(f"{number}/{len(work)} {case}", file=sys.stderr, flush=True)
        row = measure(case, device, limits, not chosen.no_compile)
        row["roofline"] = ceilings.roofline(Work(**row["work"])) if "work" in row else None
        record["cases"] = [*(old for old in record["cases"] if old["case"] != row["case"]), row]
        record["cases"].sort(key=lambda row: order.index(row["case"]))
        if results:
            write_text(results, json.dumps(record, indent=1) + "\n")
            write_text(results.with_suffix(".md"), markdown(record) + "\n")
    print(markdown(record))
    bad = [row["case"] for row in record["cases"] if row["wrong"].get(OURS, "").startswith(("differs", "fails"))]
    if bad:
        sys.exit(f"adsq is wrong in: {'; '.join(bad)}")


if __name__ == "__main__":
    main()
