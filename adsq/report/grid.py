"""Queries and their nearest neighbours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from adsq.report._figure import COLOURS, DPI, FAINT, INK, ArrayLike, PathLike, array, save, shorten

_RIGHT, _WRONG = COLOURS[:2]
_PADDING = 2147483647  # distance of a neighbour that is not there


def retrieval_grid(
    path: PathLike,
    query_images: ArrayLike,
    query_labels: ArrayLike | None,
    neighbour_images: ArrayLike,
    neighbour_distances: ArrayLike,
    relevant: ArrayLike | None,
    *,
    class_names: Sequence[str] | None = None,
    neighbour_labels: ArrayLike | None = None,
    title: str | None = None,
) -> None:
    """Draw queries and their nearest neighbours, one query a row, right and wrong ones marked.

    Args:
        path: The PNG file to write.
        query_images: uint8 [Q, C, H, W] with C = 1 or 3.
        query_labels: Class ids int64 [Q] or multi-hot [Q, L]; None writes no names.
        neighbour_images: uint8 [Q, k, C, H, W], nearest first.
        neighbour_distances: int32 [Q, k]; where it is 2147483647 there is no neighbour and the cell is blank.
        relevant: bool [Q, k], whether the neighbour shares a label with the query; None marks nothing.
        class_names: A name for each class; by default its number.
        neighbour_labels: Class ids int64 [Q, k] or multi-hot [Q, k, L].
        title: Heading of the picture.

    Raises:
        ValueError: Shapes do not fit each other, there is no query or no neighbour, or a label is out of range.
        TypeError: Images are not uint8.
        OSError: The file cannot be written.
    """
    queries, neighbours, distances = array(query_images), array(neighbour_images), array(neighbour_distances)
    if distances.ndim != 2 or 0 in distances.shape:
        raise ValueError(f"neighbour_distances: expected shape [Q, k], none 0, got {list(distances.shape)}")
    count, k = distances.shape
    _check_images(queries, "query_images", (count,))
    _check_images(neighbours, "neighbour_images", (count, k))
    right = None if relevant is None else array(relevant)
    if right is not None and (right.shape != (count, k) or right.dtype != np.bool_):
        raise ValueError(f"relevant: expected bool [{count}, {k}], got {right.dtype} {list(right.shape)}")
    of_queries = _checked_labels(query_labels, "query_labels", (count,))
    of_neighbours = _checked_labels(neighbour_labels, "neighbour_labels", (count, k))

    # All lengths are inches: a cell is 1 wide, and neighbours begin at `first`.
    cell, gap, margin, first = 1.0, 0.14, 0.25, 1.42
    tall = min(max(neighbours.shape[-2] / neighbours.shape[-1], 0.4), 2.0)
    below = 0.22 + 0.17 * (of_queries is not None or of_neighbours is not None)
    width = max(2 * margin + first + k * (cell + gap) - gap, 4.6)
    heading = textwrap.wrap(title or "", int((width - 2 * margin) / 0.105))
    top = margin + 0.24 * len(heading) + (0.34 if right is not None else 0.0) + 0.22
    height = top + count * (tall + below + gap) - gap + margin
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))  # inches from the upper left corner
    axes.axis("off")

    def draw(image: np.ndarray, x: float, y: float, colour: str, line: float) -> None:
        rows, columns = image.shape[-2:]
        w, h = min(cell, tall * columns / rows), min(tall, cell * rows / columns)
        left, upper = x + (cell - w) / 2, y + (tall - h) / 2
        pixels = np.broadcast_to(np.moveaxis(image, 0, -1), (rows, columns, 3))
        how = "nearest" if max(rows, columns) <= DPI * cell else "antialiased"  # small pictures keep their pixels
        axes.imshow(pixels, extent=(left, left + w, upper + h, upper), interpolation=how, aspect="auto", zorder=1)
        axes.add_patch(Rectangle((left, upper), w, h, fill=False, edgecolor=colour, linewidth=line, zorder=2))

    def write(text: str, x: float, y: float, **style: Any) -> None:
        axes.text(x, y, text, **{"size": 8, "color": INK, "ha": "center", "va": "top", "parse_math": False, **style})

    for number, line in enumerate(heading):
        write(line, margin, margin + 0.24 * number, size=12, weight="bold", ha="left")
    if right is not None:
        marks = [
            Patch(facecolor="none", edgecolor=_RIGHT, linewidth=2, label="✓ shares a label with the query"),
            Patch(facecolor="none", edgecolor=_WRONG, linewidth=2, label="✗ shares none"),
        ]
        place = (margin / width, 1 - (top - 0.27) / height)
        figure.legend(
            handles=marks, loc="lower left", bbox_to_anchor=place, ncols=2, frameon=False, fontsize=8, borderpad=0,
            borderaxespad=0.2, handlelength=1, handleheight=1, columnspacing=1.5, labelcolor=INK,
        )  # fmt: skip
    write("query", margin + cell / 2, top - 0.06, va="bottom", color=FAINT)
    for j in range(k):
        write(str(j + 1), margin + first + j * (cell + gap) + cell / 2, top - 0.06, va="bottom", color=FAINT)
    for i in range(count):
        y = top + i * (tall + below + gap)
        draw(queries[i], margin, y, INK, 1.2)
        if of_queries is not None:
            write(_name(of_queries[i], "query_labels", class_names), margin + cell / 2, y + tall + 0.06, weight="bold")
        for j in range(k):
            if distances[i, j] == _PADDING:
                continue
            x = margin + first + j * (cell + gap)
            sign, colour = ("", FAINT) if right is None else ("✓ ", _RIGHT) if right[i, j] else ("✗ ", _WRONG)
            draw(neighbours[i, j], x, y, colour, 2.2 if right is not None else 0.8)
            style = {"color": colour, "weight": "bold"} if right is not None else {}
            write(f"{sign}d = {distances[i, j]}", x + cell / 2, y + tall + 0.06, **style)
            if of_neighbours is not None:
                name = _name(of_neighbours[i, j], "neighbour_labels", class_names)
                write(name, x + cell / 2, y + tall + 0.06 + 0.17)
    save(figure, path)


def _check_images(images: np.ndarray, name: str, leading: tuple[int, ...]) -> None:
    shape = images.shape
    if images.dtype != np.uint8:
        raise TypeError(f"{name}: expected dtype uint8, got {images.dtype}")
    if shape[: len(leading)] != leading or len(shape) != len(leading) + 3 or shape[-3] not in (1, 3) or 0 in shape:
        wanted = ", ".join(map(str, leading))
        raise ValueError(f"{name}: expected shape [{wanted}, 1 or 3, H, W], got {list(shape)}")


def _checked_labels(labels: ArrayLike | None, name: str, leading: tuple[int, ...]) -> np.ndarray | None:
    if labels is None:
        return None
    values = array(labels)
    if values.shape[: len(leading)] != leading or values.ndim not in (len(leading), len(leading) + 1):
        raise ValueError(f"{name}: expected shape {list(leading)} or {[*leading, 'L']}, got {list(values.shape)}")
    return values


def _name(labels: np.ndarray, argument: str, class_names: Sequence[str] | None) -> str:
    """Return a short name for a class id or a multi-hot row: the first class, and how many more there are."""
    classes = np.flatnonzero(labels) if np.ndim(labels) else [int(labels)]
    if len(classes) == 0:
        return ""
    first, more = int(classes[0]), f" +{len(classes) - 1}" if len(classes) > 1 else ""
    if class_names is None:
        return f"{first}{more}"
    if not 0 <= first < len(class_names):
        raise ValueError(f"{argument}: expected class ids below {len(class_names)}, got {first}")
    return shorten(class_names[first], 15 - len(more)) + more
