"""Counting and ranking on the GPU: the kernels in the emulator, and on a GPU the ops, equal the CPU's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulation import BUILDS, ORDERS
from torch import Tensor

from search_cases import random_codes

WIDTHS = (1, 5, 8, 31, 32, 33, 48, 64, 96, 100, 128, 200, 256, 300)
GARBAGE = 0xA5


def emulate(emulator, build: str, order: str, task: str, arrays: list[Tensor], **options: int) -> bytes:
    """Run a task of tests/cuda_emulator/ranking.cpp."""
    data = b"".join(array.contiguous().numpy().tobytes() for array in arrays)
    if build == "thread":  # which takes long to make threads
        options |= {"blocks": 2, "threads": 64}
    settings = [f"{name}={value}" for name, value in options.items()]
    return emulator.output("ranking", build, task, *settings, order=order, data=data)


def check_neighbours(emulator, build, order, queries, database, k, *, mask=None, ids=None, listed=None, **options):
    """Hold the k nearest of the listed queries (all by default) to the CPU's; what is not listed stays as it was."""
    arrays, more = [queries, database], {"k": k, "mask": int(mask is not None), "ids": int(ids is not None)}
    if listed is not None:
        more["listed"] = len(listed)
    for array in (mask, None if listed is None else torch.tensor(listed, dtype=torch.int32), ids):
        arrays += [] if array is None else [array]
    shape = {"queries": len(queries), "codes": len(database), "width": queries.shape[1]}
    output = emulate(emulator, build, order, "neighbours", arrays, **shape, **more, **options)
    size = len(queries) * k
    distances = np.frombuffer(output[: 4 * size], dtype=np.int32).reshape(-1, k)
    indices = np.frombuffer(output[4 * size :], dtype=np.int64).reshape(-1, k)
    expected = torch.ops.adsq.hamming_topk(queries, database, k, mask, ids)
    for found, wanted in zip((distances, indices), expected, strict=True):
        rows = wanted.numpy().copy()
        for row in set(range(len(queries))) - set(range(len(queries)) if listed is None else listed):
            rows[row : row + 1].view(np.uint8)[:] = GARBAGE
        np.testing.assert_array_equal(found, rows)


def chosen(seed: int, *choices: object) -> list:
    """Pick one of each, evenly over seeds."""
    generator = np.random.default_rng(seed)
    return [some[generator.integers(len(some))] for some in choices]


def make_codes(rows: int, num_bits: int, seed: int, kind: str) -> Tensor:
    codes = random_codes(rows, num_bits, seed, {"equal": 1, "two": 2, "few": 20}.get(kind))
    if kind == "sorted" and rows:
        codes = codes[torch.from_numpy(np.lexsort(codes.numpy().T))]
    return codes


def make_mask(rows: int, kind: str) -> Tensor | None:
    if kind == "without":
        return None
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[{"none": [], "all": slice(None), "one": slice(rows // 2, rows // 2 + 1), "half": slice(1, None, 2)}[kind]] = (
        True
    )
    return mask


KINDS = ("random", "equal", "two", "few", "sorted")
MASKS = ("without", "none", "all", "one", "half")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_neighbours(emulator, build, num_bits):
    for seed in range(1 if build == "thread" else 4):
        n, q, kind, masks, splits = chosen(
            100 * num_bits + seed, (0, 1, 31, 32, 33, 65, 513), (0, 1, 2, 5), KINDS, MASKS, (1, 3, 256)
        )
        order, shift, query_shift, more, batch, with_ids = chosen(
            seed, ORDERS, (0, 1, 2, 4, 8), (0, 1, 4), (0, 1, 2), (1, 2, 100), (False, True)
        )
        queries, database = make_codes(q, num_bits, seed, kind), make_codes(n, num_bits, seed + 1, kind)
        check_neighbours(
            emulator,
            build,
            order,
            queries,
            database,
            (1, max(1, n), n + 3)[more],
            mask=make_mask(n, masks),
            ids=torch.arange(n) * 3 + 2**40 if with_ids else None,
            shift=shift,
            query_shift=query_shift,
            splits=splits,
            table_rows=splits * min(batch, max(1, q)),
            batch_rows=batch,
        )


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("num_bits", "n"), [(1024, 65), (4096, 70)])
def test_neighbours_of_long_codes(emulator, build, num_bits, n):
    for order, k in zip(ORDERS, (1, n, n + 3), strict=False):
        queries, database = random_codes(2, num_bits, 0), random_codes(n, num_bits, 1, n // 2)
        check_neighbours(emulator, build, order, queries, database, k, splits=3)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("listed", [[], [3], [4, 1], [0, 1, 2, 3, 4]])
def test_only_listed_queries_are_taken(emulator, build, listed):
    queries, database = random_codes(5, 33, 0), random_codes(300, 33, 1, 100)
    for order, batch, splits in zip(ORDERS, (1, 2, 5), (256, 3, 1), strict=False):
        options = {"splits": splits, "table_rows": 2 * splits * batch, "batch_rows": batch}
        check_neighbours(emulator, build, order, queries, database, 40, listed=listed, **options)
