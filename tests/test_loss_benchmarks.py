"""The benchmarks of losses run: each once on small sizes, and the script that writes the READMEs' tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memory import peak_extra_memory

ROOT = Path(__file__).parent.parent
FAMILIES = ("pairwise_similarity", "sign_quantization")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTEST_ADDOPTS": ""}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_each_benchmark_runs_once():
    files = [f"bench/bench_{family}.py" for family in FAMILIES]
    options = ["--benchmark-disable", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"]
    small = "not compile and not 000 and not 096"  # parts of the names of cases
    done = run("-m", "pytest", *files, *options, "-k", small)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]


@needs_compiler
def test_quick_run_and_redraw(tmp_path):
    for family in FAMILIES:
        folder = tmp_path / "kernels" / family
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("before\n<!-- losses:begin -->\nold\n<!-- losses:end -->\nafter\n")
    done = run("bench/losses.py", "--quick", "--budget=0", f"--root={tmp_path}")
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "bench" / "results" / "losses.json"
    record = json.loads(results.read_text())
    assert [len(record[family]) for family in FAMILIES] == [1, 1]
    for family in FAMILIES:
        text = (tmp_path / "kernels" / family / "README.md").read_text()
        seconds = record[family][0]["seconds"]
        assert {"eager", "compiled", "adsq"} <= seconds.keys()
        assert "old" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    seconds["eager"] = [8 * min(seconds["adsq"])]
    seconds["adsq"] = [min(seconds["adsq"])]
    results.write_text(json.dumps(record))
    assert run("bench/losses.py", "--redraw", f"--root={tmp_path}").returncode == 0
    assert f"| {record[family][0]['case']} | 8.0 |" in (tmp_path / "kernels" / family / "README.md").read_text()


def test_quick_runs_do_not_overwrite_what_is_published():
    done = run("bench/losses.py", "--quick")
    assert done.returncode != 0 and "--root" in done.stderr


@pytest.mark.parametrize("megabytes", [4, 64])
def test_peak_memory_sees_what_is_gone_again(megabytes):
    def call(kept: list[torch.Tensor]) -> torch.Tensor:
        torch.zeros(megabytes << 20, dtype=torch.uint8).add_(1)
        return kept[0]

    peak = peak_extra_memory(call, lambda: ([torch.zeros(1)],)) / 2**20
    assert megabytes - 0.5 < peak < megabytes + 2
