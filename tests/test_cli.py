"""The command line, from pictures on disk to a report; and what it says to bad input."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from torchvision.transforms.v2.functional import to_pil_image

from adsq import data
from adsq.checkpoint import load_trainer
from adsq.index import HammingIndex
from cli_runner import adsq

COMMANDS = ["train", "encode", "index", "search", "export", "evaluate", "info", "demo"]


def write_pictures(folder: Path, per_class: int = 14) -> Path:
    """Three classes of 16 x 16 pictures that differ in colour."""
    generator = torch.Generator().manual_seed(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            picture = torch.randint(0, 90, (3, 16, 16), dtype=torch.uint8, generator=generator)
            picture[channel] += 160
            to_pil_image(picture).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained, encoded and indexed run."""
    folder = tmp_path_factory.mktemp("run") / "colours"
    options = ["--image-size", 16, "--bits", 20, "--epochs", 4, "--batch-size", 8, "--protocol", "4/8/rest"]
    said = adsq("train", "--data", pictures, "--out", folder, *options)
    assert "trained 4 epochs on 24 images" in said
    assert f"wrote 30 codes of 20 bits to {folder}/codes.safetensors" in adsq("encode", folder)
    assert f"indexed 30 codes of 20 bits in {folder}/index.adsq" in adsq("index", folder)
    return folder


def test_train_writes_what_others_read(run):
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in metrics] == [1, 2, 3, 4]
    assert {"loss", "lr", "images_per_second", "distinct_codes"} <= metrics[0].keys()
    assert {path.name for path in run.iterdir()} >= {"model.safetensors", "checkpoint.safetensors", "metrics.jsonl"}


def test_search_by_picture(run, pictures, tmp_path):
    picture, grid = pictures / "green" / "3.png", tmp_path / "grid.png"
    said = adsq(
        "search", run / "index.adsq", "--image", picture, "--image", pictures / "blue/0.png", "-k", 3, "--grid", grid
    )
    assert str(picture) in said and f"wrote {grid}" in said
    assert said.count("green") > 3 and said.count("blue") > 3
    assert grid.read_bytes().startswith(b"\x89PNG")


def test_search_for_more_than_there_is(run, pictures):
    said = adsq("search", run / "index.adsq", "--image", pictures / "red/0.png", "-k", 1000)
    assert said.count(".png") == 31, "30 neighbours and the title; padding is not shown"


def test_export(run, tmp_path):
    out = tmp_path / "out.parquet"
    for options, path in ((["--out", out], out), ([], run / "codes.parquet")):
        assert f"wrote 30 codes of 20 bits to {path}" in adsq("export", run / "index.adsq", *options)
        table = parquet.read_table(path)
        assert table.schema.names == ["id", "w0"] and table.num_rows == 30


