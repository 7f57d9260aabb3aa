"""Compiles what the launchers of the Triton kernels launch, for GPUs that are not here, and tells what it takes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {
    torch.bool: "i1",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


class Launch(NamedTuple):
    """One kernel with the arguments it was launched with."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]


class Usage(NamedTuple):
    """What a thread, and a program, of a compiled kernel takes."""

    registers: int
    spilled: int  # bytes of stack
    shared: int  # bytes


class _Recorder:
    def __init__(self, kernel: Any, launches: list[Launch]):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            names = self.kernel.arg_names
            arguments = dict(zip(names, args, strict=False)) | {k: v for k, v in kwargs.items() if k in names}
            options = {k: v for k, v in kwargs.items() if k not in names}
            self.launches.append(Launch(self.kernel, grid, arguments, options))

        return launch


@contextmanager
def recorded(module: ModuleType, capability: int = 90) -> Iterator[list[Launch]]:
    """Record what a launcher launches on tensors of the meta device, as on a GPU of 132 processors."""
    launches: list[Launch] = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in vars(module).copy().items():
            if isinstance(value, triton.JITFunction):
                patch.setattr(module, name, _Recorder(value, launches))
        if hasattr(module, "_capability"):
            patch.setattr(module, "_capability", lambda device: divmod(capability, 10))
            patch.setattr(module, "_processors", lambda device: 132)
        yield launches


def compiled(launch: Launch, capability: int, folder: Path) -> Usage:
    """Compile as Triton does at a launch: what is known of the arguments (16 divides them, they are 1) is used."""
    signature, constants, attributes = {}, {}, {}

    def describe(value: Any, where: tuple[int, ...], parameter: Any) -> Any:
        specialized = not parameter.do_not_specialize
        if parameter.is_constexpr or (specialized and type(value) is int and value == 1):
            constants[where] = value
            return "constexpr"
        if isinstance(value, tuple):
            return tuple(describe(item, (*where, i), parameter) for i, item in enumerate(value))
        if isinstance(value, Tensor) or (specialized and type(value) is int and value % 16 == 0):
            attributes[where] = [["tt.divisibility", 16]]
        if isinstance(value, Tensor):
            return "*" + TYPES[value.dtype]
        return ("i32" if value < 2**31 else "i64") if isinstance(value, int) else parameter.annotation_type or "fp32"

    for i, parameter in enumerate(launch.kernel.params):
        signature[parameter.name] = describe(launch.arguments[parameter.name], (i,), parameter)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "LOCAL"))
    return Usage(registers, stack + local, kernel.metadata.shared)
