"""What the launchers launch compiles for GPUs that need not be here, within the registers, and its grids are legal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from adsq.kernels.pairwise_similarity import triton_launch
from adsq.kernels.sign_quantization import triton_kernel as sign_kernel
from triton_compile import Launch, compiled, recorded

CAPABILITIES = (80, 90, 100)
MAX_REGISTERS = 255  # two programs of four warps a processor; more do not exist
SPILLED = 96  # bytes of stack a thread on sm_90, where tiles of 64 x 64 are faster than smaller ones without
SMALL = 80  # registers of the kernels without products


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def pairwise_launches(
    n: int, m: int, bits: int, dtype: str = "float32", labels: str = "ids", capability: int = 90, **options
) -> list[Launch]:
    torch.backends.cuda.matmul.fp32_precision = "tf32" if dtype == "tf32" else "ieee"
    dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    rows = [
        on_meta(k, dtype=torch.int64) if labels == "ids" else on_meta(k, 21, dtype=getattr(torch, labels))
        for k in (n, m)
    ]
    needs = options.get("needs", (True, True, False))
    with recorded(triton_launch, capability) as launches:
        triton_launch.pairwise_similarity_loss(
            on_meta(n, bits, dtype=dtype), on_meta(m, bits, dtype=dtype), *rows, on_meta(m), on_meta(4),
            options.get("kind", "shared"), "likelihood", False, True, *needs,
        )  # fmt: skip
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    return launches


@pytest.mark.parametrize("labels", ["ids", "bool", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_pairwise_loss_fits_the_registers(dtype, labels, tmp_path):
    for capability in CAPABILITIES:
        launch = pairwise_launches(4096, 59_000, 64, dtype, labels, capability)[0]
        usage = compiled(launch, capability, tmp_path)
        print(f"| {dtype} | {labels} | sm_{capability} | {usage.registers} | {usage.spilled} | {usage.shared} |")
        assert usage.spilled <= (SPILLED if capability == 90 and dtype != "bfloat16" else 0)
        assert usage.registers <= MAX_REGISTERS and usage.shared <= 48 * 1024


OTHER_LAUNCHES = {
    "gradient of v": lambda on: pairwise_launches(256, 59_000, 48, **on)[1],
    "parameters": lambda on: pairwise_launches(4096, 4096, 48, needs=(True, True, True), **on)[0],
    "parameters, tf32": lambda on: pairwise_launches(4096, 4096, 48, "tf32", needs=(True, True, True), **on)[0],
    "several chunks": lambda on: pairwise_launches(4096, 4096, 1024, "bfloat16", **on)[0],
    "odd width": lambda on: pairwise_launches(100, 100, 77, **on)[0],
    "cosine": lambda on: pairwise_launches(100, 100, 48, labels="float32", kind="cosine", **on)[0],
    "huge": lambda on: pairwise_launches(2**31 + 5, 2**31 + 5, 16, **on)[0],
}


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("case", OTHER_LAUNCHES)
def test_other_launches_compile(case, capability, tmp_path):
    usage = compiled(OTHER_LAUNCHES[case]({"capability": capability}), capability, tmp_path)
    print(f"{case} sm_{capability}: {usage}")
    spilled = {"parameters": 128, "parameters, tf32": 128}.get(case, SPILLED) if capability == 90 else 0
    assert usage.spilled <= spilled and usage.registers <= MAX_REGISTERS


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_small_kernels(capability, tmp_path):
    rows = on_meta(500, 21, dtype=torch.uint8)
    with recorded(triton_launch, capability) as launches:
        triton_launch.pairwise_similarity(rows, rows, "shared")
        triton_launch.mean_pairwise_similarity(rows, rows, None, "shared")
    features = [on_meta(59_000, 48) for _ in range(2)]
    with recorded(sign_kernel) as sign_launches:
        sign_kernel.sign_quantization_loss(features, None, features[0], 1.0, 2, True, [True, False])
    for launch in launches + sign_launches:
        usage = compiled(launch, capability, tmp_path)
        print(f"{launch.kernel.__name__} sm_{capability}: {usage}")
        assert usage.spilled == 0 and usage.registers <= SMALL


@pytest.mark.parametrize(("n", "m"), [(1, 1), (128, 5000), (256, 59_000), (1, 10**8), (10**8, 1), (10**8, 10**8)])
@pytest.mark.parametrize("bits", [16, 64, 1024])
def test_grids_are_legal_and_the_workspace_is_bounded(n, m, bits):
    for launch, rows, columns in zip(pairwise_launches(n, m, bits), (n, m), (m, n), strict=True):
        x, splits, chunks = launch.grid
        block_b = launch.arguments["BLOCK_B"]
        assert x * launch.arguments["BLOCK_A"] >= rows and x < 2**31 and splits <= 65_535
        assert chunks * launch.arguments["BLOCK_K"] >= bits and chunks <= 65_535
        tiles = launch.arguments["tiles"]
        assert splits * tiles * block_b >= columns, "every row of B falls into a split"
        assert (splits - 1) * tiles * block_b < columns, "and no split is empty"
        assert launch.arguments["gradients"].numel() <= rows * bits + 2**22
        if (n, m) == (256, 59_000) and bits == 64:
            assert x * splits >= 2 * 132, "few rows fill the GPU as well"
