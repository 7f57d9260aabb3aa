"""Device code in Triton: similarity, loss and gradients of tiles of pairs. `triton_launch.py` launches it.

A program owns BLOCK_A rows of A and walks over tiles of BLOCK_B rows of B. Of a tile of pairs, only sums leave it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.44269504)
_LN2 = tl.constexpr(0.693147182464599609375)
_LN2_REST = tl.constexpr(-1.90465421e-9)  # what float32 leaves out of log(2)
_BFLOAT16_BITS = tl.constexpr(-65536)  # 0xffff0000: the bits of a float32 that bfloat16 keeps
_LARGEST = tl.constexpr(3.4028234663852886e38)  # of float32


@triton.jit
def _exp(y):
    """exp(y) for y <= 0, to about 2 units in the last place: exp2, with the rounding of its argument made good."""
    t = y * _LOG2E
    lost = tl.fma(-t, _LN2_REST, tl.fma(-t, _LN2, y))
    e = tl.exp2(t)
    return tl.fma(e, lost, e)


@triton.jit
def _reciprocal(d):
    """1 / d for d in 1..2: a division would first bring operands of any size into its range."""
    root = tl.rsqrt(d)
    r = root * root
    return tl.fma(r, tl.fma(-d, r, 1.0), r)


@triton.jit
def _log1p(e):
    """log(1 + e) for e in 0..1: e times a minimax fit of log1p(e) / e, whose relative error is 5e-9.

    A logarithm near 1 would lose digits, and would go through the special function units, which bound the rate once
    tensor cores make the products.
    """
    p = tl.fma(e, -0.0032440254, 0.019851465)
    p = tl.fma(e, p, -0.056959543)
    p = tl.fma(e, p, 0.106036566)
    p = tl.fma(e, p, -0.15305594)
    p = tl.fma(e, p, 0.1967594)
    p = tl.fma(e, p, -0.24954134)
    p = tl.fma(e, p, 0.33329964)
    p = tl.fma(e, p, -0.499999)
    return e * tl.fma(e, p, 1.0)


@triton.jit
def _left(start, rows, BLOCK: tl.constexpr):
    """How many of the rows of a block are there: int32, as everything inside a block is."""
    return tl.minimum(rows - start, BLOCK).to(tl.int32)


@triton.jit
def _load(ptr, left, width, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr = False):
    """A tile of a row-major matrix from `column` on, zeros beyond its `left` rows and its width."""
    row, columns = tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    inside = (row < left)[:, None] & (columns < width)[None, :]
    tile = tl.load(ptr + (row[:, None] * width + columns[None, :]), inside, 0)  # [ROWS, COLUMNS]
    return tile.to(tl.float32) if WIDE else tile


@triton.jit
def _load_vector(ptr, left, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)
    return tl.load(ptr + row, row < left, 0)  # [ROWS]


@triton.jit
def _cut(x):
    return (x.to(tl.int32, bitcast=True) & _BFLOAT16_BITS).to(tl.float32, bitcast=True)


@triton.jit
def _parts(x, WIDE: tl.constexpr):
    """x as a sum of three bfloat16, exactly. WIDE keeps them in float32.

    The first is cut off, which leaves infinity what it is, and NaN as processors make it. The second is rounded, so
    that the third has either sign, and with it the products that `_dot` leaves out. All on the bits: a conversion whose
    result is used in float32 as well runs at a quarter of the rate.
    """
    high = _cut(x)
    rest = x - high
    middle = ((rest.to(tl.int32, bitcast=True) + 0x8000) & _BFLOAT16_BITS).to(tl.float32, bitcast=True)
    low = rest - middle
    if WIDE:
        return high, middle, low
    else:
        return high.to(tl.bfloat16), middle.to(tl.bfloat16), low.to(tl.bfloat16)


@triton.jit
def _small_products(a, b, PARTS_B: tl.constexpr):
    """The part of `_dot` that is zero where both sides are bfloat16."""
    small = tl.dot(a[2], b[0], input_precision="ieee")
    if PARTS_B == 3:
        small = tl.dot(a[0], b[2], small, input_precision="ieee")
    if PARTS_B > 1:
        small = tl.dot(a[1], b[1], small, input_precision="ieee")
        small = tl.dot(a[0], b[1], small, input_precision="ieee")
    small = tl.dot(a[1], b[0], small, input_precision="ieee")
    return tl.minimum(tl.maximum(small, -_LARGEST), _LARGEST)  # no NaN, no infinity


@triton.jit
def _dot(a, b, PARTS_B: tl.constexpr):
    """a times b in float32, from three parts of a and PARTS_B of b: tensor cores make the products exactly.

    They cut off what does not fit their sums, so those are short, and the small products have one of their own. Left
    out are products below 2^-22 of the whole, of either sign, and 2^-26 on average. Where an input is infinite or NaN,
    the small products may be anything: the large ones say what the result is.
    """
    small = _small_products(a, b, PARTS_B)
    return tl.dot(a[0], b[0], input_precision="ieee") + small


@triton.jit
def _is_in_parts(ptr, left, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether one of the rows has an entry that is no bfloat16."""
    rest = 0.0
    if ptr.dtype.element_ty == tl.float32:
        for column in range(0, width, COLUMNS):
            tile = _load(ptr, left, width, column, ROWS, COLUMNS)
            rest = tl.maximum(rest, tl.max(tl.abs(tile - _cut(tile))))
    return rest > 0


