"""Search over several processes: bit for bit that of one index, on every rank."""

from __future__ import annotations

import pickle
import re
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from adsq.index import HammingIndex
from adsq.sharded import ShardedHammingIndex
from sharded_cases import CODES, ROWS, SPLITS, ids_of, searches, whole, work

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
LIMIT = 240  # seconds, for what takes some 20


@pytest.fixture(scope="module", params=[1, 2, 4], ids="{0} processes".format)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """Give what `sharded_cases.work` found on each rank."""
    world_size, folder = request.param, tmp_path_factory.mktemp("sharded")
    for num_bits, pool in CODES:
        whole(num_bits, pool).save(folder / f"{num_bits}-{pool}")
    processes = multiprocessing.spawn(work, (world_size, folder), nprocs=world_size, join=False)
    deadline = time.monotonic() + LIMIT
    try:
        while not processes.join(timeout=5):
            assert time.monotonic() < deadline, "the processes hang"
    finally:
        for process in processes.processes:
            process.kill()
    return [pickle.loads((folder / f"found-{rank}").read_bytes()) for rank in range(world_size)]


def assert_same(results: Any, expected: Any) -> None:
    """Compare kinds, dtypes, shapes and values."""
    assert type(results) is type(expected)
    if isinstance(expected, tuple):
        for result, wanted in zip(results, expected, strict=True):
            assert_same(result, wanted)
    elif isinstance(expected, torch.Tensor):
        assert_same(results.numpy(), expected.numpy())
    elif isinstance(expected, np.ndarray):
        assert results.dtype == expected.dtype
        np.testing.assert_array_equal(results, expected, strict=True)
    else:
        assert results == expected


@pytest.mark.parametrize(("num_bits", "pool"), CODES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_rank_finds_what_one_index_finds(found: list, split: str, num_bits: int, pool: int) -> None:
    index = HammingIndex(num_bits) if split == "empty" else whole(num_bits, pool)
    expected = dict(searches(index))
    assert expected["len"] == (0 if split == "empty" else ROWS)
    for on_rank in found:
        on_rank = on_rank[num_bits, split]
        assert on_rank.keys() == expected.keys()
        for name, result in on_rank.items():
            assert_same(result, expected[name])


@pytest.mark.parametrize(
    ("mistake", "own", "others"),
    [
        ("k", "ValueError: k: expected an integer at least 1, got 0", None),
        ("k everywhere", "ValueError: k: expected an integer at least 1, got 0", "as own"),
        ("type of k", "TypeError: k: expected an integer at least 1, got 3.0", None),
        ("radius", "ValueError: radius: expected an integer at least 0, got -1", None),
        ("shape", "ValueError: queries: expected 8 bytes a code for 64 bits, got 7", None),
        ("filter", "TypeError: filter_ids: expected integers of dtype int64, got bool", None),
        ("method", "ValueError: method: expected one of 'auto', 'scan', 'hash', got 'fast'", None),
        ("other k", "ValueError: k: expected the same on all ranks, got 3 on rank 0 and 4 on rank LAST", "as own"),
        ("other radius", "ValueError: radius: .*, got 3 on rank 0 and 4 on rank LAST", "as own"),
        ("other queries", r"ValueError: queries: expected the same .* got '\[2, 8\] with SHA-256 ", "as own"),
        ("more queries", r"ValueError: queries: .* '\[1, 8\] with .* rank 0 and '\[2, 8\] .* rank LAST", "as own"),
        ("other filter", r"ValueError: filter_ids: .* '\[2\] with .* rank 0 and '\[2\] .* rank LAST", "as own"),
        ("no filter", r"ValueError: filter_ids: .* '\[0\] with .* rank 0 and None on rank LAST", "as own"),
        ("other call", "ValueError: call: .* 'search' on rank 0 and 'range_search' on rank LAST", "as own"),
        ("len", "ValueError: call: .* 'search' on rank 0 and 'len' on rank LAST", "as own"),
        ("ids", "ValueError: ids: expected unique ones over all ranks, 0 is on rank 0 and on rank 1", "as own"),
        ("num_bits", "ValueError: num_bits: expected the same on all ranks, got 64 on rank 0 and 65", "as own"),
    ],
)
def test_a_mistake_on_one_rank_raises_on_all(found: list, mistake: str, own: str, others: str | None) -> None:
    last = len(found) - 1
    if last == 0 and others == "as own" and mistake != "k everywhere":
        pytest.skip("one rank cannot differ")
    own = own.replace("LAST", str(last) if last == 1 else r"\d")
    said = [on_rank["failures"][mistake] for on_rank in found]
    assert re.match(own, said[last])
    for line in said[:last]:
        assert line == (said[last] if others == "as own" else f"RuntimeError: rank {last}: {said[last]}")


def test_a_group_of_some_ranks(found: list) -> None:
    if len(found) < 4:
        pytest.skip("too few processes")
    expected = dict(searches(whole(64, 64)))
    for rank in (1, 3):
        for name, result in found[rank]["subgroup"].items():
            assert_same(result, expected[name])
    for rank in (0, 2):
        said = f"ValueError: group: expected one with this process in it, rank {rank} is not"
        assert found[rank]["subgroup"] == said


def test_without_a_process_group() -> None:
    with pytest.raises(TypeError, match="index: expected a HammingIndex, got list"):
        ShardedHammingIndex([])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has no process group yet"):
        ShardedHammingIndex(HammingIndex(8))


@pytest.mark.parametrize("world_size", [1, 2, 7, ROWS, ROWS + 9])
def test_parts_make_up_the_index(world_size: int) -> None:
    index = whole(33, 64)
    index.meta = {"a": [1]}
    parts = [index.shard(rank, world_size) for rank in range(world_size)]
    assert np.concatenate([ids_of(part) for part in parts]).tolist() == ids_of(index).tolist()
    assert {len(part) for part in parts} <= {ROWS // world_size, -(-ROWS // world_size)}
    for part in parts:
        assert part.meta == {"a": [1]}
        assert np.array_equal(part.reconstruct(ids_of(part)), index.reconstruct(ids_of(part)))


def test_a_part_and_the_whole_change_apart() -> None:
    index = HammingIndex(8)
    index.add(np.arange(20, dtype=np.uint8)[:, None])
    part = index.shard(0, 2)
    part.meta["a"] = 1
    index.add(np.array([[77]], np.uint8))  # into what its buffer has left
    part.add(np.array([[99]], np.uint8), [10])
    part.remove([3])
    assert index.reconstruct(range(21))[:, 0].tolist() == [*range(20), 77]
    assert part.reconstruct([0, 9, 10])[:, 0].tolist() == [0, 9, 99]
    assert (len(index), len(part), index.meta) == (21, 10, {})


@pytest.mark.parametrize(
    ("rank", "world_size", "error", "message"),
    [
        (2, 2, ValueError, "rank: expected an integer from 0 to 1, got 2"),
        (-1, 2, ValueError, "rank: expected an integer from 0 to 1, got -1"),
        (0, 0, ValueError, "world_size: expected an integer at least 1, got 0"),
        (0, 2.0, TypeError, "world_size: expected an integer at least 1, got 2.0"),
    ],
)
def test_a_part_that_is_not_there(rank: int, world_size: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        whole(33, 64).shard(rank, world_size)
