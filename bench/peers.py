"""adsq beside FAISS, usearch, numpy and PyTorch, in one run on one machine. Run by `make bench-peers`.

Every result is compared first. Then each search takes its turn in every round: all of them see the same machine. An
ADSQ_SIMD of the environment is not heeded. Writes bench/results/peers.json, and from it docs/peers.png and the table in
README.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import peers_report as report
import torch
import typer
from peers_codes import check, fair_codes, make_codes, near, trained_codes
from peers_searches import BUILDERS, REUSING, script_average_precision
from race import Entrant, describe, machine, race
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from threadpoolctl import threadpool_limits

from adsq import HammingIndex
from adsq.files import write_text
from adsq.kernels import _extension, hamming_average_precision, unpack_codes

ROOT = Path(__file__).parent.parent
FAISS = ("FAISS heap", "FAISS counting")
KINDS = ("clustered", "sorted", "all equal", "two values")


@dataclass(frozen=True)
class Case:
    """A search that is measured; k = 0 is the full ranking."""

    codes: int
    bits: int
    queries: int
    k: int
    ours: tuple[str, ...] = ("adsq",)
    data: str = "random"
    peers: tuple[str, ...] = report.PEERS
    index: Path | None = None  # with the codes, where they are trained
    reuse: bool = False  # whether results are written to the memory of earlier ones


TABLE = [
    Case(1_000_000, 64, 1, 10),
    Case(10_000_000, 64, 1, 10),
    Case(100_000, 64, 64, 100),
    Case(1_000_000, 32, 1000, 100),
    Case(1_000_000, 64, 1000, 10),
    Case(1_000_000, 64, 1000, 100, ours=("adsq", "adsq function", "adsq AVX2")),
    Case(1_000_000, 128, 1000, 100),
    Case(1_000_000, 128, 1000, 1000),
    Case(1_000_000, 256, 64, 100),
    Case(10_000_000, 64, 64, 100),
    Case(54_000, 48, 1000, 0),
]
REUSED = replace(TABLE[-1], peers=FAISS, reuse=True)
OTHER_DATA = [
    Case(*sizes, data=kind, peers=FAISS)
    for sizes in ((1_000_000, 64, 1000, 100), (1_000_000, 64, 1, 10), (100_000, 64, 64, 100))
    for kind in KINDS
]
RANKING = {"codes": 59_000, "bits": 48, "queries": 1000, "classes": 10}


def trained_cases(path: Path) -> list[Case]:
    """Return the cases of codes that a model gave, in a saved index: `adsq index` writes one."""
    index = HammingIndex.load(path)
    return [
        Case(len(index) - queries, index.num_bits, queries, k, data="trained", peers=FAISS, index=path)
        for queries, k in ((1000, 100), (1000, 10), (64, 100), (1, 10))
    ]


def measure(case: Case, threads: int, budget: float, limit: float) -> dict[str, Any]:
    """Compare all results of a case, time them, and return the record of it."""
    k = case.k or case.codes
    if case.index:
        database, queries = trained_codes(case.index, case.queries)
    else:
        database, queries = make_codes(case.data, case.codes, case.queries, case.bits)
    few = queries[:8]
    torch.set_num_threads(threads)
    expected = np.asarray(BUILDERS["FAISS counting"](database, case.bits, threads)(queries, k)[0])
    entrants, skipped = [], {}
    for name, builder, own_threads, simd in contestants(case, threads):
        search = (REUSING if case.reuse else BUILDERS)[builder](database, case.bits, own_threads)
        entrant = Entrant(name, partial(search, queries, k), own_threads, simd)
        if name in report.PEERS:
            seconds = Entrant(name, partial(search, few, k), own_threads).turn() * len(queries) / len(few)
            if seconds > limit:
                skipped[name] = f"about {seconds:.0f} s a call"
                continue
        entrant.prepare()
        check(f"{name}, {case}", entrant.call(), queries, database, expected, by_id=builder.startswith("adsq"))
        entrants.append(entrant)
    sizes = {"codes": case.codes, "bits": case.bits, "queries": case.queries, "k": k}
    what = {"data": case.data, "reuse": case.reuse}
    return {**sizes, **what, "skipped": skipped, "seconds": race(entrants, budget)}


def contestants(case: Case, threads: int) -> Iterator[tuple[str, str, int, str | None]]:
    """Yield (name, builder, threads, SIMD variant) of those who take part on this machine."""
    for name in case.ours:
        if name != "adsq AVX2":
            yield name, name, threads, None
        elif "avx2" in _extension.simd_variants()[1:]:
            yield name, "adsq", threads, "avx2"
    if threads > 1:
        yield report.ONE_THREAD, "adsq", 1, None
    yield from ((name, name, threads, None) for name in case.peers)


def measure_ranking(codes: int, bits: int, queries: int, classes: int, threads: int, budget: float) -> dict[str, Any]:
    """Compare and time average precision over the full ranking of labelled codes, as `measure` does."""
    random = np.random.default_rng(0)
    centres = fair_codes(random, classes, bits)
    labels = [random.integers(0, classes, count) for count in (queries, codes)]
    packed = [torch.from_numpy(near(random, centres[ids], 0.2)) for ids in labels]
    signs = [unpack_codes(part, bits).numpy() for part in packed]
    tensors = [torch.from_numpy(ids) for ids in labels]
    ours = partial(hamming_average_precision, *packed, *tensors)
    entrants = [
        Entrant("adsq", ours, threads),
        Entrant("numpy", partial(script_average_precision, *signs, *labels), threads),
    ]
    if threads > 1:
        entrants.append(Entrant(report.ONE_THREAD, ours, 1))
    entrants[0].prepare()
    np.testing.assert_allclose(ours()[0].numpy(), entrants[1].call(), rtol=0, atol=1e-9)
    sizes = {"codes": codes, "bits": bits, "queries": queries, "classes": classes}
    return {**sizes, "seconds": race(entrants, budget)}


def facts(threads: int, cpu: int | None) -> dict[str, Any]:
    """Name the machine, and who runs in which version and variant."""
    versions = [f"FAISS {faiss.__version__} ({faiss.SIMDConfig.get_level_name()})"]
    return machine(threads, cpu, [*versions, *(f"{package} {version(package)}" for package in ("usearch", "numpy"))])


def main(
    threads: Annotated[int, typer.Option(min=1, help="Threads of everyone; from 2 on, adsq also runs with 1.")] = 1,
    data: Annotated[bool, typer.Option("--data", help="Also clustered, sorted, equal and two-valued codes.")] = False,
    trained: Annotated[Path | None, typer.Option(help="Also the codes of this saved index, FAISS only.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds of rounds a case, if 5 rounds do not take longer.")] = 10.0,
    limit: Annotated[float, typer.Option(help="Seconds a call beyond which a peer is left out of a case.")] = 30.0,
    cpu: Annotated[int | None, typer.Option(help="Pin this process to a CPU; with one thread only.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few tiny cases, to try this script; needs --root.")] = False,
    redraw: Annotated[bool, typer.Option("--redraw", help="Write table and picture again from the JSON file.")] = False,
    root: Annotated[Path, typer.Option(help="Where bench/results, docs and README.md are.")] = ROOT,
) -> None:
    """Measure adsq beside other libraries; write bench/results/peers.json, docs/peers.png and the README's table."""
    if quick and root.resolve() == ROOT.resolve():
        raise typer.BadParameter("expected --root beside it: tiny sizes are not to be published", param_hint="--quick")
    if cpu is not None:
        if threads > 1:
            raise typer.BadParameter("expected --threads 1 beside it", param_hint="--cpu")
        os.sched_setaffinity(0, {cpu})
    results = root / "bench" / "results" / "peers.json"
    if not redraw:
        results.parent.mkdir(parents=True, exist_ok=True)
        write_text(results, json.dumps(measure_all(threads, data, trained, budget, limit, cpu, quick), indent=1) + "\n")
    record = json.loads(results.read_text())
    report.draw(record, root / "docs" / "peers.png")
    report.write_readme(root / "README.md", record)
    header, *body = report.rows(record)
    table = Table(*header, title="Times as long as adsq", caption=describe(record["machine"]))
    for row in body:
        table.add_row(*row)
    Console().print(table)


