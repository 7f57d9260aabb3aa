"""Package mapping and the native build. Metadata and tools live in pyproject.toml.

Two shared libraries against LibTorch's stable ABI, without Python linkage: one `py3-none` wheel serves every
torch >= 2.10, and a CPU-only torch never has to open the CUDA library. Environment:

    ADSQ_BUILD_CUDA   auto (default): build what this machine can; 1: fail unless both libraries are built; 0: CPU only
    ADSQ_CUDA_ARCHS   compute capabilities, default "80 86 89 90 100 120"; PTX of the first one is always added
    CUDA_HOME, CXX    where the toolkit lies and which C++ compiler to call
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # a new Python 3.10 or 3.11 environment starts with setuptools 65
    sys.exit("adsq needs setuptools 77 or newer to build: pip install --upgrade setuptools")

ROOT = Path(__file__).parent.resolve()
DEFAULT_ARCHS = "80 86 89 90 100 120"
CXX_FLAGS = "-O3 -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -DNDEBUG"
NVCC_FLAGS = "-O3 -std=c++17 -Xcompiler=-fPIC,-fvisibility=hidden -Werror=all-warnings -DNDEBUG --threads=2"
# What files with these endings may use beyond the baseline; csrc/cpu/simd.cpp checks for it at run time. The warnings
# left out are false ones in the headers of gcc 12.
AVX2 = "-mavx2 -mfma -mf16c -mpopcnt -mbmi"
AVX512BW = f"{AVX2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-uninitialized -Wno-maybe-uninitialized"
SIMD_FLAGS = {
    "_avx2": AVX2,
    "_avx512bw": AVX512BW,
    "_avx512": f"{AVX512BW} -mavx512vbmi -mavx512vpopcntdq -mgfni",
}
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10: the oldest release that loads the result


class CannotBuild(Exception):
    """Why a native library is left out; the message is what `adsq info` shows."""


def torch_folder() -> Path:
    """Find the torch that the libraries are linked against."""
    try:
        import torch
    except ImportError:
        sys.exit(
            "adsq links against the torch you have: pip install torch torchvision 'setuptools>=77' wheel ninja, then "
            "pip install --no-build-isolation adsq (or the same with '.' in a checkout)"
        )
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 10):
        raise CannotBuild(f"torch {torch.__version__} is older than 2.10, the first with the stable ABI used here")
    return Path(torch.__file__).parent


def cpp_compiler() -> str:
    """Name the C++ compiler, $CXX first."""
    if platform.system() != "Linux":
        raise CannotBuild(f"native code is built on Linux only, this is {platform.system()}")
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if shutil.which(name.split()[0]):
            return name
    raise CannotBuild("no C++ compiler found (looked for $CXX, c++, g++, clang++)")


def is_x86() -> bool:
    """Whether the compiler makes code for x86-64, whatever this machine is."""
    command = [*cpp_compiler().split(), "-dumpmachine"]
    return subprocess.run(command, capture_output=True, check=True).stdout.startswith((b"x86_64", b"amd64"))


def branch_flags() -> str:
    """Return what keeps jumps off the ends of 32-byte blocks, where the assembler can.

    Intel's processors from Skylake to Cascade Lake do not cache decoded code that has one there ("JCC erratum"), and
    where a jump lies changes with every line before it: a search once took 1.4 times as long for that.
    """
    flag = "-Wa,-mbranches-within-32B-boundaries"
    with tempfile.TemporaryDirectory() as folder:
        command = [*cpp_compiler().split(), flag, "-x", "assembler", "-c", "-", "-o", f"{folder}/nothing.o"]
        taken = is_x86() and subprocess.run(command, input=b"", capture_output=True).returncode == 0
    return flag if taken else ""


def cuda_toolkit() -> Path:
    """Find the CUDA toolkit. An nvcc on PATH comes last: it may be a wrapper far from the headers."""
    on_path = shutil.which("nvcc")
    homes = [os.environ["CUDA_HOME"]] if "CUDA_HOME" in os.environ else ["/usr/local/cuda"]
    if on_path and "CUDA_HOME" not in os.environ:
        homes.append(str(Path(on_path).resolve().parent.parent))
    for home in map(Path, homes):
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda_runtime.h").exists():
            return home
    raise CannotBuild(f"no CUDA toolkit (bin/nvcc and include/cuda_runtime.h) in {' or '.join(homes)}")


def ninja_binary() -> str:
    """Find ninja, on PATH or in the Python package of that name."""
    try:
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise CannotBuild("ninja not found (pip install ninja)") from None
        return found


def cpp_rules(flags: str) -> str:
    """Return the ninja rules that both libraries share."""
    include = f"-I{ROOT}/csrc -isystem {torch_folder()}/include"
    return f"""
rule cpp
  command = {cpp_compiler()} {CXX_FLAGS} $flags {flags} {include} -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = {cpp_compiler()} -shared $in -o $out $libs
