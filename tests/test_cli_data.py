"""From the files of a published data set to an evaluation, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adsq.index import HammingIndex
from cli_runner import adsq
from hashing_files import picture, write_cifar10, write_imagenet, write_lists, write_nuswide

OPTIONS = ["--bits", 8, "--epochs", 1, "--batch-size", 16, "--seed", 3]


def train_and_evaluate(source: str, folder: Path, *options: object) -> tuple[str, dict]:
    """Return what training said, and the evaluation as stored."""
    said = adsq("train", "--data", source, "--root", folder / "files", "--out", folder / "run", *OPTIONS, *options)
    adsq("evaluate", folder / "run")
    return said, json.loads((folder / "run" / "evaluation.json").read_text())


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "files", monkeypatch)
    said, record = train_and_evaluate("cifar10", tmp_path, "--protocol", "cifar10-10k-50k-50k")
    assert "read cifar10: 120 images of 10 classes, 3 x 32 x 32 (train 100, test 20)" in said
    assert "split cifar10-10k-50k-50k, seed 3: query 20, training 100, database 100; digest " in said
    assert record["split"]["sizes"] == {"query": 20, "training": 100, "database": 100}
    assert record["split"]["protocol"] == "cifar10-10k-50k-50k" and record["split"]["seed"] == 3
    assert record["split"]["digest"][:16] in said and len(record["data_digest"]) == 64
    assert record["read"] == {"images": 120, "classes": 10, "train": 100, "test": 20}
    damaged = tmp_path / "files" / "cifar-10-batches-py" / "test_batch"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert "test_batch: damaged" in adsq("evaluate", tmp_path / "run", code=1)


def test_nuswide(tmp_path: Path) -> None:
    write_nuswide(tmp_path / "files")
    (tmp_path / "files" / "Flickr" / "zoo" / "0004_31676.jpg").unlink()
    options = ["--protocol", "1/2/rest", "--image-size", 16, "--workers", 2]
    words = "error: 1 of 84 listed images are missing"
    assert words in adsq("train", "--data", "nuswide", "--root", tmp_path / "files", *options, code=1)
    said, record = train_and_evaluate("nuswide", tmp_path, *options, "--drop-missing")
    assert "(listed 86, label files 23, without a label 2, missing 1)" in said
    assert record["read"]["missing"] == 1 and record["split"]["sizes"]["query"] == 21
    assert record["weighted_mean_average_precision"] > record["mean_average_precision"] > 0, "many share two labels"
    options = ["-k", 9, "--denominator", "found", "--gain", "exponential", "--report", tmp_path / "report"]
    said = adsq("evaluate", tmp_path / "run", *options)
    rule = "mAP@9 (ties by index, over relevant among the first k)"
    assert f" {rule} " in said and f" weighted {rule} " in said and "nDCG@10 (exponential gain)" in said
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"weighted {rule}" in page and "without a label" in page
    (tmp_path / "files" / "Flickr" / "zoo" / "0008_63352.jpg").unlink()
    assert "nuswide changed since training: " in adsq("evaluate", tmp_path / "run", code=1)


def test_imagenet100(tmp_path: Path) -> None:
    ids = write_imagenet(tmp_path / "files")
    (tmp_path / "classes.txt").write_text("\n".join(ids[:2]))
    options = ["--protocol", "given/4/rest", "--image-size", 16, "--classes", tmp_path / "classes.txt"]
    said, record = train_and_evaluate("imagenet100", tmp_path, *options)
    assert "read imagenet100: 22 images of 2 classes, 3 x 16 x 16 (train 18, val 4, other files 0)" in said
    assert record["split"]["sizes"] == {"query": 4, "training": 8, "database": 18}
    assert "wrote 18 codes of 8 bits" in adsq("encode", tmp_path / "run")
    adsq("index", tmp_path / "run")
    assert HammingIndex.load(tmp_path / "run" / "index.adsq").meta["split"] == record["split"]


def test_list(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / "files" / f"{number}.png", number * 20)
    lines = [f"{number}.png {number % 2} {1 - number % 2} {int(number > 5)}" for number in range(12)]
    write_lists(tmp_path / "lists", {"database.txt": lines[3:], "train.txt": lines[3:9], "test.txt": lines[:3]})
    said, record = train_and_evaluate("list", tmp_path, "--lists", tmp_path / "lists", "--image-size", 8)
    assert "(database.txt 9, train.txt 6, test.txt 3, missing 0)" in said
    assert "split given, seed 3: query 3, training 6, database 9; digest " in said
    assert record["split"]["sizes"] == {"query": 3, "training": 6, "database": 9}
    write_lists(tmp_path / "lists", {"test.txt": [*lines[:2], "2.png 1 1 1"]})
    assert "lists changed since training: its labels and images" in adsq("evaluate", tmp_path / "run", code=1)
    assert "error: root: expected the folder" in adsq("train", "--data", "list", code=1)
