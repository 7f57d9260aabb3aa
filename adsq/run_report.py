"""The report of a run: pictures and one page, put together from `adsq.report`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from adsq import report
from adsq.data import ImageDataset
from adsq.evaluation import Evaluation
from adsq.workflow import METRICS_FILE, Run, Scored, build_index

GRID_QUERIES, GRID_NEIGHBOURS = 8, 10


def headline(result: Evaluation) -> list[tuple[str, str]]:
    """Return the numbers people ask for first, by name."""
    rows = [(result.rule, f"{result.mean_average_precision:.4f}")]
    if result.weighted_rule is not None:
        rows.append((result.weighted_rule, f"{result.weighted_mean_average_precision:.4f}"))
    rows += [(f"precision@{n}", f"{value:.4f}") for n, value in result.precision_at.items()]
    rows.append((f"precision within radius {result.radius}", f"{result.precision_within_radius:.4f}"))
    rows += [(f"nDCG@{n} ({result.gain} gain)", f"{value:.4f}") for n, value in result.ndcg_at.items()]
    rows.append(("queries", f"{result.num_queries:,} ({result.num_skipped} without a relevant image)"))
    rows.append(("database", f"{result.num_database:,} ({result.num_distinct_codes:,} distinct codes)"))
    return rows


def write(folder: Path, run_folder: Path, run: Run, scored: Scored) -> Path:
    """Write the pictures and report.html to a folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("neighbours", "pr", "precision", "codes", "training")
    grid, curve, first, statistics, training = (folder / f"{name}.png" for name in names)
    kind, bits = scored.query.about["kind"], run.model.config.num_bits
    title = f"ADSQ, {bits} bits, {run.dataset.name}"
    _draw_queries(grid, run, scored, f"{title}: queries and their nearest images")
    result = scored.result
    name = f"{bits} bits, code {kind}"
    curves = {name: (torch.tensor(result.recall), torch.tensor(result.precision))}
    report.pr_curve(curve, curves, f"{title}: precision and recall")
    places, precisions = map(torch.tensor, ([*part] for part in zip(*result.precision_curve.items(), strict=True)))
    report.precision_curve(first, {name: (places, precisions)}, f"{title}: precision of the first n")
    report.code_statistics(
        statistics, scored.database.packed, bits, labels=scored.database.labels, title=f"{title}: codes"
    )
    pictures = [("Queries and their nearest images in the database", grid), ("Precision and recall", curve)]
    pictures += [("Precision of the first n", first), ("Codes of the database", statistics)]
    metrics = run_folder / METRICS_FILE
    if metrics.exists():
        report.training_curves(training, [json.loads(line) for line in metrics.read_text().splitlines()])
        pictures.append(("Training", training))
    split = run.about["split"]
    details = [
        ("data", run.dataset.name),
        ("protocol", split["protocol"]),
        ("seed", split["seed"]),
        *((f"{part} images", f"{size:,}") for part, size in split["sizes"].items()),
        ("split", split["digest"][:16]),
        *((name, f"{count:,}") for name, count in run.dataset.facts.items()),
        ("code", kind),
        ("backbone", run.model.config.backbone),
    ]
    numbers = headline(result)
    tables = [("Retrieval", ("measure", "value"), numbers), ("Run", ("what", "value"), details)]
    page = folder / "report.html"
    report.html_page(page, title, numbers[:4], tables, pictures)
    return page


def _draw_queries(path: Path, run: Run, scored: Scored, title: str) -> None:
    """Draw queries of different classes where there are some."""
    labels = scored.query.labels
    keys = labels if labels.dim() == 1 else labels.argmax(dim=1)
    firsts = [int((keys == key).nonzero()[0]) for key in torch.unique(keys)[:GRID_QUERIES]]
    index = build_index(scored.database)
    distances, items = index.search(scored.query.packed[firsts], min(GRID_NEIGHBOURS, len(index)))
    _draw(
        path, run.dataset.__getitems__(scored.query.items[firsts]), labels[firsts], run.dataset, distances, items, title
    )


def draw_neighbours(
    path: Path, pictures: Tensor, dataset: ImageDataset | None, distances: Tensor, items: Tensor
) -> None:
    """Draw pictures from disk and their neighbours; nothing is marked, since the pictures have no labels.

    Raises:
        ValueError: The index does not say which data set holds the neighbours' images.
    """
    if dataset is None:
        raise ValueError("grid: the index does not say which data set holds its images")
    _draw(path, pictures, None, dataset, distances, items, "Nearest images")


def _draw(
    path: Path,
    queries: Tensor,
    labels: Tensor | None,
    dataset: ImageDataset,
    distances: Tensor,
    items: Tensor,
    title: str,
) -> None:
    known = items.clamp(min=0)  # padding is drawn blank, whatever its image
    images = dataset.__getitems__(known.flatten()).unflatten(0, items.shape)
    found = dataset.labels[known]
    relevant = None
    if labels is not None and labels.dim() == 1:
        relevant = (found == labels.unsqueeze(1)) & (items >= 0)
    elif labels is not None:
        relevant = ((found & labels.unsqueeze(1)).sum(dim=2) > 0) & (items >= 0)
    report.retrieval_grid(
        path,
        queries,
        labels,
        images,
        distances,
        relevant,
        class_names=dataset.class_names,
        neighbour_labels=found,
        title=title,
    )
