"""The Triton kernels of the losses: in Triton's interpreter, and on a GPU, where there is one, against the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adsq.kernels import _extension, mean_pairwise_similarity, pairwise_similarity, pairwise_similarity_loss

pytest.importorskip("triton")


@pytest.mark.slow
def test_in_the_interpreter():
    """All of triton_cases.py, in one process that knows of the interpreter before it imports Triton."""
    cases = Path(__file__).parent / "triton_cases.py"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", cases]
    # The interpreter's exp2 is numpy's, twice as wrong with AVX-512 (under these names from numpy 2.4 on, and before).
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    environment["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_SKX"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]


def test_triton_waits_for_a_gpu_and_info_tells_of_it():
    code = "import sys, adsq.kernels; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    used = {row.op: row for row in _extension.implementations() if row.device == "GPU"}
    names = "pairwise_similarity", "mean_pairwise_similarity", "pairwise_similarity_loss", "sign_quantization_loss"
    for name in names:
        assert ("Triton" in used[name].uses + used[name].why) == (torch.version.cuda is not None)


OPTIONS = [
    dict(),
    dict(similarity="cosine", form="squared", exclude_diagonal=True),
    dict(similarity="dot", column_weights=torch.arange(300) % 3, reduction="sum", positive_weight=3.0),
]


def results(u: Tensor, v: Tensor, labels: Tensor, options: dict, device: str) -> list[Tensor]:
    u, v, labels = (tensor.detach().to(device) for tensor in (u, v, labels))
    scale, bias = (torch.tensor(x, device=device, requires_grad=True) for x in (0.5, -0.2))
    options = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in options.items()}
    inputs = [u.requires_grad_(), v.requires_grad_(), scale, bias]
    loss = pairwise_similarity_loss(u, v, labels, labels, scale=scale, bias=bias, **options)
    return [loss.detach().cpu(), *(gradient.cpu() for gradient in torch.autograd.grad(loss, inputs))]


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rows", ["ids", "bool", "posterior"])
@pytest.mark.parametrize("bits", [48, 200])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "tf32", "float64"])
def test_cuda_equals_the_cpu(options, rows, bits, dtype):
    torch.backends.cuda.matmul.fp32_precision = "tf32" if dtype == "tf32" else "ieee"
    tolerance = {"float16": 2e-3, "bfloat16": 1e-2, "tf32": 2e-3}.get(dtype, 2e-5)
    dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    u, v = (torch.randn(300, bits).tanh().to(dtype) for _ in range(2))
    labels = {"ids": torch.randint(0, 9, (300,)), "bool": torch.rand(300, 21) < 0.1}.get(
        rows, torch.softmax(3 * torch.randn(300, 10), 1)
    )
    wants, gots = (results(u, v, labels, options, device) for device in ("cpu", "cuda"))
    again = results(u, v, labels, options, "cuda")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    for want, got, second in zip(wants, gots, again, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * float(want.abs().max()))
        assert torch.equal(got, second)
    kind = options.get("similarity", "shared")
    gpu = labels.cuda()
    torch.testing.assert_close(pairwise_similarity(gpu, gpu, kind).cpu(), pairwise_similarity(labels, labels, kind))
    mean = mean_pairwise_similarity(gpu, gpu, kind)
    torch.testing.assert_close(mean.cpu(), mean_pairwise_similarity(labels, labels, kind))


@pytest.mark.gpu
def test_cuda_graph_on_a_side_stream_sees_changed_inputs():
    u, v = torch.randn(300, 48, device="cuda", requires_grad=True), torch.randn(5000, 48, device="cuda")
    labels = torch.randint(0, 9, (300,), device="cuda"), torch.randint(0, 9, (5000,), device="cuda")
    scale = torch.tensor(0.5, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        loss = pairwise_similarity_loss(u, v, *labels, scale=scale, positive_weight=torch.ones_like(scale))
        return loss.detach(), *torch.autograd.grad(loss, u)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        u.mul_(0.5)
        labels[0].add_(1)
        scale.fill_(0.3)
    graph.replay()
    for got, want in zip(captured, step(), strict=True):
        assert torch.equal(got, want)


@pytest.mark.gpu
def test_autocast_on_cuda():
    u, labels = torch.randn(70, 48, device="cuda"), torch.arange(70, device="cuda") % 5
    with torch.autocast("cuda", torch.bfloat16):
        mixed = pairwise_similarity_loss(u.bfloat16(), u, labels, labels)
    assert torch.equal(mixed, pairwise_similarity_loss(u.bfloat16().float(), u, labels, labels))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_sign_quantization_on_cuda(dtype):
    from adsq.kernels.sign_quantization import reference
    from adsq.kernels.sign_quantization.triton_kernel import sign_quantization_loss

    features = [torch.randn(999, 48, dtype=torch.float64).to(getattr(torch, dtype)) for _ in range(3)]
    wide = [feature.double().requires_grad_() for feature in features]
    for p in (1, 2):
        want, codes = reference.sign_quantization_loss(*wide, p=p)
        loss, made, gradients = sign_quantization_loss(
            [f.cuda() for f in features], None, None, 1.0, p, True, [True] * 3
        )
        assert (made.cpu() != codes).sum() <= 2  # sums at zero in float32
        torch.testing.assert_close(loss.cpu().double(), want.detach(), rtol=1e-5, atol=0)
        same = (made.cpu() == codes)[None].expand(3, -1, -1)
        exact = torch.stack(torch.autograd.grad(want, wide))
        torch.testing.assert_close(gradients.cpu().double()[same], exact[same], rtol=1e-5, atol=1e-9)
