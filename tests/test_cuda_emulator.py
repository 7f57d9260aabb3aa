"""The emulator of tests/cuda_emulator finds what it is for, and the CUDA kernels run in it equal the CPU's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from emulation import BUILDS, HERE, ORDERS, OUTCOMES, ROOT, report

from adsq.kernels import pack_codes, unpack_codes

# In the order of csrc/element.h
ELEMENTS = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("build", ["address", "thread"])
@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize(
    ("rows", "bits", "blocks", "threads"), [(0, 5, 1, 32), (1, 1, 1, 1), (9, 37, 2, 32), (5, 64, 7, 3)]
)
def test_packing_equals_the_cpu(emulator, build, name, rows, bits, blocks, threads):
    dtype = getattr(torch, name)
    codes = (torch.randn(rows, bits) * 3).to(dtype)
    if dtype.is_floating_point and rows:
        codes[0, 0], codes[-1, -1] = -0.0, float("nan")
    raw = codes.contiguous().view(torch.uint8).numpy().tobytes() if rows else b""
    raw = emulator.output("codes", build, ELEMENTS.index(name), rows, bits, blocks, threads, order="reverse", data=raw)
    output = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
    packed = pack_codes(codes)
    assert torch.equal(output[: packed.numel()], packed.flatten())
    if dtype != torch.uint8:  # which cannot hold -1
        assert torch.equal(
            output[packed.numel() :].clone().view(dtype).view(rows, bits), unpack_codes(packed, bits, dtype)
        )


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("threads", [32, 128, 256])
def test_the_correct_kernel_is_clean(emulator, build, threads):
    for order in ORDERS:
        done = emulator.run("mutants", build, "none", threads, order=order)
        said = [line for line in done.stderr.decode().splitlines() if "fully support makecontext" not in line]
        assert (done.returncode, said) == (0, []), order


# Which builds catch a mutant, and as what, in all orders; a set: in some orders as one, in some as the other
MUTANTS = {
    "dropped_barrier": ({"right", "wrong"}, {"right", "wrong"}, "race"),
    "plain_add": ("right", "right", "race"),
    "unzeroed_histogram": ("wrong", "wrong", "wrong"),
    "barrier_in_branch": ("refused", "refused", "refused"),
    "ballot_after_exit": ("refused", "refused", "refused"),
    "out_of_bounds_read": ("right", "address", "right"),
    "shared_out_of_bounds": ("right", "address", "right"),
    "dropped_syncwarp": ("wrong", "wrong", "race"),
    "store_before_shared": ("right", "right", "race"),
    "different_masks": ("refused", "refused", "refused"),
    "shuffle_outside_mask": ("refused", "refused", "refused"),
    "dropped_fence": ("right", "right", "race"),
    "plain_ticket": ("right", "right", "race"),
    "deadlock": ("refused", "refused", "refused"),
    "spin": ("refused", "refused", "refused"),
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(emulator, mutant, build):
    expected = MUTANTS[mutant][list(BUILDS).index(build)]
    found = {OUTCOMES[emulator.run("mutants", build, mutant, 128, order=order).returncode] for order in ORDERS[::2]}
    assert found == (expected if isinstance(expected, set) else {expected})


def line_of(text: str) -> int:
    """Return the number of the only line of the mutants' kernel that contains `text`."""
    (number,) = (i for i, line in enumerate((HERE / "mutants.cuh").read_text().splitlines(), 1) if text in line)
    return number


@pytest.mark.parametrize("build", BUILDS)
def test_reports_say_what_each_thread_waits_at(emulator, build):
    text = report(emulator.run("mutants", build, "deadlock", 128))
    assert "in select_kernel<M>(" in text and "block (0, 0, 0)" in text
    first = f"threads 0-15: wait at __syncwarp, mask 0xffffffff, {HERE}/mutants.cuh:{line_of('kDeadlock &&')}"
    second = f"threads 16-127: wait at __syncthreads, {HERE}/mutants.cuh:"
    assert first in text and second in text

    text = report(emulator.run("mutants", build, "barrier_in_branch", 128))
    assert f"threads 0-31: wait at __syncthreads, {HERE}/mutants.cuh:{line_of('(thread < 32) __syncthreads')}" in text
    assert "threads 32-127: wait at __syncthreads" in text

    text = report(emulator.run("mutants", build, "ballot_after_exit", 128))
    ballot = f"wait at __ballot_sync, mask 0xffffffff, {HERE}/mutants.cuh:{line_of('votes = __ballot_sync')}"
    assert f"threads 64-76: {ballot}" in text and "threads 77-127: have exited" in text  # 333 = 2 * 128 + 77

    text = report(emulator.run("mutants", build, "spin", 128))
    assert "livelock" in text and "threads 0-0: can go on" in text and "threads 1-127: wait at __syncthreads" in text

    text = report(emulator.run("mutants", build, "shuffle_outside_mask", 128))
    assert "reads lane 0, which is not in the mask 0xfffffffe" in text and "thread (33, 0, 0)" in text


