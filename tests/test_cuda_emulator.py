"""The CUDA device code, compiled for the host with sanitizers, equals the CPU implementation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from adsq.kernels import pack_codes, unpack_codes

ROOT = Path(__file__).parent.parent
# In the order of csrc/element.h
ELEMENTS = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("emulator") / "codes"
    source = ROOT / "tests/cuda_emulator/codes.cpp"
    flags = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-Wno-unknown-pragmas",
    ]
    subprocess.run(["g++", *flags, f"-I{ROOT}/csrc", source, "-o", target], check=True)
    return target


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize(
    ("rows", "bits", "blocks", "threads"), [(0, 5, 1, 32), (1, 1, 1, 1), (9, 37, 2, 32), (5, 64, 7, 3)]
)
def test_emulated_kernels_equal_the_cpu(program, name, rows, bits, blocks, threads):
    dtype = getattr(torch, name)
    codes = (torch.randn(rows, bits) * 3).to(dtype)
    if dtype.is_floating_point and rows:
        codes[0, 0], codes[-1, -1] = -0.0, float("nan")
    arguments = [str(ELEMENTS.index(name)), str(rows), str(bits), str(blocks), str(threads)]
    raw = codes.contiguous().view(torch.uint8).numpy().tobytes() if rows else b""
    done = subprocess.run([program, *arguments], input=raw, capture_output=True, check=True)
    output = (
        torch.frombuffer(bytearray(done.stdout), dtype=torch.uint8)
        if done.stdout
        else torch.empty(0, dtype=torch.uint8)
    )
    packed = pack_codes(codes)
    assert torch.equal(output[: packed.numel()], packed.flatten())
    if dtype != torch.uint8:  # which cannot hold -1
        assert torch.equal(
            output[packed.numel() :].clone().view(dtype).view(rows, bits), unpack_codes(packed, bits, dtype)
        )
