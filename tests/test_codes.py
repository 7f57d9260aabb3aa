"""Packing: native and PyTorch paths against numpy, the contracts of the ops, and the CUDA device code on the host."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq.kernels import pack_codes, unpack_codes
from adsq.kernels.codes import reference

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIGNED = (*FLOATS, torch.int8, torch.int16, torch.int32, torch.int64)
WIDTHS = (1, 7, 8, 9, 31, 32, 48, 63, 64, 65, 300, 4096)


def numpy_pack(codes: torch.Tensor) -> np.ndarray:
    return np.packbits((codes.double() >= 0).numpy(), axis=1, bitorder="little")


@pytest.mark.parametrize("pack", [pack_codes, reference.pack_codes])
@pytest.mark.parametrize("dtype", SIGNED, ids=str)
@pytest.mark.parametrize("num_bits", WIDTHS)
def test_pack_equals_numpy(pack, dtype, num_bits):
    codes = (torch.randn(65, num_bits, generator=torch.Generator().manual_seed(num_bits)) * 3).to(dtype)
    packed = pack(codes)
    assert packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), numpy_pack(codes))


@pytest.mark.parametrize("pack", [pack_codes, reference.pack_codes])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sign_rule_at_special_values(pack, dtype):
    tiny = torch.finfo(dtype).smallest_normal / 2  # subnormal
    values = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, tiny, -tiny, 1.0, -1.0]
    want = [1, 1, 0, 0, 1, 0, 1, 0, 1, 0]
    packed = pack(torch.tensor([values], dtype=dtype))
    assert np.unpackbits(packed.numpy(), axis=1, bitorder="little")[0, : len(want)].tolist() == want


def test_every_half_pattern_follows_the_rule():
    """All 65,536 bit patterns of both half types, NaNs with payload included."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        codes = bits.view(dtype).view(64, -1)
        assert np.array_equal(pack_codes(codes).numpy(), numpy_pack(codes))


