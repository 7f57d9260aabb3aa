"""Plain PyTorch packing: the oracle of the tests, the baseline of the benchmark, and the path without native code."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack_codes(codes: Tensor) -> Tensor:
    """Pack codes [N, K] to uint8 [N, ceil(K / 8)]."""
    bits = (codes >= 0).to(torch.uint8)
    bits = pad(bits, (0, -codes.shape[1] % 8)).unflatten(1, (-1, 8))
    return (bits << _positions(codes.device)).sum(dim=2, dtype=torch.uint8)


def unpack_codes(packed: Tensor, num_bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack uint8 [N, ceil(K / 8)] to codes [N, K] of +1 and -1."""
    bits = (packed.unsqueeze(2) >> _positions(packed.device)) & 1
    return bits.flatten(1)[:, :num_bits].to(dtype) * 2 - 1


def _positions(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
