"""Pairwise similarity and its loss: against closed forms in float64, against the reference, and the ops' contracts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adsq.kernels import mean_pairwise_similarity, pairwise_similarity, pairwise_similarity_loss
from adsq.kernels.pairwise_similarity import op, reference

KINDS = ("shared", "cosine", "dot")
FORMS = ("likelihood", "squared")


def labels_of(form: str, rows: int, classes: int = 5) -> Tensor:
    if form == "ids":
        return torch.randint(0, classes, (rows,))
    multi_hot = torch.rand(rows, classes) < 0.3
    return {"bool": multi_hot, "uint8": multi_hot.to(torch.uint8), "float": multi_hot.float()}.get(
        form, torch.rand(rows, classes)
    )


def numpy_similarity(u: Tensor, v: Tensor, kind: str) -> np.ndarray:
    """S by its definition, pair by pair."""
    if u.dim() == 1:
        return (u.numpy()[:, None] == v.numpy()[None]).astype(float)
    a, b = u.double().numpy(), v.double().numpy()
    s = np.zeros((len(a), len(b)))
    for i, j in itertools.product(range(len(a)), range(len(b))):
        product = a[i] @ b[j]
        norms = np.linalg.norm(a[i]) * np.linalg.norm(b[j])
        s[i, j] = {"shared": float(product > 0), "cosine": product / norms if norms else 0.0, "dot": min(1, product)}[
            kind
        ]
    return s


def numpy_loss(
    u: np.ndarray, v: np.ndarray, s: np.ndarray, form: str, t: float, bias: float, weights: tuple, c, diagonal
):
    """The loss by its definition; returns (sum, sum of the column weights of all pairs counted)."""
    total = count = 0.0
    for i, j in itertools.product(range(len(u)), range(len(v))):
        if diagonal or i != j:
            x = t * (u[i] @ v[j]) + bias
            pair = np.logaddexp(0, x) - s[i, j] * x if form == "likelihood" else (x - (2 * s[i, j] - 1)) ** 2
            total += c[j] * (weights[0] * s[i, j] + weights[1] * (1 - s[i, j])) * pair
            count += c[j]
    return total, count


@pytest.mark.parametrize("function", [pairwise_similarity, reference.pairwise_similarity])
@pytest.mark.parametrize("labels", ["ids", "bool", "uint8", "float", "posterior"])
@pytest.mark.parametrize("kind", KINDS)
def test_similarity_by_definition(function, labels, kind):
    u, v = labels_of(labels, 9), labels_of(labels, 7)
    s = function(u, v, kind)
    assert s.dtype == torch.float32
    np.testing.assert_allclose(s.numpy(), numpy_similarity(u, v, kind), atol=1e-6)
    weights = torch.rand(7)
    want = np.average(numpy_similarity(u, v, kind).mean(axis=0), weights=weights.numpy())
    assert float(mean_pairwise_similarity(u, v, kind, weights)) == pytest.approx(want, rel=1e-5)


def test_similarity_of_many_classes_and_of_no_labels():
    u = torch.zeros(3, 1024, dtype=torch.int64)
    u[0, 1023] = u[1, 1023] = u[1, 0] = 1
    s = pairwise_similarity(u, u, "cosine")
    want = torch.tensor([[1, 2**-0.5, 0], [2**-0.5, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(s, want)


@given(
    n=st.integers(0, 9),
    m=st.integers(0, 9),
    bits=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(FORMS),
    labels=st.sampled_from(["ids", "bool", "posterior"]),
    weighted=st.booleans(),
    square=st.booleans(),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 1000),
)
def test_loss_by_definition(n, m, bits, kind, form, labels, weighted, square, reduction, seed):
    torch.manual_seed(seed)
    m = n if square else m
    u, v = torch.randn(n, bits, dtype=torch.float64), torch.randn(m, bits, dtype=torch.float64)
    labels_u, labels_v = labels_of(labels, n), labels_of(labels, m)
    columns = torch.rand(m, dtype=torch.float64) if weighted else None
    c = columns.numpy() if columns is not None else np.ones(m)
    s = numpy_similarity(labels_u, labels_v, kind)
    total, count = numpy_loss(u.numpy(), v.numpy(), s, form, 0.7, -0.3, (3.0, 0.25), c, diagonal=not square)
    options = dict(similarity=kind, form=form, scale=0.7, bias=-0.3, positive_weight=3.0, negative_weight=0.25)
    options |= dict(column_weights=columns, exclude_diagonal=square, reduction=reduction)
    want = total if reduction == "sum" else total / (count or 1)
    for function in (pairwise_similarity_loss, reference.pairwise_similarity_loss):
        assert function(u, v, labels_u, labels_v, **options).item() == pytest.approx(want, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_default_scale(form):
    u, v, labels = torch.randn(4, 8), torch.randn(4, 8), torch.arange(4)
    scale = 0.5 if form == "likelihood" else 1 / 8
    loss = pairwise_similarity_loss(u, v, labels, labels, form=form)
    assert torch.equal(loss, pairwise_similarity_loss(u, v, labels, labels, form=form, scale=scale))


@pytest.mark.parametrize("block", [1, 40, 1 << 21])
def test_gradients_in_float64(monkeypatch, block):
    """Every gradient against finite differences, with one row a block, several, and all in one."""
    monkeypatch.setattr(op, "BLOCK_ENTRIES", block)
    u, v = (torch.randn(rows, 4, dtype=torch.float64, requires_grad=True) for rows in (7, 9))
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.4, -0.2))
    labels_u, labels_v = labels_of("bool", 7), labels_of("bool", 9)
    for form, kind in itertools.product(FORMS, KINDS):

        def loss(u, v, scale, bias, form=form, kind=kind):
            options = dict(similarity=kind, form=form, positive_weight=2.0, column_weights=torch.arange(9.0))
            return pairwise_similarity_loss(u, v, labels_u, labels_v, scale=scale, bias=bias, **options)

        assert torch.autograd.gradcheck(loss, (u, v, scale, bias))
    assert torch.autograd.gradcheck(
        lambda u: pairwise_similarity_loss(u, u, labels_u, labels_u, exclude_diagonal=True), (u,)
    )


def errors(function, u: Tensor, v: Tensor, labels, options) -> list[Tensor]:
    u, v = u.detach().requires_grad_(), v.detach().requires_grad_()
    loss = function(u, v, *labels, **options)
    return [loss.detach(), *torch.autograd.grad(loss, (u, v))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 65, 48), (3, 5001, 64), (130, 257, 300)])
def test_error_at_most_twice_that_of_pytorch(dtype, form, shape):
    """Loss and gradients against float64, beside the same formula in plain PyTorch of the same dtype."""
    n, m, bits = shape
    u, v = torch.randn(n, bits).tanh().to(dtype), torch.randn(m, bits).tanh().to(dtype)
    labels = labels_of("ids", n), labels_of("ids", m)
    options = dict(form=form, positive_weight=5.0, negative_weight=0.6, column_weights=torch.rand(m) + 0.5)
    exact = errors(reference.pairwise_similarity_loss, u.double(), v.double(), labels, options)
    plain = errors(reference.pairwise_similarity_loss, u, v, labels, options)
    ours = errors(pairwise_similarity_loss, u, v, labels, options)
    for got, eager, want in zip(ours, plain, exact, strict=True):
        floor = torch.finfo(dtype).eps * float(want.abs().max())
        assert (got.double() - want).abs().max() <= 2 * (eager.double() - want).abs().max() + floor


def test_extreme_products_stay_finite():
    u = torch.tensor([[100.0], [-100.0]], requires_grad=True)
    v = torch.tensor([[200.0]])
    loss = pairwise_similarity_loss(u, v, torch.tensor([0, 0]), torch.tensor([0]), reduction="sum")
    assert loss.item() == 10_000  # x = 10000 costs nothing where S = 1, x = -10000 costs 10000
    loss.backward()
    assert u.grad.tolist() == [[0.0], [-100.0]]
    bad = torch.tensor([[8.0]], requires_grad=True)
    pairwise_similarity_loss(bad, torch.tensor([[16.0]]), torch.tensor([0]), torch.tensor([1])).backward()
    assert bad.grad.item() == pytest.approx(8.0)  # the slope at x = 64 of a dissimilar pair is 1


def test_nan_and_infinity_are_not_hidden():
    labels = torch.zeros(2, dtype=torch.int64)
    for value in (float("nan"), float("inf")):
        loss = pairwise_similarity_loss(torch.tensor([[1.0], [value]]), torch.ones(2, 1), labels, 1 - labels)
        assert not torch.isfinite(loss)


def test_only_wanted_gradients_and_the_value_does_not_depend_on_them():
    u, v, labels = torch.randn(5, 3), torch.randn(6, 3), (torch.arange(5), torch.arange(6))
    plain = pairwise_similarity_loss(u, v, *labels)
    assert not plain.requires_grad
    wanted = u.clone().requires_grad_()
    loss = pairwise_similarity_loss(wanted, v, *labels)
    assert torch.equal(loss, plain)
    loss.backward(retain_graph=True)
    first = wanted.grad.clone()
    loss.backward()
    assert torch.equal(wanted.grad, 2 * first)
    with torch.no_grad():
        assert not pairwise_similarity_loss(wanted, v, *labels).requires_grad


def test_gradient_in_float16_survives_a_loss_scaler():
    """A unit gradient of 1e-9 would be zero in float16; scaled by 65536 it is not."""
    u = torch.full((1, 1), 0.01, dtype=torch.float16, requires_grad=True)
    v = torch.full((10_000, 1), 1e-3, dtype=torch.float16)
    loss = pairwise_similarity_loss(u, v, torch.zeros(1, dtype=torch.int64), torch.ones(10_000, dtype=torch.int64))
    (loss * 65536 / 1e3).backward()
    exact = 0.5 * 0.5 * float(v[0]) * 65.536
    assert float(u.grad) == pytest.approx(exact, rel=2e-3)


def test_second_derivative_raises():
    u, labels = torch.randn(4, 3, requires_grad=True), torch.arange(4)
    (gradient,) = torch.autograd.grad(pairwise_similarity_loss(u, u, labels, labels), u, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (gradient.sum() + u.sum()).backward()


def test_strided_and_expanded_inputs():
    base = torch.randn(8, 12)
    labels = torch.randint(0, 3, (12,))
    u = base.T.requires_grad_()
    v = base[:1, :8].expand(5, -1)
    loss = pairwise_similarity_loss(u, v, labels, labels[::2][:5])
    assert torch.equal(loss, pairwise_similarity_loss(u.contiguous(), v.contiguous(), labels, labels[::2][:5].clone()))
    loss.expand(3).sum().backward()
    assert base.grad is None and u.grad is not None


def test_autocast_computes_in_float32():
    u, v, labels = torch.randn(6, 400), torch.randn(6, 400), torch.arange(6)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pairwise_similarity_loss(u, v, labels, labels)
        halves = pairwise_similarity_loss(u.bfloat16(), v, labels, labels)
        s = pairwise_similarity(torch.rand(3, 7), torch.rand(3, 7), "cosine")
    assert torch.equal(mixed, pairwise_similarity_loss(u, v, labels, labels))
    assert torch.equal(halves, pairwise_similarity_loss(u.bfloat16().float(), v, labels, labels))
    assert s.dtype == torch.float32


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any PyTorch call returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_no_matrix_is_held():
    n, m = 400, 20_000
    labels = torch.zeros(n, dtype=torch.int64), torch.zeros(m, dtype=torch.int64)
    options = (None, torch.tensor([0.5, 0, 1, 1]), "shared", "likelihood", False, True, True, True, True)
    with LargestTensor() as largest:
        op.pairwise_similarity_loss._init_fn(torch.randn(n, 8), torch.randn(m, 8), *labels, *options)
        op.mean_pairwise_similarity._init_fn(*labels, None, "shared")
    assert m < largest.elements <= op.BLOCK_ENTRIES < n * m


IDS = torch.arange(3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (dict(u=torch.ones(3)), ValueError, r"u: expected shape \[n, K\], got \[3\]"),
        (dict(u=[1.0]), TypeError, "u: expected a torch.Tensor, got list"),
        (dict(u=torch.ones(3, 4, dtype=torch.int64)), TypeError, "u: expected float16.*int64"),
        (dict(v=torch.ones(3, 4, dtype=torch.float64)), TypeError, "v: expected the dtype of u, torch.float32"),
        (dict(v=torch.ones(3, 5)), ValueError, "v: expected 4 columns as in u, got 5"),
        (dict(v=torch.ones(3, 4, device="meta")), ValueError, "v: expected the device of u, cpu, got meta"),
        (dict(labels_u=torch.arange(4)), ValueError, "labels_u: expected 3 rows.*got 4"),
        (dict(labels_u=IDS.int()), TypeError, "labels_u: expected class ids of dtype torch.int64"),
        (dict(labels_v=torch.ones(3, 2)), ValueError, "labels_v: expected 1 dimensions as in labels_u, got 2"),
        (dict(labels_u=torch.ones(3, 2), labels_v=torch.ones(3, 4)), ValueError, "labels_v: expected 2 classes.*got 4"),
        (dict(similarity="same"), ValueError, "similarity: expected one of 'shared', 'cosine', 'dot', got 'same'"),
        (dict(form="hinge"), ValueError, "form: expected one of"),
        (dict(reduction="none"), ValueError, "reduction: expected one of 'mean', 'sum', got 'none'"),
        (dict(column_weights=torch.ones(4)), ValueError, r"column_weights: .*\[3\].*got .*\[4\]"),
        (dict(scale=torch.ones(2)), ValueError, "scale: expected a number or a tensor of one element"),
        (
            dict(positive_weight=torch.tensor(1.0, requires_grad=True)),
            ValueError,
            "positive_weight: expected a constant",
        ),
        (dict(v=torch.ones(2, 4), labels_v=IDS[:2], exclude_diagonal=True), ValueError, "exclude_diagonal: .* 3 and 2"),
    ],
)
def test_bad_input_is_named(changes, error, words):
    arguments = dict(u=torch.ones(3, 4), v=torch.ones(3, 4), labels_u=IDS, labels_v=IDS) | changes
    with pytest.raises(error, match=words):
        pairwise_similarity_loss(**arguments)


def test_opcheck():
    u, v = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    labels = torch.arange(4), torch.arange(5)
    parameters = torch.tensor([0.5, 0.0, 1.0, 1.0], requires_grad=True)
    arguments = (u, v, *labels, torch.rand(5), parameters, "shared", "likelihood", False, True, True, True, True)
    torch.library.opcheck(torch.ops.adsq.pairwise_similarity.default, (*labels, "shared"))
    torch.library.opcheck(torch.ops.adsq.mean_pairwise_similarity.default, (*labels, None, "cosine"))
    torch.library.opcheck(torch.ops.adsq.pairwise_similarity_loss.default, arguments)
    backward = torch.ops.adsq.pairwise_similarity_loss_backward.default
    inputs = [u.detach(), v.detach(), parameters.detach()]
    torch.library.opcheck(backward, (torch.rand(()), inputs, [torch.rand_like(x) for x in inputs]))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    def step(u: Tensor, v: Tensor, labels_u: Tensor, labels_v: Tensor, scale: Tensor) -> Tensor:
        p = mean_pairwise_similarity(labels_u, labels_v)
        return pairwise_similarity_loss(u.tanh(), v, labels_u, labels_v, scale=scale, positive_weight=0.5 / p) * 2

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (4, 11):
        u, v = torch.randn(rows, 6, requires_grad=True), torch.randn(7, 6)
        scale = torch.tensor(0.5, requires_grad=True)
        labels = torch.arange(rows) % 3, torch.arange(7) % 3
        got, want = (function(u, v, *labels, scale) for function in (compiled, step))
        torch.testing.assert_close(got, want)
        for a, b in zip(torch.autograd.grad(got, (u, scale)), torch.autograd.grad(want, (u, scale)), strict=True):
            torch.testing.assert_close(a, b)
