import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adsq import files
from adsq.index import HammingIndex


def run(script: str, *arguments: object) -> list[str]:
    """Run Python code in its own process and return what it printed, by lines."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_removed_ids_stay_used_after_a_reload(tmp_path: Path, filled: Callable) -> None:
    index, codes = filled(rows=4)
    index.remove([0, 1, 2, 3])
    index.save(tmp_path / "a")
    index = HammingIndex.load(tmp_path / "a")
    index.add(codes[:1])
    assert index.search(codes[:1], 1)[1].tolist() == [[4]]


def test_a_mapped_index_is_changed_in_memory_only(tmp_path: Path, filled: Callable) -> None:
    path = tmp_path / "a"
    index, codes = filled(13)
    index.save(path)
    content = path.read_bytes()
    mapped = HammingIndex.load(path, mmap=True)
    mapped.add(codes[:5])
    mapped.remove([0, 7])
    assert path.read_bytes() == content
    mapped.save(path)
    reloaded, still = HammingIndex.load(path), HammingIndex.load(path, mmap=True)
    still.save(path)
    for other in (reloaded, still, HammingIndex.load(path)):
        np.testing.assert_equal(other.search(codes, 30), mapped.search(codes, 30))


def test_saving_equal_indexes_gives_equal_files(tmp_path: Path, random_codes: Callable) -> None:
    codes = random_codes(30, 33)
    one, other = HammingIndex(33), HammingIndex(33)
    one.add(codes)
    for i in reversed(range(30)):
        other.add(codes[i : i + 1], [i])
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": torch.arange(20).flip(0)}, "ids not in ascending order"),
        ({"ids": torch.arange(20) - 1}, "ids not in ascending order"),
        ({"ids": torch.arange(19)}, "20, 2. codes with ids"),
        ({"ids": torch.arange(20.0)}, "float32"),
        ({"codes": torch.full((20, 2), 255, dtype=torch.uint8)}, "expected zero bits"),
        ({"codes": torch.zeros(20, 3, dtype=torch.uint8)}, "expected 2 bytes a code"),
        ({"codes": None}, "codes"),
        ({"num_bits": 0}, "num_bits"),
        ({"next_id": "many"}, "next_id"),
    ],
)
def test_a_wrong_index_with_right_checksums_is_refused(
    tmp_path: Path, change: dict, reason: str, random_codes: Callable
) -> None:
    tensors = {"codes": torch.from_numpy(random_codes(20, 13)), "ids": torch.arange(20)}
    meta: dict[str, Any] = {"num_bits": 13, "next_id": 20, "meta": {}}
    path = tmp_path / "a"
    files.write_tensors(path, tensors, kind="index", version=1, meta=meta)
    assert len(HammingIndex.load(path)) == 20
    for name, value in change.items():
        (tensors if name in tensors else meta)[name] = value
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    files.write_tensors(path, tensors, kind="index", version=1, meta=meta)
    with pytest.raises(ValueError, match=rf"a: not a valid index \(.*{reason}"):
        HammingIndex.load(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_files_that_are_no_index_are_refused(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        HammingIndex.load(path, mmap)
    for content, reason in [(b"", "the file is empty"), (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an adsq file")]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"a: {reason}"):
            HammingIndex.load(path, mmap)
    save_file({"codes": torch.zeros(3, 1, dtype=torch.uint8), "ids": torch.arange(3)}, path)
    with pytest.raises(ValueError, match="a: not an adsq file"):
        HammingIndex.load(path, mmap)
    files.write_tensors(path, {}, kind="checkpoint", version=1, meta={})
    with pytest.raises(ValueError, match="a: expected a file of kind 'index', got one of kind 'checkpoint'"):
        HammingIndex.load(path, mmap)
    files.write_tensors(path, {}, kind="index", version=3, meta={})
    with pytest.raises(ValueError, match=r"a: version 3 of kind 'index' is newer than this adsq reads \(2\)"):
        HammingIndex.load(path, mmap)


def test_damaged_files_are_refused(tmp_path: Path, filled: Callable) -> None:
    path = tmp_path / "a"
    filled(33, 3000)[0].save(path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 4096), len(content) - 1]:
        path.write_bytes(content[:length])
        for mmap in (False, True):
            with pytest.raises(ValueError, match=r"a: .*(empty|truncated)"):
                HammingIndex.load(path, mmap)
    for position in [*range(0, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        with pytest.raises(ValueError, match=r"a: "):
            HammingIndex.load(path)


def test_a_failed_save_leaves_index_and_file(tmp_path: Path, filled: Callable) -> None:
    index, codes = filled()
    index.save(tmp_path / "a")
    index.meta = {"x": {1, 2}}
    with pytest.raises(TypeError, match="meta: expected what JSON can hold"):
        index.save(tmp_path / "a")
    loaded = HammingIndex.load(tmp_path / "a")
    assert np.array_equal(loaded.search(codes, 3)[1], index.search(codes, 3)[1])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, filled: Callable) -> None:
    index, codes = filled()
    index.save(tmp_path / "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"/a'$"):
            filled(64, 5000)[0].save(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_equal(HammingIndex.load(tmp_path / "a").search(codes, 3), index.search(codes, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_kill_at_any_time_of_a_save_leaves_a_whole_index(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time, torch
from adsq.index import HammingIndex
path = sys.argv[1]
indexes = [HammingIndex(64), HammingIndex(64)]
for number, index in enumerate(indexes):
    index.add(torch.full((50_000, 8), number, dtype=torch.uint8))
    index.save(path)
for milliseconds in range(1, 16):
    process = os.fork()
    if process == 0:
        while True:
            for index in indexes:
                index.save(path)
    time.sleep(milliseconds / 1000)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    codes = HammingIndex.load(path).reconstruct(range(50_000))
    print(codes.min().item(), codes.max().item())
"""
    found = run(script, tmp_path / "a")
    assert len(found) == 15
    assert set(found) <= {"0 0", "1 1"}
    assert len(list(tmp_path.glob(".a.*.partial"))) > 3  # so many kills came in mid-save


