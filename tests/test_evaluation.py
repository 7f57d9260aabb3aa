"""The evaluation against its definitions, written out query by query."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from adsq import ranked
from adsq.evaluation import evaluate, mean_average_precision
from adsq.kernels import hamming_average_precision, pack_codes

BITS = 12


def case(labels: str = "ids", queries: int = 9, items: int = 150, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    query, database = (pack_codes(torch.randn(n, BITS, generator=generator)) for n in (queries, items))
    if labels == "ids":
        rows = [torch.randint(0, 4, (n,), generator=generator) for n in (queries, items)]
    else:
        rows = [(torch.rand(n, 6, generator=generator) < 0.3).to(torch.uint8) for n in (queries, items)]
        rows[0][:, 0] = 1  # so that every query has a relevant item
    return query, database, *rows


def written_out(query, database, query_labels, database_labels, radius):
    """Return precision@n, nDCG@n, recall and precision by radius, and precision within the radius, by definition."""
    one_hot = query_labels.dim() == 1
    a, b = (
        (torch.nn.functional.one_hot(x, 4) if one_hot else x).numpy().astype(int)
        for x in (query_labels, database_labels)
    )
    gains = a @ b.T
    bits = [np.unpackbits(t.numpy(), axis=1) for t in (query, database)]
    distances = (bits[0][:, None] != bits[1][None]).sum(axis=2)
    precision_at, ndcg, recall, precision, within = {1: [], 10: [], 100: []}, {1: [], 10: [], 100: []}, [], [], []
    for q in range(len(a)):
        ranked = gains[q][np.argsort(distances[q], kind="stable")]
        best = np.sort(gains[q])[::-1]
        for n in precision_at:
            precision_at[n].append(np.mean(ranked[:n] > 0))
            dcg, ideal = (sum(g / math.log2(r + 2) for r, g in enumerate(x[:n])) for x in (ranked, best))
            ndcg[n].append(dcg / ideal)
        relevant = gains[q] > 0
        found = [distances[q] <= r for r in range(BITS + 1)]
        recall.append([relevant[f].sum() / relevant.sum() for f in found])
        precision.append([relevant[f].mean() if f.any() else np.nan for f in found])
        within.append(np.nan_to_num(precision[-1][radius]))
    means = [{n: np.mean(v) for n, v in x.items()} for x in (precision_at, ndcg)]
    return *means, np.mean(recall, axis=0), np.nanmean(precision, axis=0), np.mean(within)


@pytest.mark.parametrize("labels", ["ids", "rows"])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_every_measure_by_definition(labels, block, monkeypatch):
    monkeypatch.setattr(ranked, "BLOCK", block)
    arguments = case(labels)
    result = evaluate(*arguments, num_bits=BITS, radius=3)
    precision_at, ndcg, recall, precision, within = written_out(*arguments, 3)
    assert result.precision_at == pytest.approx(precision_at), "n beyond the database is left out"
    assert result.ndcg_at == pytest.approx(ndcg)
    np.testing.assert_allclose(result.recall, recall)
    np.testing.assert_allclose(result.precision, precision)
    assert result.precision_within_radius == pytest.approx(within)
    assert result.recall[-1] == 1 and result.num_skipped == 0
    assert result.mean_average_precision == pytest.approx(float(hamming_average_precision(*arguments)[0].mean()))
    assert result.num_distinct_codes == len({bytes(row) for row in arguments[1].numpy()})


def test_numpy_equals_torch():
    arguments = case("rows")
    arrays = [argument.numpy() for argument in arguments]
    assert evaluate(*arrays, num_bits=BITS) == evaluate(*arguments, num_bits=BITS)
    read_only = [array.copy() for array in arrays]
    for array in read_only:
        array.setflags(write=False)
    assert mean_average_precision(*read_only) == mean_average_precision(*arguments)


def test_queries_without_a_relevant_item_are_left_out_and_counted():
    query, database, query_labels, database_labels = case()
    query_labels[2] = query_labels[5] = 77
    result = evaluate(query, database, query_labels, database_labels, num_bits=BITS)
    keep = torch.tensor([i for i in range(9) if i not in (2, 5)])
    rest = evaluate(query[keep], database, query_labels[keep], database_labels, num_bits=BITS)
    assert (result.num_queries, result.num_skipped) == (9, 2)
    assert result.mean_average_precision == rest.mean_average_precision and result.recall == rest.recall
    assert result.ndcg_at == rest.ndcg_at and result.precision_at == rest.precision_at


def test_denominators():
    query, database, query_labels, database_labels = case()
    ap, relevant = hamming_average_precision(query, database, query_labels, database_labels, k=10)
    assert int(relevant.min()) > 10
    by_all, by_min = (
        mean_average_precision(query, database, query_labels, database_labels, k=10, denominator=d)
        for d in ("all", "min")
    )
    assert by_all == pytest.approx(float(ap.mean()))
    assert by_min == pytest.approx(float((ap * relevant / 10).mean())) and by_min > by_all
    both = [
        mean_average_precision(query, database, query_labels, database_labels, denominator=d) for d in ("all", "min")
    ]
    assert both[0] == both[1], "without k there are as many ranks as relevant items"


def test_the_rule_is_named_and_the_result_is_json():
    arguments = case()
    result = evaluate(*arguments, num_bits=BITS, k=50, ties="expected", denominator="min", radius=0)
    assert result.rule == "mAP@50 (ties expected, over min(relevant, k))"
    assert evaluate(*arguments, num_bits=BITS).rule == "mAP@all (ties by index, over all relevant)"
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for k in (np.int64(50), np.int64(50).item()):
        assert json.dumps(evaluate(*arguments, num_bits=BITS, k=k).to_dict())
    for denominator in ("all", "min", "found"):
        results = [evaluate(*arguments, num_bits=BITS, k=k, denominator=denominator) for k in (150, 2**70)]
        assert results[0].mean_average_precision == results[1].mean_average_precision
    assert record["rule"] == result.rule and record["precision_at"] == {
        str(n): v for n, v in result.precision_at.items()
    }


def test_a_radius_that_finds_nothing_counts_as_zero():
    far, near = pack_codes(-torch.ones(3, BITS)), pack_codes(torch.ones(2, BITS))
    labels = torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    result = evaluate(near, far, *labels, num_bits=BITS)
    assert (result.precision_within_radius, result.num_empty_within_radius) == (0.0, 2)
    assert math.isnan(result.precision[0]) and result.precision[-1] == 1
    assert result.to_dict()["precision"][0] is None


QUERY, DATABASE, QUERY_LABELS, DATABASE_LABELS = case()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"query_labels": QUERY_LABELS[:3]}, "query_labels: expected 9 rows.*got 3"),
        ({"query_labels": -QUERY_LABELS - 1}, "query_labels: expected class ids or label rows of at least 0, got -"),
        ({"database_labels": torch.full((150, 2), float("nan"))}, "database_labels: .*got nan"),
        ({"database_labels": torch.ones(150, 2)}, "database_labels: expected 1 dimensions as in query_labels"),
        ({"query_codes": QUERY[:, :1]}, "query_codes: expected 2 bytes a code for 12 bits, got 1"),
        ({"num_bits": 17}, "query_codes: expected 3 bytes"),
        ({"query_codes": QUERY | 128}, "query_codes: expected zero bits from bit 12 on, got others in row 0"),
        ({"database_codes": DATABASE | 16}, "database_codes: expected zero bits from bit 12 on"),
        ({"query_codes": QUERY[:0], "query_labels": QUERY_LABELS[:0]}, "query_codes: expected at least one query"),
        ({"query_labels": QUERY_LABELS + 9}, "database_labels: expected a relevant item for some query, got none"),
        (
            {"database_codes": DATABASE[:0], "database_labels": DATABASE_LABELS[:0]},
            "database_labels: expected a relevant",
        ),
        ({"k": 0}, "k: expected an integer at least 1, got 0"),
        ({"ties": "best"}, "ties: expected one of"),
        ({"denominator": "k"}, "denominator: expected one of"),
        ({"denominator": "found", "ties": "expected", "k": 9}, "denominator: 'found' depends on the order of ties"),
        ({"gain": "log"}, "gain: expected one of"),
        ({"curve_n": 0}, "curve_n: expected an integer at least 1, got 0"),
        ({"radius": 13}, "radius: expected an integer from 0 to 12, got 13"),
        ({"top_n": (0,)}, "top_n: expected an integer at least 1, got 0"),
    ],
)
def test_bad_input_is_named(changes, words):
    arguments = dict(
        query_codes=QUERY, database_codes=DATABASE, query_labels=QUERY_LABELS, database_labels=DATABASE_LABELS
    )
    with pytest.raises(ValueError, match=words):
        evaluate(**(arguments | {"num_bits": BITS} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top_n": 5}, "top_n: expected integers, got 5"),
        (
            {"query_codes": QUERY.numpy().astype(">i8")},
            "query_codes: expected an array of numbers in native byte order",
        ),
        ({"query_labels": QUERY_LABELS.numpy().astype(str)}, "query_labels: expected an array of numbers"),
        ({"query_labels": QUERY_LABELS.numpy().astype(object)}, "query_labels: expected an array of numbers"),
        (
            {
                "query_labels": np.ones((len(QUERY), 2), np.uint16),
                "database_labels": np.ones((len(DATABASE), 2), np.uint16),
            },
            "query_labels: expected bool, uint8, int8 to int64 or float label rows, got torch.uint16",
        ),
    ],
)
def test_wrong_types_are_named(changes, words):
    arguments = dict(
        query_codes=QUERY, database_codes=DATABASE, query_labels=QUERY_LABELS, database_labels=DATABASE_LABELS
    )
    with pytest.raises(TypeError, match=words):
        evaluate(**(arguments | {"num_bits": BITS} | changes))
