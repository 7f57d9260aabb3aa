"""Installing without a toolkit or a compiler, and running without the native libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from adsq.kernels import _extension

ROOT = Path(__file__).parent.parent
USE = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from adsq import kernels
codes = torch.randn(9, 21)
assert torch.equal(kernels.unpack_codes(kernels.pack_codes(codes), 21), torch.where(codes >= 0, 1.0, -1.0))
print([str(warning.message) for warning in caught if "adsq" in str(warning.message)])
print(kernels.implementations()[0])
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python on this environment's packages, with variables on top of a bare environment."""
    path = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), sysconfig.get_path("purelib"), *sys.path]))
    variables = {"PATH": "/nowhere", "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": path} | environment
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True)


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("setup.py", "build", "--build-base", str(folder), "--build-lib", str(folder / "lib"), **environment)


def test_without_a_compiler_adsq_installs_and_says_why_it_is_slow(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    reasons = [line for line in done.stderr.splitlines() if line.startswith("adsq: ")]
    assert len(reasons) == 2 and all("no C++ compiler found" in line for line in reasons)
    kernels = tmp_path / "lib" / "adsq" / "kernels"
    assert set(json.loads((kernels / "_build.json").read_text())) == {"_adsq_cpu.so", "_adsq_cuda.so"}
    assert not list(kernels.glob("*.so"))
    used = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r})\n{USE}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "lib")},
    )
    warned, implementation = used.stdout.splitlines()
    assert warned.count("adsq runs on plain PyTorch, more slowly: no C++ compiler found") == 1
    assert "uses='PyTorch', why='no C++ compiler found" in implementation


@pytest.mark.skipif(shutil.which("c++") is None, reason="no c++")
def test_without_a_toolkit_the_cpu_library_is_built_alone(tmp_path):
    bare = {"PATH": os.environ["PATH"], "CUDA_HOME": "/nowhere"}
    done = build(tmp_path, **bare)
    assert done.returncode == 0, done.stderr
    kernels = tmp_path / "lib" / "adsq" / "kernels"
    assert [path.name for path in kernels.glob("*.so")] == ["_adsq_cpu.so"]
    outcome = json.loads((kernels / "_build.json").read_text())
    assert outcome["_adsq_cpu.so"] == "built" and done.stderr.count(outcome["_adsq_cuda.so"]) == 1
    failed = build(tmp_path / "must", ADSQ_BUILD_CUDA="1", **bare)
    assert failed.returncode == 1 and "ADSQ_BUILD_CUDA=1, but _adsq_cuda.so cannot be built" in failed.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ADSQ_BUILD_CUDA": "1"}, "ADSQ_BUILD_CUDA=1, but _adsq_cpu.so cannot be built: no C++ compiler found"),
        ({"ADSQ_BUILD_CUDA": "yes"}, "ADSQ_BUILD_CUDA must be auto, 0 or 1, not 'yes'"),
    ],
)
def test_a_build_that_must_not_be_partial_fails(environment, words, tmp_path):
    done = build(tmp_path, **environment)
    assert done.returncode == 1 and words in done.stderr


def test_native_libraries_can_be_switched_off(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"ADSQ_NATIVE": "0"}
    )
    warned, implementation = done.stdout.splitlines()
    assert warned == "[]" and "uses='PyTorch', why='ADSQ_NATIVE=0 is set'" in implementation


def test_kernels_refuse_another_name():
    done = subprocess.run([sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True)
    assert "installed as adsq.kernels, not as 'kernels'" in done.stderr


def test_the_libraries_of_this_environment_are_in_use():
    """What was built is loaded: a library that fails to load must not pass unnoticed."""
    built = json.loads((Path(_extension.__file__).parent / "_build.json").read_text())
    for key, name in _extension._LIBRARIES.items():
        if built[name] == "built":
            assert key not in _extension._not_loaded