@given(st.integers(0, 70), st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_round_trip_and_pad_bits(rows, num_bits, seed):
    codes = torch.where(torch.rand(rows, num_bits, generator=torch.Generator().manual_seed(seed)) < 0.5, 1.0, -1.0)
    packed = pack_codes(codes)
    assert packed.shape == (rows, (num_bits + 7) // 8)
    for dtype in SIGNED:
        assert torch.equal(unpack_codes(packed, num_bits, dtype), codes.to(dtype))
    assert torch.equal(reference.unpack_codes(packed, num_bits), codes)
    assert not (unpack_codes(packed, packed.shape[1] * 8)[:, num_bits:] > 0).any(), "a pad bit is set"


def test_unpack_does_not_read_pad_bits():
    assert torch.equal(unpack_codes(torch.tensor([[0b11111001]], dtype=torch.uint8), 3), torch.tensor([[1.0, -1, -1]]))


def test_strided_inputs_and_none_changed():
    base = torch.randn(40, 90)
    for codes in (base.T, base[::3, 5:77:2], base[:, :1].expand(-1, 20), base[:0]):
        before = codes.clone()
        assert np.array_equal(pack_codes(codes).numpy(), numpy_pack(codes))
        assert torch.equal(codes, before)
    packed = pack_codes(base)
    assert torch.equal(unpack_codes(packed[::2], 90), unpack_codes(packed, 90)[::2])


def test_large_input_is_split_over_threads_alike():
    codes = torch.randn(100_003, 33)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = pack_codes(codes)
        torch.set_num_threads(2)
        assert torch.equal(pack_codes(codes), one)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(one.numpy(), numpy_pack(codes))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: pack_codes([[1.0]]), TypeError, "codes: expected a torch.Tensor"),
        (lambda: pack_codes(torch.ones(3)), ValueError, r"codes: expected shape \[N, K\], got \[3\]"),
        (lambda: pack_codes(torch.ones(3, 0)), ValueError, "from 1 to 4096, got 0"),
        (lambda: pack_codes(torch.ones(1, 4097)), ValueError, "from 1 to 4096, got 4097"),
        (lambda: pack_codes(torch.ones(1, 8, dtype=torch.bool)), TypeError, "codes: .*torch.bool"),
        (lambda: pack_codes(torch.ones(1, 8, dtype=torch.complex64)), TypeError, "codes: .*complex"),
        (lambda: pack_codes(torch.ones(1, 8).to(torch.uint16)), TypeError, "codes: .*uint16"),
        (lambda: pack_codes(torch.ones(1, 8).to(torch.float8_e5m2)), TypeError, "codes: .*float8"),
        (lambda: unpack_codes(torch.zeros(2, 2, dtype=torch.int8), 16), TypeError, "packed: .*uint8.*int8"),
        (lambda: unpack_codes(torch.zeros(2, 2, dtype=torch.uint8), 17), ValueError, "packed: expected 3 bytes.*got 2"),
        (lambda: unpack_codes(torch.zeros(2, 2, dtype=torch.uint8), 8), ValueError, "packed: expected 1 bytes.*got 2"),
        (lambda: unpack_codes(torch.zeros(2, 0, dtype=torch.uint8), 0), ValueError, "num_bits: .*got 0"),
        (lambda: unpack_codes(torch.zeros(2, 1, dtype=torch.uint8), 8.0), TypeError, "num_bits: expected an integer"),
        (lambda: unpack_codes(torch.zeros(2, 1, dtype=torch.uint8), True), TypeError, "num_bits: expected an integer"),
        (lambda: unpack_codes(torch.zeros(2, 1, dtype=torch.uint8), 8, torch.uint8), TypeError, "dtype: .*signed"),
        (
            lambda: unpack_codes(torch.zeros(2, 1, dtype=torch.uint8), 8, torch.float8_e5m2),
            TypeError,
            "dtype: .*float8",
        ),
        (lambda: unpack_codes(torch.zeros(2, 1, dtype=torch.uint8), 8, "int8"), TypeError, "dtype: .*got int8"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_native_ops_guard_direct_calls():
    """The C++ checks, for callers who bypass the public functions."""
    with pytest.raises(RuntimeError, match="packed"):
        torch.ops.adsq.unpack_codes(torch.zeros(4, 2, dtype=torch.uint8), 64, torch.float32)


def test_ops_take_codes_of_no_bits():
    """Which the public functions refuse."""
    assert torch.ops.adsq.pack_codes(torch.zeros(3, 0)).shape == (3, 0)
    assert torch.ops.adsq.unpack_codes(torch.zeros(3, 0, dtype=torch.uint8), 0, torch.float32).shape == (3, 0)


def test_opcheck():
    codes = torch.randn(5, 19)
    torch.library.opcheck(torch.ops.adsq.pack_codes.default, (codes,))
    torch.library.opcheck(torch.ops.adsq.unpack_codes.default, (pack_codes(codes), 19, torch.bfloat16))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def round_trip(codes: torch.Tensor) -> torch.Tensor:
        return unpack_codes(pack_codes(codes * 2), 21) + 1

    compiled = torch.compile(round_trip, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (3, 17):
        codes = torch.randn(rows, 21)
        assert torch.equal(compiled(codes), round_trip(codes))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", SIGNED, ids=str)
def test_cuda_equals_cpu(dtype):
    for num_bits in WIDTHS:
        check_cuda(dtype, num_bits)


def check_cuda(dtype: torch.dtype, num_bits: int) -> None:
    codes = (torch.randn(1003, num_bits) * 3).to(dtype)
    packed = pack_codes(codes)
    assert torch.equal(pack_codes(codes.cuda()).cpu(), packed)
    assert torch.equal(unpack_codes(packed.cuda(), num_bits, dtype).cpu(), unpack_codes(packed, num_bits, dtype))
