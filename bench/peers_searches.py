"""What peers.py compares: each library behind one function, and the check of what it finds.

A builder takes packed codes, uint8 [N, B], prepares the library's own index or layout (not timed), and returns a search
of packed queries, uint8 [Q, B], for k neighbours that gives (distances, ids), [Q, k] each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import faiss
import numpy as np
import torch
from usearch.index import MetricKind, ScalarKind
from usearch.index import search as usearch_index_search

from adsq import HammingIndex
from adsq.kernels import hamming_topk, unpack_codes

Search: TypeAlias = Callable[[np.ndarray, int], tuple[Any, Any]]
MATRIX = 1 << 27  # distances that the PyTorch peer holds at a time


def adsq_index(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """`HammingIndex.search`, with its argument checks."""
    index = HammingIndex(num_bits)
    index.add(torch.from_numpy(database))
    return lambda queries, k: index.search(torch.from_numpy(queries), k)


def adsq_function(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """`hamming_topk` on packed codes as they are."""
    codes = torch.from_numpy(database)
    return lambda queries, k: hamming_topk(torch.from_numpy(queries), codes, k)


def faiss_heap(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """FAISS's flat binary index, selection by heap."""
    return _faiss(database, use_heap=True)


def faiss_counting(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """FAISS's flat binary index, selection by counting."""
    return _faiss(database, use_heap=False)


def _faiss(database: np.ndarray, use_heap: bool) -> Search:
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.use_heap = use_heap
    index.add(database)
    return index.search


def usearch_exact(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """usearch's exact search."""
    options: dict[str, Any] = dict(exact=True, threads=threads, dtype=ScalarKind.B1)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        matches = usearch_index_search(database, queries, k, MetricKind.Hamming, **options)
        return np.atleast_2d(matches.distances), np.atleast_2d(matches.keys)

    return search


def numpy_partition(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """bitwise_count on the widest words that fit, and argpartition, a query at a time."""
    codes = _words(database)

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = [nearest(query, k) for query in _words(queries)]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def nearest(query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bitwise_count(codes ^ query)
        distances = counts[:, 0] if counts.shape[1] == 1 else counts.sum(axis=1, dtype=np.uint16)
        ids = np.argpartition(distances, k - 1)[:k] if k < len(distances) else np.arange(len(distances))
        ids = ids[np.argsort(distances[ids])]
        return distances[ids], ids

    return search


def _words(codes: np.ndarray) -> np.ndarray:
    size = 4 if codes.shape[1] == 4 else 8
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % size)))
    return padded.view(f"u{size}")


def torch_matmul(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """Products of +-1 codes, and topk: the database stays unpacked in float32."""
    signs = unpack_codes(torch.from_numpy(database), num_bits).T

    def search(queries: np.ndarray, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = unpack_codes(torch.from_numpy(queries), num_bits).split(max(1, MATRIX // signs.shape[1]))
        pairs = [(block @ signs).topk(k, dim=1) for block in blocks]
        products, ids = (torch.cat(pieces) for pieces in zip(*pairs, strict=True))
        return ((num_bits - products) / 2).int(), ids

    return search


BUILDERS: dict[str, Callable[[np.ndarray, int, int], Search]] = {
    "adsq": adsq_index,
    "adsq function": adsq_function,
    "FAISS heap": faiss_heap,
    "FAISS counting": faiss_counting,
    "usearch": usearch_exact,
    "numpy": numpy_partition,
    "torch": torch_matmul,
}


def script_average_precision(
    queries: np.ndarray, database: np.ndarray, query_labels: np.ndarray, database_labels: np.ndarray
) -> np.ndarray:
    """Return AP, float64 [Q], of +-1 codes [Q, K] and [N, K] with class ids, as the scripts of hashing papers do."""
    precisions = np.zeros(len(queries))
    for i, query in enumerate(queries):
        relevant = database_labels == query_labels[i]
        distances = 0.5 * (database.shape[1] - query @ database.T)
        ranks = np.flatnonzero(relevant[np.argsort(distances, kind="stable")]) + 1
        if len(ranks):
            precisions[i] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
    return precisions


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


def fair_codes(random: np.random.Generator, count: int, num_bits: int) -> np.ndarray:
    """Return packed codes of independent fair bits, uint8 [count, B]; num_bits is a multiple of 8."""
    return random.integers(0, 256, (count, num_bits // 8), dtype=np.uint8)


def near(random: np.random.Generator, centres: np.ndarray, share: float) -> np.ndarray:
    """Flip a share of the bits, as the codes of a trained model lie about those of their classes."""
    return centres ^ np.packbits(random.random((len(centres), 8 * centres.shape[1]), dtype=np.float32) < share, axis=1)
