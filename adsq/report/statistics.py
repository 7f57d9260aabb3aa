"""What codes look like: balance and correlation of bits, distances, and how many codes are distinct."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from adsq.kernels import _checks, unpack_codes
from adsq.report._figure import COLOURS, FAINT, INK, ArrayLike, PathLike, add_legend, array, new_figure, save, tidy

# What is looked at when there is more: it bounds memory at about 500 MB whatever N and K are.
_COUNTED_ROWS = 1_000_000
_COUNTED_BYTES = 1 << 26
_UNPACKED_ROWS = 20_000
_UNPACKED_BITS = 1 << 25
_CORRELATED_BITS = 512
_MOST_PAIRS = 200_000
_CHUNK = 10_000  # pairs

_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def code_statistics(
    path: PathLike,
    codes: ArrayLike,
    num_bits: int,
    *,
    labels: ArrayLike | None = None,
    seed: int = 0,
    title: str = "Codes",
) -> dict[str, int | float | None]:
    """Draw the statistics of codes and return the main ones.

    Large sets are sampled, evenly over the rows: distinct codes in at most 1,000,000 rows, bits in at most 20,000,
    distances in at most 200,000 pairs of those (fewer rows for very long codes). The caption says how many.
    The correlation is that of every s-th bit, s = ceil(num_bits / 512).

    Args:
        path: The PNG file to write.
        codes: Packed codes, uint8 [N, ceil(num_bits / 8)], N >= 1.
        num_bits: Length of a code.
        labels: Class ids int64 [N] or multi-hot [N, L]: distances are then split by whether the two codes
            share a label.
        seed: Seed of the samples.
        title: Heading of the picture.

    Returns:
        `num_codes`, `num_bits`; `counted_codes` and among them `distinct_codes` and `largest_bucket` (how many
        have the most frequent code); `constant_bits`; `mean_imbalance` (mean distance of the share of ones
        from 1/2); `mean_correlation` (mean magnitude between two bits that vary; None without two).

    Raises:
        TypeError: `codes` or `labels` have a wrong dtype.
        ValueError: A shape is wrong, or there is no code.
        OSError: The file cannot be written.
    """
    num_bits = _checks.check_num_bits(num_bits)
    one = codes[:1]
    _checks.check_packed(one if isinstance(one, Tensor) else torch.from_numpy(np.array(one)), "codes", num_bits)
    count, width = codes.shape
    if count == 0:
        raise ValueError("codes: expected at least one row, got none")
    if labels is not None:
        labels = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
        _checks.check_labels(labels, "labels", count, "codes")
    random = np.random.default_rng(seed)

    counted = _take(codes, _sample(count, min(_COUNTED_ROWS, _COUNTED_BYTES // width), random))
    whole = counted.view(f"V{width}").ravel()  # a code as one value: sorts faster than rows
    buckets = np.sort(np.unique(whole, return_counts=True)[1])[::-1]
    rows = _sample(count, min(_UNPACKED_ROWS, _UNPACKED_BITS // num_bits), random)
    sampled = _take(codes, rows)
    shares, correlation = _bit_statistics(sampled, num_bits)
    first, second = _pairs(len(rows), random)
    distances = _distances(sampled, first, second)
    share_label = None if labels is None else _share_label(_take(labels, rows), first, second)
    constant = (shares == 0) | (shares == 1)
    between = np.abs(correlation[np.triu_indices(len(correlation), 1)])
    between = between[~np.isnan(between)]

    figure = new_figure(9.6, 7.8, title)
    balance, matrix, histogram, sizes = figure.subplots(2, 2).ravel()
    _draw_balance(balance, shares, constant)
    _draw_correlation(matrix, correlation, num_bits)
    _draw_distances(histogram, distances, share_label, num_bits)
    _draw_buckets(sizes, buckets)
    figure.supxlabel(
        f"{count:,} codes of {num_bits} bits. Distinct codes among {len(counted):,} of them, bits over {len(rows):,}, "
        f"distances of {len(first):,} pairs (seed {seed}).",
        size=8,
        color=FAINT,
    )
    save(figure, path)
    return {
        "num_codes": count,
        "num_bits": num_bits,
        "counted_codes": len(counted),
        "distinct_codes": len(buckets),
        "largest_bucket": int(buckets[0]),
        "constant_bits": int(constant.sum()),
        "mean_imbalance": float(np.abs(shares - 0.5).mean()),
        "mean_correlation": float(between.mean()) if between.size else None,
    }


def _take(values: ArrayLike, rows: np.ndarray) -> np.ndarray:
    taken = values[torch.from_numpy(rows)] if isinstance(values, Tensor) else values[rows]
    return np.ascontiguousarray(array(taken))


def _sample(count: int, most: int, random: np.random.Generator) -> np.ndarray:
    """Return at most `most` of `count` row numbers, ascending: one at random from each of equal stretches."""
    if count <= most:
        return np.arange(count)
    rows = (np.arange(most) + random.random(most)) * (count / most)
    return np.unique(rows.astype(np.int64).clip(max=count - 1))


def _bit_statistics(packed: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of ones, [K], and the correlation of every s-th bit, NaN for bits that do not vary."""
    signs = unpack_codes(torch.from_numpy(packed), num_bits)
    shares = array(signs.mean(dim=0, dtype=torch.float64) + 1) / 2
    signs = signs[:, :: _stride(num_bits)]
    signs = signs - signs.mean(dim=0)
    deviation = array(signs.square().mean(dim=0).sqrt())
    deviation[deviation == 0] = np.nan
    return shares, array(signs.T @ signs) / len(signs) / deviation[:, None] / deviation


