"""hamming_range against a brute force in numpy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import hamming_range, hamming_topk
from adsq.kernels.hamming_topk import op
from search_cases import (
    all_distances,
    assert_equal,
    brute_range,
    by_variant,
    check_range,
    code_lengths,
    database_sizes,
    distinct_codes,
    ladder,
    query_counts,
    random_codes,
)


@settings(max_examples=500)
@given(
    n=database_sizes,
    q=query_counts,
    radius=st.one_of(st.integers(0, 5), st.sampled_from([0.4, 0.45, 0.5, 1.0, 1.5])),
    num_bits=code_lengths,
    distinct=distinct_codes,
    seed=st.integers(0, 9999),
)
def test_range_equals_brute_force(
    n: int, q: int, radius: int | float, num_bits: int, distinct: int | None, seed: int
) -> None:
    queries = random_codes(q, num_bits, seed, distinct)
    database = random_codes(n, num_bits, seed + 1, distinct)
    check_range(queries, database, radius if isinstance(radius, int) else int(radius * num_bits))


def test_brute_force_by_definition() -> None:
    """The oracle itself, with loops."""
    queries, database = random_codes(4, 21, 0), random_codes(50, 21, 1, 9)
    offsets, distances, indices = brute_range(queries, database, 10)
    for i, row in enumerate(all_distances(queries, database).tolist()):
        mine = slice(offsets[i], offsets[i + 1])
        expected = sorted((distance, j) for j, distance in enumerate(row) if distance <= 10)
        assert list(zip(distances[mine].tolist(), indices[mine].tolist(), strict=True)) == expected
    assert len(offsets) == 5 and offsets[0] == 0 and offsets[4] == len(indices)


@pytest.mark.parametrize("q", [2, 26])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 7, 8, 12, 15, 16, 24, 25, 32, 33])
def test_every_radius(width: int, q: int) -> None:
    """Each distance occurs, and each radius is a threshold of its own in the bit planes, even or odd."""
    database = ladder(8 * width)
    queries = database[torch.linspace(0, 8 * width, q).long()]
    for radius in range(8 * width + 1):
        check_range(queries, database, radius)


@pytest.mark.parametrize("q", [1, 30])
@pytest.mark.parametrize("num_bits", [1, 8, 9, 256, 4089, 4096])
def test_extreme_distances(num_bits: int, q: int) -> None:
    rungs = ladder(num_bits)
    queries, database = rungs[:1].expand(q, -1), rungs[[-1, 0, -1, 0]]
    for radius, expected in ((num_bits - 1, [1, 3]), (num_bits, [1, 3, 0, 2]), (10**30, [1, 3, 0, 2])):
        for offsets, distances, indices in by_variant(lambda r=radius: hamming_range(queries, database, r)).values():
            assert offsets.tolist() == [len(expected) * i for i in range(q + 1)]
            assert distances.tolist() == [0 if i in (1, 3) else num_bits for i in expected] * q
            assert indices.tolist() == expected * q


def test_empty_sides() -> None:
    codes = random_codes(3, 24, 0)
    for offsets, distances, indices in by_variant(lambda: hamming_range(codes[:0], codes, 3)).values():
        assert (offsets.tolist(), len(distances), len(indices)) == ([0], 0, 0)
    for offsets, distances, indices in by_variant(lambda: hamming_range(codes, codes[:0], 3)).values():
        assert (offsets.tolist(), len(distances), len(indices)) == ([0, 0, 0, 0], 0, 0)


@pytest.mark.parametrize("q", [4, 40])
def test_range_is_a_prefix_of_the_full_ranking(q: int) -> None:
    queries, database = random_codes(q, 16, 0), random_codes(200, 16, 1)
    for distances, indices, offsets, range_distances, range_indices in by_variant(
        lambda: (*hamming_topk(queries, database, 200), *hamming_range(queries, database, 6))
    ).values():
        for i, count in enumerate(offsets.diff().tolist()):
            assert torch.equal(range_distances[offsets[i] : offsets[i + 1]], distances[i, :count])
            assert torch.equal(range_indices[offsets[i] : offsets[i + 1]], indices[i, :count])


@pytest.mark.parametrize("q", [2, 30])
@pytest.mark.parametrize("n", [0, 100])
def test_ids_take_the_place_of_indices(q: int, n: int) -> None:
    queries, database = random_codes(q, 40, 0), random_codes(n, 40, 1, 30)
    ids = (torch.arange(n) * 10**11 - 3).flip(0)
    expected = brute_range(queries, database, 18, ids)
    for variant, found in by_variant(lambda: op.hamming_range(queries, database, 18, ids)).items():
        assert_equal(found, expected, variant)


@pytest.mark.parametrize("n", [0, 1, 70])
def test_opcheck(n: int) -> None:
    queries, database = random_codes(5, 20, 0), random_codes(n, 20, 1)
    for radius in (0, 9, 24):
        torch.library.opcheck(op.hamming_range, (queries, database, radius))
    torch.library.opcheck(op.hamming_range, (queries, database, 9, torch.arange(n) * 3))


@pytest.mark.parametrize("dynamic", [False, True])
def test_range_compiles_to_one_graph(dynamic: bool) -> None:
    def search(queries: Tensor, database: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offsets, distances, indices = hamming_range(queries, database, 8)
        return offsets, distances, indices + 1

    torch._dynamo.reset()
    compiled = torch.compile(search, fullgraph=True, dynamic=dynamic)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for q, n in ((5, 70), (3, 90)):
            queries, database = random_codes(q, 20, 0), random_codes(n, 20, 1)
            offsets, distances, indices = compiled(queries, database)
            assert_equal((offsets, distances, indices - 1), brute_range(queries, database, 8))
