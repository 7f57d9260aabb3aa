"""`make bench-gpu` builds, tests and measures in this order, and says what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import gpu_run
import pytest
import torch

ROOT = Path(__file__).parent.parent


def test_without_a_gpu_the_command_says_so() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    for script in (gpu.__file__, gpu_run.__file__):
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and "sees no CUDA device" in done.stdout + done.stderr


def test_an_environment_on_top_sees_the_packages_below(tmp_path: Path) -> None:
    python = gpu_run.on_top(tmp_path / "venv")
    code = "import sys, pip; from importlib.util import find_spec; print(sys.prefix, find_spec('torch').origin)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "venv"), torch.__file__], done.stderr


def test_tests_and_measurement_follow_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip refuses here, so that an environment is made; then the tests fail, and so does the command, at the end."""
    calls: list[tuple[list[str], dict]] = []

    def run(command: list[Any], **options: Any) -> subprocess.CompletedProcess:
        command = list(map(str, command))
        calls.append((command, options.get("env") or {}))
        refused = command[0] == sys.executable or "pytest" in command
        return subprocess.CompletedProcess(command, int(refused))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(gpu_run, "on_top", lambda folder: "upper")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(sys, "argv", ["gpu_run.py", "--only", "codes"])
    monkeypatch.delenv("ADSQ_CUDA_ARCHS", raising=False)
    assert gpu_run.main() == 1
    (first, built), (second, _), (tests, _), (last, _) = calls
    assert first[0] == sys.executable and second[0] == "upper" and first[1:] == second[1:] and "--no-index" in first
    assert (built["ADSQ_CUDA_ARCHS"], built["ADSQ_BUILD_CUDA"]) == ("90", "1")
    assert tests[0] == "upper" and str(ROOT / "tests" / "test_codes.py") in tests
    assert last[-4:] == ["--tests", "failed", "--only", "codes"]

    monkeypatch.setattr(gpu_run, "FOR_TESTS", ("pytest", "no_such_package"))
    calls.clear()
    assert gpu_run.main() == 0
    assert len(calls) == 3 and calls[-1][0][-3] == "not run, without no_such_package"