def measure_all(
    threads: int, data: bool, trained: Path | None, budget: float, limit: float, cpu: int | None, quick: bool
) -> dict[str, Any]:
    """Measure all cases with a progress bar and return the whole record."""
    faiss.omp_set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")
    cases = [*TABLE, *(OTHER_DATA if data else ())]
    cases = [*(cases[::5] if quick else cases), REUSED]
    ranking = RANKING
    if quick:
        cases = [replace(c, codes=c.codes // 500, queries=min(c.queries, 20), k=min(c.k, 10)) for c in cases]
        ranking = ranking | {"codes": 500, "queries": 20}
    if trained:
        cases += trained_cases(trained)
    record: dict[str, Any] = {"machine": facts(threads, cpu), "limit": limit, "cases": []}
    # Refreshed by hand: a bar that moves by itself takes its time from what is measured.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("", total=len(cases) + 1)
        for case in cases:
            progress.update(task, description=f"{report.title(asdict(case))}, {case.data}", refresh=True)
            record["cases"].append(measure(case, threads, budget, limit))
            progress.advance(task)
        progress.update(task, description=report.title(ranking), refresh=True)
        record["ranking"] = measure_ranking(**ranking, threads=threads, budget=budget)
        progress.update(task, advance=1, refresh=True)
    return record


if __name__ == "__main__":
    typer.run(main)
