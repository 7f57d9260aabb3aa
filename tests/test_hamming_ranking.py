"""Histograms and average precision by Hamming distance against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import hamming_average_precision, hamming_relevance_histogram
from adsq.kernels.hamming_topk import reference as search
from search_cases import (
    DTYPES,
    FAST_VARIANTS,
    SUBNORMAL,
    VARIANTS,
    all_distances,
    average_precision,
    by_variant,
    code_lengths,
    distinct_codes,
    ladder,
    random_codes,
    random_labels,
)


def relevant_pairs(query_labels: Tensor, database_labels: Tensor) -> np.ndarray:
    if query_labels.dim() == 1:
        return query_labels.numpy()[:, None] == database_labels.numpy()
    a, b = (labels.double().numpy() > 0 for labels in (query_labels, database_labels))
    return (a.astype(np.float32) @ b.astype(np.float32).T) > 0


def expected_precision(distances: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """The mean of AP over all orders of equal distances, place by place: see README.md of the family."""
    total, before, relevant_before = 0.0, 0, 0
    for distance in np.unique(distances):
        m, r = (distances == distance).sum(), relevant[distances == distance].sum()
        i = np.arange(1, m + 1)
        hits_on_average = relevant_before + 1 + (i - 1) * (r - 1) / max(1, m - 1)
        total += (r / m * hits_on_average / (before + i))[before + i <= k].sum()
        before, relevant_before = before + m, relevant_before + r
    return total / max(1, relevant.sum())


def check_ranking(
    queries: Tensor,
    database: Tensor,
    query_labels: Tensor,
    database_labels: Tensor,
    num_bits: int,
    k: int | None,
    variants: tuple[str, ...] = VARIANTS,
) -> None:
    """Hold histogram, count and average precision of every variant to the definitions."""
    arguments = queries, database, query_labels, database_labels
    relevant = relevant_pairs(query_labels, database_labels)
    # The histogram leaves out the bits from num_bits on; the ranking compares all bits.
    counted, ranked = all_distances(queries, database, num_bits), all_distances(queries, database)
    histograms = [
        [np.bincount(d[chosen], minlength=num_bits + 1) for d, chosen in zip(counted, rows, strict=True)]
        for rows in (np.ones_like(relevant), relevant)
    ]
    last = len(database) if k is None else k
    by_index = [average_precision(r[d.argsort(kind="stable")], last) for d, r in zip(ranked, relevant, strict=True)]
    by_mean = [expected_precision(d, r, last) for d, r in zip(ranked, relevant, strict=True)]
    for variant, counts in by_variant(lambda: hamming_relevance_histogram(*arguments, num_bits), variants).items():
        for found, expected in zip(counts, histograms, strict=True):
            assert found.dtype == torch.int64 and found.shape == (len(queries), num_bits + 1)
            np.testing.assert_array_equal(found.numpy(), np.reshape(expected, found.shape), err_msg=variant)
    for ties, expected in (("index", by_index), ("expected", by_mean)):
        results = by_variant(lambda ties=ties: hamming_average_precision(*arguments, k=k, ties=ties), variants)
        for variant, (found, count) in results.items():
            assert found.dtype == torch.float64 and count.dtype == torch.int64
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0, err_msg=f"{variant}, {ties}")
            np.testing.assert_array_equal(count.numpy(), relevant.sum(axis=1), err_msg=variant)


@settings(max_examples=200)
@given(
    q=st.sampled_from([0, 1, 2, 9, 67]),
    n=st.sampled_from([0, 1, 2, 63, 64, 200, 513, 2049]),
    num_bits=code_lengths,
    distinct=distinct_codes,
    pad_bits=st.booleans(),
    kind=st.sampled_from(["ids", *DTYPES]),
    num_classes=st.sampled_from([1, 5, 64, 65, 130]),
    k=st.sampled_from([None, 1, 2, 50, 1000, 5000]),
    short_blocks=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_by_definition(q, n, num_bits, distinct, pad_bits, kind, num_classes, k, short_blocks, seed):
    length = (num_bits + 7) // 8 * 8 if pad_bits else num_bits
    queries, database = random_codes(q, length, seed, distinct), random_codes(n, length, seed + 1, distinct)
    labels = (random_labels(rows, kind, num_classes, seed + i) for i, rows in enumerate((q, n)))
    with pytest.MonkeyPatch.context() as patch:
        if short_blocks:
            patch.setattr(search, "BLOCK", 1 << 14)
        check_ranking(queries, database, *labels, num_bits, k)


def test_definitions_by_loops():
    """The oracle itself."""
    query_labels = torch.tensor([[1.0, 0, -1], [0, 0, float("nan")]])
    database_labels = torch.tensor([[2.0, 0, 0], [0, 0, 3], [SUBNORMAL, 5, 0]])
    assert relevant_pairs(query_labels, database_labels).tolist() == [[True, False, True], [False, False, False]]
    assert average_precision(np.array([True, False, True, True]), 3) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(np.array([False]), 3) == 0
    # Ties of two, one of them relevant: first or second, and then the one behind them.
    found = expected_precision(np.array([4, 4, 9]), np.array([True, False, True]), 3)
    assert found == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2)


@pytest.mark.parametrize("kind", DTYPES)
def test_rows_of_another_dtype_mean_the_same(kind):
    """Queries and database may come with labels of two dtypes."""
    queries, database = random_codes(5, 24, 0), random_codes(90, 24, 1)
    query_labels, database_labels = random_labels(5, kind, 70, 0), random_labels(90, "float32", 70, 1)
    check_ranking(queries, database, query_labels, database_labels, 24, 20)
    check_ranking(queries, database, random_labels(5, "uint8", 70, 0), random_labels(90, kind, 70, 1), 24, None)


@pytest.mark.parametrize("kind", ["ids", "bool", "float32"])
@pytest.mark.parametrize(("q", "n"), [((700, None), (500, 20)), ((700, 30), (5000, 40)), ((600, None), (5000, 9))])
def test_items_that_repeat_are_counted_once(q, n, kind):
    """Queries and, for so many queries, database items whose codes and labels are equal."""
    queries, database = random_codes(q[0], 20, 0, q[1]), random_codes(n[0], 20, 1, n[1])
    labels = random_labels(q[0], kind, 3, 2), random_labels(n[0], kind, 3, 3)
    check_ranking(queries, database, *labels, 20, 100, FAST_VARIANTS)
    # Items that repeat only after the first ones; none do.
    check_ranking(queries, torch.cat([random_codes(400, 20, 4), database[:-400]]), *labels, 17, None, FAST_VARIANTS)
    check_ranking(queries, random_codes(n[0], 20, 5), *labels, 20, 100, FAST_VARIANTS)


def test_without_classes_nothing_is_relevant():
    check_ranking(random_codes(3, 9, 0), random_codes(20, 9, 1), torch.ones(3, 0), torch.ones(20, 0), 9, None)


@pytest.mark.parametrize(
    ("num_bits", "kind", "num_classes"),
    [(24, "bool", 5), (48, "ids", 10), (64, "float32", 80), (100, "ids", 100), (300, "int64", 3), (4096, "ids", 10)],
)
def test_many_codes(num_bits, kind, num_classes):
    """Several batches of queries, and several blocks in each of the stretches that are read side by side."""
    q, n = 150, 20_000 if num_bits < 1000 else 3_000
    labels = random_labels(q, kind, num_classes, 2), random_labels(n, kind, num_classes, 3)
    queries, database = random_codes(q, num_bits, 0), random_codes(n, num_bits, 1, n // 2)
    check_ranking(queries, database, *labels, num_bits, 7_000, FAST_VARIANTS)


@pytest.mark.parametrize("num_bits", [5, 8, 16, 31, 48, 64, 72, 100, 128, 136, 192, 250, 256])
def test_distances_that_many_codes_share(num_bits):
    """All at distance 0 or at the largest one, all codes of a word or none, and distances from end to end."""
    # A label for each query: those equal in code and label would be counted once, and so few go another way.
    q, n = 20, 5_000
    labels = torch.arange(q), random_labels(n, "ids", q, 3)
    code = random_codes(1, num_bits, 0)
    opposite = code ^ ladder(num_bits)[-1]
    near_and_far = torch.cat([code.expand(q // 2, -1), opposite.expand(q // 2, -1)])
    for database in (
        code.expand(n, -1),
        torch.cat([code.expand(n // 2, -1), opposite.expand(n // 2, -1)]),
        torch.where(torch.arange(n)[:, None] // 64 % 2 == 0, code, opposite),
        code ^ ladder(num_bits)[torch.arange(n) % (num_bits + 1)],
        (code ^ ladder(num_bits)[torch.arange(n) * (num_bits + 1) // n])[torch.arange(n).flip(0)],
    ):
        check_ranking(near_and_far, database, *labels, num_bits, None, FAST_VARIANTS)


@pytest.mark.parametrize("kind", ["ids", "bool"])
def test_any_number_of_threads_gives_the_same(kind):
    q, n = 150, 5_000
    labels = random_labels(q, kind, 10, 2), random_labels(n, kind, 10, 3)
    arguments = random_codes(q, 48, 0), random_codes(n, 48, 1), *labels
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        results.append((*hamming_relevance_histogram(*arguments), *hamming_average_precision(*arguments, k=900)))
        results[-1] += hamming_average_precision(*arguments, ties="expected")
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


def test_equals_the_usual_script():
    """mAP@all as scripts of the field compute it."""
    queries, database = random_codes(50, 48, 0), random_codes(5_000, 48, 1)
    query_labels, database_labels = random_labels(50, "int64", 20, 2), random_labels(5_000, "int64", 20, 3)
    signs = [np.unpackbits(codes.numpy(), axis=1).astype(np.float64) * 2 - 1 for codes in (queries, database)]
    total = 0.0
    for code, label in zip(signs[0], query_labels.numpy(), strict=True):
        truth = ((database_labels.numpy() > 0) @ (label > 0).astype(int) > 0).astype(int)
        truth = truth[np.argsort(0.5 * (48 - code @ signs[1].T), kind="stable")]
        places = np.flatnonzero(truth) + 1.0
        total += np.mean(np.arange(1, len(places) + 1) / places)
    arguments = queries, database, query_labels, database_labels
    for variant, (found, _) in by_variant(lambda: hamming_average_precision(*arguments)).items():
        assert found.mean().item() == pytest.approx(total / 50, abs=1e-9), variant


def test_strided_inputs_and_none_changed():
    queries, database = random_codes(6, 24, 0), random_codes(80, 24, 1)
    query_labels, database_labels = random_labels(6, "int64", 5, 0), random_labels(80, "int64", 5, 1)
    arguments = queries[::2], database.T.contiguous().T, query_labels[::2], database_labels.T.contiguous().T
    before = [a.clone() for a in arguments]
    check_ranking(*arguments, 24, None)
    check_ranking(queries[:1].expand(6, -1), database[1:], query_labels[:1].expand(6, -1), database_labels[1:], 24, 30)
    check_ranking(queries, database[:1].expand(80, -1), query_labels[:, 0], database_labels[:, 0], 24, 30)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


QUERIES, DATABASE = torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(3, 1, dtype=torch.uint8)
IDS = torch.zeros(2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((QUERIES, DATABASE, IDS[1], IDS[1]), {}, ValueError, "query_labels: expected 2 rows.*got 3"),
        ((QUERIES, DATABASE, IDS[0], IDS[1].int()), {}, TypeError, "database_labels: .*int64, got torch.int32"),
        ((QUERIES, DATABASE, IDS[0], torch.zeros(3, 4)), {}, ValueError, "database_labels: expected 1 dimensions"),
        ((QUERIES, DATABASE.expand(-1, 2), *IDS), {}, ValueError, "database: expected 1 bytes a code"),
        ((QUERIES.float(), DATABASE, *IDS), {}, TypeError, "queries: expected packed codes"),
        (
            (QUERIES, DATABASE, IDS[0][:, None].to(torch.uint16), IDS[1][:, None]),
            {},
            TypeError,
            "query_labels: .*uint16",
        ),
        ((QUERIES, DATABASE, *IDS), {"k": 0}, ValueError, "k: expected an integer at least 1, got 0"),
        ((QUERIES, DATABASE, *IDS), {"ties": "best"}, ValueError, "ties: expected one of 'index', 'expected'"),
    ],
)
def test_bad_input_is_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        hamming_average_precision(*arguments, **options)
    if not options:
        with pytest.raises(error, match=words):
            hamming_relevance_histogram(*arguments)


def test_num_bits_must_fit():
    with pytest.raises(ValueError, match="queries: expected 2 bytes a code for 9 bits, got 1"):
        hamming_relevance_histogram(QUERIES, DATABASE, *IDS, 9)


def small_case(q):
    labels = random_labels(q, "bool", 5, q), random_labels(20, "bool", 5, q + 1)
    return random_codes(q, 13, q), random_codes(20, 13, q + 1), *labels


def test_opcheck():
    arguments = small_case(3)
    torch.library.opcheck(torch.ops.adsq.hamming_relevance_histogram.default, (*arguments, 13))
    torch.library.opcheck(torch.ops.adsq.hamming_average_precision.default, (*arguments, 5, True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def score(queries: Tensor, database: Tensor, a: Tensor, b: Tensor) -> Tensor:
        total, relevant = hamming_relevance_histogram(queries, database, a, b, 13)
        return hamming_average_precision(queries, database, a, b)[0] * 2 + (total + relevant).sum(dim=1)

    compiled = torch.compile(score, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for queries in (3, 5):
        arguments = small_case(queries)
        assert torch.equal(compiled(*arguments), score(*arguments))
