"""What all pictures share: colours, small text, and how they are saved."""

from __future__ import annotations

import io
import os
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from adsq import files

ArrayLike: TypeAlias = "Tensor | np.ndarray"
PathLike: TypeAlias = "str | os.PathLike[str]"

# Okabe and Ito's palette, in the order used: told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
INK, FAINT = "#1a1a1a", "#6b6b6b"
DPI = 144


def array(values: ArrayLike) -> np.ndarray:
    """Return a tensor from any device, or an array, as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def shorten(text: str, length: int) -> str:
    """Cut text to `length` characters, with an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dash of line `number`; the dash tells lines apart where colour does not."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.8}


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """Return an empty figure, sizes in inches, for panels that are laid out without overlaps."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    if title:
        figure.suptitle(title, x=0.012, ha="left", size=13, weight="bold", color=INK, parse_math=False)
    return figure


def tidy(axes: Axes, title: str, grid: bool = False) -> None:
    """Give axes their title and the common look."""
    axes.set_title(title, loc="left", size=11, weight="bold", color=INK, parse_math=False)
    if grid:
        axes.grid(color="#e3e3e3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8)
    axes.xaxis.label.set(size=9, color=INK)
    axes.yaxis.label.set(size=9, color=INK)
    axes.set_axisbelow(True)


def add_legend(axes: Axes) -> None:
    """Name the lines of axes; a dollar sign in a name is a dollar sign, here and in every other text."""
    many = len(axes.get_lines()) > len(COLOURS)  # would hide lines
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if many else {}
    legend = axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, handlelength=3.6, **place)  # to show the dashes
    for text in legend.get_texts():
        text.set_parse_math(False)


def save(figure: Figure, path: PathLike) -> None:
    """Write a figure as PNG, in place of an older file only when complete."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    files.write_bytes(path, buffer.getvalue())
