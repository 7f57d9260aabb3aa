"""Schemas and fake kernels of search by hash tables. The functions here, which scan, run without native code."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels._ops import plain_op
from adsq.kernels.distinct_codes import op as distinct
from adsq.kernels.hamming_topk import op as search

# Numbers that searches learn from each other (csrc/cpu/hamming_hash_learned.h): eight for calls of up to FEW queries,
# eight for up to SOME, eight for more; among them how many such calls are to be scanned before tables are tried again.
LEARNED, WAITING, FEW, SOME = 24, 5, 7, 255


@plain_op("adsq::hash_tables")
def hash_tables(codes: Tensor, offsets: Tensor | None = None, rows: Tensor | None = None) -> list[Tensor]:
    """Codes uint8 [D, B], and their lists of rows if there are any -> tables; none here.

    Bucket offsets int32; codes by bucket, int32 [tables, D] and uint8 [tables, D, B]; a sample of the codes, and those
    with the most rows; float64, room for `hash_rates`, and how many rows these are. Without rates nothing is chosen
    but the scan.
    """
    return []


@torch.library.register_fake("adsq::hash_tables")
def _(codes: Tensor, offsets: Tensor | None = None, rows: Tensor | None = None) -> list[Tensor]:
    entries, tables, some, rates = (torch.library.get_ctx().new_dynamic_size() for _ in range(4))
    positions = codes.new_empty((tables, codes.shape[0]), dtype=torch.int32)
    buckets = [codes.new_empty(entries, dtype=torch.int32), positions, codes.new_empty(tables, *codes.shape)]
    return [*buckets, codes.new_empty(some, codes.shape[1]), codes.new_empty(rates, dtype=torch.float64)]


@plain_op("adsq::hash_rates")
def hash_rates(
    codes: Tensor, tables: list[Tensor], offsets: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """Measure how long tables and scans take -> the last of the tables with these rates; none here."""
    return codes.new_empty(0, dtype=torch.float64)


@torch.library.register_fake("adsq::hash_rates")
def _(codes: Tensor, tables: list[Tensor], offsets: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
    return torch.empty_like(tables[-1])


@plain_op("adsq::hash_topk", mutates=("learned",))
def hash_topk(
    queries: Tensor,
    codes: Tensor,
    k: int,
    force: bool,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
    learned: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As distinct_topk, or hamming_topk without offsets; and what was used uint8 [Q]: 0 scan, 1 hash, 2 both."""
    used = queries.new_zeros(queries.shape[0])
    if offsets is None or rows is None:
        return *search.hamming_topk(queries, codes, k, None, ids), used
    return *distinct.distinct_topk(queries, codes, k, offsets, rows, ids), used


@torch.library.register_fake("adsq::hash_topk")
def _(
    queries: Tensor,
    codes: Tensor,
    k: int,
    force: bool,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
    learned: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (queries.shape[0], k)
    distances, found = queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)
    return distances, found, queries.new_empty(shape[0])


@plain_op("adsq::hash_range", mutates=("learned",))
def hash_range(
    queries: Tensor,
    codes: Tensor,
    radius: int,
    force: bool,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
    learned: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As distinct_range, or hamming_range without offsets; and what was used uint8 [Q]: 0 scan, 1 hash, 2 both."""
    used = queries.new_zeros(queries.shape[0])
    if offsets is None or rows is None:
        return *search.hamming_range(queries, codes, radius, ids), used
    return *distinct.distinct_range(queries, codes, radius, offsets, rows, ids), used


@torch.library.register_fake("adsq::hash_range")
def _(
    queries: Tensor,
    codes: Tensor,
    radius: int,
    force: bool,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
    learned: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    begins = queries.new_empty(queries.shape[0] + 1, dtype=torch.int64)
    distances, found = queries.new_empty(total, dtype=torch.int32), queries.new_empty(total, dtype=torch.int64)
    return begins, distances, found, queries.new_empty(queries.shape[0])


@plain_op("adsq::hash_plans")
def hash_plans(
    queries: Tensor,
    codes: Tensor,
    k: int,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    learned: Tensor | None = None,
) -> Tensor:
    """Float64 [Q, 5]: whether hash_topk begins by hash, its cost and a scan's in ns, candidates, radius; 0 without."""
    return queries.new_zeros((queries.shape[0], 5), dtype=torch.float64)


@torch.library.register_fake("adsq::hash_plans")
def _(
    queries: Tensor,
    codes: Tensor,
    k: int,
    tables: list[Tensor],
    offsets: Tensor | None = None,
    rows: Tensor | None = None,
    learned: Tensor | None = None,
) -> Tensor:
    return queries.new_empty((queries.shape[0], 5), dtype=torch.float64)