@pytest.mark.parametrize(("build", "word"), [("address", "heap-buffer-overflow"), ("thread", "data race")])
def test_reports_of_sanitizers_name_the_thread(emulator, build, word):
    mutant = {"address": "out_of_bounds_read", "thread": "plain_ticket"}[build]
    text = emulator.run("mutants", build, mutant, 128).stderr.decode()
    assert word in text and "mutants.cuh" in text
    place = {"address": "block (2, 0, 0), thread (77, 0, 0)", "thread": "block (1, 0, 0), thread (0, 0, 0)"}[build]
    assert place in text


def test_lanes_that_do_not_exist_are_missed(emulator):
    text = report(emulator.run("mutants", "plain", "none", 48))
    assert "threads 32-47: wait at __ballot_sync, mask 0xffffffff" in text


def test_orders_have_names(emulator):
    for order in ("backward", "random", "random:x", "random:1 "):
        text = report(emulator.run("mutants", "plain", "none", 32, order=order))
        assert f"must be forward, reverse, warp or random:SEED, not '{order}'" in text


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        # grid, block, dynamic shared memory, what was asked for, launch bounds
        ((2, 65535, 1, 1, 1, 1, 0, 0, 1024), None),
        ((1, 1, 1, 16, 1, 64, 49152, 0, 1024), None),
        ((1, 1, 1, 256, 1, 1, 232448, 232448, 256), None),
        ((0, 1, 1, 1, 1, 1, 0, 0, 1024), "not (0, 1, 1)"),
        ((2**31, 1, 1, 1, 1, 1, 0, 0, 1024), "a grid must be 1 to (2147483647, 65535, 65535), not (2147483648, 1, 1)"),
        ((1, 65536, 1, 1, 1, 1, 0, 0, 1024), "not (1, 65536, 1)"),
        ((1, 1, 65536, 1, 1, 1, 0, 0, 1024), "not (1, 1, 65536)"),
        ((1, 1, 1, 1025, 1, 1, 0, 0, 1024), "a block must have 1 to 1024 threads"),
        ((1, 1, 1, 32, 33, 1, 0, 0, 1024), "not (32, 33, 1)"),
        ((1, 1, 1, 1, 1, 65, 0, 0, 1024), "not (1, 1, 65)"),
        ((1, 1, 1, 0, 1, 1, 0, 0, 1024), "not (0, 1, 1)"),
        ((1, 1, 1, 257, 1, 1, 0, 0, 256), "257 threads exceeds the kernel's launch bounds of 256"),
        ((1, 1, 1, 1, 1, 1, 49153, 0, 1024), "49153 bytes of dynamic shared memory exceed the 49152"),
        ((1, 1, 1, 1, 1, 1, 65537, 65536, 1024), "exceed the 65536 that the launcher asked for"),
        ((1, 1, 1, 1, 1, 1, 0, 232449, 1024), "shared_limit must be at most 232448 bytes, not 232449"),
    ],
)
def test_limits_of_launches(emulator, launch, message):
    done = emulator.run("intrinsics", "plain", "launch", *launch)
    if message is None:
        assert done.returncode == 0, done.stderr.decode()
    else:
        assert message in report(done)


def test_limits_of_shared_memory(emulator):
    for dynamic in (0, 183296):  # 48 KB, and 227 KB together
        found = emulator.output("intrinsics", "plain", "static_48k", dynamic, dynamic)
        assert found == b"165 165\n"  # each block finds poison, 0xA5, and nothing that an earlier one left
    for subject, dynamic, asked in (("static_49k", 0, 0), ("static_48k", 1, 0), ("static_48k", 183297, 183297)):
        text = report(emulator.run("intrinsics", "plain", subject, dynamic, asked))
        assert f"of static and {dynamic} of dynamic shared memory exceed" in text


def test_thread_sanitizer_has_a_limit_of_threads(emulator):
    assert "at most 8000 threads" in report(
        emulator.run("intrinsics", "thread", "launch", 8, 1, 1, 1001, 1, 1, 0, 0, 1024)
    )


NVCC = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/nvcc"


@pytest.mark.skipif(not NVCC.exists(), reason="no nvcc")
@pytest.mark.parametrize("name", ["mutants", "intrinsics"])
def test_nvcc_takes_the_same_kernels(tmp_path, name):
    instances = {
        "mutants": [f"select_kernel<Mutant::{m}>" for m in ("kNone", "kDroppedFence", "kShuffleOutsideMask")],
        "intrinsics": [
            "intrinsics_kernel",
            "atomics_kernel",
            "load_kernel<true>",
            "shared_kernel<48 << 10>",
            "handshake_kernel<true>",
        ],
    }[name]
    source = tmp_path / "kernels.cu"
    pointers = "".join(f"auto* pointer{i} = {kernel};\n" for i, kernel in enumerate(instances))
    source.write_text(f'#include "{name}.cuh"\n{pointers}')
    flags = ["-std=c++17", "-arch=sm_80", "-Werror=all-warnings", f"-I{ROOT}/csrc", f"-I{HERE}"]
    subprocess.run([NVCC, *flags, "-cubin", source, "-o", tmp_path / "kernels.cubin"], check=True)
