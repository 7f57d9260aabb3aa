"""What the kernels of `triton_kernel.py` are made of: functions of a number, loads, and products in float32."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.44269504)
_LN2 = tl.constexpr(0.693147182464599609375)
_LN2_REST = tl.constexpr(-1.90465421e-9)  # what float32 leaves out of log(2)
_BFLOAT16_BITS = tl.constexpr(-65536)  # 0xffff0000: the bits of a float32 that bfloat16 keeps
_TF32_BITS = tl.constexpr(-8192)  # 0xffffe000: those that tf32 keeps
_LARGEST = tl.constexpr(3.4028234663852886e38)  # of float32


@triton.jit
def exp(y):
    """exp(y) for y <= 0, to about 2 units in the last place: exp2, with the rounding of its argument made good."""
    t = y * _LOG2E
    lost = tl.fma(-t, _LN2_REST, tl.fma(-t, _LN2, y))
    e = tl.exp2(t)
    return tl.fma(e, lost, e)


@triton.jit
def log1p(e):
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
def reciprocal(d):
    """1 / d for d in 1..2: a division would first bring operands of any size into its range."""
    root = tl.rsqrt(d)
    r = root * root
    return tl.fma(r, tl.fma(-d, r, 1.0), r)


@triton.jit
def rows_left(start, rows, BLOCK: tl.constexpr):
    """How many of the rows of a block are there: int32, as everything inside a block is."""
    return tl.minimum(rows - start, BLOCK).to(tl.int32)


@triton.jit
def load(ptr, left, width, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr = False):
    """A tile of a row-major matrix from `column` on, zeros beyond its `left` rows and its width."""
    row, columns = tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    inside = (row < left)[:, None] & (columns < width)[None, :]
    tile = tl.load(ptr + (row[:, None] * width + columns[None, :]), inside, 0)  # [ROWS, COLUMNS]
    return tile.to(tl.float32) if WIDE else tile


@triton.jit
def load_vector(ptr, left, ROWS: tl.constexpr):
    row = tl.arange(0, ROWS)
    return tl.load(ptr + row, row < left, 0)  # [ROWS]


@triton.jit
def cut(x):
    return (x.to(tl.int32, bitcast=True) & _BFLOAT16_BITS).to(tl.float32, bitcast=True)


@triton.jit
def tf32(x):
    """x rounded to the nearest tf32, as PyTorch does. Tensor cores cut off, which the mean of many pairs would show."""
    rounded = ((x.to(tl.int32, bitcast=True) + 0x1000) & _TF32_BITS).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)  # NaN as GPUs make it, all ones, would turn over into zero


@triton.jit
def parts(x, WIDE: tl.constexpr):
    """x as a sum of three bfloat16, exactly. WIDE keeps them in float32.

    The first is cut off, which leaves infinity what it is, and NaN as processors make it. The second is rounded, so
    that the third has either sign, and with it the products that `dot` leaves out. All on the bits: a conversion whose
    result is used in float32 as well runs at a quarter of the rate.
    """
    high = cut(x)
    rest = x - high
    middle = ((rest.to(tl.int32, bitcast=True) + 0x8000) & _BFLOAT16_BITS).to(tl.float32, bitcast=True)
    low = rest - middle
    if WIDE:
        return high, middle, low
    else:
        return high.to(tl.bfloat16), middle.to(tl.bfloat16), low.to(tl.bfloat16)


@triton.jit
def small_products(a, b, PARTS_B: tl.constexpr):
    """The part of `dot` that is zero where both sides are bfloat16."""
    small = tl.dot(a[2], b[0], input_precision="ieee")
    if PARTS_B == 3:
        small = tl.dot(a[0], b[2], small, input_precision="ieee")
    if PARTS_B > 1:
        small = tl.dot(a[1], b[1], small, input_precision="ieee")
        small = tl.dot(a[0], b[1], small, input_precision="ieee")
    small = tl.dot(a[1], b[0], small, input_precision="ieee")
    return tl.minimum(tl.maximum(small, -_LARGEST), _LARGEST)  # no NaN, no infinity


@triton.jit
def dot(a, b, PARTS_B: tl.constexpr):
    """a times b in float32, from three parts of a and PARTS_B of b: tensor cores make the products exactly.

    They cut off what does not fit their sums, so those are short, and the small products have one of their own. Left
    out are products below 2^-22 of the whole, of either sign, and 2^-26 on average. Where an input is infinite or NaN,
    the small products may be anything: the large ones say what the result is.
    """
    small = small_products(a, b, PARTS_B)
    return tl.dot(a[0], b[0], input_precision="ieee") + small


@triton.jit
def is_in_parts(ptr, left, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether one of the rows has an entry that is no bfloat16."""
    rest = 0.0
    if ptr.dtype.element_ty == tl.float32:
        for column in range(0, width, COLUMNS):
            tile = load(ptr, left, width, column, ROWS, COLUMNS)
            rest = tl.maximum(rest, tl.max(tl.abs(tile - cut(tile))))
    return rest > 0


@triton.jit
def transposed(parts):
    return tl.trans(parts[0]), tl.trans(parts[1]), tl.trans(parts[2])
