"""CUDA's device functions in tests/cuda_emulator, against their definitions in numpy and Python."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import BUILDS, ORDERS, OUTCOMES, report


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


@pytest.mark.parametrize("build", BUILDS)
def test_a_thread_may_wait_for_another_warp(emulator, build):
    for order in ORDERS:
        assert emulator.output("intrinsics", build, "handshake", 0, order=order) == b"7 7\n", order


def test_a_fence_publishes_what_was_stored_before_it(emulator):
    for order in ORDERS:
        done = emulator.run("intrinsics", "thread", "handshake", 1, order=order)
        assert OUTCOMES[done.returncode] == "race" and b"handshake_kernel" in done.stderr, order


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
