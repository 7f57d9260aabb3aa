"""Codes that repeat, found and numbered. See README.md in this folder for the order and the cost."""

from __future__ import annotations

from torch import Tensor

from adsq.kernels import _checks
from adsq.kernels.distinct_codes import op

__all__ = ["distinct_codes"]

MAX_ROWS = 2**31 - 1


def distinct_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct codes among some, in the order of their first rows.

    `codes[first]` are the distinct codes, and `codes[first][numbers]` are all codes again.

    Args:
        codes: Packed codes, uint8 [N, B], see `pack_codes`; N at most 2147483647.

    Returns:
        first: int64 [D], the first row of each distinct code, ascending.
        numbers: int32 [N], 0 to D - 1: which of them each row is.

    Raises:
        TypeError: `codes` is not uint8.
        ValueError: A wrong shape, or too many rows.
    """
    _checks.check_packed(codes, "codes")
    if codes.shape[0] > MAX_ROWS:
        raise ValueError(f"codes: expected at most {MAX_ROWS} rows, got {codes.shape[0]}")
    return op.distinct_codes(codes)
