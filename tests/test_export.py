"""Parquet files of codes, and the SQL that searches them: run in DuckDB, compared with HammingIndex.search."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from pyarrow import parquet

from adsq import export
from adsq.index import HammingIndex

WIDTHS = [1, 16, 31, 48, 63, 64, 65, 128, 200, 256, 4096]
LARGE = 2**63 - 1


@pytest.fixture(scope="module")
def make(random_codes: Callable[..., np.ndarray]) -> Callable[..., HammingIndex]:
    """Give a maker of an index of random codes, each there twice, and of none, all and half of the bits set."""

    def index_of(num_bits: int, rows: int = 60) -> HammingIndex:
        random = np.random.default_rng(num_bits)
        bits = np.stack([np.zeros(num_bits), np.ones(num_bits), np.arange(num_bits) % 2]).astype(np.uint8)
        codes = np.concatenate([*2 * [random_codes(rows, num_bits)], np.packbits(bits, axis=1, bitorder="little")])
        ids = random.permutation(10 * len(codes))[: len(codes)]
        ids[:2] = LARGE, LARGE - 1
        index = HammingIndex(num_bits)
        index.add(codes, ids)
        return index

    return index_of


def found(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> list[tuple[int, int]]:
    connection = connection or duckdb.connect()
    return connection.sql(sql).fetchall()


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_duckdb_finds_what_the_index_finds(
    num_bits: int, make: Callable, random_codes: Callable, tmp_path: Path
) -> None:
    index = make(num_bits)
    path = tmp_path / "codes.parquet"
    export.to_parquet(index, path)
    connection = duckdb.connect()
    connection.execute("CREATE SCHEMA a; CREATE TABLE a.codes AS FROM read_parquet(?)", [str(path)])
    ones = np.packbits(np.ones((1, num_bits), np.uint8), axis=1, bitorder="little")
    queries = np.concatenate([random_codes(3, num_bits, 5), random_codes(2, num_bits), ones, np.zeros_like(ones)])
    for k in (1, 7, len(index), len(index) + 5):
        distances, ids = index.search(queries, k)
        for query, row, ids_row in zip(queries, distances.tolist(), ids.tolist(), strict=True):
            expected = list(zip(row, ids_row, strict=True))[: len(index)]
            assert found(export.search_sql(path, query, k, num_bits)) == expected
            assert found(export.search_sql("a.codes", torch.from_numpy(query), k, num_bits), connection) == expected
    types = connection.sql(export.search_sql("a.codes", queries[0], 1, num_bits)).types
    assert [str(type_) for type_ in types] == ["INTEGER", "BIGINT"]


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_the_columns_are_as_documented(num_bits: int, make: Callable, tmp_path: Path) -> None:
    index = make(num_bits)
    export.to_parquet(index, tmp_path / "a")
    table = parquet.read_table(tmp_path / "a")
    words = [f"w{j}" for j in range(-(-num_bits // 64))]
    assert table.schema.names == ["id", *words]
    assert [str(field.type) for field in table.schema] == ["int64", *["uint64"] * len(words)]
    assert not any(field.nullable for field in table.schema)
    assert table.schema.metadata[b"num_bits"] == str(num_bits).encode()
    ids = table["id"].to_numpy()
    assert len(ids) == 123 and (np.diff(ids) > 0).all() and ids[-1] == LARGE
    columns = [table[word].to_pylist() for word in words]
    bits = [[row[j // 64] >> j % 64 & 1 for j in range(64 * len(words))] for row in zip(*columns, strict=True)]
    expected = np.unpackbits(index.reconstruct(ids), axis=1, bitorder="little")
    assert np.array_equal(np.array(bits)[:, : expected.shape[1]], expected)
    assert not np.array(bits)[:, num_bits:].any()


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 25])
def test_row_groups(rows: int, tmp_path: Path, filled: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ROW_GROUP", 10)
    index, codes = filled(70, rows)
    index.save(tmp_path / "a")
    seen = []

    def progress(groups: Any) -> Any:
        for group in groups:
            seen.append(len(group))
            yield group

    export.to_parquet(HammingIndex.load(tmp_path / "a", mmap=True), tmp_path / "b", progress)
    file = parquet.ParquetFile(tmp_path / "b")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    expected = [min(10, rows - start) for start in range(0, rows, 10)]
    assert [size for size in sizes if size] == expected
    assert seen == (expected or [0])
    assert file.read()["id"].to_pylist() == list(range(rows))
    assert file.read()["w1"].to_pylist() == [code[8] for code in codes.tolist()]


def test_shards_are_searched_together(make: Callable, random_codes: Callable, tmp_path: Path) -> None:
    index, query = make(48), random_codes(1, 48, 9)
    for rank in range(3):
        export.to_parquet(index.shard(rank, 3), tmp_path / f"it's {rank}.parquet")
    distances, ids = index.search(query, 20)
    expected = list(zip(distances[0].tolist(), ids[0].tolist(), strict=True))
    assert found(export.search_sql(tmp_path / "it's *.parquet", query[0], 20, 48)) == expected


def test_names_of_tables_are_only_names(make: Callable, random_codes: Callable, tmp_path: Path) -> None:
    index, query = make(16), random_codes(1, 16)[0]
    export.to_parquet(index, tmp_path / "codes.parquet")
    connection = duckdb.connect()
    for name in ('x"y', "codes; DROP TABLE y", "a b' --", "SELECT", "back\\slash"):
        quoted = name.replace('"', '""')
        connection.execute(f'CREATE TABLE "{quoted}" AS FROM read_parquet(?)', [str(tmp_path / "codes.parquet")])
        assert len(found(export.search_sql(name, query, 3, 16), connection)) == 3
    hostile = tmp_path / "a'); DROP TABLE y; --.parquet"
    hostile.write_bytes((tmp_path / "codes.parquet").read_bytes())
    assert len(found(export.search_sql(hostile, query, 3, 16))) == 3


def test_the_sql_for_clickhouse() -> None:
    query = np.array([1, 0, 0, 0, 0, 0, 0, 128, 3], np.uint8)
    assert export.search_sql("codes", query, 5, 66, engine="clickhouse") == (
        "SELECT toInt32(bitHammingDistance(w0, toUInt64(9223372036854775809)) + bitHammingDistance(w1, toUInt64(3))) "
        'AS distance, id FROM "codes" ORDER BY distance, id LIMIT 5'
    )
    for table, source in [
        ("a.b", '"a"."b"'),
        (Path("a/it's \\.parquet"), "file('a/it\\'s \\\\.parquet', 'Parquet')"),
        ('x"y\\', '"x\\"y\\\\"'),
    ]:
        assert f" FROM {source} ORDER BY " in export.search_sql(table, query, 5, 66, "clickhouse")


ZEROS = np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a", ZEROS, 0, 16), ValueError, "k: expected an integer from 1 to .*, got 0"),
        (("a", ZEROS, "1; DROP", 16), TypeError, "k: expected an integer"),
        (("a", ZEROS, 1, 0), ValueError, "num_bits: expected an integer from 1 to 4096, got 0"),
        (("a", ZEROS, 1, 17), ValueError, "query: expected 3 bytes a code for 17 bits, got 2"),
        (("a", ZEROS[None], 1, 16), ValueError, r"query: expected one code, .*got shape \[1, 2\]"),
        (("a", ZEROS.astype(np.int64), 1, 16), TypeError, "query: expected packed codes of dtype torch.uint8"),
        (("a", [0, 0], 1, 16), TypeError, "query: expected a torch.Tensor, got list"),
        (("a", ZEROS + 255, 1, 13), ValueError, "query: expected zero bits from bit 13 on"),
        (("a", ZEROS, 1, 16, "sqlite"), ValueError, "engine: expected one of 'duckdb', 'clickhouse', got 'sqlite'"),
        (("a..b", ZEROS, 1, 16), ValueError, "table: expected a file that ends in .parquet.*got 'a..b'"),
        (("", ZEROS, 1, 16), ValueError, "table: expected .*got ''"),
        ((b"a", ZEROS, 1, 16), TypeError, "table: expected a str or a path, got b'a'"),
        ((3, ZEROS, 1, 16), TypeError, "table: expected a str or a path, got 3"),
    ],
)
def test_bad_arguments(arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        export.search_sql(*arguments)


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="index: expected a HammingIndex, got ndarray"):
        export.to_parquet(ZEROS, tmp_path / "a")  # type: ignore[arg-type]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, filled: Callable) -> None:
    (tmp_path / "a").write_bytes(b"the old file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"/a'$"):
            export.to_parquet(filled(64, 5000)[0], tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a").read_bytes() == b"the old file"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_without_pyarrow_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, filled: Callable, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        export.to_parquet(filled()[0], tmp_path / "a")
    assert not any(tmp_path.iterdir())
