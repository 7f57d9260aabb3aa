"""Ways of an index to search, in one run: scan, equal codes once, hash tables, and the choice between them.

Every result is compared with that of the scan first. Then the ways take turns in every round. Run by
`make bench-scale`; writes bench/results/scale.json, and from it docs/scale.png and the tables of
kernels/hamming_hash/README.md.

Ways: an index with each code in its row, or equal codes stored once; searched by a scan or by hash tables, forced; and
"auto", which is what `HammingIndex(num_bits)` and `search(queries, k)` do when tables have been made.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import scale_report as report
import torch
import typer
from peers_codes import fair_codes, near, trained_codes
from race import Entrant, machine, race
from rich.console import Console
from rich.progress import Progress

from adsq import HammingIndex
from adsq.files import write_text

ROOT = Path(__file__).parent.parent
BITS, CENTRES, CHUNK = 64, 100, 1 << 20
FLIPS = {"15 % flips": 0.15, "5 % flips": 0.05, "2 % flips": 0.02}  # of bits, of codes about 100 centres
WAYS: dict[str, tuple[bool | Literal["auto"], str]] = {
    "scan": (False, "scan"),
    "hash": (False, "hash"),
    "distinct": (True, "scan"),
    "distinct hash": (True, "hash"),
    "auto": ("auto", "auto"),
}
SINGLE = 16  # single queries, one call after the other, that make a turn


@dataclass(frozen=True)
class Search:
    """A search of a cell: of `k` neighbours, or within `radius`; `queries` at a time, 1 means one after the other."""

    queries: int
    k: int = 0
    radius: int = 0


SEARCHES = [Search(1, k=k) for k in (10, 100, 1000)] + [Search(1, radius=radius) for radius in (2, 6)]
BATCHES = [Search(queries, k=k) for queries in (64, 1000) for k in (10, 100)] + [Search(1000, radius=2)]
SIZES = (1_000_000, 10_000_000)
GROWTH = tuple(10**power for power in range(4, 9))


def make_codes(data: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make packed 64-bit codes, uint8 [count, 8], and 1,000 queries, the same every time."""
    random = np.random.default_rng(0)
    if data == "random":
        return fair_codes(random, count, BITS), fair_codes(random, 1000, BITS)
    centres = fair_codes(random, CENTRES, BITS)

    def some(rows: int) -> np.ndarray:
        return near(random, centres[random.integers(0, CENTRES, rows)], FLIPS[data])

    queries = some(1000)
    return np.concatenate([some(min(CHUNK, count - first)) for first in range(0, count, CHUNK)]), queries


def make_index(codes: torch.Tensor, distinct: bool | Literal["auto"]) -> HammingIndex:
    """Index codes under their row numbers."""
    index = HammingIndex(8 * codes.shape[1], distinct=distinct)
    index.add(codes)
    return index


class Ways:
    """The indexes of some codes, by way."""

    def __init__(self, codes: np.ndarray, ways: list[str]) -> None:
        made: dict[Any, HammingIndex] = {}
        packed = torch.from_numpy(codes)
        for way in ways:
            distinct = WAYS[way][0]
            if distinct not in made:
                made[distinct] = make_index(packed, distinct)
        self.indexes = {way: made[WAYS[way][0]] for way in ways}
        self.tables: set[int] = set()

    def calls(self, queries: np.ndarray, search: Search) -> Iterator[tuple[str, Callable[[], list[Any]]]]:
        """Yield each way and a call of it; that of "auto" has tables to choose."""
        packed = torch.from_numpy(queries)
        parts = [packed[i : i + 1] for i in range(SINGLE)] if search.queries == 1 else [packed[: search.queries]]
        for way, index in self.indexes.items():
            method = WAYS[way][1]
            if way == "auto" and id(index) not in self.tables:
                self.tables.add(id(index))
                index.search(packed[:1], 1, method="hash")
            one = partial(index.search, k=search.k) if search.k else partial(index.range_search, radius=search.radius)
            yield way, partial(_each, partial(one, method=method), parts)


def _each(one: Callable[[torch.Tensor], Any], parts: list[torch.Tensor]) -> list[Any]:
    return [one(part) for part in parts]


def measure(ways: Ways, queries: np.ndarray, search: Search, budget: float) -> dict[str, Any]:
    """Compare the results of all ways, time them, and return seconds a query of each round by way."""
    entrants = [Entrant(way, call, 1) for way, call in ways.calls(queries, search)]
    expected = entrants[0].call()
    for entrant in entrants[1:]:
        for found, wanted in zip(entrant.call(), expected, strict=True):
            for a, b in zip(found, wanted, strict=True):
                if not torch.equal(a, b):
                    raise ValueError(f"{entrant.name}, {search}: not what {entrants[0].name} finds")
    number = SINGLE if search.queries == 1 else search.queries
    seconds = race(entrants, budget)
    return {**asdict(search), "seconds": {way: [time / number for time in times] for way, times in seconds.items()}}