"""


def cpu_rules() -> tuple[str, list[Path], str]:
    """Return (ninja rules, sources, linker flags) of the CPU library."""
    sources = [*sorted(ROOT.glob("csrc/cpu/*.cpp")), *sorted(ROOT.glob("csrc/bindings_cpu*.cpp"))]
    return (
        cpp_rules(f"{STABLE_ABI} {branch_flags()}"),
        sources,
        f"-L{torch_folder()}/lib -Wl,--no-as-needed -ltorch_cpu",
    )


def cuda_rules() -> tuple[str, list[Path], str]:
    """Return (ninja rules, sources, linker flags) of the CUDA library. `.cu` files include no torch header."""
    torch = torch_folder()
    if not (torch / "lib" / "libtorch_cuda.so").exists():
        raise CannotBuild("the installed torch is a CPU-only build")
    home = cuda_toolkit()
    archs = os.environ.get("ADSQ_CUDA_ARCHS", DEFAULT_ARCHS).split()
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode=arch=compute_{archs[0]},code=compute_{archs[0]}")
    rules = cpp_rules(f"{STABLE_ABI} -DUSE_CUDA -isystem {home}/include")
    rules += f"""
rule cuda
  command = {home}/bin/nvcc {NVCC_FLAGS} {" ".join(codes)} -I{ROOT}/csrc -MD -MF $out.d -c $in -o $out
  depfile = $out.d
"""
    sources = [*sorted(ROOT.glob("csrc/cuda/*.cu")), *sorted(ROOT.glob("csrc/bindings_cuda*.cpp"))]
    lib_folder = next((home / name for name in ("lib64", "lib") if (home / name / "libcudart_static.a").exists()), None)
    if lib_folder is None:
        raise CannotBuild(f"{home} holds no libcudart_static.a")
    return (
        rules,
        sources,
        f"-L{torch}/lib -Wl,--no-as-needed -ltorch_cpu -ltorch_cuda -L{lib_folder} -lcudart_static -ldl -lrt -lpthread",
    )


def file_flags(source: Path, x86: bool) -> str:
    """Return what a file may use by its name: instruction sets, without which it compiles to nothing, and rounding."""
    simd = next((flags for ending, flags in SIMD_FLAGS.items() if x86 and source.stem.endswith(ending)), "")
    # signs of sums must be PyTorch's, which a product fused into a sum can change
    return f"{simd} -ffp-contract=off" if source.stem.startswith("sign_quantization") else simd


def build_library(rules: str, sources: list[Path], libs: str, out: Path, work: Path) -> None:
    """Compile in parallel with ninja and link to `out`."""
    work.mkdir(parents=True, exist_ok=True)
    objects = [work / f"{source.stem}{source.suffix.replace('.', '_')}.o" for source in sources]
    lines, x86 = [rules, f"libs = {libs}"], is_x86()
    for source, target in zip(sources, objects, strict=True):
        lines.append(f"build {target}: {'cuda' if source.suffix == '.cu' else 'cpp'} {source}")
        lines.append(f"  flags = {file_flags(source, x86)}")
    lines.append(f"build {out.resolve()}: link {' '.join(map(str, objects))}\n")
    (work / "build.ninja").write_text("\n".join(lines))
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([ninja_binary(), "-C", str(work)], check=True, stdout=sys.stderr)


RULES = {"adsq.kernels._adsq_cpu": cpu_rules, "adsq.kernels._adsq_cuda": cuda_rules}


class NativeBuild(build_ext):
    """Builds the two libraries, or says in one line why one is left out."""

    def get_ext_filename(self, fullname: str) -> str:
        """No Python tag in the name: the libraries do not depend on the interpreter."""
        return str(Path(*fullname.split("."))) + ".so"

    def run(self) -> None:
        """Build, and write _build.json: what happened to each library, for `adsq info`."""
        wanted = os.environ.get("ADSQ_BUILD_CUDA", "auto")
        if wanted not in ("auto", "0", "1"):
            sys.exit(f"ADSQ_BUILD_CUDA must be auto, 0 or 1, not {wanted!r}")
        outcome = {}
        for name, rules in RULES.items():
            out = Path(self.get_ext_fullpath(name))
            work = ROOT / "build" / "native" / name  # lasts: the next build compiles what changed
            try:
                if wanted == "0" and name.endswith("cuda"):
                    raise CannotBuild("ADSQ_BUILD_CUDA=0 when adsq was installed")
                build_library(*rules(), out, work)
                outcome[out.name] = "built"
            except (CannotBuild, subprocess.CalledProcessError) as reason:
                if wanted == "1":
                    sys.exit(f"ADSQ_BUILD_CUDA=1, but {out.name} cannot be built: {reason}")
                out.unlink(missing_ok=True)  # a stale library from an earlier build would be loaded
                failed = isinstance(reason, subprocess.CalledProcessError)
                outcome[out.name] = "the compiler failed when adsq was installed" if failed else str(reason)
                print(
                    f"adsq: {out.name} is left out, PyTorch does its work: {outcome[out.name]}",
                    file=sys.stderr,
                )
        out.with_name("_build.json").write_text(json.dumps(outcome, indent=1) + "\n")


class Wheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: it holds native code, but none that depends on the Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the three tags of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


if __name__ == "__main__":  # tests/native/run.py imports the functions above
    kernels = ["adsq.kernels", *(f"adsq.kernels.{name}" for name in find_packages("kernels"))]
    setup(
        package_dir={"adsq": "adsq", "adsq.kernels": "kernels"},
        packages=["adsq", *(f"adsq.{name}" for name in find_packages("adsq")), *kernels],
        package_data={name: ["README.md"] for name in kernels},
        ext_modules=[Extension(name, []) for name in RULES],
        cmdclass={"build_ext": NativeBuild, "bdist_wheel": Wheel},
    )
