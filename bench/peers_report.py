"""The table and the picture of peers.py, from what it measured."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from race import cell, describe, write_between

from adsq.report import _figure as look

PEERS = ("FAISS heap", "FAISS counting", "usearch", "numpy", "torch")
OURS = {"adsq": "", "adsq function": ", `hamming_topk`", "adsq AVX2": ", adsq held to AVX2"}  # -> what a title adds
ONE_THREAD = "adsq, 1 thread"


def rows(record: dict[str, Any]) -> list[list[str]]:
    """Return the header and the rows of the table: how many times as long as adsq each peer takes."""
    threads = record["machine"]["threads"]
    columns = [*PEERS, ONE_THREAD] if threads > 1 else PEERS
    table = [["search", *columns]]
    for case, ours in _entries(record):
        ratios = [_ratio(case, column, ours) if column in PEERS or ours == "adsq" else None for column in columns]
        table.append([title(case) + OURS[ours], *map(cell, ratios)])
    table.append([title(record["ranking"]), *(cell(_ratio(record["ranking"], column, "adsq")) for column in columns)])
    if threads > 1:
        table[0][-1] = f"{threads} threads vs 1"
    return table


def markdown(record: dict[str, Any]) -> str:
    """Return what stands in the README."""
    header, *body = rows(record)
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = (
        "How many times as long as adsq each takes for the same exact result: `HammingIndex.search` where nothing else "
        "is said, random codes, medians of interleaved rounds. mAP@all is compared with the usual numpy script, an "
        "argsort a query. Memory reused: results overwrite earlier ones. -: does not apply, or would take more than "
        f"{record['limit']:g} s a call. {_others(record)}"
        f"Machine: {describe(record['machine'])}."
    )
    return f"![Speed-up over FAISS](docs/peers.png)\n\n{table}\n\n{textwrap.fill(notes, 120)}"


def write_readme(path: Path, record: dict[str, Any]) -> None:
    """Put the table between the markers of a README; ValueError where it does not have them."""
    write_between(path, "peers", markdown(record))


def title(case: dict[str, Any]) -> str:
    """Name a case by its sizes."""
    queries = "1 query" if case["queries"] == 1 else f"{case['queries']:,} queries"
    if "classes" in case:
        wanted = "mAP@all"
    else:
        wanted = "full ranking" if case["k"] in (0, case["codes"]) else f"k = {case['k']:,}"
    reused = ", memory reused" if case.get("reuse") else ""
    return f"{_short(case['codes'])} x {case['bits']} bits, {queries}, {wanted}{reused}"


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the speed-up over FAISS's faster variant, a bar for each row of the table, and over the script for mAP."""
    bars = [
        (title(case) + OURS[ours].replace("`", ""), _best_ratio(case, ours), look.COLOURS[0])
        for case, ours in _entries(record)
    ]
    bars.append(
        (f"{title(record['ranking'])}, over numpy", _ratio(record["ranking"], "numpy", "adsq"), look.COLOURS[1])
    )
    labels, ratios, colours = zip(*((label, ratio, colour) for label, ratio, colour in bars if ratio), strict=True)
    figure = look.new_figure(8.6, 1.4 + 0.3 * len(labels), "Exact Hamming search: speed-up of adsq over FAISS")
    axes = figure.subplots()
    drawn = axes.barh(range(len(labels)), [ratio - 1 for ratio in ratios], left=1, height=0.66, color=colours)
    axes.bar_label(drawn, [f"{cell(ratio)}x" for ratio in ratios], padding=4, size=8.5, color=look.INK)
    low, high = min(1.0, *ratios), max(2.0, *ratios)
    room = (high / low) ** 0.1  # for the numbers at the ends
    axes.set(xscale="log", xlim=(low / (room if low < 1 else 1.01), high * room), ylim=(len(labels) - 0.4, -0.6))
    axes.set_yticks(range(len(labels)), labels)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=look.INK, linewidth=1)
    look.tidy(axes, "")
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.tick_params(axis="y", length=0)
    caption = textwrap.fill(
        f"1x: the faster of FAISS's two variants, in the same run. {describe(record['machine'])}", 140
    )
    figure.supxlabel(textwrap.fill(caption, 140), x=0.012, ha="left", size=8, color=look.FAINT)
    look.save(figure, path)


def _entries(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (case, which of ours) for each search on random codes."""
    for case in record["cases"]:
        if case["data"] == "random":
            yield from ((case, ours) for ours in OURS if ours in case["seconds"])


def _others(record: dict[str, Any]) -> str:
    """Return a sentence about the cases that are not of random codes; empty where there are none."""
    others = [case for case in record["cases"] if case["data"] != "random"]
    ratios = ((_best_ratio(case, "adsq"), f"{case['data']}, {title(case)}") for case in others)
    found = sorted(pair for pair in ratios if pair[0] is not None)
    if not found:
        return ""
    kinds = ", ".join(dict.fromkeys(case["data"] for case in others))
    return (
        f"With codes that are not random ({kinds}), FAISS's faster variant takes {cell(found[0][0])} ({found[0][1]}) "
        f"to {cell(found[-1][0])} times as long ({found[-1][1]}). "
    )


def _ratio(case: dict[str, Any], peer: str, ours: str) -> float | None:
    seconds = case["seconds"]
    return statistics.median(seconds[peer]) / statistics.median(seconds[ours]) if peer in seconds else None


def _best_ratio(case: dict[str, Any], ours: str) -> float | None:
    ratios = [_ratio(case, peer, ours) for peer in PEERS if peer.startswith("FAISS") and peer in case["seconds"]]
    return min(ratios, default=None)


def _short(count: int) -> str:
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{name}"
    return f"{count:,}"