@triton.jit
def _transposed(parts):
    return tl.trans(parts[0]), tl.trans(parts[1]), tl.trans(parts[2])


@triton.jit
def _similarity(
    labels_a,
    labels_b,
    norms_a,
    norms_b,
    left_a,
    left_b,
    classes,
    in_parts_a,  # as `_is_in_parts` says of labels_a
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
    WIDE: tl.constexpr,
):
    """S of a tile, [BLOCK_A, BLOCK_B]. KIND "cosine" finds rows of unit length, "scaled" makes up for their lengths."""
    if KIND == "ids":
        ids_b = _load_vector(labels_b, left_b, BLOCK_B)
        s = (_load_vector(labels_a, left_a, BLOCK_A)[:, None] == ids_b[None, :]).to(tl.float32)
    else:
        s = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
        for c in range(0, classes, BLOCK_C):
            a = _load(labels_a, left_a, classes, c, BLOCK_A, BLOCK_C)
            b = _load(labels_b, left_b, classes, c, BLOCK_B, BLOCK_C)
            if labels_a.dtype.element_ty == tl.float32:
                high = _cut(b)
                in_parts = in_parts_a | (tl.max(tl.abs(b - high)) > 0)
                if in_parts:
                    s += _small_products(_parts(a, WIDE), _transposed(_parts(b, WIDE)), 3)
                if WIDE:
                    s += tl.dot(_cut(a), tl.trans(high), input_precision="ieee")
                else:
                    s += tl.dot(_cut(a).to(tl.bfloat16), tl.trans(high.to(tl.bfloat16)))
            else:
                s = tl.dot(a, tl.trans(b), s)
        if KIND == "shared":
            s = (s > 0).to(tl.float32)
        if KIND == "dot":
            s = tl.where(s < 0, 0.0, tl.where(s > 1, 1.0, s))  # NaN stays
        if KIND == "scaled":
            lengths_b = _load_vector(norms_b, left_b, BLOCK_B)
            s *= _load_vector(norms_a, left_a, BLOCK_A)[:, None] * lengths_b[None, :]
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
    left_a, left_b = _left(start_a, rows_a, BLOCK_A), _left(start_b, rows_b, BLOCK_B)
    s = _similarity(
        labels_a + start_a * classes,
        labels_b + start_b * classes,
        norms_a + start_a,
        norms_b + start_b,
        left_a,
        left_b,
        classes,
        _is_in_parts(labels_a + start_a * classes, left_a, classes, BLOCK_A, BLOCK_C),
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
    factor_ptr,  # float64 [1], what the sums are multiplied by
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
    left_a = _left(start_a, rows_a, BLOCK_A)
    in_a = row_a < left_a
    scale, bias = tl.load(parameters), tl.load(parameters + 1)
    positive_weight, negative_weight = tl.load(parameters + 2), tl.load(parameters + 3)
    if FORM == "similarity":
        positive_weight = 1.0
    if WEIGHTS_OF == "none":
        positive, negative = positive_weight, negative_weight
    if WEIGHTS_OF == "a":
        weight_a = _load_vector(weights + start_a, left_a, BLOCK_A)[:, None]
        positive, negative = positive_weight * weight_a, negative_weight * weight_a
    IN_PARTS: tl.constexpr = a_ptr.dtype.element_ty == tl.float32 and not TF32
    if ONE_STEP:
        a = _load(a_ptr + start_a * bits, left_a, bits, 0, BLOCK_A, STEP_K, WIDE)
        if IN_PARTS:
            parts_a = _parts(a, WIDE)
    in_parts_a = _is_in_parts(labels_a + start_a * classes, left_a, classes, BLOCK_A, BLOCK_C)
    gradient = tl.zeros((BLOCK_A, BLOCK_K), tl.float32)
    loss_sum = tl.zeros((BLOCK_A,), tl.float64)
    scale_sum = tl.zeros((BLOCK_A,), tl.float64)
    bias_sum = tl.zeros((BLOCK_A,), tl.float64)
    for tile in range(split * tiles, tl.minimum((split + 1) * tiles, tl.cdiv(rows_b, BLOCK_B))):
        start_b = tl.cast(tile, tl.int64) * BLOCK_B
        left_b = _left(start_b, rows_b, BLOCK_B)
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
            weight_b = _load_vector(weights + start_b, left_b, BLOCK_B)[None, :]
            positive, negative = positive_weight * weight_b, negative_weight * weight_b
        if FORM == "similarity":
            slope = s  # has no meaning, and no use
            loss = s * positive
        else:
            if ONE_STEP:
                b = _load(b_ptr + start_b * bits, left_b, bits, 0, BLOCK_B, STEP_K, WIDE)
                if IN_PARTS:
                    parts_b = _parts(b, WIDE)
                    products = _dot(parts_a, _transposed(parts_b), 3)
                else:
                    products = tl.dot(a, tl.trans(b), input_precision="tf32")
            else:
                products = tl.zeros((BLOCK_A, BLOCK_B), tl.float32)
                for k in range(0, bits, STEP_K):
                    a = _load(a_ptr + start_a * bits, left_a, bits, k, BLOCK_A, STEP_K, WIDE)
                    b = _load(b_ptr + start_b * bits, left_b, bits, k, BLOCK_B, STEP_K, WIDE)
                    if IN_PARTS:
                        products += _dot(_parts(a, WIDE), _transposed(_parts(b, WIDE)), 3)
                    else:
                        products = tl.dot(a, tl.trans(b), products, input_precision="tf32")
            x = tl.fma(products, scale, bias)
            if FORM == "likelihood":
                e = _exp(-tl.abs(x))
                loss = tl.fma(-s, x, tl.maximum(x, 0.0)) + _log1p(e)
                slope = tl.fma(tl.where(x < 0, e, 1.0), _reciprocal(1.0 + e), -s)
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
                b = _load(b_ptr + start_b * bits, left_b, bits, column, BLOCK_B, BLOCK_K, WIDE)
            if TF32:
                gradient = tl.dot(slope, b, gradient, input_precision="tf32")
            elif b_ptr.dtype.element_ty == tl.bfloat16:
                gradient += _dot(_parts(slope, WIDE), (b,), 1)
            elif b_ptr.dtype.element_ty == tl.float16:
                gradient += _dot(_parts(slope, WIDE), _parts(b.to(tl.float32), WIDE), 2)
            else:
                gradient += _dot(_parts(slope, WIDE), _parts(b, WIDE), 3)
    factor = tl.load(factor_ptr)
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
