"""What is in the CUDA library: resources and instructions of each kernel for each GPU, by cuobjdump.

python tests/cuda_binary.py writes tests/cuda_resources.json, the limits of test_cuda_binary.py, from the library built.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

LIBRARY = Path(__file__).parent.parent / "kernels/_adsq_cuda.so"
LIMITS = Path(__file__).parent / "cuda_resources.json"


class Resources(NamedTuple):
    """What a block of a kernel takes: registers a thread, bytes of shared memory, bytes of stack a thread."""

    registers: int
    shared: int
    stack: int


def cuobjdump() -> str | None:
    """Find the tool: in Triton's package, the CUDA toolkit or on PATH."""
    triton = importlib.util.find_spec("triton")
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"]
    if triton and triton.origin:
        folders.insert(0, Path(triton.origin).parent / "backends/nvidia/bin")
    return next((str(f / "cuobjdump") for f in folders if (f / "cuobjdump").exists()), shutil.which("cuobjdump"))


def dump(*options: str) -> str:
    """Run cuobjdump on the library, with the names of kernels as in the source."""
    tool = cuobjdump()
    assert tool is not None
    text = subprocess.run([tool, *options, LIBRARY], check=True, capture_output=True, text=True).stdout
    names = sorted(set(re.findall(r"\b_Z\w+", text)), key=len, reverse=True)
    readable = subprocess.run(["c++filt", *names], check=True, capture_output=True, text=True).stdout.splitlines()
    table = {name: short_name(full) for name, full in zip(names, readable, strict=True)}
    return re.sub(r"\b_Z\w+", lambda match: table[match[0]], text)


def short_name(signature: str) -> str:
    """Leave namespaces, result and arguments away: filter_kernel<BitCounts<2, false>>."""
    depth = 0
    for end, letter in enumerate(signature):  # the first parenthesis outside of <> begins the arguments
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            signature = signature[:end]
            break
    signature = re.sub(r"^void ", "", signature)
    return re.sub(r"\(\w+\)", "", signature).replace("adsq::cuda::", "").replace("adsq::", "").replace(" >", ">")


def resources() -> dict[str, dict[str, Resources]]:
    """Return what each kernel takes: GPU -> kernel -> resources."""
    found: dict[str, dict[str, Resources]] = {}
    arch = kernel = ""
    for line in dump("-res-usage").splitlines():
        if match := re.match(r"arch = (sm_\w+)", line):
            arch = match[1]
        elif match := re.match(r" Function (.*):$", line):
            kernel = match[1]
        elif match := re.match(r"  REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            found.setdefault(arch, {})[kernel] = Resources(registers, shared, stack + local)
    return found


def instructions(arch: str) -> dict[str, list[str]]:
    """Return each kernel's machine code for a GPU, an instruction with its operands an entry."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in dump("-sass", "-arch", arch).splitlines():
        if match := re.match(r"\s+Function : (.*)$", line):
            lines = found.setdefault(match[1], [])
        elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            lines.append(match[1])
    return found


def ptx_archs() -> set[str]:
    """Name the architectures that the library holds PTX for."""
    return set(re.findall(r"Fatbin ptx code:\n=+\narch = (sm_\w+)", dump("-lptx") + dump("-res-usage")))


if __name__ == "__main__":
    table: dict[str, dict[str, list[int]]] = {}
    for arch, kernels in resources().items():
        for kernel, taken in kernels.items():
            registers = -(-taken.registers // 8) * 8  # they are handed out eight at a time
            table.setdefault(kernel, {})[arch] = [registers, taken.shared]
    rows = [f' "{kernel}": {json.dumps(table[kernel])}' for kernel in sorted(table)]
    LIMITS.write_text("{\n" + ",\n".join(rows) + "\n}\n")
