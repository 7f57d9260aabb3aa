"""Tables and figures of the study, from its records: a part of bench/study/README.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adsq.report import pr_curve
from adsq.report._figure import add_legend, line_style, new_figure, save, tidy
from methods import ABLATIONS, MAIN, METHODS, ON_COMPOSITES

Record = dict[str, Any]
OWN = ("adsq-one", "adsq", "adsq-likelihood")
KINDS = {"f": "F alone", "average": "average of two", "itq": "F alone", "lsh": "F alone"}
BITS = (16, 32, 48, 64)
BUDGETS = {"time": "Equal training time", "epochs": "Equal epochs"}


def codes_of(record: Record) -> dict[str, dict[str, Any]]:
    """Return what a record says of each kind of code."""
    return {kind: record[kind] for kind in KINDS if kind in record}


def summary(records: list[Record], value: Callable[[dict[str, Any]], float]) -> dict[tuple[str, str, int], list[float]]:
    """Return a value of each seed, in the order of the seeds, by method, kind of code and bits."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        for kind, code in codes_of(record).items():
            found.setdefault((record["method"], kind, record["bits"]), []).append(value(code))
    return found


def cell(values: list[float] | None, seeds: int) -> str:
    """Write a mean and its spread; nothing where a seed is missing."""
    if values is None or len(values) < seeds:
        return ""
    return f"{statistics.mean(values):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if seeds > 1 else "")


def rows(records: list[Record], methods: list[str], value: Callable[[dict[str, Any]], float]) -> list[str]:
    """Return a table: a line for each method and kind of code, a column for each code length."""
    bits = sorted({record["bits"] for record in records})
    seeds = len({record["seed"] for record in records})
    found = summary(records, value)
    lines = ["| method | code | epochs | CPU s | " + " | ".join(f"{n} bits" for n in bits) + " |"]
    lines.append("|---|---|--:|--:|" + "---|" * len(bits))
    for method in methods:
        own = [record for record in records if record["method"] == method]
        for kind, name in KINDS.items():
            cells = [cell(found.get((method, kind, n)), seeds) for n in bits]
            if any(cells):
                cost = f"{own[0]['epochs']} | {statistics.median(record['cpu_s'] for record in own):.0f}"
                lines.append(f"| {METHODS[method].title} | {name} | {cost} | " + " | ".join(cells) + " |")
    return lines


def mean_ap(code: dict[str, Any]) -> float:
    """Return mAP@all."""
    return code["map"]


SEVERAL: dict[str, Callable[[dict[str, Any]], float]] = {
    "mAP@all, where an image that shares a label is relevant": mean_ap,
    "nDCG@100, where the gain is the number of labels shared": lambda code: code["ndcg_at"]["100"],
    "Weighted mAP@all, where a precision is that of labels shared": lambda code: code["weighted_map"],
}


def text(by_budget: dict[str, list[Record]]) -> str:
    """Return the study's part of the README."""
    lines: list[str] = []
    for budget, every in by_budget.items():
        real = [record for record in every if record["data"] == "fashion-mnist" and record["method"] in MAIN]
        if real:
            seeds = ", ".join(map(str, sorted({record["seed"] for record in real})))
            missing = [method.title for name, method in MAIN.items() if name not in {r["method"] for r in real}]
            missing += [f"{n} bits" for n in BITS if n not in {record["bits"] for record in real}]
            machines = "; ".join(sorted({record["machine"] for record in real}))
            run = f"Seeds {seeds}. Not run: {', '.join(missing) or 'nothing'}. Machine: {machines}."
            lines += [f"### {BUDGETS[budget]}", "", run, ""]
            lines += [*rows(real, list(MAIN), mean_ap), "", *claims(real, mean_ap), ""]
    every = by_budget.get("time", [])
    ablations = [r for r in every if r["data"] == "fashion-mnist" and r["bits"] == 32]
    if any(record["method"] in ABLATIONS for record in ablations):
        methods = ["adsq", "adsq-one", "adsq-likelihood", *ABLATIONS]
        lines += ["### Ablations, 32 bits, equal training time", "", *rows(ablations, methods, mean_ap), ""]
        lines += [*verdicts(ablations), ""]
    several = [record for record in every if record["data"] == "composites"]
    if several:
        lines += ["### Several labels an image: composites, 32 bits, equal training time", ""]
        for name, value in SEVERAL.items():
            lines += [f"{name}:", "", *rows(several, list(ON_COMPOSITES), value), "", *claims(several, value)[:1], ""]
    return "\n".join(lines)


