"""Quality of a Hamming ranking, without the ranking. See README.md in this folder for formulas and tie rules."""

from __future__ import annotations

from torch import Tensor

from adsq.kernels import _checks
from adsq.kernels.hamming_ranking import op

__all__ = ["hamming_average_precision", "hamming_relevance_histogram"]


def hamming_relevance_histogram(
    queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor, num_bits: int | None = None
) -> tuple[Tensor, Tensor]:
    """Count, for each query, all database codes and the relevant ones at each Hamming distance.

    An item is relevant where it shares a label with the query: the same class id, or a column in which both rows are
    > 0. Precision and recall by radius follow from the running sums. See docs/method.md, "Retrieval measures".

    Args:
        queries: Packed codes, uint8 [Q, B], see `pack_codes`.
        database: Packed codes, uint8 [N, B], on the device of `queries`.
        query_labels: Class ids, int64 [Q], or label rows, bool, uint8, int8 to int64, float16, bfloat16,
            float32 or float64 [Q, C].
        database_labels: Class ids [N] or label rows [N, C], as in `query_labels`.
        num_bits: Length K of a code, 8 B by default. Pad bits are not read.

    Returns:
        total: int64 [Q, K + 1], codes at distance 0, 1, ..., K.
        relevant: int64 [Q, K + 1], those among them that are relevant.

    Raises:
        TypeError: A code is not uint8, or class ids are not int64.
        ValueError: Shapes or devices do not fit, or B is not ceil(num_bits / 8).
    """
    _check(queries, database, query_labels, database_labels)
    if num_bits is None:
        num_bits = 8 * queries.shape[1]
    else:
        num_bits = _checks.check_num_bits(num_bits)
        _checks.check_packed(queries, "queries", num_bits)
    return op.hamming_relevance_histogram(queries, database, query_labels, database_labels, num_bits)


def hamming_average_precision(
    queries: Tensor,
    database: Tensor,
    query_labels: Tensor,
    database_labels: Tensor,
    *,
    k: int | None = None,
    ties: str = "index",
) -> tuple[Tensor, Tensor]:
    """Return the average precision of each query's Hamming ranking.

    AP = (sum of precision at the ranks of the relevant items among the first k) / (relevant items in the database).
    Items are relevant as in `hamming_relevance_histogram`. See docs/method.md, "Retrieval measures".

    Args:
        queries: Packed codes, uint8 [Q, B], see `pack_codes`. Pad bits are zero.
        database: Packed codes, uint8 [N, B], on the device of `queries`.
        query_labels: Class ids, int64 [Q], or label rows, bool, uint8, int8 to int64, float16, bfloat16,
            float32 or float64 [Q, C].
        database_labels: Class ids [N] or label rows [N, C], as in `query_labels`.
        k: Only the first k ranks count, at least 1. None counts all.
        ties: "index" ranks equal distances by database index; "expected" is the exact mean of AP over all orders of
            equal distances.

    Returns:
        average_precision: float64 [Q], 0 for a query without relevant items.
        num_relevant: int64 [Q], relevant items in the whole database.

    Raises:
        TypeError: A code is not uint8, class ids are not int64, or `k` is no integer.
        ValueError: Shapes or devices do not fit, k < 1, or an unknown tie rule.
    """
    _check(queries, database, query_labels, database_labels)
    if k is not None:
        k = min(_checks.check_int(k, "k", 1), max(1, database.shape[0]))
    _checks.check_choice(ties, "ties", ("index", "expected"))
    return op.hamming_average_precision(queries, database, query_labels, database_labels, k, ties == "expected")


def _check(queries: Tensor, database: Tensor, query_labels: Tensor, database_labels: Tensor) -> None:
    _checks.check_packed_pair(queries, database)
    _checks.check_labels(query_labels, "query_labels", queries.shape[0], "queries")
    _checks.check_labels(database_labels, "database_labels", database.shape[0], "database")
    _checks.check_same(query_labels, "query_labels", queries, "queries", dtype=False)
    _checks.check_label_pair(query_labels, "query_labels", database_labels, "database_labels")
