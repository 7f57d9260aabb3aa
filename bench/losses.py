"""adsq's losses beside plain PyTorch, eager and compiled, in one run on one machine. Run by `make bench-losses`.

Loss and gradients are compared first. Then each takes its turn in every round, forward and backward through the public
function. Peak memory is measured apart. Writes bench/results/losses.json, and from it the tables in the READMEs of the
families.
"""

from __future__ import annotations

import json
import os
import statistics
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from loss_cases import (
    PAIR_CASES,
    SIGN_CASES,
    PairCase,
    check,
    forward_and_backward,
    pair_inputs,
    sign_inputs,
    sign_step,
)
from race import Entrant, cell, describe, machine, race, write_between
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from adsq.files import write_text
from adsq.kernels import _extension, pairwise_similarity_loss, sign_quantization_loss
from adsq.kernels.pairwise_similarity import reference as pairwise_reference
from adsq.kernels.sign_quantization import reference as sign_reference
from memory import peak_extra_memory

ROOT = Path(__file__).parent.parent
FAMILIES = ("pairwise_similarity", "sign_quantization")


class Contest(NamedTuple):
    """The same step in several ways, by name: eager, compiled, adsq; and the leaves that it leaves gradients in."""

    calls: dict[str, Callable[[], object]]
    leaves: list[Tensor]

    def release(self) -> tuple[()]:
        """Drop the gradients."""
        for leaf in self.leaves:
            leaf.grad = None
        return ()


def measure(contest: Contest, budget: float) -> dict[str, Any]:
    """Time calls in turns, and measure their peak memory.

    adsq also runs held to AVX2, and with two threads.
    """
    calls = contest.calls
    entrants = [Entrant(name, call, 1) for name, call in calls.items()]
    if "avx2" in _extension.simd_variants()[1:]:
        entrants.append(Entrant("adsq AVX2", calls["adsq"], 1, "avx2"))
    if (os.cpu_count() or 1) > 1 and len(os.sched_getaffinity(0)) > 1:
        entrants.append(Entrant("adsq, 2 threads", calls["adsq"], 2))
    seconds = race(entrants, budget)
    torch.set_num_threads(1)
    peaks = {name: peak_extra_memory(call, contest.release) for name, call in calls.items()}
    return {"seconds": seconds, "peak_bytes": peaks}


def pair_contest(case: PairCase) -> Contest:
    """Return forward and backward of the pair loss, checked."""
    inputs = pair_inputs(case)
    torch._dynamo.reset()
    plain = pairwise_reference.pairwise_similarity_loss
    losses = {"eager": plain, "compiled": torch.compile(plain, dynamic=False), "adsq": pairwise_similarity_loss}
    expected = tuple(x.clone() for x in forward_and_backward(plain, inputs))
    for loss in losses.values():
        check(loss, inputs, expected)
    calls = {name: partial(forward_and_backward, loss, inputs) for name, loss in losses.items()}
    return Contest(calls, [inputs.u, inputs.v])


def sign_contest(case: tuple[int, int, int]) -> Contest:
    """Return forward and backward of sign quantization, checked."""
    torch._dynamo.reset()
    features = sign_inputs(case)
    plain = sign_reference.sign_quantization_loss
    losses = {"eager": plain, "compiled": torch.compile(plain, dynamic=False), "adsq": sign_quantization_loss}

    expected = sign_step(plain, features)
    for loss in losses.values():
        for got, want in zip(sign_step(loss, features), expected, strict=True):
            torch.testing.assert_close(got, want)
    return Contest({name: partial(sign_step, loss, features) for name, loss in losses.items()}, features)


def table(record: dict[str, Any], family: str) -> str:
    """Return what stands in the README of a family."""
    lines = [
        "| forward and backward | eager | torch.compile | adsq, AVX2 | adsq, 2 threads | MB: eager | compiled | adsq |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in record[family]:
        medians = {name: statistics.median(times) for name, times in case["seconds"].items()}
        names = ("eager", "compiled", "adsq AVX2", "adsq, 2 threads")
        ratios = [cell(medians[name] / medians["adsq"]) if name in medians else "-" for name in names]
        peaks = [f"{case['peak_bytes'][name] / 1e6:.1f}" for name in ("eager", "compiled", "adsq")]
        lines.append(f"| {' | '.join([case['case'], *ratios, *peaks])} |")
    notes = (
        "Times are multiples of adsq's own, medians of interleaved rounds, with one thread where nothing else is said. "
        "Peak memory is by how much the process grows in a call, gradients included. "
        f"Machine: {describe(record['machine'])}."
    )
    return "\n".join(lines) + f"\n\n{textwrap.fill(notes, 120)}"


def main(
    budget: Annotated[float, typer.Option(help="Seconds of rounds a case, if 5 rounds do not take longer.")] = 15.0,
    quick: Annotated[bool, typer.Option("--quick", help="The small cases only; needs --root.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Write the tables again from the JSON file.")] = False,
    root: Annotated[Path, typer.Option(help="Where bench/results and kernels are.")] = ROOT,
) -> None:
    """Measure the losses; write bench/results/losses.json and the tables of two READMEs."""
    if quick and root.resolve() == ROOT.resolve():
        raise typer.BadParameter("expected --root beside it: few cases are not to be published", param_hint="--quick")
    results = root / "bench" / "results" / "losses.json"
    if not redraw:
        record: dict[str, Any] = {"machine": machine(1, None, []), **{family: [] for family in FAMILIES}}
        work: list[tuple[str, str, Callable[[], Contest]]] = [
            *(("pairwise_similarity", str(case), partial(pair_contest, case)) for case in PAIR_CASES),
            *(("sign_quantization", "{:,} x {}, {} features".format(*c), partial(sign_contest, c)) for c in SIGN_CASES),
        ]
        # Refreshed by hand: a bar that moves by itself takes its time from what is measured.
        with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
            task = progress.add_task("", total=len(work))
            for family, name, contest in [*work[:1], *work[len(PAIR_CASES) :][:1]] if quick else work:
                progress.update(task, description=name, refresh=True)
                record[family].append({"case": name, **measure(contest(), budget)})
                progress.update(task, advance=1, refresh=True)
        results.parent.mkdir(parents=True, exist_ok=True)
        write_text(results, json.dumps(record, indent=1) + "\n")
    record = json.loads(results.read_text())
    for family in FAMILIES:
        write_between(root / "kernels" / family / "README.md", "losses", table(record, family))
        print(f"{family}\n{table(record, family)}\n")


if __name__ == "__main__":
    typer.run(main)
