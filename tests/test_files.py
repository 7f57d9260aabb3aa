import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adsq import files

TENSORS = {
    "codes": torch.arange(21, dtype=torch.uint8).reshape(7, 3),
    "ids": torch.arange(7),
    "scale": torch.tensor(0.5, dtype=torch.bfloat16),
    "nothing": torch.zeros(0, 4),
}
META = {"name": "Ziffern é", "shape": [1, 8, 8], "nested": {"x": None, "y": True}}


def write(path: Path, tensors: dict = TENSORS, meta: dict = META, version: int = 1) -> None:
    files.write_tensors(path, tensors, kind="index", version=version, meta=meta)


def read(path: Path, mmap: bool = False) -> tuple[dict, dict]:
    return files.read_tensors(path, kind="index", version=1, mmap=mmap)


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("mmap", [False, True])
def test_round_trip(tmp_path: Path, mmap: bool) -> None:
    write(tmp_path / "a")
    tensors, meta = read(tmp_path / "a", mmap)
    assert_equal(tensors, TENSORS)
    assert meta == META
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("dtype", list(files._DTYPES))
def test_every_dtype_and_the_safetensors_library_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([[0, 1, 5]]).to(dtype), "odd": torch.arange(3, dtype=torch.uint8)}
    write(tmp_path / "a", tensors)
    assert_equal(read(tmp_path / "a")[0], tensors)
    assert_equal(load_file(tmp_path / "a"), tensors)
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert json.loads(file.metadata()["meta"]) == META


def test_strided_expanded_shared_and_differentiable_tensors(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6).requires_grad_()
    tensors = {"t": base.t(), "step": base[::2, 1::3], "wide": base[:1].expand(3, 6), "base": base}
    before = base.detach().clone()
    write(tmp_path / "a", tensors)
    assert_equal(read(tmp_path / "a")[0], tensors)
    assert torch.equal(base, before)


def test_no_tensors_and_no_meta(tmp_path: Path) -> None:
    write(tmp_path / "a", {}, {})
    assert read(tmp_path / "a") == ({}, {})


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CHUNK", 1000)
    tensors = {"x": torch.arange(999), "y": torch.arange(1000, dtype=torch.uint8)}
    write(tmp_path / "a", tensors)
    assert_equal(read(tmp_path / "a")[0], tensors)


def test_what_was_read_does_not_depend_on_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a")
    tensors, _ = read(tmp_path / "a")
    with (tmp_path / "a").open("r+b") as file:
        file.write(b"\0" * (tmp_path / "a").stat().st_size)
    assert_equal(tensors, TENSORS)


