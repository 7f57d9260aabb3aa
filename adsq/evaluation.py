"""Retrieval measures of codes and labels. The formulas: docs/method.md, "Retrieval measures"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adsq._arrays import from_numpy
from adsq.kernels import _checks, hamming_average_precision, hamming_relevance_histogram
from adsq.ranked import Data, precision_and_ndcg, relevant_among_first, weighted_average_precision

Array = Tensor | np.ndarray

DENOMINATORS = {"all": "all relevant", "min": "min(relevant, k)", "found": "relevant among the first k"}
GAINS = ("linear", "exponential")
# Points of a curve of precision@n: multiples of a whole step, so that n = 100, 200, ... are among them.
_CURVE_POINTS = 50


@dataclass(frozen=True)
class Evaluation:
    """How well codes retrieve, and the rules under which the numbers hold.

    Attributes:
        mean_average_precision: Mean of AP over the queries that have a relevant item.
        k: Ranks that count for AP; None: all.
        ties: "index" or "expected", for AP.
        denominator: "all", "min" or "found", for AP.
        num_queries: Queries in all.
        num_skipped: Those without a relevant item in the database; every mean leaves them out.
        num_database: Items searched.
        num_distinct_codes: Distinct codes among them.
        num_bits: Code length K.
        precision_at: Share of relevant items among the first n, by n; ties by index.
        precision_curve: The same for n = 1 and the multiples of a step, as a curve.
        ndcg_at: Normalised discounted cumulative gain of the first n, by n; ties by index.
        gain: "linear" (the number s of shared labels) or "exponential" (2^s - 1), of nDCG.
        weighted_mean_average_precision: Mean of weighted AP, with k and denominator as for AP, ties by index; None
            for class ids, for which it is mAP.
        radius: The Hamming radius of the next two.
        precision_within_radius: Share of relevant items within the radius; 0 for a query that finds none there.
        num_empty_within_radius: Queries (of those not skipped) that find nothing there.
        recall: Of looking up all codes within radius 0, 1, ..., K: the mean over queries, K + 1 values.
        precision: The same for precision, over the queries that find something; NaN where none does.
    """

    mean_average_precision: float
    k: int | None
    ties: str
    denominator: str
    num_queries: int
    num_skipped: int
    num_database: int
    num_distinct_codes: int
    num_bits: int
    precision_at: dict[int, float]
    precision_curve: dict[int, float]
    ndcg_at: dict[int, float]
    gain: str
    weighted_mean_average_precision: float | None
    radius: int
    precision_within_radius: float
    num_empty_within_radius: int
    recall: list[float]
    precision: list[float]

    @property
    def rule(self) -> str:
        """The name of the mAP with its rules."""
        ties = {"index": "by index", "expected": "expected"}[self.ties]
        return f"mAP@{self.k or 'all'} (ties {ties}, over {DENOMINATORS[self.denominator]})"

    @property
    def weighted_rule(self) -> str | None:
        """The name of the weighted mAP with its rules; None where there is none."""
        if self.weighted_mean_average_precision is None:
            return None
        return f"weighted mAP@{self.k or 'all'} (ties by index, over {DENOMINATORS[self.denominator]})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the rules as JSON-able values; NaN becomes None."""
        fields = asdict(self) | {"rule": self.rule, "weighted_rule": self.weighted_rule}
        fields["precision"] = [None if value != value else value for value in self.precision]
        return fields


