"""The two rules for equal distances, against all orders and against random ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from adsq.kernels import hamming_average_precision
from adsq.kernels.hamming_ranking import reference
from search_cases import average_precision, by_variant, ladder, random_codes


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 7, 9])
def test_expected_ties_are_the_mean_over_all_orders(k):
    """Two groups of ties and every cut through them, against all 4! x 3! orders."""
    near, far = ladder(4)[:1], ladder(4)[1:2]
    database = torch.cat([near.expand(4, -1), far.expand(3, -1)])
    orders = [
        [*first, *second]
        for first in itertools.permutations(range(4))
        for second in itertools.permutations(range(4, 7))
    ]
    for relevant in itertools.product([0, 1], repeat=7):
        arguments = near, database, torch.tensor([1]), torch.tensor(relevant)
        expected = np.mean([average_precision(row, k) for row in np.array(relevant, dtype=bool)[orders]])
        results = by_variant(lambda all_=arguments: hamming_average_precision(*all_, k=k, ties="expected"))
        for variant, (found, _) in results.items():
            assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-15), variant


def test_expected_ties_near_the_mean_of_random_orders():
    queries, database = random_codes(3, 5, 0), random_codes(300, 5, 1)
    query_labels, database_labels = torch.eye(3, 5).bool(), torch.rand(300, 5) < 0.2
    orders = [torch.randperm(300) for _ in range(400)]

    def score(order, ties):
        arguments = queries, database[order], query_labels, database_labels[order]
        return hamming_average_precision(*arguments, k=77, ties=ties)[0]

    results = by_variant(lambda: (score(orders[0], "expected"), torch.stack([score(o, "index") for o in orders])))
    for variant, (expected, sampled) in results.items():
        error = sampled.std(dim=0) / len(orders) ** 0.5
        assert (error > 0).all()
        assert ((sampled.mean(dim=0) - expected).abs() < 4 * error).all(), variant


def test_without_ties_both_rules_agree():
    """Distances 0, 1, 2, ... 40: one item each."""
    database, labels = ladder(40), torch.randint(0, 2, (41,))
    arguments = database[:1], database, torch.tensor([1]), labels
    for variant, (by_index, expected) in by_variant(
        lambda: [hamming_average_precision(*arguments, ties=ties)[0] for ties in ("index", "expected")]
    ).items():
        torch.testing.assert_close(by_index, expected, rtol=1e-13, atol=0, msg=variant)


def test_harmonic_differences_keep_their_digits():
    """Against exact sums in numpy's longdouble, from the start to deep in a ranking of 1e9."""
    for low in (0, 1, 5, 30, 31, 32, 33, 100, 10**6, 10**9):
        for length in (0, 1, 2, 3, 40, 1000):
            terms = np.longdouble(1) / np.arange(low + 1, low + length + 1, dtype=np.longdouble)
            got = reference._harmonic_difference(*(torch.tensor([x], dtype=torch.float64) for x in (low, low + length)))
            assert got.item() == pytest.approx(float(terms.sum()), rel=1e-13, abs=0)
