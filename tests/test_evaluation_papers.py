"""Evaluation as papers report it: every number against its definition in plain numpy, one query at a time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from adsq import ranked
from adsq.evaluation import evaluate, mean_average_precision

BITS = 7  # few distances, so that there are many ties


def case(kind: str, seed: int = 0, queries: int = 11, items: int = 130) -> list[np.ndarray]:
    """Packed codes and labels: class ids, or rows of six labels, some of them empty."""
    random = np.random.default_rng(seed)
    codes = [np.packbits(random.integers(0, 2, (n, BITS)), axis=1, bitorder="little") for n in (queries, items)]
    if kind == "ids":
        return [*codes, *(random.integers(0, 5, n) for n in (queries, items))]
    labels = [(random.random((n, 6)) < 0.25).astype(np.uint8) for n in (queries, items)]
    labels[0][:, 1] |= ~labels[0].any(axis=1)
    labels[0][3] = 0  # a query without a relevant item
    return [*codes, *labels]


def rankings(query: np.ndarray, database: np.ndarray, query_labels: np.ndarray, database_labels: np.ndarray):
    """Yield, for each query with a relevant item, the numbers of shared labels in the order of the ranking."""
    distances = np.unpackbits(query[:, None] ^ database[None], axis=2).sum(axis=2, dtype=int)
    for row, labels in zip(distances, query_labels, strict=True):
        if labels.ndim:
            shared = (database_labels.astype(int) * labels).sum(axis=1)
        else:
            shared = (database_labels == labels).astype(int)
        if shared.any():
            yield shared[np.argsort(row, kind="stable")]


def average_precision(shared: np.ndarray, k: int | None, denominator: str, weighted: bool) -> float:
    relevant, k = shared > 0, len(shared) if k is None else k
    total = 0.0
    for place in range(min(k, len(shared))):
        if relevant[place]:
            total += (shared if weighted else relevant)[: place + 1].sum() / (place + 1)
    divide = {"all": relevant.sum(), "min": min(relevant.sum(), k), "found": relevant[:k].sum()}[denominator]
    return total / divide if divide else 0.0


@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize("denominator", ["all", "min", "found"])
@pytest.mark.parametrize("k", [None, 1, 5, 60, 130, 400])
def test_map_and_weighted_map(kind: str, denominator: str, k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked, "BLOCK", 500)  # several blocks of queries
    arguments = case(kind)
    result = evaluate(*arguments, num_bits=BITS, k=k, denominator=denominator)
    plain, weighted = (
        np.mean([average_precision(shared, k, denominator, weighted) for shared in rankings(*arguments)])
        for weighted in (False, True)
    )
    assert result.mean_average_precision == pytest.approx(plain, abs=1e-12)
    assert mean_average_precision(*arguments, k=k, denominator=denominator) == pytest.approx(plain, abs=1e-12)
    over = {"all": "all relevant", "min": "min(relevant, k)", "found": "relevant among the first k"}[denominator]
    assert result.rule == f"mAP@{k or 'all'} (ties by index, over {over})"
    assert result.num_skipped == (kind == "rows")
    if kind == "rows":
        assert result.weighted_mean_average_precision == pytest.approx(weighted, abs=1e-12)
        assert k == 1 or weighted != pytest.approx(plain, abs=1e-3)
        assert result.weighted_rule == f"weighted {result.rule}"
    else:
        assert plain == pytest.approx(weighted), "one label: nothing to weigh"
        assert result.weighted_mean_average_precision is result.weighted_rule is None


def test_a_query_that_finds_nothing_among_the_first_k_counts_as_zero() -> None:
    query, database = np.zeros((1, 1), np.uint8), np.array([[0], [1], [3]], np.uint8)
    labels = np.array([4]), np.array([1, 4, 4])
    values = [mean_average_precision(query, database, *labels, k=1, denominator=d) for d in ("all", "min", "found")]
    assert values == [0, 0, 0]
    values = [mean_average_precision(query, database, *labels, k=2, denominator=d) for d in ("all", "min", "found")]
    assert values == [0.25, 0.25, 0.5]


def test_weights_go_by_shared_labels_whatever_the_ties_of_map() -> None:
    arguments = case("rows")
    by_index, expected = (evaluate(*arguments, num_bits=BITS, ties=ties) for ties in ("index", "expected"))
    assert by_index.mean_average_precision != expected.mean_average_precision
    assert by_index.weighted_mean_average_precision == expected.weighted_mean_average_precision
    assert "ties by index" in expected.weighted_rule and "ties expected" in expected.rule


@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_ndcg(kind: str, gain: str) -> None:
    arguments = case(kind)
    result = evaluate(*arguments, num_bits=BITS, gain=gain, top_n=(1, 7, 130))
    assert result.gain == gain
    for n, value in result.ndcg_at.items():
        found = []
        for shared in rankings(*arguments):
            gains = 2.0**shared - 1 if gain == "exponential" else shared
            discounts = 1 / np.log2(np.arange(n) + 2)
            found.append((gains[:n] * discounts).sum() / (np.sort(gains)[::-1][:n] * discounts).sum())
        assert value == pytest.approx(np.mean(found), abs=1e-12)
    assert list(result.ndcg_at) == [1, 7, 130]


def test_gains_of_very_many_labels_are_finite() -> None:
    """Two to the number of shared labels is infinity from 1,024 of them on."""
    codes = torch.arange(4, dtype=torch.uint8)[:, None]
    labels = torch.zeros(4, 3000)
    for item, shared in enumerate((2000, 3000, 1998, 0)):
        labels[item, :shared] = 1
    result = evaluate(codes[:1], codes, torch.ones(1, 3000), labels, num_bits=8, gain="exponential", top_n=(1, 2, 4))
    # Beside the item that shares all, the others count for nothing: it is second in the ranking, and best first.
    assert result.ndcg_at == pytest.approx({1: 0, 2: 1 / math.log2(3), 4: 1 / math.log2(3)}, abs=1e-12)


def test_gains_differ_for_several_labels_only() -> None:
    for kind, same in (("ids", True), ("rows", False)):
        results = [evaluate(*case(kind), num_bits=BITS, gain=gain) for gain in ("linear", "exponential")]
        assert (results[0].ndcg_at == results[1].ndcg_at) is same


@pytest.mark.parametrize("kind", ["ids", "rows"])
@pytest.mark.parametrize(
    ("curve_n", "ns"), [(1000, [1, *range(2, 131, 2)]), (49, [*range(1, 50)]), (120, [1, *range(2, 121, 2)]), (1, [1])]
)
def test_precision_curve(kind: str, curve_n: int, ns: list[int]) -> None:
    arguments = case(kind)
    result = evaluate(*arguments, num_bits=BITS, curve_n=curve_n)
    ranking = list(rankings(*arguments))
    expected = {n: np.mean([(shared[:n] > 0).mean() for shared in ranking]) for n in ns}
    assert list(result.precision_curve) == ns
    assert result.precision_curve == pytest.approx(expected, abs=1e-12)


def test_the_curve_of_a_large_database_has_the_usual_places() -> None:
    result = evaluate(*case("ids", items=5000), num_bits=BITS)
    assert set(range(100, 1001, 100)) <= result.precision_curve.keys() and len(result.precision_curve) == 51
    assert result.precision_curve[1000] == result.precision_at[1000]
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["precision_curve"]["100"] == result.precision_curve[100] and record["gain"] == "linear"
    assert record["weighted_rule"] is None and record["rule"] == result.rule


@pytest.mark.parametrize("kind", ["ids", "rows"])
def test_precision_within_radius_2(kind: str) -> None:
    query, database, query_labels, database_labels = case(kind)
    result = evaluate(query, database, query_labels, database_labels, num_bits=BITS)
    values = []
    for code, labels in zip(query, query_labels, strict=True):
        relevant = (database_labels * labels).any(axis=1) if labels.ndim else database_labels == labels
        near = np.array([bin(int(each[0]) ^ int(code[0])).count("1") <= 2 for each in database])
        if relevant.any():
            values.append((relevant & near).sum() / near.sum() if near.any() else 0)
    assert (result.radius, result.precision_within_radius) == (2, pytest.approx(np.mean(values)))


def test_torch_equals_numpy() -> None:
    arguments = case("rows")
    tensors = [torch.from_numpy(argument) for argument in arguments]
    options = {"num_bits": BITS, "k": 20, "denominator": "found", "gain": "exponential"}
    assert evaluate(*arguments, **options) == evaluate(*tensors, **options)