def evaluate(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    *,
    num_bits: int,
    k: int | None = None,
    ties: str = "index",
    denominator: str = "all",
    top_n: tuple[int, ...] = (1, 10, 100, 1000),
    curve_n: int = 1000,
    gain: str = "linear",
    radius: int = 2,
) -> Evaluation:
    """Evaluate the search of queries in a database, without a query x database matrix.

    Args:
        query_codes: Packed codes, uint8 [Q, ceil(num_bits / 8)], Q >= 1. Torch or numpy, as all arrays here.
        database_codes: Packed codes, uint8 [N, ceil(num_bits / 8)].
        query_labels: Class ids, int64 [Q], or label rows, [Q, C] of bool, uint8, int8 to
            int64, float16, bfloat16, float32 or float64.
        database_labels: Labels of the N items, of the same form.
        num_bits: Code length K.
        k: Ranks that count for AP; all by default.
        ties: "index": the lower database index first. "expected": the mean over all orders of ties.
        denominator: AP over "all" relevant items, over "min" of their number and k, or over those "found" among the
            first k (0 where none is), which needs ties by index.
        top_n: For which n to give precision and nDCG; those beyond N are left out.
        curve_n: The largest n of the curve of precision@n; N where that is less.
        gain: Of nDCG, for s shared labels: "linear": s. "exponential": 2^s - 1.
        radius: Hamming radius of `precision_within_radius`, 0 to num_bits.

    Returns:
        The measures with their rules.

    Raises:
        TypeError, ValueError: An argument is not as said here, labels hold NaN or negative numbers, there are no
            queries, or no query has a relevant item.
    """
    num_bits = _checks.check_num_bits(num_bits)
    codes = _packed(query_codes, "query_codes", num_bits), _packed(database_codes, "database_codes", num_bits)
    labels = _labels(query_labels, "query_labels", codes[0]), _labels(database_labels, "database_labels", codes[1])
    _checks.check_label_pair(labels[0], "query_labels", labels[1], "database_labels")
    radius = _checks.check_int(radius, "radius", 0, num_bits)
    k = None if k is None else _checks.check_int(k, "k", 1)
    if not isinstance(top_n, Iterable):
        raise TypeError(f"top_n: expected integers, got {top_n!r}")
    sizes = [n for n in (_checks.check_int(n, "top_n", 1) for n in top_n) if n <= len(codes[1])]
    curve_n = min(_checks.check_int(curve_n, "curve_n", 1), len(codes[1]))
    _checks.check_choice(gain, "gain", GAINS)
    if not len(codes[0]):
        raise ValueError("query_codes: expected at least one query, got none")
    data = Data(*codes, *labels)
    precisions, relevant, denominators = _average_precision(data, k, ties, denominator)
    counted = relevant > 0
    if not counted.any():
        raise ValueError(
            f"database_labels: expected a relevant item for some query, got none for any of {len(counted)}"
        )
    data = data.queries(counted)
    recall, precision, found = _by_radius(data, num_bits)
    step = max(1, curve_n // _CURVE_POINTS)
    curve = sorted({1, *range(step, curve_n + 1, step)})
    precision_at, ndcg_at, precision_curve = precision_and_ndcg(data, sizes, curve, gain)
    weighted = None
    if labels[0].dim() == 2:
        weighted = float(weighted_average_precision(data, k, denominators[counted]).mean())
    empty = found[:, radius] == 0
    return Evaluation(
        mean_average_precision=float(precisions[counted].mean()),
        k=k,
        ties=ties,
        denominator=denominator,
        num_queries=len(counted),
        num_skipped=int((~counted).sum()),
        num_database=len(codes[1]),
        num_distinct_codes=len(torch.unique(codes[1], dim=0)),
        num_bits=num_bits,
        precision_at=precision_at,
        precision_curve=precision_curve,
        ndcg_at=ndcg_at,
        gain=gain,
        weighted_mean_average_precision=weighted,
        radius=radius,
        precision_within_radius=float(precision[:, radius].nan_to_num(0).mean()),
        num_empty_within_radius=int(empty.sum()),
        recall=recall.mean(dim=0).tolist(),
        precision=precision.nanmean(dim=0).tolist(),
    )


def mean_average_precision(
    query_codes: Array,
    database_codes: Array,
    query_labels: Array,
    database_labels: Array,
    *,
    k: int | None = None,
    ties: str = "index",
    denominator: str = "all",
) -> float:
    """Return mAP alone: the mean of AP over the queries that have a relevant item; NaN if none has.

    Args, errors: As in `evaluate`.
    """
    codes = _packed(query_codes, "query_codes"), _packed(database_codes, "database_codes")
    labels = _labels(query_labels, "query_labels", codes[0]), _labels(database_labels, "database_labels", codes[1])
    precisions, relevant, _ = _average_precision(Data(*codes, *labels), k, ties, denominator)
    return float(precisions[relevant > 0].mean())


def _average_precision(data: Data, k: int | None, ties: str, denominator: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return AP, the number of relevant items, and what AP was divided by, at least 1: [Q] each."""
    _checks.check_choice(denominator, "denominator", tuple(DENOMINATORS))
    arguments = data.query_codes, data.database_codes, data.query_labels, data.database_labels
    precisions, relevant = hamming_average_precision(*arguments, k=k, ties=ties)
    if denominator == "all" or k is None:
        return precisions, relevant, relevant.clamp(min=1)
    if denominator == "min":
        denominators = relevant.clamp(min=1, max=min(k, max(1, len(data.database_codes))))
    elif ties == "index":
        denominators = relevant_among_first(data, k).clamp(min=1)
    else:
        raise ValueError(f"denominator: 'found' depends on the order of ties, expected ties 'index', got {ties!r}")
    return precisions * relevant / denominators, relevant, denominators


def _by_radius(data: Data, num_bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return recall, precision (NaN where nothing is found) and the number found, [Q, K + 1] each."""
    arguments = data.query_codes, data.database_codes, data.query_labels, data.database_labels
    total, relevant = (counts.cumsum(dim=1) for counts in hamming_relevance_histogram(*arguments, num_bits))
    recall = relevant.double() / relevant[:, -1:]
    return recall, relevant.double() / total, total


def _packed(codes: Array, name: str, num_bits: int | None = None) -> Tensor:
    tensor = _tensor(codes, name)
    _checks.check_packed(tensor, name, num_bits)
    if num_bits is not None:
        _checks.check_pad_bits(tensor, name, num_bits)
    return tensor


def _labels(labels: Array, name: str, codes: Tensor) -> Tensor:
    """Check what the kernels take on trust: no NaN and nothing negative."""
    tensor = _tensor(labels, name)
    _checks.check_labels(tensor, name, len(codes), name.replace("labels", "codes"))
    if tensor.dtype != torch.bool and not bool((tensor >= 0).all()):
        bad = tensor[~(tensor >= 0)][0].item()
        raise ValueError(f"{name}: expected class ids or label rows of at least 0, got {bad}")
    return tensor


def _tensor(value: Array, name: str) -> Tensor:
    return from_numpy(value, name) if isinstance(value, np.ndarray) else value
