"""The emulator of tests/cuda_emulator finds what it is for, and the CUDA kernels run in it equal the CPU's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from adsq.kernels import pack_codes, unpack_codes

ROOT = Path(__file__).parent.parent
HERE = ROOT / "tests/cuda_emulator"
# In the order of csrc/element.h
ELEMENTS = ["uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
BUILDS = {"plain": "", "address": "address,undefined", "thread": "thread"}
ORDERS = ["forward", "reverse", "warp", "random:1", "random:2"]
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", f"-I{ROOT}/csrc"]
OUTCOMES = {0: "right", 1: "wrong", 3: "refused", 4: "address", 5: "race"}
ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=4",
    "UBSAN_OPTIONS": "exitcode=4",
    "TSAN_OPTIONS": "exitcode=5:halt_on_error=1",
}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


class Emulator:
    """Builds the programs of tests/cuda_emulator when they are first asked for, and runs them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.compile("scheduler", "", "-c")  # the runtime itself: without sanitizers
        self.compile("checks", "", "-c")

    def compile(self, name: str, build: str, *more: str | Path) -> Path:
        target = self.folder / f"{name}-{build or 'runtime'}"
        if not target.exists():
            sanitize = [f"-fsanitize={BUILDS[build]}", "-fno-sanitize-recover=all"] if BUILDS.get(build) else []
            subprocess.run(["g++", *FLAGS, *sanitize, HERE / f"{name}.cpp", *more, "-o", target], check=True)
        return target

    def run(self, name: str, build: str, *arguments: object, order: str = "forward", data: bytes = b""):
        runtime = [self.folder / "scheduler-runtime", self.folder / "checks-runtime"]
        command = [self.compile(name, build, *runtime), *map(str, arguments)]
        environment = os.environ | ENVIRONMENT | {"ADSQ_EMULATOR_ORDER": order}
        return subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)

    def output(self, *arguments: object, **options) -> bytes:
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulator"))


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


def report(done: subprocess.CompletedProcess[bytes]) -> str:
    assert OUTCOMES[done.returncode] == "refused", done.stderr.decode()
    return done.stderr.decode()


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
    ballot = f"wait at __ballot_sync, mask 0xffffffff, {HERE}/mutants.cuh:{line_of('__ballot_sync(kAll, take)')}"
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


def test_orders_have_names(emulator):
    for order in ("backward", "random", "random:x", "random:1 "):
        text = report(emulator.run("mutants", "plain", "none", 32, order=order))
        assert f"must be forward, reverse, warp or random:SEED, not '{order}'" in text


def bits(number: int, width: int) -> str:
    return f"{number:0{width}b}"


def warp_functions(x: list[int], mask: int, width: int) -> dict[int, list[int]]:
    """Return what intrinsics_kernel writes, by lane, from the definitions in CUDA's manual."""
    lanes = [lane for lane in range(32) if mask >> lane & 1]
    signed = np.array(x, np.uint32).astype(np.int32)
    among = [x[lane] for lane in lanes]
    signed_among = [int(signed[lane]) for lane in lanes]

    def ballot(predicate) -> int:
        return sum(1 << lane for lane in lanes if predicate(lane))

    def shuffled(lane: int, source: int) -> int:
        first = lane // width * width
        return x[source] if first <= source < first + width else x[lane]

    result = {}
    for lane in lanes:
        own, wide = x[lane], x[lane] << 32 | x[lane]
        low = (wide << 32) % 2**64
        first = lane // width * width
        xor = lane ^ 5  # reads earlier groups, not later ones
        result[lane] = [
            bits(own, 32).count("1"),
            32 - own.bit_length(),
            (own & -own).bit_length(),
            int(bits(own, 32)[::-1], 2),
            bits(wide, 64).count("1"),
            64 - wide.bit_length(),
            (low & -low).bit_length(),
            int(bits((wide << 7) % 2**64, 64)[::-1], 2),
            ballot(lambda other: x[other] & 2),
            int(5 in lanes),
            int(5 not in lanes),
            0,
            1,
            *[ballot(lambda other, own=own: x[other] % 3 == own % 3)] * 2,
            sum(among) % 2**32,
            min(among),
            max(among),
            min(signed_among) % 2**32,
            max(signed_among) % 2**32,
            x[first + (5 * lane + 1) % width],
            shuffled(lane, lane - 3),
            shuffled(lane, lane + 3),
            x[xor] if xor < first + width else own,
            x[lane ^ 1] << 32 | x[lane ^ 1] if width > 1 or lane % 2 == 1 else wide,
            1,
            1 + 10 * 32 + 32,
        ]
    return result


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("mask", "width"), [(2**32 - 1, 32), (2**32 - 1, 16), (2**32 - 1, 2), (0xFF00FF, 8), (1, 1)])
def test_warp_functions(emulator, build, mask, width):
    rng = np.random.default_rng(mask % 97 + width)
    x = (rng.integers(0, 2**32, 32) >> rng.integers(0, 33, 32)).astype(np.uint32)  # of all lengths, 0 too
    x[3] = x[17] = 0
    for order in ORDERS:
        raw = emulator.output("intrinsics", build, "warp", mask, width, order=order, data=x.tobytes())
        found = np.frombuffer(raw, np.uint64).reshape(-1, 32)
        for lane, expected in warp_functions(x.tolist(), mask, width).items():
            assert found[:, lane].tolist() == expected, (order, lane)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (3, 1, 1, 50, 1, 1), (2, 3, 2, 4, 3, 5)])
