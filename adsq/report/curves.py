"""Lines: precision over recall and over n, and what the trainer logged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from adsq.report._figure import ArrayLike, PathLike, add_legend, array, line_style, new_figure, save, shorten, tidy


def pr_curve(
    path: PathLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str = "Precision and recall"
) -> None:
    """Draw precision over recall.

    Args:
        path: The PNG file to write.
        curves: Recall and precision by name, each float [P] in 0..1; points with NaN are left out.
        title: Heading of the picture.

    Raises:
        ValueError: There is no curve, or recall and precision are not of one length or not in 0..1.
        OSError: The file cannot be written.
    """
    _draw_precision(path, curves, title, "recall", 1)


def precision_curve(
    path: PathLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str = "Precision of the first n"
) -> None:
    """Draw the precision of the first n neighbours over n.

    Args:
        path: The PNG file to write.
        curves: n and precision by name: integer or float [P] of at least 0, and float [P] in 0..1; points with NaN are
            left out.
        title: Heading of the picture.

    Raises:
        ValueError: There is no curve, or n and precision are not of one length or out of range.
        OSError: The file cannot be written.
    """
    _draw_precision(path, curves, title, "n", math.inf)


def _draw_precision(
    path: PathLike, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], title: str, over: str, largest: float
) -> None:
    """Draw precision over something in 0..largest."""
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    figure = new_figure(6.4, 4.8)
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        x, precision = (array(values).astype(np.float64) for values in curve)
        if x.ndim != 1 or x.shape != precision.shape:
            raise ValueError(f"curves[{name!r}]: expected two of shape [P], got {x.shape}, {precision.shape}")
        known = ~(np.isnan(x) | np.isnan(precision))
        x, precision = x[known], precision[known]
        for what, values, highest in ((over, x, largest), ("precision", precision, 1)):
            if ((values < 0) | (values > highest + 1e-6)).any():  # 1e-6: float32
                raise ValueError(f"curves[{name!r}]: expected {what} in 0..{highest}, got others")
        marker = "o" if x.size <= 70 else ""
        axes.plot(x, precision, marker=marker, markersize=3.5, label=shorten(name, 40), **line_style(number))
    axes.set(xlim=(0, None if math.isinf(largest) else largest), ylim=(0, 1.02), xlabel=over, ylabel="precision")
    tidy(axes, textwrap.fill(title, 58), grid=True)
    add_legend(axes)
    save(figure, path)


def training_curves(path: PathLike, metrics: Sequence[Mapping[str, Any]], title: str = "Training") -> None:
    """Draw every number of the trainer's records over the epochs.

    Keys of nested records are joined by "/". Keys that share what stands before their last "/", or without one
    before their first "_" ("f_asymmetric", "f_quantization"), share a panel; every other key has its own. What
    is not a finite number is left out.

    Args:
        path: The PNG file to write.
        metrics: The records, one an epoch. Their "epoch" is the x axis, or their place in the list; "step", which
            only counts too, is not drawn.
        title: Heading of the picture.

    Raises:
        ValueError: There is no number to draw.
        OSError: The file cannot be written.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, record in enumerate(metrics):
        x = float(record.get("epoch", number + 1))
        for key, value in _numbers(record):
            if key not in ("epoch", "step") and math.isfinite(value):
                lines.setdefault(key, []).append((x, value))
    groups: dict[str, list[str]] = {}
    for key in lines:
        groups.setdefault(_prefix(key), []).append(key)
    if not groups:
        raise ValueError("metrics: expected at least one record with a finite number, got none")
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = new_figure(4.2 * columns, 2.9 * rows + 0.4, title)
    for place, (prefix, keys) in enumerate(groups.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for number, key in enumerate(keys):
            marker = "o" if len(lines[key]) <= 30 else ""
            label = key[len(prefix) + 1 :] or key
            axes.plot(*zip(*lines[key], strict=True), marker=marker, markersize=3, label=label, **line_style(number))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("epoch")
        tidy(axes, shorten(prefix if len(keys) > 1 else keys[0], 40), grid=True)
        if len(keys) > 1:
            add_legend(axes)
    save(figure, path)


def _prefix(key: str) -> str:
    return key.rpartition("/")[0] or key.partition("_")[0]


def _numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
