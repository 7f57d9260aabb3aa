"""Sign quantization: against its definition, against the reference, and the ops' contracts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adsq.kernels import sign_quantization_loss
from adsq.kernels.sign_quantization import reference


@pytest.mark.parametrize("function", [sign_quantization_loss, reference.sign_quantization_loss])
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    count=st.integers(1, 3),
    anchored=st.booleans(),
    p=st.sampled_from([1, 2]),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 1000),
)
def test_by_definition(function, shape, count, anchored, p, reduction, seed):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, *shape))
    anchor = generator.normal(size=shape) if anchored else None
    total = features.sum(axis=0) + (0.7 * anchor if anchored else 0)
    codes = np.where(total >= 0, 1.0, -1.0)
    want = (np.abs(features - codes) ** p).sum()
    want = want / max(1, features.size) if reduction == "mean" else want
    tensors = [torch.from_numpy(f) for f in features]
    vote = torch.from_numpy(anchor) if anchored else None
    loss, made = function(*tensors, anchor=vote, anchor_weight=0.7, p=p, reduction=reduction)
    assert np.array_equal(made.numpy(), codes)
    assert loss.item() == pytest.approx(want, rel=1e-12)


def test_codes_are_the_nearest_of_all():
    """Against all 2^8 code matrices: B minimises sum |F - B|^2 + mu |A - B|^2."""
    first, second, anchor = torch.randn(3, 1, 8, dtype=torch.float64)
    codes = sign_quantization_loss(first, second, anchor=anchor, anchor_weight=0.5)[1]
    every = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8)), dtype=torch.float64)
    costs = sum(w * (f - every).square().sum(dim=1) for f, w in ((first, 1), (second, 1), (anchor, 0.5)))
    assert torch.equal(every[costs.argmin()], codes[0])


def test_sign_rule():
    u = torch.tensor([[0.0, -0.0, float("nan"), 1.0, float("inf"), 1e-45]])
    v = torch.tensor([[0.0, -0.0, 1.0, -1.0, -float("inf"), 0.0]])
    assert sign_quantization_loss(u, v)[1].tolist() == [[1, 1, -1, 1, -1, 1]]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_in_float64(p, reduction):
    u, v = torch.randn(2, 5, 4, dtype=torch.float64)
    anchor = torch.randn(5, 4, dtype=torch.float64)
    targets = torch.randn(5, 4, dtype=torch.float64)
    inputs = u.requires_grad_(), v.clone().requires_grad_()
    options = dict(p=p, reduction=reduction)
    assert torch.autograd.gradcheck(lambda u, v: sign_quantization_loss(u, v, anchor=anchor, **options)[0], inputs)
    assert torch.autograd.gradcheck(lambda u, v: sign_quantization_loss(u, v, codes=targets, **options)[0], inputs)


def test_gradient_is_zero_at_the_code_for_p_1():
    u = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
    sign_quantization_loss(u, p=1, reduction="sum")[0].backward()
    assert u.grad.tolist() == [[0.0, 0.0, -1.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (129, 65), (5000, 48)])
def test_error_at_most_twice_that_of_pytorch(dtype, p, shape):
    features = [torch.randn(shape).tanh().to(dtype) for _ in range(3)]

    def run(function, cast):
        inputs = [f.to(cast).requires_grad_() for f in features[:2]]
        loss, codes = function(*inputs, anchor=features[2].to(cast), p=p)
        return [loss.detach(), *torch.autograd.grad(loss, inputs)], codes

    exact, codes = run(reference.sign_quantization_loss, torch.float64)
    plain, _ = run(reference.sign_quantization_loss, dtype)
    ours, made = run(sign_quantization_loss, dtype)
    if dtype == torch.float32:
        assert torch.equal(made.double(), codes)
    for got, eager, want in zip(ours, plain, exact, strict=True):
        # where the half sums round across zero, one code differs and the gradients with it: compare where codes agree
        same = (made.double() == codes) if want.dim() else torch.tensor(True)
        floor = torch.finfo(dtype).eps * float(want.abs().max())
        error, allowed = ((x.double() - want).abs()[same].max() for x in (got, eager))
        assert error <= 2 * allowed + floor


def test_given_codes_are_returned_and_codes_carry_no_gradient():
    u = torch.randn(3, 4, requires_grad=True)
    targets = torch.randn(3, 4)
    loss, codes = sign_quantization_loss(u, codes=targets)
    assert torch.equal(codes, targets) and not codes.requires_grad
    assert loss.item() == pytest.approx((u - targets).square().mean().item())
    assert not sign_quantization_loss(u, anchor=torch.randn(3, 4, requires_grad=True))[1].requires_grad


def test_inputs_strided_and_unchanged():
    base = torch.randn(6, 8)
    u, v = base.T, base[:1].T.expand(-1, 6)
    before = base.clone()
    loss, codes = sign_quantization_loss(u, v)
    assert torch.equal(base, before)
    want = sign_quantization_loss(u.contiguous(), v.contiguous())
    assert torch.equal(loss, want[0]) and torch.equal(codes, want[1])


def test_second_derivative_raises_and_graph_is_kept():
    u = torch.randn(3, 4, requires_grad=True)
    loss = sign_quantization_loss(u)[0]
    loss.backward(retain_graph=True)
    first = u.grad.clone()
    loss.backward(retain_graph=True)
    assert torch.equal(u.grad, 2 * first)
    (gradient,) = torch.autograd.grad(loss, u, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (gradient.sum() + u.sum()).backward()


def test_gradients_only_where_wanted():
    u, v = torch.randn(3, 4), torch.randn(3, 4, requires_grad=True)
    alone = torch.autograd.grad(sign_quantization_loss(u, v)[0], v)[0]
    w = u.clone().requires_grad_()
    loss, codes = sign_quantization_loss(w, v)
    gradients = torch.autograd.grad(loss, (w, v))
    assert torch.equal(gradients[1], alone)
    gradients[0].zero_()  # each has memory of its own
    assert torch.equal(gradients[1], alone)
    with torch.no_grad():
        plain = sign_quantization_loss(w, v)
    assert torch.equal(plain[0], loss) and torch.equal(plain[1], codes) and not plain[0].requires_grad


def test_a_scaled_loss_keeps_small_gradients_in_float16():
    u = torch.randn(5000, 64, dtype=torch.float16, requires_grad=True)
    (sign_quantization_loss(u)[0] * 2.0**16).backward()
    v = u.detach().double().requires_grad_()
    (reference.sign_quantization_loss(v)[0] * 2.0**16).backward()
    torch.testing.assert_close(u.grad.double(), v.grad, rtol=torch.finfo(torch.float16).eps, atol=0)


def test_codes_alone_reach_a_loss():
    u = torch.randn(3, 4, requires_grad=True)
    (sign_quantization_loss(u)[1] * u).sum().backward()
    assert torch.equal(u.grad, torch.where(u >= 0, 1.0, -1.0))


def test_function_transforms_and_forward_mode_raise():
    def loss(u: Tensor) -> Tensor:
        return sign_quantization_loss(u)[0]

    u = torch.randn(3, 4)
    for call in (lambda: torch.func.grad(loss)(u), lambda: torch.func.jvp(loss, (u,), (u,))):
        with pytest.raises(RuntimeError, match="sign_quantization_loss does not run under"):
            call()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        loss(torch.autograd.forward_ad.make_dual(u, u))


def test_under_fake_tensors():
    with FakeTensorMode():
        u = torch.randn(4, 3, requires_grad=True)
        sign_quantization_loss(u, torch.randn(4, 3))[0].backward()
        assert u.grad.shape == u.shape


def test_autocast_takes_mixed_halves():
    u, v = torch.randn(4, 5), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        loss, codes = sign_quantization_loss(u, v.bfloat16())
    want = sign_quantization_loss(u, v.bfloat16().float())
    assert torch.equal(loss, want[0]) and torch.equal(codes, want[1])


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((torch.ones(3),), {}, ValueError, r"u: expected shape \[N, K\], got \[3\]"),
        ((ONES.int(),), {}, TypeError, "u: expected float16"),
        ((ONES, [1]), {}, TypeError, r"others\[0\]: expected a torch.Tensor"),
        ((ONES, ONES, ONES.double()), {}, TypeError, r"others\[1\]: expected the dtype of u, torch.float32"),
        ((ONES, torch.ones(3, 2)), {}, ValueError, r"others\[0\]: expected the shape of u, \[2, 3\], got \[3, 2\]"),
        ((ONES,), dict(codes=torch.ones(2, 2)), ValueError, "codes: expected the shape of u"),
        ((ONES,), dict(anchor=ONES.to("meta")), ValueError, "anchor: expected the device of u, cpu, got meta"),
        ((ONES,), dict(p=3), ValueError, "p: expected 1 or 2, got 3"),
        ((ONES,), dict(reduction="none"), ValueError, "reduction: expected one of"),
    ],
)
def test_bad_input_is_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        sign_quantization_loss(*arguments, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype):
    features = [torch.randn(4, 3, dtype=dtype) for _ in range(2)]
    codes = torch.randn(4, 3, dtype=dtype)
    op = torch.ops.adsq.sign_quantization_loss.default
    torch.library.opcheck(op, (features, None, codes, 0.5, 2, True, [True, False]))
    torch.library.opcheck(op, (features, codes, None, 1.0, 1, False, [False, False]))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def step(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        loss, codes = sign_quantization_loss(u.tanh(), v, anchor=v)
        return loss * 2, codes + 1

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (3, 8):
        u, v = torch.randn(rows, 5, requires_grad=True), torch.randn(rows, 5)
        got, want = compiled(u, v), step(u, v)
        torch.testing.assert_close(got, want)
        gradients = [torch.autograd.grad(loss, u)[0] for loss, _ in (got, want)]
        torch.testing.assert_close(*gradients)