def test_export_without_pyarrow(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = adsq("export", run / "index.adsq", "--out", tmp_path / "out.parquet", code=1)
    assert said.startswith("error: pyarrow is not installed") and "pip install pyarrow" in said
    assert list(tmp_path.iterdir()) == []


def test_evaluate_and_report(run, tmp_path):
    report = tmp_path / "report"
    said = adsq("evaluate", run, "--report", report, "--kind", "f", "--ties", "expected")
    assert "mAP@all" in said and "expected" in said
    record = json.loads((run / "evaluation.json").read_text())
    assert record["mean_average_precision"] > 0.6 and record["ties"] == "expected" and record["code"] == "f"
    assert record["split"]["sizes"] == {"query": 12, "training": 24, "database": 30}
    page = (report / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "mAP@all" in page
    assert {path.stem for path in report.glob("*.png")} == {"neighbours", "pr", "precision", "codes", "training"}


def test_encode_other_parts_and_kinds(run, tmp_path):
    for images, count in (("query", 12), ("training", 24), ("all", 42)):
        out = tmp_path / f"{images}.safetensors"
        assert f"wrote {count} codes" in adsq("encode", run, "--images", images, "--kind", "g", "--out", out)
        assert f"indexed {count} codes" in adsq("index", out, "--out", tmp_path / f"{images}.adsq")


def test_resume(run, pictures, tmp_path):
    assert "holds a run already" in adsq("train", "--data", pictures, "--image-size", 16, "--out", run, code=1)
    assert "trained 4 epochs" in adsq("train", "--resume", "--out", run), "nothing is left to do"
    assert "--resume: expected --out" in adsq("train", "--resume", code=1)
    assert "planned for 4" in adsq("train", "--resume", "--out", run, "--epochs", 9, code=1)


def test_data_that_changed_are_refused(tmp_path):
    folder = write_pictures(tmp_path / "colours", per_class=6)
    options = ["--image-size", 16, "--epochs", 1, "--protocol", "2/3/rest", "--bits", 8]
    adsq("train", "--data", folder, "--out", tmp_path / "run", *options)
    to_pil_image(torch.zeros(3, 16, 16, dtype=torch.uint8)).save(folder / "blue" / "new.png")
    assert "colours changed since training" in adsq("evaluate", tmp_path / "run", code=1)


def test_objective_and_its_schedule(tmp_path):
    folder = write_pictures(tmp_path / "colours", per_class=6)
    options = ["--image-size", 16, "--epochs", 1, "--protocol", "2/3/rest", "--bits", 8]
    for objective, schedule in {"adsq": (128, 3e-3), "adsq-likelihood": (64, 2e-3)}.items():
        run = tmp_path / objective
        adsq("train", "--data", folder, "--out", run, "--objective", objective, "--image-nets", 1, *options)
        trainer, _ = load_trainer(run, data.load(str(folder), image_size=16))
        assert (trainer.objective.name, trainer.objective.image_nets) == (objective, 1)
        assert (trainer.config.batch_size, trainer.config.peak_lr) == schedule
        assert "mAP" in adsq("evaluate", run)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name):
    assert f"Example: adsq {name}" in adsq(name, "--help")


def test_info_tells_of_every_op():
    said = adsq("info")
    for op in ("pack_codes", "hamming_topk", "hamming_range", "pairwise_similarity_loss", "sign_quantization_loss"):
        assert op in said
    assert "torch sees no CUDA device" in said or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data", "nowhere"], "no file or folder nowhere"),
        (["train", "--bits", 0], "num_bits: expected an integer from 1 to 4096, got 0"),
        (["train", "--protocol", "100/100/rest"], "class '8' "),
        (["train", "--protocol", "many"], "protocol: expected one of"),
        (["train", "--objective", "adsh"], "objective: expected one of adsq, adsq-likelihood, got 'adsh'"),
        (["train", "--objective", "adsq", "--form", "squared"], "--form: belongs to the objective adsq-likelihood"),
        (["train", "--image-nets", 3], "image_nets: expected one of (1, 2), got 3"),
        (["train", "--epochs", 0], "epochs: expected at least 1, got 0"),
        (["train", "--backbone", "resnet"], "backbone: expected small-cnn or a torchvision classifier"),
        (["train", "--backbone", "resnet18", "--weights", "nowhere.pth"], "weights: no file nowhere.pth"),
        (["train", "--device", "abacus"], "device: abacus cannot be used here"),
        (["train", "--data", "fashion-mnist", "--root", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["encode", "nowhere"], "nowhere"),
        (["index", "nowhere"], "nowhere"),
        (["search", "nowhere.adsq", "--image", "x.png"], "nowhere.adsq"),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = adsq(*arguments, code=1)
    assert said.startswith("error: ") and words in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "{run}/index.adsq", "--image", "{tmp}/text.png"], "text.png: not a picture"),
        (["search", "{run}/index.adsq", "--image", "{tmp}/none.png"], "none.png"),
        (
            ["search", "{run}/index.adsq", "--image", "{tmp}/red.png", "-k", 0],
            "k: expected an integer at least 1, got 0",
        ),
        (["search", "{tmp}/short.adsq", "--image", "{tmp}/red.png"], "short.adsq"),
        (["search", "{tmp}/text.png", "--image", "{tmp}/red.png"], "text.png"),
        (
            ["search", "{tmp}/other.adsq", "--image", "{tmp}/red.png", "--model", "{run}"],
            "model: expected one of 24 bits",
        ),
        (["search", "{tmp}/other.adsq", "--image", "{tmp}/red.png"], "expected --model"),
        (["evaluate", "{run}", "--kind", "h"], "kind: expected one of average, f, g, got 'h'"),
        (["evaluate", "{run}", "-k", 0], "k: expected"),
        (["evaluate", "{run}", "--ties", "none"], "ties: expected one of"),
        (["evaluate", "{tmp}/short.safetensors"], "short.safetensors"),
        (["encode", "{run}", "--images", "some"], "images: expected one of"),
        (["index", "{run}/model.safetensors"], "'adsq-model'"),
        (["export", "{tmp}/short.adsq"], "short.adsq"),
        (["export", "{run}/model.safetensors"], "'adsq-model'"),
        (["train", "--data", "{tmp}/empty"], "empty"),
    ],
)
def test_bad_files_are_one_line(arguments, words, run, pictures, tmp_path):
    (tmp_path / "text.png").write_text("not a picture, but a text that is long enough to be read as a header\n" * 9)
    (tmp_path / "red.png").write_bytes((pictures / "red" / "0.png").read_bytes())
    (tmp_path / "short.adsq").write_bytes((run / "index.adsq").read_bytes()[:-9])
    (tmp_path / "short.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    HammingIndex(24).save(tmp_path / "other.adsq")
    said = adsq(*(str(argument).format(run=run, tmp=tmp_path) for argument in arguments), code=1)
    assert said.startswith("error: ") and words in said and "Traceback" not in said


def test_wrong_use_is_code_2():
    adsq("train", "--colour", "red", code=2)
    adsq("search", "index.adsq", code=2)


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a command as a process of its own."""
    command = [sys.executable, "-c", "from adsq.cli import main; main()", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options
    )


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path):
    process = start("evaluate", "nowhere", "--debug", cwd=tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" in said and "FileNotFoundError" in said


def test_ctrl_c_leaves_a_good_checkpoint(tmp_path):
    folder = tmp_path / "run"
    # a parent that runs in the background may have left SIGINT ignored, which children inherit
    ready = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start("train", "--out", folder, "--epochs", 500, cwd=tmp_path, **ready)
    deadline = time.monotonic() + 240
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in said, said
    assert adsq("encode", folder).startswith("wrote 1,597 codes")


def test_full_disk_keeps_the_old_index(run, tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails half-way."""
    index = tmp_path / "index.adsq"
    index.write_bytes(b"the old index")
    process = start(
        "index",
        run,
        "--out",
        index,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)),
    )
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and said.startswith("error: "), said
    assert index.read_bytes() == b"the old index" and list(tmp_path.iterdir()) == [index]