def measure_cells(
    data: str, codes: np.ndarray, queries: np.ndarray, searches: list[Search], budget: float, done: Callable[[], None]
) -> dict[str, Any]:
    """Measure all searches of some codes."""
    ways = Ways(codes, list(WAYS))
    cells = []
    for search in searches:
        cells.append(measure(ways, queries, search, budget))
        done()
    share = len(np.unique(codes.view(np.uint64))) / len(codes)
    stored = type(ways.indexes["auto"]._storage.rows()).__name__
    return {"data": data, "codes": len(codes), "distinct_share": round(share, 4), "auto": stored, "cells": cells}


def measure_growth(data: str, count: int, budget: float) -> dict[str, Any]:
    """Measure one query, k = 10, among more and more codes."""
    codes, queries = make_codes(data, count)
    names = ["scan", "hash", "auto"] if data == "random" else ["scan", "distinct", "distinct hash", "auto"]
    return {"data": data, "codes": count} | measure(Ways(codes, names), queries, Search(1, k=10), budget)


def measure_map(count: int, folder: Path, budget: float) -> dict[str, Any]:
    """Measure one query among codes in a mapped file, beside a pass that only adds up the same bytes."""
    codes, queries = make_codes("random", count)
    path = folder / "codes.adsq"
    make_index(torch.from_numpy(codes), False).save(path)
    del codes
    mapped = HammingIndex.load(path, mmap=True)
    packed = torch.from_numpy(queries[:1])
    stream = mapped._storage.rows().codes.view(torch.int64)
    expected = mapped.search(packed, 10, method="scan")
    if not all(torch.equal(a, b) for a, b in zip(mapped.search(packed, 10), expected, strict=True)):
        raise ValueError("mapped file: the choice finds something else than the scan")
    entrants = [Entrant("scan", partial(mapped.search, packed, 10, method="scan"), 1), Entrant("sum", stream.sum, 1)]
    return {"codes": count, "bytes": path.stat().st_size, "seconds": race(entrants, budget)}


def main(
    trained: Annotated[Path | None, typer.Option(help="Also the codes of this saved index, of 64 bits.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds of rounds a search, if 5 rounds do not take longer.")] = 3.0,
    cpu: Annotated[int | None, typer.Option(help="Pin this process to a CPU.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for a file of 1.6 GB; by default one for such files.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to try this script; needs --root.")] = False,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Write tables and picture again from the JSON file.")
    ] = False,
    root: Annotated[Path, typer.Option(help="Where bench/results, docs and kernels are.")] = ROOT,
) -> None:
    """Measure the ways of an index to search, with one thread; needs about 16 GB of memory."""
    if quick and root.resolve() == ROOT.resolve():
        raise typer.BadParameter("expected --root beside it: tiny sizes are not to be published", param_hint="--quick")
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    torch.set_num_threads(1)
    results = root / "bench" / "results" / "scale.json"
    if not redraw:
        results.parent.mkdir(parents=True, exist_ok=True)
        write_text(results, json.dumps(measure_all(trained, budget, cpu, work, quick), indent=1) + "\n")
    record = json.loads(results.read_text())
    report.draw(record, root / "docs" / "scale.png")
    report.write_readme(root / "kernels" / "hamming_hash" / "README.md", record)
    Console().print("\n".join(report.summary(record)))


def measure_all(trained: Path | None, budget: float, cpu: int | None, work: Path | None, quick: bool) -> dict[str, Any]:
    """Measure everything with a progress bar and return the record."""
    less = 500 if quick else 1
    kinds, sizes = ["random", *FLIPS], [size // less for size in SIZES]
    growth = [(data, count // less) for data in ("random", "2 % flips") for count in GROWTH if count // less > 100]
    searches = {size: SEARCHES + (BATCHES if size == sizes[0] else []) for size in sizes}
    total = len(kinds) * sum(map(len, searches.values())) + len(growth) + 1 + bool(trained) * len(searches[sizes[0]])
    record: dict[str, Any] = {"machine": machine(1, cpu, []), "tables": [], "growth": []}
    # Refreshed by hand: a bar that moves by itself takes its time from what is measured.
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("", total=total)

        def done() -> None:
            progress.update(task, advance=1, refresh=True)

        if trained:
            progress.update(task, description="trained codes", refresh=True)
            codes = trained_codes(trained, 1000)
            record["tables"].append(measure_cells("trained", *codes, searches[sizes[0]], budget, done))
        for size in sizes:
            for data in kinds:
                progress.update(task, description=f"{size:,} codes, {data}", refresh=True)
                codes = make_codes(data, size)
                record["tables"].append(measure_cells(data, *codes, searches[size], budget, done))
        for data, count in growth:
            progress.update(task, description=f"one query, {count:,} codes, {data}", refresh=True)
            record["growth"].append(measure_growth(data, count, budget))
            done()
        progress.update(task, description="mapped file", refresh=True)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            record["map"] = measure_map(GROWTH[-1] // less, Path(folder), budget)
        done()
    return record


if __name__ == "__main__":
    typer.run(main)
