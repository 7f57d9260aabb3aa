"""When a search goes by hash tables, and the tables themselves. `FlatRows` and `DistinctRows` have one `Hash` each."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from math import ceil, comb, log2
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor

from adsq.kernels.hamming_hash import op

if TYPE_CHECKING:
    from adsq._distinct import DistinctRows
    from adsq._rows import FlatRows

    Rows: TypeAlias = FlatRows | DistinctRows

MAX_BITS = 256  # beyond, tables are many and larger than the codes by far
FEW_CODES = 4096  # of which a scan is so quick that "auto" thinks of nothing else
# By how much of what calling them takes the tables take longer to call than a scan: no scan of less can be bettered.
CALL, CALLS = 0.5, 8  # and how many calls are timed
CHOOSING = 50  # nanoseconds that a scan takes for each neighbour beyond the ten of the measurement
# Making tables takes about as long as scans of so many queries; "auto" makes them when it has scanned so often.
SCANS = 1000
# Larger tables "auto" does not make by itself: the codes may be mapped from a file because memory is short.
MOST_BYTES = 2 << 30
# Nanoseconds for a bucket, a word of a code in one, one in a scan, and in one that several queries share, and how many
# these are: coarse, since only with the tables it is measured what they take here.
BUCKET, CANDIDATE, SCANNED, SCANNED_IN_BATCH, BATCH = 30, 0.5, 0.085, 0.028, 12


class Plan(NamedTuple):
    """How "auto" searches a query.

    Attributes:
        method: "hash" or "scan". A search that begins with "hash" may still end in a scan.
        reason: Why, in words.
        hash_cost: What the tables are expected to cost, in nanoseconds; None where there are none.
        scan_cost: The same for the scan.
    """

    method: str
    reason: str
    hash_cost: float | None = None
    scan_cost: float | None = None


class Learned:
    """What searches for about as many neighbours, or within about the same radius, learn from each other."""

    def __init__(self) -> None:
        self._numbers = array("d", bytes(8 * op.LEARNED))
        self.tensor = torch.frombuffer(self._numbers, dtype=torch.float64)  # the same memory

    def waits(self, queries: int) -> bool:
        """Whether so many queries are scanned, since those before began in the tables and lost too much by that."""
        batch = (queries > op.FEW) + (queries > op.SOME)
        return self._numbers[op.LEARNED // 3 * batch + op.WAITING] > 0

    def scanned(self) -> None:
        """Count a call with few queries that was scanned: after some, others try the tables again."""
        self._numbers[op.WAITING] -= 1


class Hash:
    """Hash tables of some codes, made when they are first wanted: by one thread, while others wait."""

    def __init__(self) -> None:
        self._tables: list[Tensor] | None = None
        self._refusal: str | None = None  # `_refuses`, once there are tables
        self._scan_times = 0.0, 0.0  # nanoseconds of a scan by one query: within a radius, and for ten neighbours
        self._call_time = 0.0  # nanoseconds that calling the tables takes
        self._learned = [Learned() for _ in range(5)]
        self._lock = threading.Lock()
        self._scanned = 0.0  # queries that "auto" has scanned since it last thought of tables; in batches, for less

    def tables(self, rows: Rows) -> list[Tensor]:
        """Return the tables, making them if there are none."""
        with self._lock:
            if self._tables is None:
                tables = op.hash_tables(rows.codes, *rows.lists())
                rates = op.hash_rates(rows.codes, tables, *rows.lists())
                scan, _, _, _, choosing = rates[:5].tolist() or [0.0] * 5  # nothing is measured without native code
                self._scan_times = scan, scan + choosing
                tables = [*tables[:-1], rates]
                self._call_time = _call_time(rows, tables) if scan else 0.0
                self._refusal = self._refuses(rows)
                self._tables = tables
            return self._tables

    def topk(
        self, rows: Rows, queries: Tensor, k: int, method: str, scan: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Search by the tables or by `scan`."""
        learned = self._learned_for(k)
        tables = self._tables_for(rows, queries.shape[0], method, self._scan_time(k), learned)
        if tables is not None:
            tensor, force = learned.tensor, method == "hash"
            found = op.hash_topk(queries, rows.codes, k, force, tables, *rows.lists(), rows.names, tensor)
            return found[0], found[1]
        distances, ids = scan()
        if method == "auto" and self._tables is None:
            self._count(rows, len(queries), lambda: int(distances[:, -1].max()))
        return distances, ids

    def range(
        self, rows: Rows, queries: Tensor, radius: int, method: str, scan: Callable[[], tuple[Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `topk`, for all rows within a radius."""
        learned = self._learned[3 if radius < 4 else 4]
        tables = self._tables_for(rows, queries.shape[0], method, self._scan_times[0], learned)
        if tables is not None:
            tensor, force = learned.tensor, method == "hash"
            found = op.hash_range(queries, rows.codes, radius, force, tables, *rows.lists(), rows.names, tensor)
            return found[0], found[1], found[2]
        if method == "auto" and self._tables is None:
            self._count(rows, len(queries), lambda: radius)
        return scan()

    def _learned_for(self, k: int) -> Learned:
        return self._learned[0 if k < 32 else 1 if k < 320 else 2]

    def _scan_time(self, k: int) -> float:
        return self._scan_times[1] + CHOOSING * (k - 10)

    def _tables_for(
        self, rows: Rows, queries: int, method: str, scan_time: float, learned: Learned
    ) -> list[Tensor] | None:
        """Return the tables to search by; None for a scan, which takes one query so many nanoseconds."""
        if method == "hash":
            return self.tables(rows)
        if method == "scan" or self._tables is None:  # first, as it takes no time
            return None
        if queries < BATCH and scan_time <= CALL * self._call_time:
            return None
        if queries <= op.FEW and learned.waits(queries):  # the op would scan, and takes longer to call
            learned.scanned()
            return None
        return self._tables if self._refusal is None else None

    def _count(self, rows: Rows, queries: int, radius: Callable[[], int]) -> None:
        """Count queries that "auto" scans, and make tables where they would have paid, as far as these had to look."""
        scanned = SCANNED_IN_BATCH if queries >= BATCH else SCANNED
        self._scanned += queries * scanned / SCANNED
        if self._scanned < SCANS:
            return
        self._scanned = 0.0
        codes = rows.codes
        if queries == 0 or self._refuses(rows) is not None or _table_bytes(codes) > MOST_BYTES:
            return
        if _hash_cost(codes, radius()) < scanned * codes.shape[0] * -(-codes.shape[1] // 8):
            self.tables(rows)

    def explain(self, rows: Rows, queries: Tensor, k: int) -> list[Plan]:
        """Say for each query how "auto" would search it."""
        reason = self._refuses(rows)
        if reason is None and self._tables is None:
            reason = "there are no hash tables: they are made by method='hash'"
            if _table_bytes(rows.codes) > MOST_BYTES:
                reason += f" only, as they take {_table_bytes(rows.codes) / 2**30:.1f} GiB"
            else:
                reason += ", or once scans have cost as much"
        if reason is None and len(queries) < BATCH and self._scan_time(k) <= CALL * self._call_time:
            reason = f"a scan takes {self._scan_time(k) / 1000:.1f} us, too little to call the tables for few queries"
        learned = self._learned_for(k)
        if reason is None and learned.waits(len(queries)):
            reason = "others before it took longer by the tables than by scans: after some scans one tries again"
        if reason is not None or self._tables is None:
            return [Plan("scan", str(reason))] * len(queries)
        plans = op.hash_plans(queries, rows.codes, k, self._tables, *rows.lists(), learned.tensor)
        return [_plan(*plan) for plan in plans.tolist()]

    @staticmethod
    def _refuses(rows: Rows) -> str | None:
        """Say why "auto" does not think of hash tables, if it does not."""
        codes = rows.codes
        if codes.device.type != "cpu":
            return "hash tables are searched on the CPU only"
        if codes.shape[1] > MAX_BITS // 8:
            return f"codes of more than {MAX_BITS} bits need too many tables"
        return f"{codes.shape[0]} codes are few" if codes.shape[0] < FEW_CODES else None


def _call_time(rows: Rows, tables: list[Tensor]) -> float:
    """Return the nanoseconds of a call for a code that is in the first bucket: next to nothing but calling."""
    times = []
    for _ in range(CALLS):
        start = perf_counter_ns()
        op.hash_topk(rows.codes[:1], rows.codes, 1, True, tables, *rows.lists(), rows.names, None)
        times.append(perf_counter_ns() - start)
    return float(min(times))


def _num_tables(codes: Tensor) -> int:
    return ceil(8 * codes.shape[1] / max(4, min(22, log2(max(2, codes.shape[0])))))  # as csrc/cpu/hamming_hash.cpp


def _table_bytes(codes: Tensor) -> int:
    return _num_tables(codes) * codes.shape[0] * (codes.shape[1] + 4)


def _hash_cost(codes: Tensor, radius: int) -> float:
    """Return about what a search by tables takes to some radius, at least, in nanoseconds."""
    count, tables = codes.shape[0], _num_tables(codes)
    part = 8 * codes.shape[1] // tables
    bucket = BUCKET + CANDIDATE * -(-codes.shape[1] // 8) * count / 2**part
    return sum(comb(part, r // tables) * bucket for r in range(min(radius, 8 * codes.shape[1]) + 1))


def _plan(hash_: float, hash_cost: float, scan_cost: float, candidates: float, radius: float) -> Plan:
    first = f"the {candidates:.0f} codes in the first buckets"
    costs = f"{hash_cost / 1000:.1f} us by hash, {scan_cost / 1000:.1f} us by scan"
    if hash_:
        return Plan("hash", f"{first} put the k-th neighbour within {radius:.0f}: {costs}", hash_cost, scan_cost)
    if candidates == 0:
        return Plan("scan", f"the first buckets cost too much beside a scan: {costs}", hash_cost, scan_cost)
    return Plan("scan", f"{first} leave it as far as {radius:.0f}: {costs} or more", hash_cost, scan_cost)
