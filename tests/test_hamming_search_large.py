"""Searches that reach what small ones do not: sampled thresholds, many blocks, batches of queries, threads.

From 32,768 codes on hamming_topk guesses a first threshold for each query from a sample of the database, and searches
again where that was too low.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from adsq.kernels import hamming_range, hamming_relevance_histogram, hamming_topk, pack_codes
from search_cases import (
    FAST_VARIANTS,
    all_distances,
    assert_equal,
    assert_same,
    brute_range,
    brute_topk,
    by_variant,
    ladder,
    random_codes,
    sorted_distances,
)

pytestmark = pytest.mark.skipif(FAST_VARIANTS == ("reference",), reason="the C++ library is not in use")


def check_many(queries: Tensor, database: Tensor, neighbours: Sequence[int], sample: int = 8) -> None:
    """Hold each k of every variant to the brute force for some of the queries, and to the first variant for all."""
    some = np.unique(np.linspace(0, len(queries) - 1, sample).astype(int))
    distances, order = sorted_distances(queries[some], database)
    for k in neighbours:
        results = by_variant(lambda k=k: hamming_topk(queries, database, k), FAST_VARIANTS)
        assert_same(results)
        for variant, found in results.items():
            assert_equal([tensor[some] for tensor in found], (distances[:, :k], order[:, :k]), (variant, k))


@pytest.mark.parametrize(
    ("num_bits", "n"), [*itertools.product((16, 48, 64, 100, 128, 256, 300), (40_000, 100_000)), (4096, 33_000)]
)
def test_random_codes(num_bits: int, n: int) -> None:
    database, queries = random_codes(n, num_bits, 1), random_codes(70, num_bits, 0)
    for q in (1, 3, 30, 70):
        check_many(queries[:q], database, (1, 10, 100, 1000, n // 4, n // 4 + 1), sample=4)


def noisy(codes: Tensor, num_bits: int, rate: float, seed: int) -> Tensor:
    """Flip bits at random."""
    flips = torch.rand((len(codes), num_bits), generator=torch.Generator().manual_seed(seed)) < rate
    return codes ^ pack_codes(flips.float() - 0.5)


def climbing(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """Distances from the first query that grow with the index."""
    rungs = ladder(num_bits)
    return noisy(rungs[:1].expand(q, -1), num_bits, 0.02, 0), rungs[torch.arange(n) * (num_bits + 1) // n]


def falling(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """Distances that fall with the index, so that each code is among the nearest so far."""
    queries, database = climbing(n, num_bits, q)
    return queries, database.flip(0)


def clustered(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """Ten clusters, one after the other, and queries near their centres."""
    centres = random_codes(10, num_bits, 0)
    database = noisy(centres[torch.arange(n) * 10 // n], num_bits, 0.05, 1)
    return noisy(centres[torch.arange(q) % 10], num_bits, 0.05, 2), database


def equal(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """One code n times, at distance 0, K, 1 and some others from the queries."""
    rungs = ladder(num_bits)
    return rungs[[0, -1, 1, *range(2, q - 1)]], rungs[:1].expand(n, -1)


def nearly_equal(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """One code in 99 of 100 places, random ones in the others."""
    database = random_codes(n, num_bits, 1)
    others = torch.rand(n, generator=torch.Generator().manual_seed(2)) < 0.01
    database = torch.where(others.unsqueeze(1), database, database[:1])
    return torch.cat((database[:1], ~database[:1], random_codes(q - 2, num_bits, 3))), database


def two_values(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """500 near codes and many far ones: for the neighbours 499, 500 and 501 below."""
    near = torch.zeros(n, dtype=torch.bool)
    near[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:500]] = True
    rungs = ladder(num_bits)
    return noisy(rungs[:1].expand(q, -1), num_bits, 0.02, 2), torch.where(near.unsqueeze(1), rungs[1], rungs[-2])


def sampled_places(n: int, q: int) -> tuple[int, int]:
    """How many places `Sample` of csrc/cpu/hamming_sample.cpp draws codes from, and how many it takes at each."""
    together = 8 if q < 12 else 1
    return min(512 if q < 12 else max(512, n // 64), n // 16) // together, together


def periodic(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """A code that depends on its place in the stretches that the sample has one code of."""
    places = torch.arange(n) % (n // sampled_places(n, q)[0])
    return noisy(ladder(num_bits)[:1].expand(q, -1), num_bits, 0.02, 2), ladder(num_bits)[places % (num_bits + 1)]


def misleading(n: int, num_bits: int, q: int) -> tuple[Tensor, Tensor]:
    """Near codes just where the sample looks: the first threshold keeps too few, and the search has to start again.

    Follows `Sample::draw`; where that changes, this is data like any other (and tests/native/search.cpp fails).
    """
    rungs = ladder(num_bits)
    database = rungs[2 * num_bits // 3 :].repeat(n // (num_bits // 3), 1)[:n].clone()
    places, together = sampled_places(n, q)
    state, stretch = 0x9E3779B97F4A7C15, n // places
    for i in range(places):
        for shift in (13, -7, 17):
            state = (state ^ (state << shift if shift > 0 else state >> -shift)) % 2**64
        if i % 4 == 0:
            first = (i * stretch + (state >> 32) * stretch // 2**32) // together * together
            database[first : first + together] = rungs[i // 4 % 3]
    queries = noisy(rungs[:1].expand(q, -1), num_bits, 0.02, 2)
    queries[1::2] ^= rungs[-1]  # for these the sample is right
    return queries, database


@pytest.mark.parametrize(
    "make",
    [climbing, falling, clustered, equal, nearly_equal, two_values, periodic, misleading],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("num_bits", [48, 128, 300])
def test_data_that_is_hard_to_sample(make, num_bits: int) -> None:
    for n in (20_000, 40_000):
        for q in (3, 30):
            queries, database = make(n, num_bits, q)
            assert (len(queries), len(database)) == (q, n)
            check_many(queries, database, (1, 10, 499, 500, 501, n // 40, n // 4), sample=4)


@pytest.mark.parametrize("share", [0.001, 0.5])
def test_masks(share: float) -> None:
    """Allowed codes are gathered into blocks, and the sample has allowed codes only."""
    queries, database = random_codes(30, 100, 0), random_codes(60_000, 100, 1, 50_000)
    mask = torch.rand(60_000, generator=torch.Generator().manual_seed(2)) < share
    mask[20_000:30_000] = False
    for q in (2, 30):
        for k in (1, 10, 500, 5_000, 10_000):
            expected = brute_topk(queries[:q], database, k, mask)
            arguments = queries[:q], database, k
            for variant, found in by_variant(
                lambda all_=arguments: hamming_topk(*all_, mask=mask), FAST_VARIANTS
            ).items():
                assert_equal(found, expected, variant)


@pytest.mark.parametrize("num_bits", [32, 300])
def test_more_queries_than_a_batch(num_bits: int) -> None:
    queries, database = random_codes(3_000, num_bits, 0), random_codes(35_000, num_bits, 1)
    check_many(queries, database, (10,), sample=50)
    check_many(queries[:, :2], database[:2_000, :2], (10, 700), sample=50)
    radius = int(np.partition(all_distances(queries[:1], database)[0], 100)[100])
    results = by_variant(lambda: hamming_range(queries, database, radius), FAST_VARIANTS)
    assert_same(results)
    (offsets, *found), some = results[FAST_VARIANTS[0]], np.r_[0:5, 2040:2060, 2990:3000]
    expected_offsets, *expected = brute_range(queries[some], database, radius)
    assert offsets.diff()[some].tolist() == np.diff(expected_offsets).tolist()
    for tensor, array in zip(found, expected, strict=True):
        assert_equal([torch.cat([tensor[offsets[q] : offsets[q + 1]] for q in some])], [array])


@pytest.mark.parametrize("num_bits", [64, 100, 300])
@pytest.mark.parametrize(("q", "n"), [(1, 40_000), (8, 40_000), (70, 40_000), (200, 6_000)])
def test_any_number_of_threads_gives_the_same(num_bits: int, q: int, n: int) -> None:
    """Long databases are split into parts, many queries into shares.

    With 8 threads the keys of 70 queries for k = 10,000 do not fit the memory that is set apart for them.
    """
    queries, database = random_codes(q, num_bits, 0), random_codes(n, num_bits, 1, n // 4)
    mask = torch.arange(n) % 7 > 0
    radius = int(np.partition(all_distances(queries[:1], database)[0], 1000)[1000])
    results = {}
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        results[threads] = (
            *hamming_topk(queries, database, 5),
            *hamming_topk(queries, database, 50, mask=mask),
            *hamming_topk(queries, database, n // 4),
            *hamming_topk(queries, database, n // 4 + 1),
            *hamming_range(queries, database, radius),
        )
    assert_same(results)
    assert_equal(results[8][:2], brute_topk(queries, database, 5))
    assert_equal(results[8][4:6], brute_topk(queries, database, n // 4))
    assert_equal(results[8][8:], brute_range(queries, database, radius))


@pytest.mark.parametrize("num_bits", [48, 300])
def test_many_searches_that_start_again_over_threads(num_bits: int) -> None:
    """Two thirds of the queries do: too few to be shared out as before, too many for parts of the database."""
    queries, database = misleading(40_000, num_bits, 800)
    queries = torch.cat([queries[0::2], queries[1::4]])
    results = {}
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        results[threads] = hamming_topk(queries, database, 600)
    assert_same(results)
    some = slice(390, 410)
    assert_equal([tensor[some] for tensor in results[1]], brute_topk(queries[some], database, 600))


@pytest.mark.slow
def test_more_than_two_to_the_31_pairs() -> None:
    queries, database = random_codes(3_000, 32, 0), random_codes(800_000, 32, 1)
    assert len(queries) * len(database) > 2**31
    check_many(queries, database, (5,), sample=20)
    found = hamming_topk(queries, database, 5)
    total, relevant = hamming_relevance_histogram(queries, database, torch.arange(3_000), torch.arange(800_000))
    assert (total.sum(dim=1) == 800_000).all() and (relevant.sum(dim=1) == 1).all()
    nearest = (total.cumsum(dim=1) >= 5).int().argmax(dim=1)
    assert torch.equal(nearest.int(), found[0][:, 4])