def _stride(num_bits: int) -> int:
    return -(-num_bits // _CORRELATED_BITS)


def _pairs(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of different rows: all of them if they are few, else a sample."""
    if count * (count - 1) // 2 <= _MOST_PAIRS:
        first, second = np.triu_indices(count, 1)
        return first, second
    first = random.integers(count, size=_MOST_PAIRS)
    return first, (first + random.integers(1, count, size=_MOST_PAIRS)) % count


def _distances(codes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    distances = np.empty(len(first), dtype=np.int64)
    for chunk in _chunks(len(first)):
        distances[chunk] = _ONES[codes[first[chunk]] ^ codes[second[chunk]]].sum(axis=1)
    return distances


def _share_label(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if labels.ndim == 1:
        return labels[first] == labels[second]
    held = labels != 0
    shared = np.empty(len(first), dtype=bool)
    for chunk in _chunks(len(first)):
        shared[chunk] = (held[first[chunk]] & held[second[chunk]]).any(axis=1)
    return shared


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]


def _draw_balance(axes: Axes, shares: np.ndarray, constant: np.ndarray) -> None:
    bits = np.arange(len(shares))
    thickness = min(12.0, 200 / len(shares))  # points
    for which, colour in ((~constant, COLOURS[0]), (constant, COLOURS[1])):
        axes.vlines(bits[which], 0.5, shares[which], color=colour, linewidth=thickness, capstyle="butt")
    axes.axhline(0.5, color=INK, linewidth=0.8)
    axes.set(xlim=(-0.8, len(shares) - 0.2), ylim=(0, 1), xlabel="bit", ylabel="share of ones")
    axes.xaxis.set_major_locator(MultipleLocator(max(1, len(shares) // 8)))
    tidy(axes, f"Balance: {constant.sum()} constant bits" if constant.any() else "Balance of each bit")


def _draw_correlation(axes: Axes, correlation: np.ndarray, num_bits: int) -> None:
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#c8c8c8")
    end = num_bits - 0.5
    image = axes.imshow(
        np.ma.masked_invalid(correlation),
        vmin=-1,
        vmax=1,
        cmap=colours,
        interpolation="nearest",
        extent=(-0.5, end, end, -0.5),
    )
    axes.set_anchor("W")
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.04, 0, 0.045, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(max(1, num_bits // 8)))
    axes.set(xlabel="bit", ylabel="bit")
    every = f" (1 in {_stride(num_bits)})" if _stride(num_bits) > 1 else ""
    tidy(axes, f"Correlation between bits{every}")


def _draw_distances(axes: Axes, distances: np.ndarray, share_label: np.ndarray | None, num_bits: int) -> None:
    groups = [("all pairs", distances, COLOURS[0])]
    if share_label is not None:
        groups = [
            ("a label shared", distances[share_label], COLOURS[0]),
            ("no label shared", distances[~share_label], COLOURS[1]),
        ]
    edges = np.arange(num_bits + 2) - 0.5
    for label, values, colour in groups:
        if values.size:
            share = np.bincount(values, minlength=num_bits + 1) / values.size
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=label)
    steps = np.arange(num_bits + 1)
    logs = [math.lgamma(num_bits + 1) - math.lgamma(d + 1) - math.lgamma(num_bits - d + 1) for d in steps]
    fair = np.exp(np.array(logs) - num_bits * math.log(2))
    axes.plot(steps, fair, color=INK, linestyle=":", linewidth=1.2, label="independent fair bits")
    axes.set(xlim=(-0.5, num_bits + 0.5), ylim=(0, None), xlabel="Hamming distance", ylabel="share of pairs")
    add_legend(axes)
    tidy(axes, "Distances between codes")


def _draw_buckets(axes: Axes, buckets: np.ndarray) -> None:
    ranks = np.arange(1, len(buckets) + 1)
    axes.plot(ranks, buckets, color=COLOURS[0], linewidth=1.8, marker="o" if len(buckets) <= 50 else "", markersize=3)
    axes.set(xscale="log", yscale="log", xlabel="codes, most frequent first", ylabel="images with this code")
    axes.set_xlim(0.9, max(len(buckets), 10) * 1.1)
    axes.set_ylim(0.8, max(int(buckets[0]), 10) * 2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
    numbers = f"distinct codes: {len(buckets):,}\nlargest bucket: {buckets[0]:,}"
    axes.text(0.04, 0.06, numbers, transform=axes.transAxes, ha="left", va="bottom", size=9, color=INK)
    tidy(axes, "Distinct codes", grid=True)
