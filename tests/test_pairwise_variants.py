"""The native pair loss and similarity in each SIMD variant: accuracy, odd shapes and inputs, threads, memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from adsq.kernels import _extension, mean_pairwise_similarity, pairwise_similarity, pairwise_similarity_loss
from adsq.kernels.pairwise_similarity import op, reference

FORMS = ("likelihood", "squared")
KINDS = ("shared", "cosine", "dot")
SIZES = [0, 1, 2, 7, 15, 16, 17, 47, 63, 64, 65, 128, 255, 257, 300]


@pytest.fixture(params=[*_extension.simd_variants()] or [pytest.param("", marks=pytest.mark.skip(reason="not built"))])
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ADSQ_SIMD", request.param)
    return request.param


@pytest.fixture(autouse=True)
def _garbage() -> Iterator[None]:
    """Fill what kernels get from the allocator with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_labels(form: str, rows: int) -> Tensor:
    if form == "ids":
        return torch.randint(0, 5, (rows,))
    if form == "wide ids":  # equal in one half of their bits
        return torch.tensor([0, 1, 1 << 32, (1 << 32) + 1, -1, -(1 << 40)])[torch.randint(0, 6, (rows,))]
    if form == "posterior":
        return torch.randn(rows, 6).softmax(1)
    if form == "signed":
        return torch.randint(-2, 3, (rows, 4), dtype=torch.int8)
    classes = int(form.split()[1])
    multi_hot = torch.rand(rows, classes) < 3 / classes
    dtypes = {"bool": torch.bool, "int64": torch.int64, "half": torch.float16, "double": torch.float64}
    return multi_hot.to(dtypes[form.split()[0]])


LABELS = ["ids", "wide ids", "posterior", "signed", "bool 21", "int64 70", "half 5", "double 1024"]