def test_an_index_larger_than_the_memory_is_mapped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine reserves memory for every private map")
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    rows = 2 * (kilobytes["MemTotal"] + kilobytes["SwapTotal"]) * 1024 // 520
    path = tmp_path / "sparse"
    monkeypatch.setattr(files, "_bytes_of", lambda _: memoryview(b""))  # only the header is written
    tensors = {
        "codes": torch.zeros(1, 1, dtype=torch.uint8).expand(rows, 512),
        "ids": torch.zeros(1, dtype=torch.int64).expand(rows),
    }
    meta = {"num_bits": 4096, "next_id": rows, "meta": {}}
    files.write_tensors(path, tensors, kind="index", version=1, meta=meta)
    os.truncate(path, path.stat().st_size + 520 * rows)  # zeros that take no place
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    index = HammingIndex.load(path, mmap=True)
    assert len(index) == rows
    assert not index.reconstruct([0]).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 1000  # reading the ids takes more


def test_searches_of_a_map_do_not_copy_it(tmp_path: Path, random_codes: Callable) -> None:
    index = HammingIndex(2048, distinct=False)
    index.add(np.tile(random_codes(1000, 2048), (125, 1)))
    index.save(tmp_path / "a")
    script = """
import os, resource, sys, torch
from adsq.index import HammingIndex
from adsq.kernels.hamming_topk import reference
torch.set_num_threads(1)
reference.BLOCK = 1 << 17  # without native code, blocks that are small beside the file
path, size = sys.argv[1], os.path.getsize(sys.argv[1])
small = HammingIndex(8)
small.add(torch.zeros(9, 1, dtype=torch.uint8))
small.search(small.reconstruct([1]), 1)  # the first call imports parts of torch
with open("/proc/self/status") as lines:
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
limit = used + size + size * 3 // 4  # Linux counts the map, private and writable, and what is allocated
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
index = HammingIndex.load(path, mmap=True)
queries = index.reconstruct([7, 77])
print(index.search(queries, 3)[1].tolist())
print(index.search(queries, 3, filter_ids=[1077, 5])[1][1].tolist())
print(index.range_search(queries, 0)[2].tolist())
try:
    index.reconstruct(range(len(index)))
except RuntimeError as error:
    print("allocate" in str(error))
"""
    sevens, more = list(range(7, 125_000, 1000)), list(range(77, 125_000, 1000))
    expected = [[sevens[:3], more[:3]], [1077, 5, -1], sevens + more, True]  # True: a copy does not fit
    assert run(script, tmp_path / "a") == list(map(str, expected))
