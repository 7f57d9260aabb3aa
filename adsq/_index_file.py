"""The file of an index. Version 1 holds each row with its code, version 2 each code once with the rows that have it."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from adsq import files
from adsq._distinct import DistinctRows
from adsq._rows import FlatRows
from adsq.kernels import _checks
from adsq.kernels.distinct_codes import distinct_codes

NEWEST = 2


class Content(NamedTuple):
    """What a file holds."""

    num_bits: int
    distinct: bool | Literal["auto"]
    next_id: int
    meta: dict[str, Any]
    rows: FlatRows | DistinctRows


def write(path: str | os.PathLike[str], content: Content) -> None:
    """Write the file, in place of an older one only when complete."""
    facts = {name: getattr(content, name) for name in ("num_bits", "next_id", "meta", "distinct")}
    version = 1 if isinstance(content.rows, FlatRows) else 2
    files.write_tensors(path, content.rows.tensors(), kind="index", version=version, meta=facts)


def read(path: str | os.PathLike[str], mmap: bool) -> Content:
    """Read or map a file; a damaged one is refused, and where it is mapped its tensors are not looked at."""
    tensors, facts = files.read_tensors(path, kind="index", version=NEWEST, mmap=mmap)
    try:
        num_bits = _checks.check_num_bits(facts["num_bits"])
        next_id = _checks.check_int(facts["next_id"], "next_id", 0)
        distinct = facts.get("distinct", "auto")  # files of the first adsq do not say
        if not isinstance(distinct, bool):
            _checks.check_choice(distinct, "distinct", ("auto",))
        codes, ids = tensors["codes"], tensors["ids"]
        _checks.check_packed(codes, "codes", num_bits)
        if ids.dtype != torch.int64 or ids.dim() != 1:
            raise ValueError(f"ids {ids.dtype} {list(ids.shape)}")
        if not mmap:
            _checks.check_pad_bits(codes, "codes", num_bits)
            if not _ascending(ids):
                raise ValueError("ids not in ascending order")
        rows = _lists(tensors, mmap) if "rows" in tensors else FlatRows(codes, ids, ids.shape[0])
        if isinstance(rows, FlatRows) and len(codes) != len(ids):
            raise ValueError(f"{list(codes.shape)} codes with ids {ids.dtype} {list(ids.shape)}")
        return Content(num_bits, distinct, next_id, facts["meta"], rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: not a valid index ({error})") from error


def _lists(tensors: dict[str, Tensor], mmap: bool) -> DistinctRows:
    codes, offsets, rows, ids = (tensors[name] for name in ("codes", "offsets", "rows", "ids"))
    if offsets.dtype != torch.int32 or rows.dtype != torch.int32:
        raise ValueError(f"offsets {offsets.dtype} and rows {rows.dtype}")
    if offsets.shape != (len(codes) + 1,) or rows.shape != ids.shape:
        raise ValueError(f"{len(codes)} codes with {list(offsets.shape)} offsets, {len(ids)} ids with {len(rows)} rows")
    if not mmap:
        if offsets[0] != 0 or offsets[-1] != len(rows) or not _ascending(offsets):
            raise ValueError("offsets that are not ascending places in rows")
        if not torch.equal(rows.sort().values, torch.arange(len(rows), dtype=torch.int32, device="cpu")):
            raise ValueError("rows that are not each there once")
        starts = torch.zeros(len(rows) + 1, dtype=torch.bool, device="cpu")
        starts[offsets.long()] = True
        if not _ascending(rows[offsets[:-1].long()]) or not bool((rows.diff() > 0)[~starts[1:-1]].all()):
            raise ValueError("rows not in ascending order")
        if len(codes) and len(distinct_codes(codes)[0]) != len(codes):
            raise ValueError("codes that are there twice")
    return DistinctRows(codes, offsets, rows, ids)


def _ascending(numbers: Tensor) -> bool:
    return not len(numbers) or (int(numbers[0]) >= 0 and bool((numbers.diff() > 0).all()))
