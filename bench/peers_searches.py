"""What peers.py compares: each library behind one function.

A builder takes packed codes, uint8 [N, B], prepares the library's own index or layout (not timed), and returns a search
of packed queries, uint8 [Q, B], for k neighbours that gives (distances, ids), [Q, k] each. With `reuse`, results of one
shape are written to the same memory each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
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


def adsq_index(database: np.ndarray, num_bits: int, threads: int, reuse: bool = False) -> Search:
    """`HammingIndex.search`, with its argument checks."""
    index = HammingIndex(num_bits)
    index.add(torch.from_numpy(database))
    if reuse:
        return lambda queries, k: index.search(queries, k, out=_memory(len(queries), k))
    return lambda queries, k: index.search(torch.from_numpy(queries), k)


def adsq_function(database: np.ndarray, num_bits: int, threads: int) -> Search:
    """`hamming_topk` on packed codes as they are."""
    codes = torch.from_numpy(database)
    return lambda queries, k: hamming_topk(torch.from_numpy(queries), codes, k)


def faiss_heap(database: np.ndarray, num_bits: int, threads: int, reuse: bool = False) -> Search:
    """FAISS's flat binary index, selection by heap."""
    return _faiss(database, True, reuse)


def faiss_counting(database: np.ndarray, num_bits: int, threads: int, reuse: bool = False) -> Search:
    """FAISS's flat binary index, selection by counting."""
    return _faiss(database, False, reuse)


def _faiss(database: np.ndarray, use_heap: bool, reuse: bool) -> Search:
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.use_heap = use_heap
    index.add(database)
    pointer = faiss.swig_ptr

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        # As its Python search of the same name, which always makes new arrays.
        distances, ids = _memory(len(queries), k)
        index.search_c(len(queries), pointer(queries), k, pointer(distances), pointer(ids))
        return distances, ids

    return search if reuse else index.search


@lru_cache(maxsize=1)
def _memory(num_queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return memory for results, the same for the same shape as last time."""
    return np.empty((num_queries, k), np.int32), np.empty((num_queries, k), np.int64)


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
REUSING = {name: partial(BUILDERS[name], reuse=True) for name in ("adsq", "FAISS heap", "FAISS counting")}


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
