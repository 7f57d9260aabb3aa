"""The codes that peers.py searches, and the check of what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adsq import HammingIndex, _faiss


def check(
    name: str, found: tuple[Any, Any], queries: np.ndarray, database: np.ndarray, expected: np.ndarray, by_id: bool
) -> None:
    """Refuse a result that is not the k nearest codes.

    Args:
        name: Who found it, for the message.
        found: Distances and ids, [Q, k].
        queries: Packed codes, uint8 [Q, B].
        database: Packed codes, uint8 [N, B].
        expected: The distances that must be found, ascending, [Q, k].
        by_id: Whether ties must go to the lower id; else any order and choice among them will do.

    Raises:
        ValueError: The result is wrong. Distances are compared for all queries with `expected` and with those of the
            ids returned; for up to 9 queries, distances (and ids, with `by_id`) with a stable sort of all distances.
    """
    distances, ids = (np.asarray(part).astype(np.int64) for part in found)
    if distances.shape != expected.shape or (distances != expected).any():
        raise ValueError(f"{name}: the distances are not those expected")
    if ids.shape != expected.shape or ids.min() < 0 or ids.max() >= len(database):
        raise ValueError(f"{name}: ids are missing or do not exist")
    for query, row, row_ids in zip(queries, distances, ids, strict=True):
        if len(np.unique(row_ids)) != len(row_ids):
            raise ValueError(f"{name}: an id is returned twice")
        if (hamming(query, database[row_ids]) != row).any():
            raise ValueError(f"{name}: a distance is not that of the id beside it")
    for i in range(0, len(queries), max(1, len(queries) // 8)):
        all_distances = hamming(queries[i], database)
        nearest = np.argsort(all_distances, kind="stable")[: ids.shape[1]]
        if (distances[i] != all_distances[nearest]).any():
            raise ValueError(f"{name}: the distances are not those of the nearest codes")
        if by_id and (ids[i] != nearest).any():
            raise ValueError(f"{name}: ties are not ordered by id")


def hamming(query: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the distances of one packed code, uint8 [B], to others, uint8 [N, B]: uint16 [N]."""
    return np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.uint16)


def make_codes(kind: str, count: int, num_queries: int, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Make packed codes, uint8 [count, B], and queries, uint8 [num_queries, B], the same ones every time."""
    random = np.random.default_rng(0)
    database, queries = fair_codes(random, count, num_bits), fair_codes(random, num_queries, num_bits)
    if kind == "clustered":
        centres = fair_codes(random, 100, num_bits)
        return tuple(near(random, centres[random.integers(0, 100, rows)], 0.03) for rows in (count, num_queries))
    if kind == "sorted":
        database = database[np.lexsort(database.T[::-1])]
    elif kind == "all equal":
        database = np.repeat(database[:1], count, axis=0)
    elif kind == "two values":
        database = database[random.integers(0, 2, count)]
    return database, queries


def trained_codes(path: Path, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of a saved index but for some drawn at random, and these as queries."""
    codes, _ = _faiss.read(HammingIndex.load(path).to_faiss())
    order = np.random.default_rng(0).permutation(len(codes))
    return codes[np.sort(order[num_queries:])], codes[order[:num_queries]]


def fair_codes(random: np.random.Generator, count: int, num_bits: int) -> np.ndarray:
    """Return packed codes of independent fair bits, uint8 [count, B]; num_bits is a multiple of 8."""
    return random.integers(0, 256, (count, num_bits // 8), dtype=np.uint8)


def near(random: np.random.Generator, centres: np.ndarray, share: float) -> np.ndarray:
    """Flip a share of the bits, as the codes of a trained model lie about those of their classes."""
    return centres ^ np.packbits(random.random((len(centres), 8 * centres.shape[1]), dtype=np.float32) < share, axis=1)
