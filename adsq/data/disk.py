"""What data sets on disk share: where they lie by default, and which listed files are there."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def cache_folder() -> Path:
    """adsq in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adsq"


def list_files(folder: Path) -> frozenset[str]:
    """Names of the files in a folder: one listing, where a stat for each image is slow on network disks."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def files_there(root: Path, files: Sequence[str], drop_missing: bool) -> np.ndarray:
    """Which files below root exist, bool [N]; each folder named is listed once and no file is opened.

    Raises:
        FileNotFoundError: Files are missing and not to be dropped, or all of them are.
    """
    listing = functools.cache(lambda folder: list_files(root / folder))
    there = np.zeros(len(files), dtype=bool)
    for number, file in enumerate(files):
        folder, slash, name = file.rpartition("/")
        there[number] = name in listing(folder + slash)
    missing = len(files) - int(there.sum())
    if missing and not (drop_missing and there.any()):
        first = root / files[int(there.argmin())]
        hint = "" if drop_missing else "; drop_missing (--drop-missing) leaves missing ones out"
        raise FileNotFoundError(f"{missing:,} of {len(files):,} listed images are missing, such as {first}{hint}")
    return there


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text without surrounding blanks; blank lines at the end do not count.

    Raises:
        OSError: The file does not exist or cannot be read.
        ValueError: Not UTF-8, no lines, or a blank line between others.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    if "" in lines:
        problem = "no lines" if lines == [""] else f"line {lines.index('') + 1} is blank"
        raise ValueError(f"{path}: {problem}")
    return lines
