"""The C++ kernel of sign quantization: every SIMD variant against the PyTorch body of the op, and its own promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from adsq.kernels import _extension, implementations, sign_quantization_loss
from adsq.kernels.sign_quantization import op, reference

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
native = op.sign_quantization_loss
body = op.sign_quantization_loss.__wrapped__

pytestmark = pytest.mark.skipif(not _extension.simd_variants(), reason="the CPU library is not there")


@pytest.fixture(params=_extension.simd_variants())
def variant(request, monkeypatch) -> str:
    monkeypatch.setenv("ADSQ_SIMD", request.param)
    return request.param


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Fill new tensors with NaN, so that an entry left out shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def assert_same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    """Loss to rounding; codes and gradients bit for bit."""
    torch.testing.assert_close(got[0], want[0], equal_nan=True)
    for a, b in zip(got[1:], want[1:], strict=True):
        assert a.dtype == b.dtype and a.is_contiguous()
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_equals_the_pytorch_body(variant, dtype, p):
    for columns in range(1, 71):
        count = 1 + columns % 4
        features = [torch.randn(1 + columns % 5, columns).to(dtype) for _ in range(count)]
        codes = torch.randn(features[0].shape).to(dtype) if columns % 3 == 0 else None
        anchor = torch.randn(features[0].shape).to(dtype) if columns % 3 == 1 else None
        needs = [(columns + i) % 3 > 0 for i in range(count)]
        arguments = features, codes, anchor, 0.7, p, columns % 2 == 0, needs
        assert_same(native(*arguments), body(*arguments))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("p", [1, 2])
def test_special_numbers(variant, dtype, p):
    limits = torch.finfo(dtype)
    values = [0.0, 1.0, limits.max, limits.tiny, limits.smallest_normal / 4, float("inf")]
    numbers = torch.tensor([*values, *(-x for x in values), float("nan")], dtype=dtype)
    pairs = torch.cartesian_prod(numbers, numbers)
    features = [pairs[:, :1].contiguous(), pairs[:, 1:].contiguous()]
    arguments = features, None, None, 1.0, p, False, [True, True]
    got, want = native(*arguments), body(*arguments)
    assert_same(got, want)
    assert got[2].isnan().any() and got[0].isnan()
    ones = torch.tensor([[1.0, -1.0]], dtype=dtype)
    assert native([ones], None, None, 1.0, p, False, [True])[2].tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_half(variant, dtype):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype).reshape(256, 256)
    loss, codes, gradients = native([every], None, None, 1.0, 2, False, [True])
    want = torch.where(every >= 0, 1.0, -1.0)
    assert torch.equal(codes.float(), want) and codes.dtype == dtype and loss.isnan()
    torch.testing.assert_close(gradients[0], (every.float() - want) * 2, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_are_rounded_before_they_are_added(variant, dtype):
    anchor = torch.randn(50, 50, dtype=dtype)
    u = -(0.7 * anchor)
    codes = native([u], None, anchor, 0.7, 2, True, [False])[1]
    assert torch.equal(codes, reference.sign_quantization_loss(u, anchor=anchor, anchor_weight=0.7)[1])
    assert (codes == 1).all()  # with a fused product, the rest of the rounding would decide


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_same_for_every_variant_and_number_of_threads(monkeypatch, dtype):
    features = [torch.randn(1501, 67).to(dtype) for _ in range(2)]  # four parts, the last one short
    results = []
    for name in _extension.simd_variants():
        monkeypatch.setenv("ADSQ_SIMD", name)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(native(features, None, features[1], 0.3, 2, True, [True, True]))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
    assert_same(results[0], body(features, None, features[1], 0.3, 2, True, [True, True]))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_loss_of_many_entries_is_as_good_as_pytorch(variant, p, scale):
    features = [(torch.rand(3000, 64) + 1) * scale for _ in range(2)]
    exact = reference.sign_quantization_loss(*(f.double() for f in features), p=p)[0]
    eager = reference.sign_quantization_loss(*features, p=p)[0]
    loss = sign_quantization_loss(*features, p=p)[0]
    assert abs(loss - exact) <= 2 * abs(eager - exact) + torch.finfo(torch.float32).eps * exact


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_empty(variant, shape):
    empty = torch.ones(shape)
    for mean in (False, True):
        loss, codes, gradients = native([empty, empty], None, empty, 1.0, 2, mean, [True, False])
        assert loss == 0 and codes.shape == shape and gradients.shape == (1, *shape)


def test_strided_and_expanded(variant):
    base = torch.randn(12, 70)
    for make in (lambda x: x[:, 3:50], lambda x: x[::2, ::3], lambda x: x.T, lambda x: x[:1].expand(9, -1)):
        features = [make(base), make(base + 0.5)]
        anchor, options = make(base - 1), (0.7, 2, True, [True, True])
        want = native([f.contiguous() for f in features], None, anchor.contiguous(), *options)
        got = native(features, None, anchor, *options)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_is_told(variant):
    (found,) = (i for i in implementations() if (i.op, i.device) == ("sign_quantization_loss", "CPU"))
    assert found.uses == f"C++ ({variant})"


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], None, ONES, 1.0, 2, True, []), "features: expected at least one"),
        (([ONES], None, None, 1.0, 2, True, []), "needs: expected one for each feature"),
        (([ONES], None, None, 1.0, 3, True, [True]), "p: expected 1 or 2, got 3"),
        (([ONES.int()], None, None, 1.0, 2, True, [True]), "features: expected float16"),
        (([ONES, ONES[:1]], None, None, 1.0, 2, True, [True] * 2), "features: expected the dtype and shape"),
        (([ONES[0]], None, None, 1.0, 2, True, [True]), "features: expected a matrix"),
        (([ONES], ONES.double(), None, 1.0, 2, True, [True]), "codes: expected the dtype and shape"),
        (([ONES], None, ONES.T, 1.0, 2, True, [True]), "anchor: expected the dtype and shape"),
    ],
)
def test_a_wrong_direct_call_is_refused(arguments, words):
    with pytest.raises(RuntimeError, match=words):
        native(*arguments)