def tuning(records: list[Record]) -> list[str]:
    """Return a table of the settings that were tried."""
    lines = ["### Settings tried", "", "| method | settings | epochs | mAP, seed 100 |", "|---|---|--:|--:|"]
    for record in records:
        settings = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
        best = max(code["map"] for code in codes_of(record).values())
        lines.append(f"| {METHODS[record['method']].title} | {settings} | {record['epochs']} | {best:.3f} |")
    return [*lines, ""] if records else []


def verdicts(records: list[Record]) -> list[str]:
    """Say which parts of the method earn their place: it is worse without them for every seed."""
    found = summary(records, mean_ap)
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name, method in ABLATIONS.items():
        kind = "average" if method.nets == 2 else "f"
        whole = found.get(("adsq-likelihood" if name.startswith("likelihood") else "adsq", "average", 32), [])
        changed = found.get((name, kind, 32), [])
        if whole and len(whole) == len(changed):
            less = [one - other for one, other in zip(whole, changed, strict=True)]
            parts[min(less) > 0].append(f"{method.title} ({-statistics.mean(less):+.3f})")
    said = {True: "Worse for every seed than the objective as it is", False: "Not worse for every seed"}
    return [f"- {said[worse]}: {', '.join(names)}." for worse, names in parts.items() if names]


def claims(records: list[Record], value: Callable[[dict[str, Any]], float]) -> list[str]:
    """Say at which code lengths ADSQ's mean is above every rival's, of one network and of two, and where it is not."""
    seeds = len({record["seed"] for record in records})
    every = summary(records, value)
    found = {name: statistics.mean(values) for name, values in every.items() if len(values) == seeds}
    lines = []
    for nets, kinds, own in ((1, ("f", "itq", "lsh"), OWN), (2, ("average",), OWN)):
        rivals = [name for name in MAIN if not name.startswith("adsq")]
        margins = []
        for bits in sorted({record["bits"] for record in records}):
            ours = [found[m, k, bits] for m in own for k in kinds if (m, k, bits) in found]
            theirs = {(m, k): found[m, k, bits] for m in rivals for k in kinds if (m, k, bits) in found}
            if ours and theirs:
                best = max(theirs, key=lambda name: theirs[name])
                margin = max(ours) - theirs[best]
                margins.append(f"{bits} bits {margin:+.3f} against {METHODS[best[0]].title}")
        if margins:
            what = "one network at query time" if nets == 1 else "two networks at query time"
            lines.append(f"- ADSQ's best mean against the best rival's, {what}: {'; '.join(margins)}.")
    pays = [
        f"{bits} bits {found['adsq', 'average', bits] - found['adsq-one', 'f', bits]:+.3f}"
        for bits in sorted({record["bits"] for record in records})
        if ("adsq", "average", bits) in found and ("adsq-one", "f", bits) in found
    ]
    return lines + ([f"- ADSQ's average of two ImgNets against one ImgNet: {'; '.join(pays)}."] if pays else [])


def figures(folder: Path, records: list[Record]) -> list[str]:
    """Draw precision over recall and over the number of results, means over seeds; return lines that show them."""
    curves, precision = {}, {}
    every = [r for r in records if r["data"] == "fashion-mnist" and r["bits"] == 32 and r["method"] in MAIN]
    for method in MAIN:
        own = [record for record in every if record["method"] == method]
        for kind in codes_of(own[0]) if own else ():
            if (kind == "average") != (METHODS[method].nets == 2):
                continue  # the code a method is meant for
            title = METHODS[method].title
            points = {
                name: torch.tensor([[float("nan") if x is None else x for x in r[kind][name]] for r in own]).nanmean(0)
                for name in ("recall", "precision")
            }
            curves[title] = points["recall"], points["precision"]
            at = own[0][kind]["precision_at"]
            precision[title] = {int(n): statistics.mean(r[kind]["precision_at"][n] for r in own) for n in at}
    if not curves:
        return []
    pr_curve(folder / "precision_recall.png", curves, "Fashion-MNIST, 32 bits, equal training time")
    figure = new_figure(7.6, 4.8)
    axes = figure.add_subplot()
    for number, (title, values) in enumerate(precision.items()):
        axes.plot(list(values), list(values.values()), marker="o", markersize=3.5, label=title, **line_style(number))
    axes.set(xscale="log", xlabel="results N", ylabel="precision@N")
    tidy(axes, "Fashion-MNIST, 32 bits, equal training time", grid=True)
    add_legend(axes)
    save(figure, folder / "precision_at_n.png")
    return [
        "![Precision and recall](results/precision_recall.png)",
        "",
        "![Precision@N](results/precision_at_n.png)",
        "",
    ]
