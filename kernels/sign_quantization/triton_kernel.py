"""Codes, loss and gradients of sign quantization in one pass over memory, in Triton.

Imported at the first call with CUDA tensors, never before. Nothing here waits for the GPU.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # entries of a program


@triton.jit
def sign_quantization_loss_fwd_kernel(
    features,  # tuple of [size]
    codes_ptr,  # [size], read if GIVEN, else written
    anchor_ptr,  # [size]
    gradients,  # [features that need one, size]
    sums,  # float64 [programs]
    size,
    anchor_weight: tl.float64,
    factor: tl.float64,  # of the loss
    NEEDS: tl.constexpr,  # tuple of bool, one a feature
    COUNT: tl.constexpr,  # of features
    GIVEN: tl.constexpr,
    ANCHOR: tl.constexpr,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = start + tl.arange(0, BLOCK)
    inside = at < size
    dtype: tl.constexpr = gradients.dtype.element_ty
    factor = tl.full((), factor, tl.float64)
    if GIVEN:
        codes = tl.load(codes_ptr + at, inside, 0).to(dtype)  # [BLOCK]
    else:
        total = tl.load(features[0] + at, inside, 0).to(dtype)
        for i in tl.static_range(1, COUNT):
            total += tl.load(features[i] + at, inside, 0).to(dtype)
        if ANCHOR:
            total += tl.full((), anchor_weight, dtype) * tl.load(anchor_ptr + at, inside, 0).to(dtype)
        codes = tl.where(total >= 0, 1.0, -1.0).to(dtype)
        tl.store(codes_ptr + at, codes.to(codes_ptr.dtype.element_ty), inside)
    loss = tl.zeros((BLOCK,), dtype)
    slope_ptr = gradients
    for i in tl.static_range(COUNT):
        difference = tl.load(features[i] + at, inside, 0).to(dtype) - codes  # out of the cache, where it was read above
        if P == 2:
            loss += difference * difference
            slope = 2 * difference
        else:
            loss += tl.abs(difference)
            sign = tl.where(difference > 0, 1.0, -1.0).to(dtype)
            slope = tl.where(difference == 0, difference, tl.where(difference != difference, difference, sign))
        if NEEDS[i]:
            tl.store(slope_ptr + at, slope * factor.to(dtype), inside)
            slope_ptr += tl.cast(size, tl.int64)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(inside, loss, 0.0)).to(tl.float64) * factor)


def sign_quantization_loss(
    features: Sequence[Tensor],
    codes: Tensor | None,
    anchor: Tensor | None,
    anchor_weight: float,
    p: int,
    mean: bool,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, the codes [N, K] (no elements where they were given), and the derivatives of the loss.

    Features, codes and anchor are [N, K] of one dtype. The derivatives, [number of needed features, N, K], and the loss
    are float64 for float64 features, else float32.
    """
    first = features[0]
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    gradients = first.new_empty((sum(needs), *first.shape), dtype=dtype)
    made = first.new_empty(first.shape if codes is None else 0)
    if first.numel() == 0:
        return first.new_zeros((), dtype=dtype), made, gradients
    programs = -(-first.numel() // BLOCK)  # triton.cdiv takes microseconds on the host
    sums = first.new_empty(programs, dtype=torch.float64)
    with torch.cuda.device_of(first):
        sign_quantization_loss_fwd_kernel[(programs,)](
            tuple(feature.contiguous() for feature in features),
            made if codes is None else codes.contiguous(),
            first if anchor is None else anchor.contiguous(),
            *(gradients, sums, first.numel(), float(anchor_weight)),
            1 / (len(features) * first.numel()) if mean else 1.0,
            NEEDS=tuple(needs),
            COUNT=len(features),
            GIVEN=codes is not None,
            ANCHOR=anchor is not None,
            P=p,
            BLOCK=BLOCK,
            enable_fp_fusion=False,  # a fused multiply-add of the anchor could change a sign
        )
        return sums.sum().to(dtype), made, gradients
