"""The tables and the picture of bench_scale.py, from what it measured."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import Any

from race import cell, describe, write_between

from adsq.report import _figure as look

FORCED = ("scan", "hash", "distinct", "distinct hash")
TITLES = {
    "scan": "scan",
    "hash": "hash tables",
    "distinct": "equal codes once, scan",
    "distinct hash": "equal codes once, hash tables",
    "auto": "auto",
}


def seconds(cell_: dict[str, Any], way: str) -> float:
    """Return the median of a way's rounds."""
    return statistics.median(cell_["seconds"][way])


def loss(cell_: dict[str, Any]) -> float:
    """Return how many times as long as the best forced way "auto" takes; the two of a round are compared."""
    best = min(FORCED, key=lambda way: seconds(cell_, way))
    return statistics.median(a / b for a, b in zip(cell_["seconds"]["auto"], cell_["seconds"][best], strict=True))


def title(search: dict[str, Any]) -> str:
    """Name a search."""
    queries = "1 query" if search["queries"] == 1 else f"{search['queries']:,} queries"
    return f"{queries}, " + (f"k = {search['k']:,}" if search["k"] else f"radius {search['radius']}")


def markdown(record: dict[str, Any]) -> str:
    """Return what stands in the README."""
    lines = []
    for table in record["tables"]:
        stored = "equal codes once" if table["auto"] == "DistinctRows" else "each code in its row"
        share = f"{100 * table['distinct_share']:.3g} % distinct"
        lines += [f"**{table['data']}**, {table['codes']:,} codes of 64 bits, {share}; auto stores {stored}.", ""]
        lines += ["| search | hash | distinct | distinct hash | auto | auto / best |", "|---|--:|--:|--:|--:|--:|"]
        for one in table["cells"]:
            ratios = [cell(seconds(one, "scan") / seconds(one, way)) for way in (*FORCED[1:], "auto")]
            lines.append(f"| {title(one)} | {' | '.join(ratios)} | {loss(one):.2f} |")
        lines.append("")
    notes = (
        "How many times as fast as a scan of all codes each way is, through `HammingIndex.search` and `range_search`; "
        "medians of interleaved rounds, results equal first. Single queries one after the other. The last column: how "
        "many times as long as the fastest of the four forced ways auto takes, the median over rounds. "
        f"Machine: {describe(record['machine'])}."
    )
    lines += [textwrap.fill(notes, 120), "", *[f"{line}" for line in summary(record)], ""]
    return "\n".join([*lines, "![Time against the number of codes](../../docs/scale.png)"])


def summary(record: dict[str, Any]) -> list[str]:
    """Return the worst choice of auto, and the mapped file, in a line each."""
    losses = sorted(
        (loss(one), f"{table['data']}, {table['codes']:,} codes, {title(one)}")
        for table in record["tables"]
        for one in table["cells"]
    )
    above = sum(value > 1.1 for value, _ in losses)
    mapped = record["map"]["seconds"]
    ratio = statistics.median(mapped["scan"]) / statistics.median(mapped["sum"])
    return [
        f"- auto takes at most {losses[-1][0]:.2f} times as long as the fastest forced way ({losses[-1][1]}); more "
        f"than 1.1 times in {above} of {len(losses)} searches.",
        f"- {record['map']['codes']:,} codes in a mapped file, one query, k = 10: {ratio:.2f} times as long as adding "
        "up the same bytes with PyTorch.",
    ]


def write_readme(path: Path, record: dict[str, Any]) -> None:
    """Put the tables between the markers of a README; ValueError where it does not have them."""
    write_between(path, "scale", markdown(record))


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the time of a query against the number of codes, a panel for each kind of codes."""
    figure = look.new_figure(10, 4.4, "One query, k = 10: time against the number of codes")
    kinds = list(dict.fromkeys(point["data"] for point in record["growth"]))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, data in zip(panels, kinds, strict=True):
        points = [point for point in record["growth"] if point["data"] == data]
        for way in points[0]["seconds"]:
            number = list(TITLES).index(way)
            wide = (
                {"linewidth": 4, "alpha": 0.35, "linestyle": "-"}
                if way == "auto"
                else {"marker": "o", "markersize": 3.5}
            )
            x, y = [point["codes"] for point in points], [1e6 * seconds(point, way) for point in points]
            axes.plot(x, y, label=TITLES[way], **look.line_style(number) | wide)
        axes.set(xscale="log", yscale="log", xlabel="codes of 64 bits")
        look.tidy(axes, data if data == "random" else f"100 centres, {data}", grid=True)
        look.add_legend(axes)
    panels[0].set_ylabel("microseconds a query")
    figure.supxlabel(textwrap.fill(describe(record["machine"]), 150), x=0.012, ha="left", size=8, color=look.FAINT)
    look.save(figure, path)
