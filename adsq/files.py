"""Files that are whole or not there: written aside, synced, renamed; read with their checksums.

A process that is killed while it writes FILE leaves `.FILE.<random>.partial` beside it, which may be deleted.

A tensor file is an ordinary safetensors file. Its ``__metadata__`` holds what ``read_tensors`` checks:

- ``kind`` and ``version``: what the file is, and which layout of that kind;
- ``meta``: JSON of the caller's choice;
- ``data_sha256``: SHA-256 of all bytes after the header;
- ``header_sha256``: SHA-256 of the header, itself read as 64 zeros in that place.
"""

import errno
import hashlib
import json
import mmap as memory_map
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
_CHUNK = 1 << 24  # bytes written between two chances for Ctrl-C
_HEADER_LIMIT = 100_000_000  # bytes; the safetensors library refuses longer headers
_NO_DIGEST = "0" * 64
_MAP_NORESERVE = getattr(memory_map, "MAP_NORESERVE", 0x4000)  # Python knows it from 3.13; x86 and Arm Linux before


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], *, kind: str, version: int, meta: dict[str, Any]
) -> None:
    """Write tensors and JSON to one safetensors file, in place of an older one only when complete.

    Equal arguments give equal bytes. Tensors are copied only where they are not contiguous or not on the
    CPU, one at a time.

    Args:
        path: The file to write. A symbolic link is followed; permissions follow the umask.
        tensors: Dense tensors by name, any shape, of a real dtype of at most 64 bits.
        kind: What the file is, such as ``"index"``; reading asks for it.
        version: Version of the kind's layout, from 1.
        meta: What JSON can hold. As in JSON, tuples come back as lists and keys as strings.

    Raises:
        TypeError: A value of `tensors` is no dense tensor of a known dtype, or `meta` is not JSON.
        ValueError: A tensor has the reserved name ``__metadata__``, or `meta` is larger than a header may be, 100 MB.
        OSError: The file cannot be written; an older file at `path` is as it was.
    """
    entries: dict[str, Any] = {}
    offset = 0
    # Wide elements first, so that every tensor of a map is aligned to its element size.
    order = sorted(tensors, key=lambda name: (-_checked(name, tensors[name]).element_size(), name))
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        entry = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        entries[name], offset = entry, end
    try:
        facts = {"kind": kind, "version": str(version), "meta": json.dumps(meta)}
    except (TypeError, ValueError, RecursionError) as error:  # the last two: it holds itself, or is too deep
        raise TypeError(f"meta: expected what JSON can hold, got {error}") from error
    header = _header(facts, entries, _NO_DIGEST, _NO_DIGEST)
    if len(header) - 8 > _HEADER_LIMIT:  # which nobody could read
        raise ValueError(f"meta: expected at most {_HEADER_LIMIT} bytes with the header, got {len(header) - 8}")

    with replacing(path) as file:
        file.write(header)
        data_hash = hashlib.sha256()
        for name in order:
            data = _bytes_of(tensors[name])
            for start in range(0, len(data), _CHUNK):
                chunk = data[start : start + _CHUNK]
                data_hash.update(chunk)
                file.write(chunk)
        header = _header(facts, entries, data_hash.hexdigest(), _NO_DIGEST)
        header_hash = hashlib.sha256(header[8:]).hexdigest()
        file.seek(0)
        file.write(_header(facts, entries, data_hash.hexdigest(), header_hash))


