"""Histograms and average precision against plain loops, and the two tie rules against all orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import hamming_average_precision, hamming_relevance_histogram, pack_codes
from adsq.kernels.hamming_ranking import reference
from adsq.kernels.hamming_topk import reference as search


def random_case(queries: int, items: int, bits: int, labels: str, seed: int, distinct: int | None = None):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(distinct or max(1, items), bits, generator=generator)
    database = codes[torch.randint(len(codes), (items,), generator=generator)]
    asked = torch.randn(queries, bits, generator=generator)
    if labels == "ids":
        rows = [torch.randint(0, 3, (n,), generator=generator) for n in (queries, items)]
    else:
        rows = [(torch.rand(n, 5, generator=generator) < 0.2) for n in (queries, items)]
        rows = [r.to(getattr(torch, labels)) for r in rows]
    return pack_codes(asked), pack_codes(database), *rows


def numpy_distances(queries: Tensor, database: Tensor) -> np.ndarray:
    a, b = (np.unpackbits(t.numpy(), axis=1).astype(int) for t in (queries, database))
    return (a[:, None] != b[None]).sum(axis=2)


def numpy_relevant(a: Tensor, b: Tensor) -> np.ndarray:
    if a.dim() == 1:
        return a.numpy()[:, None] == b.numpy()[None]
    return ((a.numpy()[:, None] > 0) & (b.numpy()[None] > 0)).any(axis=2)


def average_precision(relevant: np.ndarray, k: int) -> float:
    """AP of one ranked list, by its definition."""
    hits, total = 0, 0.0
    for rank, is_relevant in enumerate(relevant[:k], 1):
        hits += is_relevant
        total += hits / rank if is_relevant else 0.0
    return total / max(1, relevant.sum())


case = st.tuples(
    st.sampled_from([0, 1, 2, 67]),
    st.sampled_from([0, 1, 2, 63, 64, 200]),
    st.sampled_from([1, 7, 8, 13, 64]),
    st.sampled_from(["ids", "bool", "int64", "float32"]),
    st.integers(0, 99),
    st.sampled_from([None, 1, 3]),
)


@given(case, st.booleans())
def test_histogram_by_definition(arguments, short_blocks):
    queries, database, query_labels, database_labels = random_case(*arguments)
    bits = arguments[2]
    with pytest.MonkeyPatch.context() as patch:
        if short_blocks:
            patch.setattr(search, "BLOCK", 130)
        total, relevant = hamming_relevance_histogram(queries, database, query_labels, database_labels, bits)
    distances, shares = numpy_distances(queries, database), numpy_relevant(query_labels, database_labels)
    assert total.dtype == relevant.dtype == torch.int64 and total.shape == relevant.shape == (len(queries), bits + 1)
    for q in range(len(queries)):
        assert total[q].tolist() == np.bincount(distances[q], minlength=bits + 1).tolist()
        assert relevant[q].tolist() == np.bincount(distances[q][shares[q]], minlength=bits + 1).tolist()


@given(case, st.sampled_from([None, 1, 2, 50, 1000]), st.booleans())
def test_index_ties_by_definition(arguments, k, short_blocks):
    queries, database, query_labels, database_labels = random_case(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        if short_blocks:
            patch.setattr(search, "BLOCK", 130)
        got, count = hamming_average_precision(queries, database, query_labels, database_labels, k=k)
    assert got.dtype == torch.float64 and count.dtype == torch.int64
    distances, shares = numpy_distances(queries, database), numpy_relevant(query_labels, database_labels)
    for q in range(len(queries)):
        ranked = shares[q][np.argsort(distances[q], kind="stable")]
        assert count[q] == shares[q].sum()
        assert got[q].item() == pytest.approx(average_precision(ranked, k or len(database)), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 7, 9])
def test_expected_ties_are_the_mean_over_all_orders(k):
    """Two groups of ties and every cut through them, against all 4! x 3! orders."""
    near, far = torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[-1.0, 1, 1, 1]])
    database = pack_codes(torch.cat([near.expand(4, -1), far.expand(3, -1)]))
    for relevant in itertools.product([0, 1], repeat=7):
        labels = torch.tensor(relevant)
        got, _ = hamming_average_precision(pack_codes(near), database, torch.tensor([1]), labels, k=k, ties="expected")
        values = np.array(relevant, dtype=bool)
        orders = [
            average_precision(values[list(first) + list(second)], k)
            for first in itertools.permutations(range(4))
            for second in itertools.permutations(range(4, 7))
        ]
        assert got.item() == pytest.approx(np.mean(orders), rel=1e-12, abs=1e-15)


def test_expected_ties_near_the_mean_of_random_orders():
    queries, database, query_labels, database_labels = random_case(3, 300, 5, "bool", 1)
    expected, _ = hamming_average_precision(queries, database, query_labels, database_labels, ties="expected", k=77)
    sampled = []
    for seed in range(400):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        sampled.append(
            hamming_average_precision(queries, database[order], query_labels, database_labels[order], k=77)[0]
        )
    deviation = torch.stack(sampled).std(dim=0) / math.sqrt(400)
    assert ((torch.stack(sampled).mean(dim=0) - expected).abs() < 5 * deviation + 1e-12).all()


def test_without_ties_both_rules_agree():
    """Distances 0, 1, 2, ... 40: one item each."""
    codes = torch.where(torch.arange(40) < torch.arange(41).unsqueeze(1), 1.0, -1.0)
    database, labels = pack_codes(codes), torch.randint(0, 2, (41,))
    arguments = pack_codes(codes[:1]), database, torch.tensor([1]), labels
    index, expected = (hamming_average_precision(*arguments, ties=ties)[0] for ties in ("index", "expected"))
    torch.testing.assert_close(index, expected, rtol=1e-13, atol=0)


def test_harmonic_differences_keep_their_digits():
    """Against exact sums in numpy's longdouble, from the start to deep in a ranking of 1e9."""
    for low in (0, 1, 5, 30, 31, 32, 33, 100, 10**6, 10**9):
        for length in (0, 1, 2, 3, 40, 1000):
            terms = np.longdouble(1) / np.arange(low + 1, low + length + 1, dtype=np.longdouble)
            got = reference._harmonic_difference(*(torch.tensor([x], dtype=torch.float64) for x in (low, low + length)))
            assert got.item() == pytest.approx(float(terms.sum()), rel=1e-13, abs=0)


def test_strided_inputs_and_none_changed():
    queries, database, query_labels, database_labels = random_case(6, 80, 24, "int64", 3)
    arguments = queries[::2], database.T.contiguous().T, query_labels[::2], database_labels.T.contiguous().T
    before = [a.clone() for a in arguments]
    got = hamming_average_precision(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
    want = hamming_average_precision(*(a.contiguous() for a in arguments))
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


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


def test_opcheck():
    arguments = random_case(3, 20, 13, "bool", 0)
    torch.library.opcheck(torch.ops.adsq.hamming_relevance_histogram.default, (*arguments, 13))
    torch.library.opcheck(torch.ops.adsq.hamming_average_precision.default, (*arguments, 5, True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def score(queries: Tensor, database: Tensor, a: Tensor, b: Tensor) -> Tensor:
        total, relevant = hamming_relevance_histogram(queries, database, a, b, 13)
        return hamming_average_precision(queries, database, a, b)[0] * 2 + (total + relevant).sum(dim=1)

    compiled = torch.compile(score, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for queries in (3, 5):
        arguments = random_case(queries, 20, 13, "bool", queries)
        assert torch.equal(compiled(*arguments), score(*arguments))