def gradients(function, u: Tensor, v: Tensor, labels, options, *, dtype=None) -> list[Tensor]:
    """Loss, and gradients by u, v, scale and bias."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in (u, v)]
    scalars = torch.float64 if (dtype or u.dtype) == torch.float64 else torch.float32
    inputs += [torch.tensor(x, dtype=scalars, requires_grad=True) for x in (options["scale"], options["bias"])]
    options = options | dict(scale=inputs[2], bias=inputs[3])
    if dtype == torch.float64 and options.get("column_weights") is not None:
        options["column_weights"] = options["column_weights"].double()
    loss = function(inputs[0], inputs[1], *labels, **options)
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def errors(function, u: Tensor, v: Tensor, labels, options) -> Tensor:
    """The largest errors of the five results, relative to the largest entry of each."""
    exact = gradients(reference.pairwise_similarity_loss, u, v, labels, options, dtype=torch.float64)
    found = gradients(function, u, v, labels, options)
    assert [x.shape for x in found] == [x.shape for x in exact]
    return torch.stack(
        [(x.double() - want).abs().max() / want.abs().max() for x, want in zip(found, exact, strict=True)]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 65, 48), (300, 20, 7), (3, 5001, 64), (130, 257, 300)], ids=str)
def test_accuracy(simd, dtype, form, shape):
    """At most twice the error of plain PyTorch in the same dtype, on average: a single sum may be right by luck."""
    n, m, bits = shape
    ours, eager = [], []
    for kind, labels in itertools.product(KINDS, LABELS if n < 100 else ["ids", "bool 21"]):
        u, v = (torch.randn(rows, bits).tanh().to(dtype) for rows in (n, m))
        pair = make_labels(labels, n), make_labels(labels, m)
        options = dict(similarity=kind, form=form, scale=0.5 if form == "likelihood" else 1 / bits, bias=-0.2)
        options |= dict(positive_weight=5.0, negative_weight=0.6, column_weights=torch.rand(m) + 0.5)
        eager.append(errors(reference.pairwise_similarity_loss, u, v, pair, options))
        ours.append(errors(pairwise_similarity_loss, u, v, pair, options))
    allowed = 2 * torch.stack(eager).nanmean(0).nan_to_num(0.0)  # half sums of plain PyTorch overflow
    assert (torch.stack(ours).mean(0) <= allowed + torch.finfo(dtype).eps / 2).all()


@pytest.mark.parametrize("shape", [(3000, 3000), (4096, 64), (64, 20_000), (1000, 5000)], ids=str)
def test_accuracy_of_long_sums(simd, shape):
    """Gradients that are sums over thousands of items lose no more in either direction than plain PyTorch does."""
    ours, eager = [], []
    for _ in range(3):
        u, v = (torch.randn(rows, 16) for rows in shape)
        pair = tuple(torch.randint(0, 100, (rows,)) for rows in shape)
        options = dict(scale=0.5, bias=0.0)
        eager.append(errors(reference.pairwise_similarity_loss, u, v, pair, options))
        ours.append(errors(pairwise_similarity_loss, u, v, pair, options))
    ratio = torch.stack(ours).mean(0) / torch.stack(eager).mean(0)
    assert (ratio[1:3] <= 2).all(), ratio


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.sampled_from(SIZES),
    m=st.sampled_from(SIZES),
    bits=st.one_of(st.integers(0, 70), st.sampled_from([128, 1024])),
    kind=st.sampled_from(KINDS),
    form=st.sampled_from(FORMS),
    labels=st.sampled_from(LABELS),
    double=st.booleans(),
    weighted=st.booleans(),
    square=st.booleans(),
    layout=st.sampled_from(["rows", "columns", "every second row", "expanded"]),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 9999),
)
def test_every_shape(simd, n, m, bits, kind, form, labels, double, weighted, square, layout, reduction, seed):
    torch.manual_seed(seed)
    m = n if square else m
    dtype = torch.float64 if double else torch.float32
    u, v = (in_layout(torch.randn(rows, bits, dtype=dtype).tanh(), layout) for rows in (n, m))
    pair = make_labels(labels, n), make_labels(labels, m)
    options = dict(similarity=kind, form=form, scale=0.3, bias=0.1, positive_weight=2.0, negative_weight=0.5)
    options |= dict(column_weights=torch.randint(0, 4, (m,)) if weighted else None)
    options |= dict(exclude_diagonal=square, reduction=reduction)
    want = gradients(reference.pairwise_similarity_loss, u, v, pair, options, dtype=torch.float64)
    ours = gradients(pairwise_similarity_loss, u, v, pair, options)
    for got, expected in zip(ours, want, strict=True):
        size = float(expected.abs().max()) if expected.numel() else 0.0
        assert torch.allclose(got.double(), expected, rtol=0, atol=(1e-12 if double else 3e-5) * (size + 1e-2))
    s = pairwise_similarity(*pair, kind)
    assert torch.allclose(s, reference.pairwise_similarity(*pair, kind), atol=1e-6)
    if n and (m if options["column_weights"] is None else options["column_weights"].sum()):
        mean = mean_pairwise_similarity(*pair, kind, options["column_weights"])
        expected = reference.mean_pairwise_similarity(*pair, kind, options["column_weights"])
        assert float(mean) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)


def in_layout(x: Tensor, layout: str) -> Tensor:
    if layout == "columns":
        return x.T.contiguous().T
    if layout == "every second row":
        wide = torch.full((2 * x.shape[0], x.shape[1] + 3), float("nan"), dtype=x.dtype)
        wide[::2, : x.shape[1]] = x
        return wide[::2, : x.shape[1]]
    return x[:1].expand(x.shape) if layout == "expanded" else x


def test_both_sets_beyond_one_block(simd):
    """More rows than are laid out at a time (4,096), so that both gradients are added up in several rounds."""
    u, v = torch.randn(4100, 3).tanh(), torch.randn(4230, 3).tanh()
    labels = torch.arange(4100) % 7, torch.arange(4230) % 7
    p = torch.tensor([2.0, 0.1, 3.0, 0.5])
    for count, columns in ((4230, torch.rand(4230) + 0.5), (4100, None)):
        arguments = (u, v[:count], labels[0], labels[1][:count], columns, p, "shared", "likelihood", count == 4100)
        arguments += (True, True, True, True)
        for got, want in zip(
            op.pairwise_similarity_loss(*arguments), op.pairwise_similarity_loss._init_fn(*arguments), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("shape", [(70, 9000, 20), (9000, 70, 20), (5000, 4200, 4), (130, 1, 3)], ids=str)
def test_any_number_of_threads_gives_the_same(simd, shape):
    n, m, bits = shape
    u, v = torch.randn(n, bits), torch.randn(m, bits)
    labels = make_labels("bool 21", n), make_labels("bool 21", m)
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        results.append(gradients(pairwise_similarity_loss, u, v, labels, dict(scale=0.5, bias=0.0)))
        results[-1] += [pairwise_similarity(*labels, "cosine"), mean_pairwise_similarity(*labels, "cosine")]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_variants_of_the_similarity_of_ids_and_bits_are_exact(simd):
    for labels in ("ids", "wide ids", "bool 21", "double 1024"):
        pair = make_labels(labels, 130), make_labels(labels, 77)
        for kind in ("shared", "dot"):
            assert torch.equal(pairwise_similarity(*pair, kind), reference.pairwise_similarity(*pair, kind))


def test_no_common_label_where_there_are_no_classes(simd):
    empty = torch.zeros(3, 0), torch.zeros(2, 0)
    assert all(torch.equal(pairwise_similarity(*empty, kind), torch.zeros(3, 2)) for kind in KINDS)


def test_short_label_rows_have_a_cosine(simd):
    rows = torch.tensor([[3e-4, 4e-4], [1e-13, 0.0]])
    s = pairwise_similarity(rows, torch.tensor([[2e5, 0.0], [0.0, 0.5]]), "cosine")
    torch.testing.assert_close(s, torch.tensor([[0.6, 0.8], [0.1, 0.0]]))  # lengths count as 1e-12 at least


def test_nan_labels_are_not_hidden(simd):
    rows = torch.tensor([[1.0, float("nan")]])
    assert pairwise_similarity(rows, torch.ones(1, 2), "dot").isnan()
    assert pairwise_similarity_loss(torch.ones(1, 2), torch.ones(1, 2), rows, rows, similarity="cosine").isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extremes(simd, dtype):
    """x from -1e4 to 1e4, infinity and NaN, one pair at a time and in a vector."""
    x = torch.tensor(
        [-1e4, -104.5, -88.03, -87.0, -64.0, -1e-3, -0.0, 0.0, 1e-30, 1e-3, 20.0, 64.0, 88.5, 1e4], dtype=dtype
    )
    u = x[:, None].clone().requires_grad_()
    one = torch.ones(1, 1, dtype=dtype)
    for same in (0, 1):
        labels = torch.zeros(len(x), dtype=torch.int64), torch.full((1,), 1 - same)
        loss = pairwise_similarity_loss(u, one, *labels, scale=1.0, reduction="sum")
        (slope,) = torch.autograd.grad(loss, u)
        z = (-x if same else x).double()
        torch.testing.assert_close(loss.double(), torch.logaddexp(z, torch.zeros_like(z)).sum(), rtol=1e-6, atol=0)
        want = z.sigmoid() * (-1 if same else 1)
        torch.testing.assert_close(slope[:, 0].double(), want, rtol=3e-7, atol=1e-37)
        assert slope[0 if same == 0 else -1] == 0
    for bad in (float("nan"), float("inf")):
        values = torch.tensor([[1.0]] * 20 + [[bad]], dtype=dtype)
        assert not torch.isfinite(
            pairwise_similarity_loss(values, one, torch.zeros(21, dtype=torch.int64), torch.ones(1).long())
        )


def test_well_separated_pairs_keep_their_small_losses(simd):
    """x = 30: a loss of 1e-13 a pair, which 1 + exp(-x) alone would round away."""
    u = torch.full((40, 1), 30.0)
    loss = pairwise_similarity_loss(u, torch.ones(50, 1), torch.zeros(40).long(), torch.zeros(50).long(), scale=1.0)
    assert loss.item() == pytest.approx(9.357622968839299e-14, rel=1e-6)


def test_gradients_in_float64(simd):
    u, v = (torch.randn(rows, 4, dtype=torch.float64, requires_grad=True) for rows in (7, 9))
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.4, -0.2))
    for form, kind, labels in itertools.product(FORMS, KINDS, ("ids", "bool 21", "posterior")):
        pair = make_labels(labels, 7), make_labels(labels, 9)

        def loss(u, v, scale, bias, form=form, kind=kind, pair=pair):
            options = dict(similarity=kind, form=form, positive_weight=2.0, column_weights=torch.arange(9.0))
            return pairwise_similarity_loss(u, v, *pair, scale=scale, bias=bias, **options)

        assert torch.autograd.gradcheck(loss, (u, v, scale, bias))


MEMORY = """
import torch
from adsq.kernels import pairwise_similarity_loss
torch.set_num_threads(2)
u, v = torch.randn(2000, 64).requires_grad_(), torch.randn(59_000, 64).requires_grad_()
labels = torch.rand(2000, 21) < .2, torch.rand(59_000, 21) < .2
pairwise_similarity_loss(u[:9], v[:9], labels[0][:9], labels[1][:9]).backward()
u.grad = v.grad = None
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
open("/proc/self/clear_refs", "w").write("5")  # the peak is now what is in use
before = kilobytes("VmRSS")
pairwise_similarity_loss(u, v, *labels).mul(0.3).backward()
print((kilobytes("VmHWM") - before) / 1024)
"""


def test_memory_is_that_of_the_gradients_and_a_few_tiles():
    """The gradients take 15.6 MB here, a matrix of all pairs would take 472 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 14 < float(done.stdout) < 24
