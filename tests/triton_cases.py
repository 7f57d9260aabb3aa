"""The Triton kernels in Triton's interpreter; `test_triton_losses.py` runs this file in a process of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["TRITON_INTERPRET"] = "1"  # read where Triton is imported

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from adsq.kernels.pairwise_similarity import op, reference, triton_functions, triton_launch
from adsq.kernels.sign_quantization import reference as sign_reference
from adsq.kernels.sign_quantization.triton_kernel import sign_quantization_loss

SHAPES = [  # n, m, K: one pair; edges in both directions; splits of both sides; several steps and chunks of K
    (1, 1, 1),
    (65, 33, 48),
    (70, 130, 20),
    (130, 40, 64),
    (3, 300, 17),
    (33, 40, 100),
    (20, 30, 200),
]
DTYPES = ["float32", "tf32", "bfloat16", "float16"]
LABELS = {  # name -> labels of so many rows
    "ids": lambda n: torch.randint(0, 3, (n,)),
    "large ids": lambda n: torch.randint(-1, 2, (n,)) << 33,  # equal in their lower halves
    "bool": lambda n: torch.rand(n, 5) < 0.3,
    "uint8": lambda n: (torch.rand(n, 20) < 0.1).to(torch.uint8),
    "int8": lambda n: torch.randint(-2, 3, (n, 7), dtype=torch.int8),
    "int64": lambda n: torch.randint(0, 2, (n, 16)),
    "float32": lambda n: torch.randn(n, 6),
    "bfloat16": lambda n: torch.randn(n, 6).bfloat16(),
    "posterior": lambda n: torch.softmax(3 * torch.randn(n, 10, dtype=torch.float64), 1),
    "many": lambda n: torch.rand(n, 70) < 0.05,
    "none": lambda n: torch.ones(n, 0),
}
KINDS = ("shared", "cosine", "dot")
FLAGS = [*itertools.product([False, True], repeat=3)]  # column weights, mean, diagonal left out where n = m
CASES = (
    [  # every label and kind in both forms; the other choices take turns
        (labels, kind, form, SHAPES[i % 7], DTYPES[i % 4], FLAGS[i % 8])
        for i, (form, labels, kind) in enumerate(itertools.product(("likelihood", "squared"), LABELS, KINDS))
    ]
    + [  # every shape in every dtype
        ("bool", "shared", "likelihood", shape, dtype, FLAGS[(i + 3) % 8])
        for i, (shape, dtype) in enumerate(itertools.product(SHAPES, DTYPES))
    ]
    + [("ids", "shared", "likelihood", (5, 20, 1024), "tf32", FLAGS[2])]
)


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new tensors with NaN, so that what a kernel leaves out shows."""
    plain = Tensor.new_empty

    def poisoned(self: Tensor, *args, **kwargs) -> Tensor:
        tensor = plain(self, *args, **kwargs)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(Tensor, "new_empty", poisoned)


def pairwise(u, v, labels, parameters, *, columns=None, kind="shared", form="likelihood", diagonal=False, mean=True,
             needs=(True, True, True)):  # fmt: skip
    return triton_launch.pairwise_similarity_loss(
        u, v, *labels, columns, parameters, kind, form, diagonal, mean, *needs
    )


def plain(u, v, labels, parameters, *, columns=None, kind="shared", form="likelihood", diagonal=False, mean=True):
    """Loss and gradients by autograd of the reference."""
    inputs = [tensor.detach().requires_grad_() for tensor in (u, v, parameters)]
    u, v, (scale, bias, positive, negative) = *inputs[:2], inputs[2].unbind()
    options = dict(similarity=kind, form=form, scale=scale, bias=bias, column_weights=columns)
    options |= dict(positive_weight=positive.detach(), negative_weight=negative.detach())
    options |= dict(exclude_diagonal=diagonal, reduction="mean" if mean else "sum")
    loss = reference.pairwise_similarity_loss(u, v, *labels, **options)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def assert_close_as_pytorch(got, eager, exact) -> None:
    """The error is at most twice that of the same formula in PyTorch."""
    for ours, theirs, want in zip(got, eager, exact, strict=True):
        assert ours.shape == want.shape and ours.dtype == torch.float32
        error, allowed = (ours.double() - want).abs().max(), 2 * (theirs.double() - want).abs().max()
        assert error <= allowed + torch.finfo(torch.float32).eps * want.abs().max()


