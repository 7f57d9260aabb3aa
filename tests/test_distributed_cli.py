"""The command line under `torchrun`: train, resume, encode, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torchvision.transforms.v2.functional import to_pil_image

from adsq import _command, workflow
from adsq.checkpoint import load_model
from cli_runner import adsq

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")
LIMIT = 240  # seconds, for what takes some 10


def torchrun(*arguments: object, processes: int = 2, code: int = 0) -> str:
    """Run a command and return what it printed; where it is to fail, its lines that tell of an error."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "adsq.cli"]
    command = [*launcher, *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "300", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert result.returncode == code, result.stderr
    if code == 0:
        return result.stdout
    return "\n".join(line for line in result.stderr.splitlines() if line.startswith(("error:", "defect:")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of nine 16 x 16 pictures that differ in colour."""
    folder, generator = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for number in range(9):
            picture = torch.randint(0, 90, (3, 16, 16), dtype=torch.uint8, generator=generator)
            picture[channel] += 160
            to_pil_image(picture).save(folder / name / f"{number}.png")
    return folder


OPTIONS = ["--image-size", 16, "--bits", 12, "--epochs", 2, "--batch-size", 7, "--protocol", "2/5/rest"]


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run of two processes."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    said = torchrun("train", "--data", pictures, "--out", folder, "--objective", "adsq", *OPTIONS)
    assert said.count("trained 2 epochs on 15 images") == said.count("read ") == 1, "one process speaks"
    return folder


@pytest.mark.slow
def test_training_writes_what_one_process_writes(run: Path, pictures: Path, tmp_path: Path) -> None:
    adsq("train", "--data", pictures, "--out", tmp_path / "one", "--objective", "adsq", *OPTIONS)
    assert {path.name for path in run.iterdir()} >= {"model.safetensors", "checkpoint.safetensors", "metrics.jsonl"}
    metrics = [[json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (run, tmp_path / "one")]
    for two, one in zip(*metrics, strict=True):
        assert two.keys() == one.keys() and two["epoch"] == one["epoch"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    codes = [load_model(folder)[0].relaxed_codes(images) for folder in (run, tmp_path / "one")]
    torch.testing.assert_close(*codes, atol=0.05, rtol=0.05)  # no more: biases before batch norm drift with rounding
    assert "trained 2 epochs" in adsq("train", "--resume", "--out", run), "one process can go on with it"


@pytest.mark.slow
def test_encoding_writes_what_one_process_writes(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    options = ["--images", "all", "--batch-size", 4, "--out"]
    adsq("encode", run, *options, tmp_path / "one.safetensors")
    assert f"wrote 27 codes of 12 bits to {path}" in torchrun("encode", run, *options, path)
    assert path.read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["all.safetensors", "one.safetensors"]


@pytest.mark.slow
def test_what_all_processes_find_wrong_is_said_once(run: Path) -> None:
    said = torchrun("encode", run, "--images", "none", code=1)
    assert said == "error: images: expected one of query, training, database, all, got 'none'"


@pytest.mark.slow
def test_what_one_process_finds_wrong_ends_all(run: Path, pictures: Path, tmp_path: Path) -> None:
    loaded = workflow.open_run(run)
    broken = Path(loaded.dataset.path(26) or "")
    whole = broken.read_bytes()
    try:
        broken.write_bytes(b"no picture")
        said = torchrun("encode", run, "--images", "all", "--batch-size", 4, "--out", tmp_path / "codes", code=1)
        assert said.startswith("error: rank 1: ") and str(broken) in said and "\n" not in said
    finally:
        broken.write_bytes(whole)
    assert [entry.name for entry in tmp_path.iterdir()] == ["codes.partial"], "what is done is kept"
    assert "wrote 27 codes" in adsq("encode", run, "--images", "all", "--batch-size", 4, "--out", tmp_path / "codes")
    assert [entry.name for entry in tmp_path.iterdir()] == ["codes"]


def test_other_commands_run_on_rank_0_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_command, "_rank", 1)
    assert adsq("info") == ""


def test_other_ranks_wait_before_they_speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(_command, "_rank", 1)
    monkeypatch.setattr(time, "sleep", waits.append)
    assert "error: rank 1:" in adsq("encode", tmp_path / "nothing", code=1)
    assert waits == [_command._SECONDS]


def test_encoding_into_a_folder_is_refused_at_once(run: Path, tmp_path: Path) -> None:
    assert "not a regular file" in adsq("encode", run, "--out", tmp_path, code=1)
    assert "no such folder" in adsq("encode", run, "--out", tmp_path / "not" / "there", code=1)
    assert "kind: expected one of average, f, g" in adsq("encode", run, "--kind", "h", "--out", tmp_path / "c", code=1)
    assert list(tmp_path.iterdir()) == []
