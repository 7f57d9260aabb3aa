"""What the tests of Hamming search share: codes, a brute force in numpy, and every implementation in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import _extension, hamming_range, hamming_topk, pack_codes
from adsq.kernels.hamming_ranking import op as ranking_op
from adsq.kernels.hamming_topk import op as search_op

OPS = {
    "hamming_topk": search_op,
    "hamming_topk_out": search_op,
    "hamming_range": search_op,
    "hamming_relevance_histogram": ranking_op,
    "hamming_average_precision": ranking_op,
}
VARIANTS = (*_extension.simd_variants(), "reference")
# Plain PyTorch takes too long where there is much to search: alone it must do, beside others it need not.
FAST_VARIANTS = VARIANTS[:-1] or VARIANTS

NO_DISTANCE = 2147483647
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
SUBNORMAL = 2.0**-24  # the smallest number above 0 in float16
ONES_IN_16_BITS = np.array([bin(i).count("1") for i in range(1 << 16)], dtype=np.uint8)

# Around the lanes of a vector and the sizes of blocks.
database_sizes = st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 2049])
# Kernels differ for 1, for a few and from 12 or 24 queries on.
query_counts = st.sampled_from([0, 1, 2, 3, 12, 24, 65])
code_lengths = st.one_of(st.integers(1, 300), st.sampled_from([8, 16, 32, 64, 96, 128, 192, 256]))
distinct_codes = st.sampled_from([None, 1, 3, 20])


@contextmanager
def using(variant: str) -> Iterator[None]:
    """Have the functions of adsq.kernels run the C++ variant, or the PyTorch bodies of their ops."""
    with pytest.MonkeyPatch.context() as patch:
        if variant == "reference":
            for name, module in OPS.items():
                op = getattr(module, name)
                patch.setattr(module, name, getattr(op, "__wrapped__", None) or op._init_fn)
        else:
            patch.setenv("ADSQ_SIMD", variant)
        yield


def by_variant(function: Callable[[], Any], variants: Sequence[str] = VARIANTS) -> dict[str, Any]:
    """Call the function under each variant."""
    results = {}
    for variant in variants:
        with using(variant):
            results[variant] = function()
    return results


def random_codes(rows: int, num_bits: int, seed: int, distinct: int | None = None) -> Tensor:
    """Packed codes; with `distinct`, drawn from so few different ones that duplicates abound."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows if distinct is None else distinct, (num_bits + 7) // 8)
    codes = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    codes[:, -1] &= 255 >> -num_bits % 8
    return codes if distinct is None else codes[torch.randint(0, distinct, (rows,), generator=generator)]


def random_labels(rows: int, kind: str, num_classes: int, seed: int) -> Tensor:
    """Class ids, or rows of a dtype in which about half of all pairs share a label; others are 0, below 0 or NaN."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "ids":
        return torch.randint(-1, num_classes, (rows,), generator=generator) * 2**40
    dtype, shape = getattr(torch, kind), (rows, num_classes)
    present = torch.rand(shape, generator=generator) < (0.6 / max(1, num_classes)) ** 0.5
    if dtype.is_floating_point:
        values = [SUBNORMAL, 0.5, 1, 2, float("inf")], [0, -1, -SUBNORMAL, float("nan")]
    else:
        values = [1, 2, 100], [0, 0, -1] if dtype.is_signed else [0]
    chosen = [torch.tensor(some).to(dtype)[torch.randint(len(some), shape, generator=generator)] for some in values]
    return torch.where(present, *chosen)


def ladder(num_bits: int) -> Tensor:
    """Packed codes at distance 0, 1, ..., num_bits from the first."""
    return pack_codes(torch.ones(num_bits + 1, num_bits).tril(-1) - 0.5)


def all_distances(queries: Tensor, database: Tensor, num_bits: int | None = None) -> np.ndarray:
    """Count differing bits, uint16 [Q, N], of the first `num_bits` (all by default)."""
    sides = []
    for codes in (queries, database):
        codes = np.pad(codes.numpy(), ((0, 0), (0, codes.shape[1] % 2)), constant_values=0)
        if num_bits is not None and num_bits % 8:
            codes[:, num_bits // 8] &= (1 << num_bits % 8) - 1
        sides.append(np.ascontiguousarray(codes).view(np.uint16))
    distances = np.zeros((len(queries), len(database)), dtype=np.uint16)
    for query_column, column in zip(sides[0].T, sides[1].T, strict=True):
        distances += ONES_IN_16_BITS[query_column[:, None] ^ column]
    return distances


def sorted_distances(queries: Tensor, database: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All distances of each query, and their indices, by (distance, index)."""
    distances = all_distances(queries, database)
    order = distances.argsort(axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1).astype(np.int32), order


def brute_topk(
    queries: Tensor, database: Tensor, k: int, mask: Tensor | None = None, ids: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    allowed = np.arange(len(database)) if mask is None else np.flatnonzero(mask.numpy())
    sorted_, order = sorted_distances(queries, database[allowed])
    names = allowed if ids is None else ids.numpy()[allowed]
    padding = ((0, 0), (0, max(0, k - len(allowed))))
    return (
        np.pad(sorted_[:, :k], padding, constant_values=NO_DISTANCE),
        np.pad(names[order[:, :k]], padding, constant_values=-1),
    )


def brute_range(
    queries: Tensor, database: Tensor, radius: int, ids: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sorted_, order = sorted_distances(queries, database)
    within = sorted_ <= radius
    offsets = np.concatenate(([0], within.sum(axis=1).cumsum())).astype(np.int64)
    return offsets, sorted_[within], order[within] if ids is None else ids.numpy()[order[within]]


def average_precision(relevant: np.ndarray, k: int) -> float:
    """AP of one ranked list, by its definition."""
    precision = relevant.cumsum() / np.arange(1, len(relevant) + 1)
    return precision[:k][relevant[:k]].sum() / max(1, relevant.sum())


def assert_equal(found: Sequence[Tensor], expected: Sequence[np.ndarray], what: object = "") -> None:
    """Expect the same numbers, shapes and dtypes."""
    assert len(found) == len(expected)
    for tensor, array in zip(found, expected, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array, err_msg=str(what), strict=True)


def assert_same(results: dict[Any, Sequence[Tensor]]) -> None:
    """Expect equal tensors from all, bit for bit."""
    (first, expected), *others = results.items()
    for name, found in others:
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), f"{name} differs from {first}"


def check_topk(queries: Tensor, database: Tensor, k: int, mask: Tensor | None = None) -> None:
    """Hold every variant to the brute force."""
    expected = brute_topk(queries, database, k, mask)
    for variant, found in by_variant(lambda: hamming_topk(queries, database, k, mask=mask)).items():
        assert_equal(found, expected, variant)


def check_range(queries: Tensor, database: Tensor, radius: int) -> None:
    """Hold every variant to the brute force."""
    expected = brute_range(queries, database, radius)
    for variant, found in by_variant(lambda: hamming_range(queries, database, radius)).items():
        assert_equal(found, expected, variant)


def clustered(rows: int, num_bits: int, flips: float, seed: int, centres: int = 5) -> Tensor:
    """Codes about few centres, each bit flipped with some chance; bit 0 is constant."""
    random = torch.Generator().manual_seed(seed)
    signs = torch.randn(centres, num_bits, generator=torch.Generator().manual_seed(1)).sign()
    codes = signs[torch.randint(centres, (rows,), generator=random)]
    codes = torch.where(torch.rand(rows, num_bits, generator=random) < flips, -codes, codes)
    codes[:, 0] = 1
    return pack_codes(codes)