@contextmanager
def tf32_products(on: bool = True) -> Iterator[None]:
    torch.backends.cuda.matmul.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_loss_and_gradients(case):
    labels, kind, form, (n, m, bits), name, (weighted, mean, square) = case
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    m = n if square else m
    u, v = torch.randn(n, bits).tanh().to(dtype), torch.randn(m, bits).tanh().to(dtype)
    pair = LABELS[labels](n), LABELS[labels](m)
    parameters = torch.tensor([0.7, -0.3, 3.0, 0.25])
    columns = torch.rand(m).to([torch.float64, torch.float32][n % 2]) + 0.5 if weighted else None
    options = dict(kind=kind, form=form, columns=columns, diagonal=square, mean=mean)
    with tf32_products(name == "tf32"):
        got = pairwise(u, v, pair, parameters, **options)
    eager = plain(u.float(), v.float(), pair, parameters, **options)  # halves are computed in float32
    exact = plain(u.double(), v.double(), pair, parameters.double(), **options)
    if name == "tf32":
        for ours, want in zip(got, exact, strict=True):
            assert (ours - want).abs().max() <= 2e-3 * want.abs().max()
    else:
        assert_close_as_pytorch(got, eager, exact)


def test_tf32_is_rounded_to_nearest():
    """Operands that are cut off would make each product smaller, and the mean of many off by some 2e-4."""
    u, v, pair = torch.randn(130, 48).tanh(), torch.randn(200, 48).tanh(), (LABELS["ids"](130), LABELS["ids"](200))
    parameters = torch.tensor([0.5, 0, 1, 1])
    with tf32_products():
        got = pairwise(u, v, pair, parameters)[0]
    assert abs(got - plain(u.double(), v.double(), pair, parameters.double())[0]) < 2e-5 * got
    big = torch.tensor([[0x7FFFFFFF, 0x7F800000, 0x3F801000, 0x3F800FFF]], dtype=torch.int32).view(torch.float32)
    with tf32_products():
        squared = [pairwise(x[None], torch.ones(1, 1), (pair[0][:1], 1 + pair[0][:1]), parameters, form="squared")[0]
                   for x in big.T]  # fmt: skip
    assert squared[0].isnan() and squared[1].isinf() and squared[2:] == [(1.5 + 2**-11) ** 2, 2.25]


@pytest.mark.parametrize("tile", ["BLACKWELL", "OTHER"])
def test_tiles_of_other_gpus(tile, monkeypatch):
    """The interpreter takes those of Hopper otherwise."""
    monkeypatch.setattr(triton_launch, "_tile", lambda device: getattr(triton_launch, tile))
    parameters = torch.tensor([0.7, -0.3, 3.0, 0.25])
    for labels, bits in (("ids", 48), ("bool", 200), ("float32", 17)):
        u, v, pair = (
            torch.randn(70, bits).tanh(),
            torch.randn(130, bits).tanh(),
            (LABELS[labels](70), LABELS[labels](130)),
        )
        exact = plain(u.double(), v.double(), pair, parameters.double())
        assert_close_as_pytorch(pairwise(u, v, pair, parameters), plain(u, v, pair, parameters), exact)


@pytest.mark.parametrize("needs", [*itertools.product([False, True], repeat=3)], ids=str)
def test_only_wanted_gradients(needs):
    u, v, pair = torch.randn(70, 20), torch.randn(100, 20), (LABELS["ids"](70), LABELS["ids"](100))
    parameters = torch.tensor([0.7, -0.3, 3.0, 0.25])
    full, some = pairwise(u, v, pair, parameters), pairwise(u, v, pair, parameters, needs=needs)
    assert torch.equal(full[0], some[0])
    for want, got, need in zip(full[1:], some[1:], needs, strict=True):
        assert torch.equal(want, got) if need else got.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_float32_where_only_some_tiles_are_in_parts(kind):
    u, v = ((torch.rand(rows, 70) < 0.1).float() for rows in (130, 90))
    u[70:, 3] *= 1 + 2**-20
    v[40, 69] = 0.3
    exact = reference.pairwise_similarity(u.double(), v.double(), kind, torch.float64)
    eager = reference.pairwise_similarity(u, v, kind)
    got = triton_launch.pairwise_similarity(u, v, kind)
    assert (got.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max() + 2**-23


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (65, 33), (3, 100)])
def test_similarity_and_its_mean(labels, kind, n, m):
    u, v = LABELS[labels](n), LABELS[labels](m)
    want = reference.pairwise_similarity(u, v, kind)
    got = triton_launch.pairwise_similarity(u, v, kind)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
    for weights in (None, torch.arange(m)):
        mean = triton_launch.mean_pairwise_similarity(u, v, weights, kind)
        torch.testing.assert_close(mean, op.mean_pairwise_similarity(u, v, weights, kind), atol=1e-6, rtol=1e-5)


