"""Packing of binary codes, eight bits a byte. See README.md in this folder for the layout."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import _checks
from adsq.kernels.codes import op

__all__ = ["pack_codes", "unpack_codes"]


def pack_codes(codes: Tensor) -> Tensor:
    """Pack the signs of codes, eight to a byte.

    Bit j of a code is 1 where its entry j is >= 0 (so for 0 and -0.0 too) and 0 elsewhere, NaN included. It lies in
    byte j // 8 at position j % 8, as in `numpy.packbits(..., bitorder="little")` and FAISS. Pad bits are 0.
    See docs/method.md, "Codes".

    Args:
        codes: [N, K], uint8, int8 to int64, float16, bfloat16, float32 or float64 (not bool: False is 0, and so would
            count as +1), 1 <= K <= 4096.

    Returns:
        Packed codes, uint8 [N, ceil(K / 8)], on the device of `codes`.

    Raises:
        TypeError: `codes` is not a tensor, or of another dtype.
        ValueError: `codes` is not a matrix, or K is out of range.
    """
    _checks.check_matrix(codes, "codes", "[N, K]")
    if codes.dtype not in _checks.ENTRIES:
        raise TypeError(f"codes: expected a real dtype such as float32 or int8, got {codes.dtype}")
    _checks.check_num_bits(codes.shape[1], "codes: number of columns K")
    return op.pack_codes(codes)


def unpack_codes(packed: Tensor, num_bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack codes to +1 and -1.

    Args:
        packed: Packed codes, uint8 [N, ceil(num_bits / 8)].
        num_bits: Length K of a code, 1 to 4096. Pad bits are not read.
        dtype: Of the result: int8 to int64, float16, bfloat16, float32 or float64.

    Returns:
        Codes of +1 and -1, [N, num_bits] of `dtype`, on the device of `packed`.

    Raises:
        TypeError: `packed` is not uint8, or `dtype` is another.
        ValueError: The width of `packed` does not fit `num_bits`.
    """
    num_bits = _checks.check_num_bits(num_bits)
    _checks.check_packed(packed, "packed", num_bits)
    if dtype not in _checks.ENTRIES or dtype == torch.uint8:
        raise TypeError(f"dtype: expected a signed real torch.dtype, got {dtype}")
    return op.unpack_codes(packed, num_bits, dtype)
