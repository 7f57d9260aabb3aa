"""What the tests of sharded search run in each process: `torch.multiprocessing` imports this file by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from adsq.index import HammingIndex
from adsq.sharded import ShardedHammingIndex

SPLITS = ("contiguous", "interleaved", "uneven", "one rank", "empty")
CODES = ((13, 2), (64, 64), (130, 64))  # length of a code, and how many distinct ones: ties everywhere, or some
ROWS = 41
KS = (1, 5, ROWS, ROWS + 7)


def whole(num_bits: int, pool: int) -> HammingIndex:
    """Return an index of 41 codes, some of them equal, under ids up to the largest there is."""
    random = np.random.default_rng(num_bits + pool)
    codes = np.packbits(random.integers(0, 2, (pool, num_bits), dtype=np.uint8), axis=1, bitorder="little")
    index = HammingIndex(num_bits)
    ids = random.choice(1000, ROWS, replace=False) * 2**40
    ids[:2] = 2**63 - 1, 0
    index.add(codes[random.integers(0, pool, ROWS)], ids)
    return index


def ids_of(index: HammingIndex) -> np.ndarray:
    """Return all ids, ascending."""
    if len(index) == 0:
        return np.empty(0, np.int64)
    query = np.zeros((1, (index.num_bits + 7) // 8), np.uint8)
    return np.sort(index.search(query, len(index))[1][0])


def part(index: HammingIndex, split: str, rank: int, world_size: int) -> HammingIndex:
    """Return the shard of a rank."""
    if split == "contiguous":
        return index.shard(rank, world_size)
    ids = ids_of(index)
    holders = {
        "interleaved": np.arange(ROWS) % world_size,
        "uneven": np.where(np.arange(ROWS) % 13 == 0, np.arange(ROWS) // 13 % world_size, world_size - 1),
        "one rank": np.full(ROWS, world_size // 2),
        "empty": np.full(ROWS, -1),
    }[split]
    mine = HammingIndex(index.num_bits)
    wanted = ids[holders == rank]
    mine.add(index.reconstruct(wanted), wanted)
    return mine


def searches(index: HammingIndex | ShardedHammingIndex) -> Iterator[tuple[str, Any]]:
    """Yield what the searches of an index find, under a name for each."""
    num_bits = (index if isinstance(index, HammingIndex) else index.index).num_bits
    full = whole(num_bits, 64)
    ids = ids_of(full)
    codes = full.reconstruct(ids)
    queries = np.concatenate([codes[::11], np.zeros_like(codes[:1]), codes[:1] ^ np.uint8(1)])
    yield "len", len(index)
    for k in KS:
        yield f"search {k}", index.search(queries, k)
    yield "search of tensors", index.search(torch.from_numpy(queries), 5)
    yield "search of nothing", index.search(queries[:0], 3)
    for name, allowed in {"some": ids[::3], "one": ids[-1:], "none": ids[:0], "unknown": [5, 2**50]}.items():
        yield f"search of {name}", index.search(queries, 6, filter_ids=allowed)
    for radius in (0, 2, num_bits // 2, 2**70):
        yield f"range {radius}", index.range_search(queries, radius)
    yield "range of tensors", index.range_search(torch.from_numpy(queries), 7)
    yield "range of nothing", index.range_search(queries[:0], 3)


def failure(function: Callable[[], Any]) -> str:
    """Return what the function raised, in a line."""
    try:
        return f"nothing: {function()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def failures(rank: int, world_size: int) -> dict[str, str]:
    """Return what each mistake on the last rank raises here."""
    last = rank == world_size - 1
    mine = part(whole(64, 64), "interleaved", rank, world_size)
    sharded = ShardedHammingIndex(mine)
    queries = np.zeros((2, 8), np.uint8)
    same = HammingIndex(64)
    same.add(queries)
    wider = HammingIndex(65 if last else 64)
    mistakes: dict[str, Callable[[], Any]] = {
        "k": lambda: sharded.search(queries, 0 if last else 3),
        "k everywhere": lambda: sharded.search(queries, 0),
        "type of k": lambda: sharded.search(queries, 3.0 if last else 3),  # type: ignore[arg-type]
        "radius": lambda: sharded.range_search(queries, -1 if last else 3),
        "shape": lambda: sharded.search(queries[:, :7] if last else queries, 3),
        "filter": lambda: sharded.search(queries, 3, [True] if last else [3]),  # type: ignore[list-item]
        "method": lambda: sharded.search(queries, 3, method="fast" if last else "scan"),  # type: ignore[arg-type]
        "other k": lambda: sharded.search(queries, 4 if last else 3),
        "other radius": lambda: sharded.range_search(queries, 4 if last else 3),
        "other queries": lambda: sharded.search(queries + np.uint8(last), 3),
        "more queries": lambda: sharded.search(queries[: 1 + last], 3),
        "other filter": lambda: sharded.search(queries, 3, [5, 6 if last else 7]),
        "no filter": lambda: sharded.search(queries, 3, None if last else []),
        "other call": lambda: sharded.range_search(queries, 3) if last else sharded.search(queries, 3),
        "len": lambda: len(sharded) if last else sharded.search(queries, 3),
        "ids": lambda: ShardedHammingIndex(same).search(queries, 3),
        "num_bits": lambda: len(ShardedHammingIndex(wider)),
    }
    # A different method of searching is no mistake, and after all of them the ranks are still in step.
    right = sharded.search(queries, 3, method="scan" if last else "auto")
    said = {name: failure(mistake) for name, mistake in mistakes.items()}
    np.testing.assert_equal(sharded.search(queries, 3), right)
    return said


def in_subgroup(rank: int) -> Any:
    """Return the results in the group of ranks 1 and 3 of 4, whose members number 0 and 1; elsewhere the error."""
    group = dist.new_group([1, 3])
    index = part(whole(64, 64), "interleaved", rank // 2, 2)
    if rank % 2 == 0:
        return failure(lambda: ShardedHammingIndex(index, group))
    return dict(searches(ShardedHammingIndex(index, group)))


def work(rank: int, world_size: int, folder: Path) -> None:
    """Run everything on one rank and write what came out to the folder."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
    )
    found: dict[Any, Any] = {}
    for num_bits, pool in CODES:
        index = HammingIndex.load(folder / f"{num_bits}-{pool}", mmap=True)
        for split in SPLITS:
            part(index, split, rank, world_size).save(folder / f"shard-{rank}")
            sharded = ShardedHammingIndex(HammingIndex.load(folder / f"shard-{rank}"))
            found[num_bits, split] = dict(searches(sharded))
    found["failures"] = failures(rank, world_size)
    if world_size == 4:
        found["subgroup"] = in_subgroup(rank)
    (folder / f"found-{rank}").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()