def test_atomics_and_indices(emulator, build, shape):
    threads = int(np.prod(shape))
    x = np.random.default_rng(threads).integers(1, 2**32, threads).astype(np.uint32)
    for order in ORDERS:
        raw = emulator.output("intrinsics", build, "atomics", *shape, order=order, data=x.tobytes())
        counters, old = np.split(np.frombuffer(raw, np.uint32), [7])
        assert sorted(old) == list(range(threads)), order  # each index once, each increment seen once
        reductions = [np.bitwise_or.reduce(x), np.bitwise_and.reduce(x), x.sum(dtype=np.uint32)]
        assert counters[:6].tolist() == [threads, x.min(), x.max(), *reductions]
        assert counters[6] in x


def test_orders_differ(emulator):
    x = np.ones(64, np.uint32).tobytes()
    runs = [
        tuple(
            np.frombuffer(emulator.output("intrinsics", "plain", "atomics", 2, 1, 1, 32, 1, 1, order=o, data=x), "u4")
        )
        for o in ORDERS
    ]
    assert runs[0][7:] == tuple(range(64))
    assert runs[1][7:] == tuple(reversed(range(64)))
    assert runs[2] == runs[0]  # two blocks of one warp each
    assert len({*runs}) == 4


def test_vector_loads_are_checked_for_alignment(emulator):
    for build in BUILDS:
        for by_ldg in (0, 1):
            assert emulator.output("intrinsics", build, "load", by_ldg, 16, 16) == b"1 2 3 4\n"
        assert "is not a multiple of 16" in report(emulator.run("intrinsics", build, "load", 1, 8, 16))
    done = emulator.run("intrinsics", "address", "load", 0, 8, 16)
    assert done.returncode != 0 and b"misaligned address" in done.stderr


def test_dynamic_shared_memory_has_the_size_of_the_launch(emulator):
    done = emulator.run("intrinsics", "address", "load", 0, 0, 15)
    assert OUTCOMES[done.returncode] == "address" and b"heap-buffer-overflow" in done.stderr


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
    emulator.output("intrinsics", "plain", "static_48k", 0, 0)
    emulator.output("intrinsics", "plain", "static_48k", 183296, 183296)  # 227 KB together
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
        "intrinsics": ["intrinsics_kernel", "atomics_kernel", "load_kernel<true>", "shared_kernel<48 << 10>"],
    }[name]
    source = tmp_path / "kernels.cu"
    pointers = "".join(f"auto* pointer{i} = {kernel};\n" for i, kernel in enumerate(instances))
    source.write_text(f'#include "{name}.cuh"\n{pointers}')
    flags = ["-std=c++17", "-arch=sm_80", "-Werror=all-warnings", f"-I{ROOT}/csrc", f"-I{HERE}"]
    subprocess.run([NVCC, *flags, "-cubin", source, "-o", tmp_path / "kernels.cubin"], check=True)
