"""Loads the native libraries and registers the Triton kernels. The only file that knows whether they exist."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

_FOLDER = Path(__file__).parent
_LIBRARIES = {"CPU": "_adsq_cpu.so", "CUDA": "_adsq_cuda.so"}
_SIMD = ("generic", "avx2", "avx512bw", "avx512")  # as numbered in csrc/cpu/simd.h, the slowest first
_not_loaded: dict[str, str] = {}  # dispatch key -> why its library is not in use
_triton: dict[str, str] = {}  # op with a Triton kernel -> why it is not in use, or nothing
_warned = False


class Implementation(NamedTuple):
    """What one op uses on one device."""

    op: str
    device: str
    uses: str
    why: str


def load_libraries() -> None:
    """Open the libraries this torch can use. The ops must be defined before."""
    for key, filename in _LIBRARIES.items():
        reason = _reason_to_skip(key, _FOLDER / filename)
        if reason is None:
            try:
                torch.ops.load_library(_FOLDER / filename)
            except OSError as error:
                reason = f"{filename} does not load: {error}"
        if reason is not None:
            _not_loaded[key] = reason
    if "CPU" in _not_loaded and os.environ.get("ADSQ_NATIVE") != "0":
        warnings.warn(
            f"adsq runs on plain PyTorch, more slowly: {_not_loaded['CPU']} ('adsq info' tells more)",
            RuntimeWarning,
            stacklevel=3,
        )


def _reason_to_skip(key: str, library: Path) -> str | None:
    if os.environ.get("ADSQ_NATIVE") == "0":
        return "ADSQ_NATIVE=0 is set"
    if key == "CUDA" and torch.version.cuda is None:
        return "the installed torch is a CPU-only build"
    if not library.exists():
        try:
            outcome = str(json.loads((_FOLDER / "_build.json").read_text())[library.name])
        except (OSError, ValueError, KeyError):
            outcome = "not built"
        return outcome if outcome not in ("built", "not built") else f"{library.name} is not there: install adsq again"
    return None


def register_triton(module: str, function: str, body: Callable[..., Any]) -> None:
    """Let CUDA tensors take a function of a Triton module to the op of its name, and `body` where it declines.

    The module, and Triton with it, is imported at the first call.
    """
    name = f"adsq::{function}"
    _triton[name] = _reason_to_skip_triton()
    if _triton[name]:
        return

    def run(*arguments: Any) -> Any:
        result = getattr(importlib.import_module(module), function)(*arguments)
        return body(*arguments) if result is NotImplemented else result

    torch.library.impl(name, "cuda", run)


def _reason_to_skip_triton() -> str:
    if os.environ.get("ADSQ_NATIVE") == "0":
        return "ADSQ_NATIVE=0 is set"
    if torch.version.cuda is None:
        return "the installed torch is a CPU-only build"
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


def warn_without_cuda_library() -> None:
    """Say once that CUDA tensors take the PyTorch path although a native kernel exists."""
    global _warned
    if not _warned and "CUDA" in _not_loaded and os.environ.get("ADSQ_NATIVE") != "0":
        _warned = True
        reason = _not_loaded["CUDA"]
        warnings.warn(f"adsq runs on plain PyTorch on the GPU, more slowly: {reason}", RuntimeWarning, stacklevel=2)


def simd_variants() -> tuple[str, ...]:
    """Name the variants of the C++ kernels this machine can run, the fastest first. ADSQ_SIMD forces one."""
    if "CPU" in _not_loaded:
        return ()
    return tuple(name for i, name in reversed([*enumerate(_SIMD)]) if torch.ops.adsq_cpu.simd_supported(i))


def implementations() -> list[Implementation]:
    """Tell for every op what it would use on the CPU and on a GPU of this machine, and why."""
    names = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("adsq::"))
    return [_implementation(name, key) for name in names for key in _LIBRARIES]


def _implementation(name: str, key: str) -> Implementation:
    native = torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    device, language = ("CPU", "C++") if key == "CPU" else ("GPU", "CUDA C++")
    uses = language if native else "PyTorch"
    why = f"{_LIBRARIES[key]} is loaded" if native else _not_loaded.get(key, "has no native kernel")
    if key == "CUDA" and name in _triton:
        uses, why = "PyTorch", _triton[name]
        if not why:
            uses, why = "Triton", "triton is installed"
    if native and key == "CPU" and not name.endswith("pack_codes"):  # packing has one variant
        uses = f"C++ ({_SIMD[torch.ops.adsq_cpu.simd_active()]})"
    if key == "CUDA" and not torch.cuda.is_available():
        uses, why = "nothing", f"torch sees no CUDA device; else {uses}: {why}"
    return Implementation(name.removeprefix("adsq::"), device, uses, why)
