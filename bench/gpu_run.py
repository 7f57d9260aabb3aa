"""Build adsq in place for the GPU of this machine, run its GPU tests, and measure. `make bench-gpu` runs it.

Needs a Python with torch, nvcc, a C++ compiler, ninja, setuptools and wheel; downloads nothing. What is given goes to
gpu.py. ADSQ_CUDA_ARCHS, where it is set, has its say.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTALL = "-m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable ."
FOR_TESTS = ("pytest", "hypothesis", "numpy")  # without which no test is collected


def install(environment: dict[str, str]) -> str:
    """Install adsq, and return the Python that has it: this one, or that of an environment on top of it."""
    if subprocess.run([sys.executable, *INSTALL.split()], cwd=ROOT, env=environment).returncode == 0:
        return sys.executable
    folder = ROOT / "build" / "gpu-venv"
    print(f"{sys.executable} takes no package, or the build failed: once more in {folder}", file=sys.stderr)
    python = on_top(folder)
    subprocess.run([python, *INSTALL.split()], cwd=ROOT, env=environment, check=True)
    return python


def on_top(folder: Path) -> str:
    """Make an environment that sees all packages of this Python, and return its Python."""
    venv.create(folder, system_site_packages=True, clear=True, with_pip=importlib.util.find_spec("pip") is None)
    # Where this Python is of an environment itself, the new one sees those of the system only.
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "below.pth").write_text("\n".join(seen) + "\n")
    return str(folder / "bin" / "python")


def run_tests(python: str) -> str:
    """Run the tests that need a GPU, and return what is to be said of them."""
    missing = [name for name in FOR_TESTS if importlib.util.find_spec(name) is None]
    if missing:
        return f"not run, without {', '.join(missing)}"
    # Only these files: others may need packages that are not there.
    files = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    if importlib.util.find_spec("xdist") is not None:  # most of the time Triton compiles
        command.append(f"-n{min(16, len(os.sched_getaffinity(0)))}")
    return "passed" if subprocess.run(command, cwd=ROOT).returncode == 0 else "failed"


def main() -> int:
    """Build, test, measure; return the exit status, which failed tests make 1 once the table is written."""
    import torch

    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no CUDA device; bench/gpu.py --device cpu --quick rehearses without one")
        return 2
    capability = "".join(map(str, torch.cuda.get_device_capability()))
    environment = {"ADSQ_CUDA_ARCHS": capability, **os.environ, "ADSQ_BUILD_CUDA": "1"}
    python = install(environment)
    tests = run_tests(python)
    print(f"GPU tests: {tests}")
    status = subprocess.run([python, ROOT / "bench" / "gpu.py", "--tests", tests, *sys.argv[1:]]).returncode
    return status or int(tests == "failed")


if __name__ == "__main__":
    sys.exit(main())
