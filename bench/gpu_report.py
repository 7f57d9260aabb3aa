"""The table of gpu.py, from what it measured."""

from __future__ import annotations

import statistics
import textwrap
from typing import Any

from gpu_device import POPCOUNTS, ROTATED
from race import cell, describe

OURS, EAGER, COMPILED = "adsq", "torch eager", "torch.compile"
ENTRANTS = (OURS, EAGER, COMPILED)
HEADER = [
    "device",
    "case",
    "adsq runs",
    *(f"{name}, ms" for name in ENTRANTS),
    "roofline, ms",
    "of the roofline",
    *(f"{name}, MB" for name in ENTRANTS),
]
WORK = ["case", "MB moved", "M words counted", "GFLOP", "copies of the inputs"]


def rows(record: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table: milliseconds, the share of the roofline that adsq reaches, peak memory."""
    table = []
    for row in record["cases"]:
        least, bound = row.get("roofline") or (None, "")
        ours = row["seconds"].get(OURS)
        function = row["case"].split(":")[0]
        table.append(
            [
                row["device"],
                row["case"],
                record["uses"].get(function, "-"),
                *(_time(row, name) for name in ENTRANTS),
                f"{cell(1e3 * least)} ({bound})" if least else "-",
                cell(least / statistics.median(ours)) if least and ours else "-",
                *(cell(row["peak_bytes"][name] / 1e6) if name in row["peak_bytes"] else "-" for name in ENTRANTS),
            ]
        )
    return table


def _time(row: dict[str, Any], name: str) -> str:
    if name in row["wrong"]:
        return row["wrong"][name]
    seconds = row["seconds"].get(name)
    if not seconds:
        return "-"
    return ("" if len(seconds) > 1 else "~") + cell(1e3 * statistics.median(seconds))


def markdown(record: dict[str, Any]) -> str:
    """Return the table, what was done to measure it, and the work of each case."""
    rehearsal = "Rehearsal on tiny cases or on the CPU: no measurement. " if record["rehearsal"] else ""
    ceilings = record["ceilings"]
    popc = "an unknown rate"
    if ceilings["counted"]:
        popc = f"{ceilings['counted'] / 1e12:.3g} T/s, {POPCOUNTS} a clock and SM at {ceilings['clock']}"
    notes = [
        f"{rehearsal}Device: {record['device']}. Host: {describe(record['machine'])}. GPU tests: {record['tests']}.",
        "Times are medians of interleaved rounds through the public functions, launches included, by CUDA events "
        "(on the CPU by a clock); ~: one call, too slow for more. Losses: forward and backward. The inputs are rotated "
        f"over copies that fill {ROTATED} times the L2 cache, as far as memory goes. Peak memory is what a call "
        "allocates beyond its inputs, results included. Results came first: equal to those of adsq on the CPU (in a "
        "rehearsal: of plain PyTorch); loss and gradients off float64 at most twice as far as those of torch eager.",
        "Roofline: the longest of three. Bytes, each input read once and each output written once, at "
        f"{ceilings['moved'] / 1e9:,.0f} GB/s, a large copy in this run, read and write counted. Words of 32 bits "
        f"whose bits are counted, queries x codes x words a code, at {popc}. Multiply-adds of the losses, 6 n m K "
        f"operations for three products, at {ceilings['multiplied'] / 1e12:.3g} TFLOP/s, a large float32 product in "
        "this run, without TF32. Their exp and log are not in it, and tensor cores may pass the popc rate.",
    ]
    units = {"moved": 1e6, "counted": 1e6, "multiplied": 1e9}
    work = [
        [row["case"], *(f"{row['work'][key] / unit:,.4g}" for key, unit in units.items()), str(row["copies"])]
        for row in record["cases"]
        if "work" in row
    ]
    paragraphs = [textwrap.fill(note, 120) for note in notes]
    return "\n\n".join([_table(HEADER, rows(record), 3), *paragraphs, _table(WORK, work, 1)])


def _table(header: list[str], body: list[list[str]], words: int) -> str:
    """Write a table whose first columns are words, and the others numbers."""
    lines = [header, [*["---"] * words, *["--:"] * (len(header) - words)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
