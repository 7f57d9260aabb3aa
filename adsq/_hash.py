"""When a search goes by hash tables, and the tables themselves. `FlatRows` and `DistinctRows` have one `Hash` each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import comb
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from torch import Tensor

from adsq.kernels.hamming_hash import op

if TYPE_CHECKING:
    from adsq._distinct import DistinctRows
    from adsq._rows import FlatRows

    Rows: TypeAlias = FlatRows | DistinctRows

MAX_BITS = 256  # beyond, tables are many and larger than the codes by far
# What "auto" leaves to the scan: few codes, many queries at a time, many neighbours, long codes. Measured.
FEW_CODES, MANY_QUERIES, MANY_NEIGHBOURS, LONG_CODES = 4096, 100, 1000, 128
# Making tables takes about as long as scans of so many queries; "auto" makes them when it has scanned so often.
SCANS = 1000
# Nanoseconds for a bucket, a word of a code in one, and one in a scan, as in csrc/cpu/hamming_hash_query.cpp.
BUCKET, CANDIDATE, SCANNED = 30, 1.2, 0.085


class Plan(NamedTuple):
    """How "auto" searches a query.

    Attributes:
        method: "hash" or "scan". A search that begins with "hash" may still end in a scan.
        reason: Why, in words.
        hash_cost: What the tables are expected to cost, in nanoseconds of the machine the model was made on; None where
            there are none.
        scan_cost: The same for the scan.
    """

    method: str
    reason: str
    hash_cost: float | None = None
    scan_cost: float | None = None


class Hash:
    """Hash tables of some codes, made when they are first wanted: by one thread, while others wait."""

    def __init__(self) -> None:
        self._tables: tuple[Tensor, Tensor, Tensor] | None = None
        self._lock = threading.Lock()
        self._scanned = 0  # queries that "auto" has scanned since it thought of tables last

    def tables(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tables, making them if there are none."""
        with self._lock:
            if self._tables is None:
                self._tables = op.hash_tables(codes)
            return self._tables

    def topk(
        self, rows: Rows, queries: Tensor, k: int, method: str, scan: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Search by the tables or by `scan`."""
        if method == "hash" or (method == "auto" and self._tables is not None and not self._refuses(rows, queries, k)):
            tables = self.tables(rows.codes)
            found = op.hash_topk(queries, rows.codes, k, method == "hash", *tables, *rows.lists(), rows.names)
            return found[0], found[1]
        distances, ids = scan()
        if method == "auto" and self._tables is None and not self._refuses(rows, queries, k):
            self._count(rows.codes, len(queries), lambda: int(distances[:, -1].max()))
        return distances, ids

    def range(
        self, rows: Rows, queries: Tensor, radius: int, method: str, scan: Callable[[], tuple[Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `topk`, for all rows within a radius."""
        if method == "hash" or (method == "auto" and self._tables is not None and not self._refuses(rows, queries, 1)):
            tables = self.tables(rows.codes)
            found = op.hash_range(queries, rows.codes, radius, method == "hash", *tables, *rows.lists(), rows.names)
            return found[0], found[1], found[2]
        if method == "auto" and self._tables is None and not self._refuses(rows, queries, 1):
            self._count(rows.codes, len(queries), lambda: radius)
        return scan()

    def _count(self, codes: Tensor, queries: int, radius: Callable[[], int]) -> None:
        """Count queries that "auto" scans, and make tables where they would have paid, as far as these had to look."""
        self._scanned += queries
        if self._scanned >= SCANS:
            self._scanned = 0
            if queries and _hash_cost(codes, radius()) < SCANNED * codes.shape[0] * -(-codes.shape[1] // 8):
                self.tables(codes)

    def explain(self, rows: Rows, queries: Tensor, k: int) -> list[Plan]:
        """Say for each query how "auto" would search it."""
        reason = self._refuses(rows, queries, k)
        if reason is None and self._tables is None:
            reason = "there are no hash tables: they are made by method='hash', or once scans have cost as much"
        if reason is not None or self._tables is None:
            return [Plan("scan", str(reason))] * len(queries)
        return [_plan(*plan) for plan in op.hash_plans(queries, rows.codes, k, *self._tables, *rows.lists()).tolist()]

    @staticmethod
    def _refuses(rows: Rows, queries: Tensor, k: int) -> str | None:
        """Say why "auto" does not think of hash tables, if it does not."""
        codes = rows.codes
        if codes.device.type != "cpu":
            return "hash tables are searched on the CPU only"
        if codes.shape[0] < FEW_CODES:
            return f"{codes.shape[0]} codes are few"
        if codes.shape[1] > LONG_CODES // 8:
            return f"codes of more than {LONG_CODES} bits need too many tables"
        if len(queries) > MANY_QUERIES:
            return f"more than {MANY_QUERIES} queries share a scan"
        return f"k is {MANY_NEIGHBOURS} or more" if k >= MANY_NEIGHBOURS else None


def _hash_cost(codes: Tensor, radius: int) -> float:
    """Return about what a search by tables takes to some radius, at least, in nanoseconds."""
    count, bits = codes.shape[0], max(4, min(22, codes.shape[0].bit_length()))
    tables = -(-8 * codes.shape[1] // bits)
    part = 8 * codes.shape[1] // tables
    bucket = BUCKET + CANDIDATE * -(-codes.shape[1] // 8) * count / 2**part
    return sum(comb(part, r // tables) * bucket for r in range(min(radius, 8 * codes.shape[1]) + 1))


def _plan(hash_: float, hash_cost: float, scan_cost: float, candidates: float, radius: float) -> Plan:
    first = f"the {candidates:.0f} codes in the first buckets"
    costs = f"{hash_cost / 1000:.1f} us by hash, {scan_cost / 1000:.1f} us by scan"
    if hash_:
        return Plan("hash", f"{first} put the k-th neighbour within {radius:.0f}: {costs}", hash_cost, scan_cost)
    if candidates == 0:
        return Plan("scan", f"the first buckets are too full: {costs}", hash_cost, scan_cost)
    return Plan("scan", f"{first} leave it as far as {radius:.0f}: {costs} or more", hash_cost, scan_cost)
