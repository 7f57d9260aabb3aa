"""Codes in Parquet files, and the SQL by which databases search them exactly.

A file has the columns ``id``, int64, and ``w0``, ``w1``, ..., uint64: bit j of a code is bit j % 64 of word j // 64,
and bits from num_bits on are zero. Its key-value metadata hold ``num_bits``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adsq._arrays import from_numpy
from adsq.files import replacing
from adsq.index import HammingIndex
from adsq.kernels import _checks

__all__ = ["ROW_GROUP", "search_sql", "to_parquet"]

ROW_GROUP = 1 << 17  # rows written at a time; databases give each thread some groups


def to_parquet(
    index: HammingIndex,
    path: str | os.PathLike[str],
    progress: Callable[[Iterator[Tensor]], Iterator[Tensor]] | None = None,
) -> None:
    """Write the codes and ids of an index to a Parquet file, in place of an older one only when complete.

    Rows are in ascending order of id, `ROW_GROUP` a group, and only one group is in memory beside the index. `meta` is
    not kept.

    Args:
        index: What to write; it may be mapped, and on any device.
        path: The file to write. A symbolic link is followed; permissions follow the umask.
        progress: Wraps the iterator over row groups, to show a progress bar.

    Raises:
        ImportError: pyarrow is not installed (`pip install pyarrow`).
        TypeError: `index` is no HammingIndex.
        OSError: The file cannot be written; an older file at `path` is as it was.
    """
    if not isinstance(index, HammingIndex):
        raise TypeError(f"index: expected a HammingIndex, got {type(index).__name__}")
    pyarrow, parquet = _pyarrow()
    rows = index._storage.rows().flat()
    words = [f"w{number}" for number in range(_num_words(index.num_bits))]
    # Columns that may hold no NULL stay plain types in ClickHouse.
    fields = [("id", pyarrow.int64()), *((word, pyarrow.uint64()) for word in words)]
    schema = pyarrow.schema(
        [pyarrow.field(*field, nullable=False) for field in fields], {"num_bits": str(index.num_bits)}
    )
    groups = iter(rows.ids.split(ROW_GROUP))
    groups = groups if progress is None else progress(groups)
    # Trained codes repeat, ids never do.
    with replacing(path) as file, parquet.ParquetWriter(file, schema, use_dictionary=words) as writer:
        for ids, codes in zip(groups, rows.codes.split(ROW_GROUP), strict=True):
            columns = [ids.cpu().numpy(), *_words(codes).T]
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=ROW_GROUP)


def search_sql(
    table: str | os.PathLike[str],
    query: Tensor | np.ndarray,
    k: int,
    num_bits: int,
    engine: Literal["duckdb", "clickhouse"] = "duckdb",
) -> str:
    """Return the SQL that finds the k nearest codes of a query, exactly, in a file of `to_parquet` or a table of it.

    Its result has the columns distance, int32, and id, sorted by (distance, id): what `HammingIndex.search` finds, but
    without padding. The SQL for DuckDB is tested in DuckDB, that for ClickHouse only by its form.

    Args:
        table: What ends in ".parquet" is a file, or a pattern such as "codes-*.parquet" that matches several;
            ClickHouse reads those of its own machine. Anything else is the name of a table, after that of its schema
            or database and a dot if need be.
        query: One packed code, uint8 [ceil(num_bits / 8)].
        k: Number of neighbours, at least 1.
        num_bits: Length of a code, 1 to 4096.
        engine: The database.

    Raises:
        TypeError, ValueError: An argument is not one of these, or pad bits are set.
    """
    num_bits = _checks.check_num_bits(num_bits)
    k = _checks.check_int(k, "k", 1, 2**63 - 1)
    _checks.check_choice(engine, "engine", ("duckdb", "clickhouse"))
    query = from_numpy(query, "query") if isinstance(query, np.ndarray) else query
    _checks.check_tensor(query, "query")
    if query.dim() != 1:
        raise ValueError(f"query: expected one code, [ceil(num_bits / 8)], got shape {list(query.shape)}")
    _checks.check_packed(query[None], "query", num_bits)
    _checks.check_pad_bits(query[None], "query", num_bits)
    words = _words(query[None])[0].tolist()
    if engine == "duckdb":
        # Counts are TINYINT in DuckDB 1, and the sum of two could overflow.
        differences = [f"bit_count(xor(w{number}, {word}::UBIGINT))::INTEGER" for number, word in enumerate(words)]
        distance = " + ".join(differences)
    else:
        differences = [f"bitHammingDistance(w{number}, toUInt64({word}))" for number, word in enumerate(words)]
        distance = f"toInt32({' + '.join(differences)})"
    return f"SELECT {distance} AS distance, id FROM {_source(table, engine)} ORDER BY distance, id LIMIT {k}"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("pyarrow is not installed, and to_parquet needs it: pip install pyarrow") from error
    return pyarrow, parquet


def _num_words(num_bits: int) -> int:
    return (num_bits + 63) // 64


def _words(codes: Tensor) -> np.ndarray:
    """Return packed codes, uint8 [N, B], as words, uint64 [N, ceil(B / 8)]."""
    count, width = codes.shape
    padded = torch.zeros(count, 8 * _num_words(8 * width), dtype=torch.uint8, device="cpu")
    padded[:, :width] = codes
    return padded.numpy().view("<u8")


def _source(table: str | os.PathLike[str], engine: str) -> str:
    """Return a file or the name of a table as SQL that can mean nothing else."""
    name = os.fspath(table) if isinstance(table, os.PathLike) else table
    if not isinstance(name, str):
        raise TypeError(f"table: expected a str or a path, got {table!r}")

    def quoted(text: str, mark: str) -> str:
        if engine == "duckdb":
            return mark + text.replace(mark, 2 * mark) + mark
        return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark

    if name.endswith(".parquet"):
        file = quoted(name, "'")
        return f"read_parquet({file})" if engine == "duckdb" else f"file({file}, 'Parquet')"
    parts = name.split(".")
    if not all(parts):
        raise ValueError(f"table: expected a file that ends in .parquet, or the name of a table, got {name!r}")
    return ".".join(quoted(part, '"') for part in parts)