def test_a_map_is_private_and_outlives_a_replacement(tmp_path: Path) -> None:
    write(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    mapped, _ = read(tmp_path / "a", mmap=True)
    mapped["codes"][0, 0] = 99
    assert (tmp_path / "a").read_bytes() == content
    write(tmp_path / "a", {"ids": torch.zeros(1)})
    assert torch.equal(mapped["ids"], TENSORS["ids"])


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position, byte in enumerate(content):
        others = {byte ^ 0x01, byte ^ 0xFF} | ({ord(" "), ord("\n")} if position < header else set())
        for other in others - {byte}:
            path.write_bytes(content[:position] + bytes([other]) + content[position + 1 :])
            with pytest.raises(ValueError, match=r"a: "):
                read(path)
            if position < header:
                with pytest.raises(ValueError, match=r"a: "):
                    read(path, mmap=True)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [7, 4]},
        {"dtype": "F4"},
        {"dtype": "I64"},
        *({"data_offsets": bad} for bad in (None, [0], "ab", ["a", "b"])),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_wrong_header_with_a_right_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, mmap: bool
) -> None:
    header = files._header

    def wrong(facts: dict, entries: dict, *digests: str) -> bytes:
        return header(facts, {**entries, "codes": {**entries["codes"], **change}}, *digests)

    monkeypatch.setattr(files, "_header", wrong)
    write(tmp_path / "a")
    with pytest.raises(ValueError, match="a: damaged"):
        read(tmp_path / "a", mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_every_truncation_is_refused(tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "a"
    write(path, {"x": torch.arange(5000)})
    content = path.read_bytes()
    for length in [*range(600), *range(0, len(content), 4096), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"empty|no safetensors header|truncated"):
            read(path, mmap)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="bytes added"):
        read(path, mmap)


def test_foreign_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        read(path)
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    for content, reason in [
        (b"", "the file is empty"),
        (b"a text file, longer than a header\n" * 9, "not an adsq file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an adsq file"),
        (b"{}", "not an adsq file"),
        (bytes(8) + b"{}", "not an adsq file"),
        (b"\x02\0\0\0\0\0\0\0{}", "not an adsq file"),
        (b"\x09\0\0\0\0\0\0\0" + b"{" * 9, "not an adsq file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read(path)
    save_file({"x": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not an adsq file"):
        read(path)


def test_another_kind_and_a_newer_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", version=2)
    with pytest.raises(ValueError, match="version 2 of kind 'index' is newer"):
        read(tmp_path / "a")
    with pytest.raises(ValueError, match="expected a file of kind 'checkpoint', got one of kind 'index'"):
        files.read_tensors(tmp_path / "a", kind="checkpoint", version=1)
    assert files.read_tensors(tmp_path / "a", kind="index", version=3)[1] == META


def holds_itself() -> dict:
    meta: dict = {}
    meta["x"] = meta
    return meta


def deep() -> dict:
    meta: dict = {}
    for _ in range(100_000):
        meta = {"x": meta}
    return meta


def test_a_header_that_nobody_could_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    monkeypatch.setattr(files, "_HEADER_LIMIT", 1000)
    for length in range(500, 1000):
        try:
            write(tmp_path / "a", meta={"x": "y" * length})
        except ValueError as error:
            assert str(error).startswith("meta: expected at most 1000 bytes with the header, got 100")
            break
        assert read(tmp_path / "a")[1] == {"x": "y" * length}
    assert read(tmp_path / "a")[1] == {"x": "y" * (length - 1)} and length < 999


@pytest.mark.parametrize(
    ("tensors", "meta", "message"),
    [
        ({"x": [1.0]}, {}, r"tensors\['x'\].*got list"),
        ({"x": torch.zeros(2, dtype=torch.complex64)}, {}, "complex64"),
        ({"x": torch.eye(2).to_sparse()}, {}, "sparse"),
        ({}, {"x": torch.zeros(1)}, "meta: expected what JSON can hold"),
        ({}, holds_itself(), "meta: expected what JSON can hold, got Circular"),
        ({}, deep(), "meta: expected what JSON can hold, got maximum recursion"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, tensors: dict, meta: dict, message: str) -> None:
    write(tmp_path / "a")
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "a", tensors, meta)
    with pytest.raises(ValueError, match="reserved"):
        write(tmp_path / "a", {"__metadata__": torch.zeros(1)})
    assert_equal(read(tmp_path / "a")[0], TENSORS)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_at_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    write(tmp_path / "a")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(type(error)):
            write(tmp_path / "a", {"x": torch.zeros(5)})
        with pytest.raises(type(error)):
            files.write_bytes(tmp_path / "new", b"x")
    assert_equal(read(tmp_path / "a")[0], TENSORS)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"/a'$"):
            write(tmp_path / "a", {"x": torch.zeros(1_000_000)})
        with pytest.raises(OSError, match=r"/a'$"):
            files.write_text(tmp_path / "a", "x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal(read(tmp_path / "a")[0], TENSORS)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("where", ["adsq.files._bytes_of", "os.fsync", "pathlib.Path.replace"])
def test_a_kill_in_mid_save_leaves_the_old_file(tmp_path: Path, where: str) -> None:
    write(tmp_path / "a")
    script = f"""
import os, pathlib, signal, torch
import adsq.files
{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
adsq.files.write_tensors({str(tmp_path / "a")!r}, {{"x": torch.zeros(9)}}, kind="index", version=1, meta={{}})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert_equal(read(tmp_path / "a")[0], TENSORS)
    left = [p.name for p in tmp_path.iterdir() if p.name != "a"]
    assert len(left) == 1
    assert left[0].startswith(".a.")
    assert left[0].endswith(".partial")
    write(tmp_path / "a", {"x": torch.ones(2)})
    assert_equal(read(tmp_path / "a")[0], {"x": torch.ones(2)})


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write(tmp_path / "a")
        files.write_text(tmp_path / "b", "b")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")
    for text in ["one", "two"]:
        files.write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "folder" / "file").read_text() == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "link"]


def test_targets_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in [tmp_path, tmp_path / "pipe", Path("/dev/null")]:
        with pytest.raises(OSError, match="not a regular file"):
            files.write_bytes(target, b"x")
    with pytest.raises(FileNotFoundError, match=r"no such folder.*missing'"):
        files.write_bytes(tmp_path / "missing" / "a", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_long_names_and_text(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    files.write_text(path, "Größe\r\n")
    assert path.read_bytes() == "Größe\r\n".encode()
