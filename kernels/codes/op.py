"""Schemas and fake kernels of the packing ops. The functions here run where no native kernel is registered."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import _extension
from adsq.kernels.codes import reference


@torch.library.custom_op("adsq::pack_codes", mutates_args=())
def pack_codes(codes: Tensor) -> Tensor:
    """Codes [N, K] -> uint8 [N, ceil(K / 8)]."""
    if codes.is_cuda:
        _extension.warn_without_cuda_library()
    return reference.pack_codes(codes)


@pack_codes.register_fake
def _(codes: Tensor) -> Tensor:
    return codes.new_empty((codes.shape[0], (codes.shape[1] + 7) // 8), dtype=torch.uint8)


@torch.library.custom_op("adsq::unpack_codes", mutates_args=())
def unpack_codes(packed: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    """uint8 [N, ceil(K / 8)] -> codes [N, K] of `dtype`."""
    if packed.is_cuda:
        _extension.warn_without_cuda_library()
    return reference.unpack_codes(packed, num_bits, dtype)


@unpack_codes.register_fake
def _(packed: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    return packed.new_empty((packed.shape[0], num_bits), dtype=dtype)
