"""Encoding to a work file: by all processes at once, and going on where it was stopped.

The work folder holds

- `codes`: packed codes of all items in their order, uint8 [N, ceil(K / 8)], mapped by every process that writes to it;
- `done-<random>`, one of each process of each call: lines "first stop" of rows, written when these are on disk;
- `about.json`: what the codes are of.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adsq.data import ImageDataset, batches
from adsq.data.checks import check_indices
from adsq.distributed import Share, check_same, gather_objects, meet, rank
from adsq.files import write_text
from adsq.networks import ADSQ, CODE_KINDS

SECONDS_A_MARK = 2.0  # between two times that rows are synced to disk and noted: the most work that a kill costs
_POLL = 0.2  # seconds between two looks at what the others have done
_ABOUT, _CODES = "about.json", "codes"


def encode_in_parts(
    model: ADSQ,
    dataset: ImageDataset,
    items: Tensor,
    folder: Path,
    *,
    kind: str = "average",
    batch_size: int = 256,
    num_workers: int = 0,
    facts: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Encode images by all processes, each a contiguous part of what earlier, stopped calls have not done.

    Collective where `torch.distributed` has a process group: all ranks call it with the same arguments and see the same
    folder. Results are those of `ADSQ.encode`; a call that goes on may have another number of processes.

    Args:
        model: The model.
        dataset: The images.
        items: Which of them, int64 [N].
        folder: The work folder: made where it is not there, and for the caller to delete when the codes are elsewhere.
        kind: "average", "f" or "g", as in `ADSQ.encode`.
        batch_size: Images a step of each process.
        num_workers: Processes that decode images, for each process.
        facts: JSON-able: what else must be the same for a call to go on, such as a digest of the data.
        progress: Called on rank 0, now and then, with how many rows all processes have done.

    Returns:
        Packed codes, uint8 [N, ceil(K / 8)], mapped from the folder; on all ranks, when all rows are there.

    Raises:
        FileNotFoundError: The folder cannot be made, since that which it is to lie in is not there.
        ValueError: The folder is damaged, or of another model, other items, facts, kind or length of codes; or the
            ranks' arguments differ.
        IndexError, TypeError, OSError: As in `ADSQ.encode`.
    """
    items = check_indices(items, len(dataset))
    if kind not in CODE_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(CODE_KINDS)}, got {kind!r}")
    batches(dataset, items[:0], batch_size, num_workers)  # refuses what it will refuse later, before a folder is made
    wanted: dict[str, Any] = {
        "num_bits": model.config.num_bits,
        "kind": kind,
        "rows": len(items),
        "items": hashlib.sha256(items.numpy().data).hexdigest(),
        "model": _digest(model),
        **json.loads(json.dumps(facts or {})),
    }
    found = _read_about(folder)
    check_same(gather_objects({**wanted, "batch_size": batch_size, "work folder": found}))
    if not folder.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder.parent))
    if found is not None and found != wanted:
        name = next(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
        has, wants = (str(about.get(name))[:12] for about in (found, wanted))
        raise ValueError(
            f"{folder}: holds unfinished codes with {name} {has}, expected {wants}: finish those, or delete the folder"
        )
    shape = len(items), (model.config.num_bits + 7) // 8
    if found is not None:
        _check_size(folder, max(1, shape[0] * shape[1]))
    if found is None and rank() == 0:
        _prepare(folder, wanted, shape)
    meet()
    if not len(items):  # which cannot be mapped
        return torch.empty(shape, dtype=torch.uint8)
    codes = np.memmap(folder / _CODES, np.uint8, "r+", shape=shape)
    missing = _missing(_done(folder), len(items), batch_size)
    meet()  # what is missing must be found before anyone adds to what is done
    missing = missing[Share.of(len(missing)).own]
    rows = (missing[:, None] + np.arange(batch_size)).ravel()
    own = items[torch.from_numpy(rows[rows < len(items)])]

    def report() -> None:
        if progress is not None and rank() == 0:
            done = _done(folder)
            progress(int((done[:, 1] - done[:, 0]).sum()))

    report()
    with (folder / f"done-{secrets.token_hex(6)}").open("w") as log:
        steps = model.encode_batches(dataset, own, kind=kind, batch_size=batch_size, num_workers=num_workers)
        marked, first = time.monotonic(), None
        for start, packed in zip(missing.tolist(), steps, strict=True):
            first = start if first is None else first
            stop = start + len(packed)
            codes[start:stop] = packed.numpy()
            if start == missing[-1] or time.monotonic() - marked > SECONDS_A_MARK:
                codes.flush()
                log.write(f"{first} {stop}\n")  # what lies between two batches was done before
                log.flush()
                os.fsync(log.fileno())
                report()
                marked, first = time.monotonic(), None
    meet(report, _POLL)
    return torch.from_numpy(codes)


def _read_about(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / _ABOUT).read_text())
        if not isinstance(about, dict):
            raise ValueError(f"{_ABOUT} holds no facts")
        return about
    except FileNotFoundError:
        return None
    except (ValueError, NotADirectoryError) as error:
        raise ValueError(f"{folder}: expected a work folder of adsq encode ({error}): delete it") from error


def _check_size(folder: Path, expected: int) -> None:
    """Refuse codes that were cut off: mapping a file makes it longer, with zeros."""
    size = (folder / _CODES).stat().st_size
    if size != expected:
        raise ValueError(f"{folder / _CODES}: damaged ({size} bytes, expected {expected}): delete the folder")


def _prepare(folder: Path, about: dict[str, Any], shape: tuple[int, int]) -> None:
    folder.mkdir(exist_ok=True)
    for log in folder.glob("done-*"):
        log.unlink()
    with (folder / _CODES).open("wb") as file:
        try:  # a full disk shows now, and not as a crash in a map
            os.posix_fallocate(file.fileno(), 0, max(1, shape[0] * shape[1]))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        os.fsync(file.fileno())
    write_text(folder / _ABOUT, json.dumps(about, indent=1))  # last: with it the folder counts


def _done(folder: Path) -> np.ndarray:
    """Return the rows that are done as ranges, int64 [R, 2], ascending and apart."""
    ranges: list[list[int]] = []
    for path in folder.glob("done-*"):
        whole = path.read_text().rpartition("\n")[0]  # a last line that was cut off does not count
        try:
            ranges += [[int(first), int(stop)] for first, stop in (line.split() for line in whole.split("\n") if line)]
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error}): delete the folder") from error
    joined: list[list[int]] = []
    for first, stop in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(stop, joined[-1][1])
        else:
            joined.append([first, stop])
    return np.array(joined, np.int64).reshape(-1, 2)


def _missing(done: np.ndarray, rows: int, batch_size: int) -> np.ndarray:
    """Return where the batches begin that are not all done, int64."""
    starts = np.arange(0, rows, batch_size)
    if not len(done):
        return starts
    before = np.searchsorted(done[:, 0], starts, side="right") - 1  # the range that holds the batch, if one does
    inside = (before >= 0) & (np.minimum(starts + batch_size, rows) <= done[before, 1])
    return starts[~inside]


def _digest(model: ADSQ) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(repr((name, tensor.dtype, tensor.shape)).encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