def read_tensors(
    path: str | os.PathLike[str], *, kind: str, version: int, mmap: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors` and refuse whatever is not exactly what was written.

    Args:
        path: The file to read.
        kind: The kind it must have.
        version: The newest version of this kind that the caller understands.
        mmap: Map the file instead of reading it. Header and sizes are verified; the checksum of the
            tensor bytes is not, since that would read them all. The map is private: writing to its
            tensors does not change the file.

    Returns:
        The tensors by name (on the CPU) and `meta`.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: The file is empty, truncated, damaged, foreign, of another kind or of a newer version;
            the message names the file and the reason.
    """
    path = Path(path)
    with path.open("rb") as file:
        header, data_start = _checked_header(path, file)
        content = _mapped(file)
    facts = header.pop("__metadata__")
    if facts["kind"] != kind:
        raise ValueError(f"{path}: expected a file of kind {kind!r}, got one of kind {facts['kind']!r}")
    if int(facts["version"]) > version:
        raise ValueError(
            f"{path}: version {facts['version']} of kind {kind!r} is newer than this adsq reads ({version})"
        )
    tensors = {}
    try:
        for name, entry in header.items():
            start, end = (data_start + offset for offset in entry["data_offsets"])
            tensors[name] = content[start:end].view(_TORCH_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged (its header does not describe tensors: {error})") from error
    if not mmap:
        data_hash = hashlib.sha256()
        for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
            tensors[name] = tensors[name].clone()
            data_hash.update(_bytes_of(tensors[name]))
        if data_hash.hexdigest() != facts["data_sha256"]:
            raise ValueError(f"{path}: damaged (the tensor bytes do not match their checksum)")
    return tensors, json.loads(facts["meta"])


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, in place of an older one only when complete.

    Args:
        path: The file to write. A symbolic link is followed; permissions follow the umask.
        data: Its new content.

    Raises:
        OSError: The file cannot be written; an older file at `path` is as it was.
    """
    with replacing(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, otherwise as `write_bytes`."""
    write_bytes(path, text.encode())


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file aside that takes the place of `path` when the block ends without an exception.

    Args:
        path: The file to write. A symbolic link is followed; permissions follow the umask.

    Raises:
        OSError: The file cannot be written; an older file at `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    # Renaming would put a plain file in the place of a folder, a device or a pipe.
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    # The name is cut: with its suffix it must stay below the usual limit of 255 bytes.
    aside = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}.partial")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)  # a failed write does not say which file it was
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _checked(name: str, tensor: Tensor) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        what = f"{tensor.layout}, {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"tensors[{name!r}]: expected a dense tensor of a real dtype, got {what}")
    if name == "__metadata__":
        raise ValueError("tensors: the name '__metadata__' is reserved")
    return tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(facts: dict[str, str], entries: dict[str, Any], data_sha256: str, header_sha256: str) -> bytes:
    metadata = {**facts, "data_sha256": data_sha256, "header_sha256": header_sha256}
    text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _mapped(file: BinaryIO) -> Tensor:
    """Map a file, uint8 [size], private to this process.

    safetensors maps so too, but reserves memory for all pages in case they are written to, and so cannot map a file
    that is larger than the memory.
    """
    flags = memory_map.MAP_PRIVATE | _MAP_NORESERVE
    pages = memory_map.mmap(file.fileno(), 0, flags=flags, prot=memory_map.PROT_READ | memory_map.PROT_WRITE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _checked_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header of a file whose header checksum and size are right, and where the data begin."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise ValueError(f"{path}: the file is empty")
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or not 2 <= length <= _HEADER_LIMIT:
        raise ValueError(f"{path}: not an adsq file (no safetensors header)")
    if 8 + length > size:
        raise ValueError(f"{path}: truncated ({size} bytes, the header alone has {8 + length})")
    text = start[8:] + file.read(length - 1)
    try:
        header = json.loads(text)
        claimed = header["__metadata__"]["header_sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not an adsq file, or its header is damaged") from error
    without = text.replace(claimed, _NO_DIGEST.encode()) if len(claimed) == len(_NO_DIGEST) else b""
    if hashlib.sha256(without).hexdigest().encode() != claimed:
        raise ValueError(f"{path}: damaged (the header does not match its checksum)")
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: damaged (its header does not say where tensors lie: {error!r})") from error
    if size != expected:
        problem = "truncated" if size < expected else "bytes added"
        raise ValueError(f"{path}: {problem} ({size} bytes, expected {expected})")
    return header, 8 + length