def test_similarity_of_very_many_classes():
    rows = torch.zeros(2, 1030, dtype=torch.uint8)
    rows[:, 1029] = rows[0, 0] = 1
    got = triton_launch.pairwise_similarity(rows, rows[1:], "cosine")
    torch.testing.assert_close(got, torch.tensor([[2**-0.5], [1]]))


def test_labels_of_two_dtypes_and_strided_inputs():
    rows = torch.rand(12, 70) < 0.3
    pair = rows.T, rows.T[:33].double()
    u, v = torch.randn(20, 70).T, torch.randn(1, 20).expand(33, -1)
    parameters = torch.tensor([[0.7, 9], [-0.3, 9], [3, 9], [0.25, 9]])[:, 0]
    for kind in KINDS:
        got = pairwise(u, v, pair, parameters, kind=kind)
        want = pairwise(
            u.contiguous(), v.contiguous(), [x.contiguous().float() for x in pair], parameters.clone(), kind=kind
        )
        torch.testing.assert_close(got, want)


def test_extreme_products_stay_finite():
    u, v = torch.tensor([[100.0], [-100.0]]), torch.tensor([[200.0]])
    ids = torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    loss, grad_u, *_ = pairwise(u, v, ids, torch.tensor([0.5, 0, 1, 1]), mean=False)
    assert loss.item() == 10_000 and grad_u.tolist() == [[0.0], [-100.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["likelihood", "squared"])
def test_nan_and_infinity_are_not_hidden(value, form):
    u, ids = torch.tensor([[1.0], [value]]), torch.arange(2)
    loss, grad_u, *_ = pairwise(u, torch.ones(2, 1), (ids, ids), torch.tensor([0.5, 0, 1, 1]), form=form)
    assert not torch.isfinite(loss) and not (grad_u[1].isfinite() & (form == "squared"))
    rows = torch.tensor([[1.0, value], [0, 1]])
    assert not torch.isfinite(triton_launch.pairwise_similarity(rows, rows * value, "cosine")).all()


@pytest.mark.parametrize("other", [1.0, -1.0, 0.7, 1 + 2**-20, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_parts_of_operands_leave_infinite_results_infinite(value, other):
    u, v, ids = torch.tensor([[1.0, value], [2, 3]]), torch.tensor([[0.5, other], [0.25, 0.0]]), torch.arange(2)
    parameters = torch.tensor([0.5, 0, 1, 1])
    got = pairwise(u, v, (ids, ids), parameters, form="squared", needs=(True, True, False))[:3]
    want = plain(u, v, (ids, ids), parameters, form="squared")[:3]
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-5, atol=0)
    similarity = triton_launch.pairwise_similarity(u, v, "dot")
    torch.testing.assert_close(similarity, reference.pairwise_similarity(u, v, "dot"), equal_nan=True)


def test_no_pair_but_the_diagonal():
    one = torch.ones(1, 3)
    ids = torch.zeros(1, dtype=torch.int64)
    got = pairwise(one, one, (ids, ids), torch.tensor([0.5, 0, 1, 1]), diagonal=True)
    assert all((x == 0).all() for x in got)
    got = pairwise(one, one, (ids, ids), torch.tensor([0.5, 0, 1, 1]), columns=torch.zeros(1))
    assert all((x == 0).all() for x in got)


@pytest.mark.parametrize(
    ("rows", "bits", "dtype"), [(0, 4, "float"), (3, 0, "float"), (3, 4, "double"), (3, 1025, "half")]
)
def test_what_is_left_to_pytorch(rows, bits, dtype):
    u, ids = torch.ones(rows, bits, dtype=getattr(torch, dtype)), torch.arange(rows)
    assert pairwise(u, u, (ids, ids), torch.ones(4)) is NotImplemented
    if rows == 0:
        assert triton_launch.pairwise_similarity(ids, torch.arange(2), "dot") is NotImplemented
        assert triton_launch.mean_pairwise_similarity(torch.arange(2), ids, None, "dot") is NotImplemented


@triton.jit
def _functions(x, exp, log1p, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(exp + at, triton_functions.exp(-20 * tl.load(x + at)))
    tl.store(log1p + at, triton_functions.log1p(tl.load(x + at)))


def test_exp_and_log1p():
    x = torch.cat([torch.linspace(0, 1, 2**15 - 40), torch.logspace(-38, 0, 40)])
    exp, log1p = torch.empty_like(x), torch.empty_like(x)
    _functions[(1,)](x, exp, log1p, SIZE=2**15)
    torch.testing.assert_close(log1p.double(), x.double().log1p(), rtol=3e-7, atol=0)
    torch.testing.assert_close(exp.double(), (-20 * x.double()).exp(), rtol=3e-6, atol=0)  # no fused rounding here


SIGN_OPTIONS = [*itertools.product([1, 2, 3], [1, 2], [False, True], [False, True], [False, True])]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("rows", "bits"), [(1, 1), (41, 37), (64, 32)])
def test_sign_quantization(dtype, rows, bits):
    dtype = getattr(torch, dtype)
    for count, p, given, anchored, mean in SIGN_OPTIONS:
        features = [torch.randn(rows, bits).to(dtype) for _ in range(count)]
        codes = features[0].roll(1, 0).sign() if given else None
        anchor = torch.randn(bits, rows).to(dtype).T if anchored and not given else None
        features[-1][0, 0] = 1.0  # p = 1 has a corner here
        needs = [i % 2 == 0 for i in range(count)]
        arguments = dict(codes=codes, anchor=anchor, anchor_weight=0.3, p=p, reduction="mean" if mean else "sum")
        wide = [f.double().requires_grad_() for f in features]
        loss, made, gradients = sign_quantization_loss(features, codes, anchor, 0.3, p, mean, needs)
        taken = codes if given else made
        if not given:  # the same sums in the same order, in the dtype that computes
            compute = torch.float64 if dtype == torch.float64 else torch.float32
            total = sum(f.to(compute) for f in features[1:]) + features[0].to(compute) if count > 1 else features[0]
            total = total if anchor is None else total + 0.3 * anchor.to(compute)
            assert torch.equal(made, torch.where(total >= 0, 1.0, -1.0).to(dtype))
        want, _ = sign_reference.sign_quantization_loss(*wide, **arguments | dict(codes=taken.double(), anchor=None))
        exact = torch.autograd.grad(want, wide)
        eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
        torch.testing.assert_close(loss.double(), want.detach(), rtol=8 * eps, atol=0)
        assert gradients.shape == (sum(needs), rows, bits) and loss.dtype == gradients.dtype
        for got, gradient in zip(gradients, exact[::2], strict=True):
            torch.testing.assert_close(got.double(), gradient, rtol=4 * eps, atol=0)


def test_sign_quantization_of_odd_values():
    feature = torch.tensor([[0.0, -0.0, float("nan"), 1.0, -1.0, 2.0]])
    for p, want in ((2, [-2, -2, None, 0, 0, 2]), (1, [-1, -1, None, 0, 0, 1])):
        loss, codes, gradients = sign_quantization_loss([feature], None, None, 1.0, p, False, [True])
        assert loss.isnan() and codes.tolist() == [[1, 1, -1, 1, -1, 1]]
        got = gradients[0, 0].tolist()
        assert got[2] != got[2] and [x for x in got if x == x] == [x for x in want if x is not None]
    loss, codes, gradients = sign_quantization_loss([feature[:0]], None, None, 1.0, 2, True, [True])
    assert loss == 0 and codes.shape == (0, 6) and gradients.shape == (1, 0, 6)
    loss, codes, gradients = sign_quantization_loss([feature], feature.sign(), None, 1.0, 2, True, [False])
    assert codes.numel() == 0 and gradients.shape == (0, 1, 6)
