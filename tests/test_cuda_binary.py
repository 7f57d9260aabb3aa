"""The machine code of the CUDA kernels: built for every GPU of the list, within the limits that are written down."""

from __future__ import annotations

import json
import os
import re
import runpy
from functools import cache

import cuda_binary
import pytest
import torch

from adsq.kernels import _extension

LIMITS: dict[str, dict[str, list[int]]] = json.loads(cuda_binary.LIMITS.read_text())
DEFAULT_ARCHS = runpy.run_path(str(cuda_binary.LIBRARY.parent.parent / "setup.py"))["DEFAULT_ARCHS"]
ARCHS = [f"sm_{arch}" for arch in os.environ.get("ADSQ_CUDA_ARCHS", DEFAULT_ARCHS).split()]


@pytest.fixture(autouse=True)
def built(request: pytest.FixtureRequest) -> None:
    """Skip without the library, the tool or what was built for a GPU, unless this is a build that must have them."""
    missing = [str(cuda_binary.LIBRARY)] if not cuda_binary.LIBRARY.exists() else []
    missing += ["cuobjdump"] if cuda_binary.cuobjdump() is None else []
    missing = missing or [arch for arch in ARCHS if arch not in resources() and f"{arch}]" in request.node.name]
    if missing:
        assert os.environ.get("ADSQ_BUILD_CUDA") != "1", f"ADSQ_BUILD_CUDA=1, but there is no {missing}"
        pytest.skip(f"no {missing}")


resources = cache(cuda_binary.resources)
instructions = cache(cuda_binary.instructions)


def test_the_library_serves_every_gpu_of_the_list() -> None:
    assert os.environ.get("ADSQ_BUILD_CUDA") != "1" or sorted(resources()) == sorted(ARCHS)
    assert cuda_binary.ptx_archs() == {next(iter(resources()))}  # for GPUs that are not on the list


@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_stay_within_their_limits(arch: str) -> None:
    """Nothing spills, and neither registers nor shared memory grow; python tests/cuda_binary.py writes new limits."""
    found = resources()[arch]
    assert set(found) == set(LIMITS)
    for kernel, taken in found.items():
        registers, shared = LIMITS[kernel][arch]
        assert (taken.registers <= registers, taken.shared <= shared, taken.stack) == (True, True, 0), (kernel, taken)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_library_loads_without_a_gpu_and_info_says_why_it_is_idle() -> None:
    rows = {row.op: row for row in _extension.implementations() if row.device == "GPU"}
    for op in ("pack_codes", "unpack_codes", "hamming_topk", "hamming_range", "hamming_average_precision"):
        assert rows[op].uses == "nothing"
        assert rows[op].why == "torch sees no CUDA device; else CUDA C++: _adsq_cuda.so is loaded"


def counts(code: list[str], *names: str) -> dict[str, int]:
    """Count instructions by the beginning of their name."""
    return {name: sum(bool(re.match(rf"(@!?U?P\w+ )?{re.escape(name)}\b", line)) for line in code) for name in names}


def comparison(code: list[str], name: str) -> list[str]:
    """Return the code that no branch interrupts with the most instructions of that name, from the first of them on."""
    runs: list[list[str]] = [[]]
    for line in code:
        if counts([line], "BRA")["BRA"]:
            runs.append([])
        elif runs[-1] or counts([line], name)[name]:
            runs[-1].append(line)
    return max(runs, key=lambda run: counts(run, name)[name])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("words", "codes", "bit_counts"), [(1, 8, 1), (2, 8, 2), (3, 4, 2), (4, 4, 3), (8, 4, 4)])
def test_the_filter_compares_in_registers(arch: str, words: int, codes: int, bit_counts: int) -> None:
    """One loop of bit counts, as many as the words need; nothing is loaded in it but the query, from shared memory."""
    code = instructions(arch)[f"filter_kernel<BitCounts<{words}, false>>"]
    loop = comparison(code, "POPC")
    assert counts(loop, "POPC", "LDG") == {"POPC": codes * bit_counts, "LDG": 0}
    assert counts(code, "LDG.E.128")["LDG.E.128"] > 0 or words == 3  # codes come 16 bytes at a time


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch[3] in "89"])
@pytest.mark.parametrize(("words", "instruction", "number"), [(2, "168128", 8), (4, "168256", 8), (8, "168256", 8)])
def test_bit_matrices_are_multiplied_by_tensor_cores(arch: str, words: int, instruction: str, number: int) -> None:
    """GPUs that the launcher takes to have bit matrices have the instruction, and compare with nothing else."""
    code = instructions(arch)[f"filter_kernel<BitMatrices<{words}>>"]
    name = f"BMMA.{instruction}.AND.POPC"
    assert counts(code, name) == {name: number}
    assert counts(comparison(code, name), "POPC", "LDG") == {"POPC": 0, "LDG": 0}


@pytest.mark.parametrize("arch", ARCHS)
def test_lanes_at_equal_distances_find_each_other(arch: str) -> None:
    for kernel, code in instructions(arch).items():
        if kernel.startswith(("place_kernel", "precision_kernel")):
            assert counts(code, "MATCH.ANY")["MATCH.ANY"] >= 1, kernel
            assert counts(code, "POPC")["POPC"] > 0, kernel
