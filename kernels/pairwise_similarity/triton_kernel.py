"""Device code in Triton: similarity, loss and gradients of tiles of pairs. `triton_launch.py` launches it.

A program owns BLOCK_A rows of A and walks over tiles of BLOCK_B rows of B. Of a tile of pairs, only sums leave it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from adsq.kernels.pairwise_similarity.triton_functions import (
    cut,
    dot,
    exp,
    is_in_parts,
    load,
    load_vector,
    log1p,
    parts,
    reciprocal,
    rows_left,
    small_products,
    tf32,
    transposed,
)


@triton.jit
def _similarity(
    labels_a,
    labels_b,
    norms_a,
    norms_b,
    left_a,
    left_b,
    classes,
    in_parts_a,  # as `is_in_parts` says of labels_a
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    WIDE: tl.constexpr,
):
    """S of a tile, [BLOCK_A, BLOCK_B]. KIND "cosine" finds rows of unit length, "scaled" makes up for their lengths."""
    if KIND == "ids":
        ids_b = load_vector(labels_b, left_b, BLOCK_B)
        s = (load_vector(labels_a, left_a, BLOCK_A)[:, None] == ids_b[None, :]).to(tl.float32)
    else:
        s = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
        for c in range(0, classes, BLOCK_C):
            a = load(labels_a, left_a, classes, c, BLOCK_A, BLOCK_C)
            b = load(labels_b, left_b, classes, c, BLOCK_B, BLOCK_C)
            if labels_a.dtype.element_ty == tl.float32:
                high = cut(b)
                in_parts = in_parts_a | (tl.max(tl.abs(b - high)) > 0)
                if in_parts:
                    s += small_products(parts(a, WIDE), transposed(parts(b, WIDE)), 3)
                if WIDE:
                    s += tl.dot(cut(a), tl.trans(high), input_precision="ieee")
                else:
                    s += tl.dot(cut(a).to(tl.bfloat16), tl.trans(high.to(tl.bfloat16)))
            else:
                s = tl.dot(a, tl.trans(b), s)
        if KIND == "shared":
            s = (s > 0).to(tl.float32)
        if KIND == "dot":
            s = tl.where(s < 0, 0.0, tl.where(s > 1, 1.0, s))  # NaN stays
        if KIND == "scaled":
            lengths_b = load_vector(norms_b, left_b, BLOCK_B)
            s *= load_vector(norms_a, left_a, BLOCK_A)[:, None] * lengths_b[None, :]
    return s


@triton.jit
def pairwise_similarity_fwd_kernel(
    labels_a,  # int64 [rows_a], or [rows_a, classes]
    labels_b,  # int64 [rows_b], or [rows_b, classes]
    norms_a,  # [rows_a], one over the length of a row
    norms_b,  # [rows_b]
    similarity,  # [rows_a, rows_b]
    rows_a,
    rows_b,
    classes,
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    WIDE: tl.constexpr,
):
    tiles = tl.cdiv(rows_b, BLOCK_B)
    start_a = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_A
    start_b = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_B
    left_a, left_b = rows_left(start_a, rows_a, BLOCK_A), rows_left(start_b, rows_b, BLOCK_B)
    s = _similarity(
        labels_a + start_a * classes,
        labels_b + start_b * classes,
        norms_a + start_a,
        norms_b + start_b,
        left_a,
        left_b,
        classes,
        is_in_parts(labels_a + start_a * classes, left_a, classes, BLOCK_A, BLOCK_C),
        KIND,
        BLOCK_A,
        BLOCK_B,
        BLOCK_C,
        WIDE,
    )
    row_a, row_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    at = (start_a + row_a)[:, None] * rows_b + (start_b + row_b)[None, :]
    tl.store(similarity + at, s, (row_a < left_a)[:, None] & (row_b < left_b)[None, :])


@triton.jit(do_not_specialize=["rows_a", "rows_b", "tiles"])
def pairwise_similarity_loss_fwd_kernel(
    a_ptr,  # [rows_a, bits]
    b_ptr,  # [rows_b, bits]
    labels_a,  # int64 [rows_a], or [rows_a, classes]
    labels_b,  # int64 [rows_b], or [rows_b, classes]
    norms_a,  # [rows_a], one over the length of a row
    norms_b,  # [rows_b]
    weights,  # [rows_a] or [rows_b]
    factor: tl.float64,  # what the sums are multiplied by; with weights, one over that where all weigh 1 / total
    total_ptr,  # float64 [1], the sum of the weights
    parameters,  # [4]: scale, bias, positive and negative weight
    gradients,  # [splits, rows_a, bits]
    sums,  # float64 [1 or 3, row tiles * splits]: loss, its derivatives by scale and bias
    rows_a,
    rows_b,
    bits,
    classes,
    tiles,  # of B in a split
    FORM: tl.constexpr,  # "likelihood", "squared", or "similarity": S itself takes the place of the loss
    KIND: tl.constexpr,
    WEIGHTS_OF: tl.constexpr,  # "a", "b" or "none"
    EXCLUDE_DIAGONAL: tl.constexpr,
    LOSS: tl.constexpr,
    PARAMETERS: tl.constexpr,
    GRADIENTS: tl.constexpr,
    TF32: tl.constexpr,
    WIDE: tl.constexpr,  # bfloat16 operands as float32: the interpreter multiplies bfloat16 wrongly
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,  # columns of the gradient
    STEP_K: tl.constexpr,  # columns multiplied at a time
    ONE_STEP: tl.constexpr,  # bits <= STEP_K = BLOCK_K: A is loaded once, and B once a tile
):
    split = tl.program_id(1)
    column = tl.program_id(2) * BLOCK_K
    start_a = tl.program_id(0).to(tl.int64) * BLOCK_A
    row_a, row_b = tl.arange(0, BLOCK_A), tl.arange(0, BLOCK_B)
    left_a = rows_left(start_a, rows_a, BLOCK_A)
    in_a = row_a < left_a
    scale, bias = tl.load(parameters), tl.load(parameters + 1)
    positive_weight, negative_weight = tl.load(parameters + 2), tl.load(parameters + 3)
    if FORM == "similarity":
        positive_weight = 1.0
    if WEIGHTS_OF == "none":
        positive, negative = positive_weight, negative_weight
    if WEIGHTS_OF == "a":
        weight_a = load_vector(weights + start_a, left_a, BLOCK_A)[:, None]
        positive, negative = positive_weight * weight_a, negative_weight * weight_a
    IN_PARTS: tl.constexpr = a_ptr.dtype.element_ty == tl.float32 and not TF32
    if ONE_STEP:
        a = load(a_ptr + start_a * bits, left_a, bits, 0, BLOCK_A, STEP_K, WIDE)
        if IN_PARTS:
            parts_a = parts(a, WIDE)
        if TF32:
            a = tf32(a)
    in_parts_a = is_in_parts(labels_a + start_a * classes, left_a, classes, BLOCK_A, BLOCK_C)
    gradient = tl.zeros((BLOCK_A, BLOCK_K), tl.float32)
    loss_sum = tl.zeros((BLOCK_A,), tl.float64)
    scale_sum = tl.zeros((BLOCK_A,), tl.float64)
    bias_sum = tl.zeros((BLOCK_A,), tl.float64)
    for tile in range(split * tiles, tl.minimum((split + 1) * tiles, tl.cdiv(rows_b, BLOCK_B))):
        start_b = tl.cast(tile, tl.int64) * BLOCK_B
        left_b = rows_left(start_b, rows_b, BLOCK_B)
        counted = (row_b < left_b)[None, :]  # rows of A that are not there leave the sums at the end
        if EXCLUDE_DIAGONAL:
            shift = tl.minimum(tl.maximum(start_b - start_a, -BLOCK_B), BLOCK_A).to(tl.int32)  # both ends match nothing
            counted = counted & (row_a[:, None] - row_b[None, :] != shift)
        s = _similarity(
            labels_a + start_a * classes,
            labels_b + start_b * classes,
            norms_a + start_a,
            norms_b + start_b,
            left_a,
            left_b,
            classes,
            in_parts_a,
            KIND,
            BLOCK_A,
            BLOCK_B,
            BLOCK_C,
            WIDE,
        )
        if WEIGHTS_OF == "b":
            weight_b = load_vector(weights + start_b, left_b, BLOCK_B)[None, :]
            positive, negative = positive_weight * weight_b, negative_weight * weight_b
        if FORM == "similarity":
            slope = s  # has no meaning, and no use
            loss = s * positive
        else:
            if ONE_STEP:
                b = load(b_ptr + start_b * bits, left_b, bits, 0, BLOCK_B, STEP_K, WIDE)
                if TF32:
                    b = tf32(b)
                if IN_PARTS:
                    parts_b = parts(b, WIDE)
                    products = dot(parts_a, transposed(parts_b), 3)
                else:
                    products = tl.dot(a, tl.trans(b), input_precision="tf32" if TF32 else "ieee")
            else:
                products = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
                for k in range(0, bits, STEP_K):
                    a = load(a_ptr + start_a * bits, left_a, bits, k, BLOCK_A, STEP_K, WIDE)
                    b = load(b_ptr + start_b * bits, left_b, bits, k, BLOCK_B, STEP_K, WIDE)
                    if IN_PARTS:
                        products += dot(parts(a, WIDE), transposed(parts(b, WIDE)), 3)
                    elif TF32:
                        products = tl.dot(tf32(a), tl.trans(tf32(b)), products, input_precision="tf32")
                    else:
                        products = tl.dot(a, tl.trans(b), products)
            x = tl.fma(products, scale, bias)
            if FORM == "likelihood":
                e = exp(-tl.abs(x))
                loss = tl.fma(-s, x, tl.maximum(x, 0.0)) + log1p(e)
                slope = tl.fma(tl.where(x < 0, e, 1.0), reciprocal(1.0 + e), -s)
            else:
                difference = x - (2 * s - 1)
                loss = difference * difference
                slope = 2 * difference
            if KIND == "ids" or KIND == "shared":
                weight = tl.where(s > 0, positive, negative)
            else:
                weight = tl.fma(positive, s, tl.fma(-negative, s, negative))  # exact where S is 0 or 1
            loss *= weight
            slope *= weight
        slope = tl.where(counted, slope, 0.0)
        if LOSS:
            loss_sum += tl.sum(tl.where(counted, loss, 0.0), 1).to(tl.float64)
        if PARAMETERS:
            scale_sum += tl.sum(slope * products, 1).to(tl.float64)
            bias_sum += tl.sum(slope, 1).to(tl.float64)
        if GRADIENTS:
            if not ONE_STEP:
                b = load(b_ptr + start_b * bits, left_b, bits, column, BLOCK_B, BLOCK_K, WIDE)
                if TF32:
                    b = tf32(b)
            if TF32:
                gradient += tl.dot(tf32(slope), b, input_precision="tf32")
            elif b_ptr.dtype.element_ty == tl.bfloat16:
                gradient += dot(parts(slope, WIDE), (b,), 1)
            elif b_ptr.dtype.element_ty == tl.float16:
                gradient += dot(parts(slope, WIDE), parts(b.to(tl.float32), WIDE), 2)
            else:
                gradient += dot(parts(slope, WIDE), parts(b, WIDE), 3)
    factor = tl.full((), factor, tl.float64)
    if WEIGHTS_OF != "none":
        count = factor * tl.load(total_ptr)
        factor = 1 / tl.where(count > 0, count, 1.0)
    if GRADIENTS:
        k = column + tl.arange(0, BLOCK_K)
        gradients += (split.to(tl.int64) * rows_a + start_a) * bits
        inside = in_a[:, None] & (k < bits)[None, :]
        tl.store(gradients + row_a[:, None] * bits + k[None, :], gradient * (scale * factor.to(tl.float32)), inside)
    if LOSS and column == 0:
        programs = tl.num_programs(0) * tl.num_programs(1)
        sums += tl.program_id(0) * tl.num_programs(1) + split
        tl.store(sums, tl.sum(tl.where(in_a, loss_sum, 0.0)) * factor)
        if PARAMETERS:
            tl.store(sums + programs, tl.sum(tl.where(in_a, scale_sum, 0.0)) * factor)
            tl.store(sums + 2 * programs, tl.sum(tl.where(in_a, bias_sum, 0.0)) * factor)
