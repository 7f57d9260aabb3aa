"""bench/study: composites are what they say, runs are not repeated, and tables hold what was measured."""

from __future__ import annotations

import json

import pytest
import study
import tables
import torch
from test_training import stripes

import methods
from adsq.data import Protocol, Split, TensorImageDataset
from adsq.posterior import PosteriorConfig
from composites import SIZES, composites


def test_composites_show_the_classes_of_their_labels():
    """Images of one grey each tell their class, and which part of the split they are from."""
    labels = torch.arange(300) % 5
    grey = (10 * labels + torch.arange(300) // 100).to(torch.uint8)
    dataset = TensorImageDataset(grey.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), labels, list("abcde"), name="greys")
    numbers = torch.arange(300)
    split = Split(Protocol("greys", 20, 20), 3, numbers[:100], numbers[100:200], numbers[:0])
    made, parts = composites(dataset, split)
    assert {name: len(items) for name, items in parts.items()} == {
        "query": SIZES["query"],
        "training": SIZES["training"],
        "database": SIZES["training"] + SIZES["database"],
    }
    assert not set(parts["query"].tolist()) & set(parts["database"].tolist())
    assert torch.isin(parts["training"], parts["database"]).all()
    images = made.__getitems__(range(len(made)))[:, 0]
    tiles = images.unflatten(1, (2, 4)).unflatten(3, (2, 4)).transpose(2, 3).flatten(3)
    assert (tiles == tiles[..., :1]).all(), "tiles are whole images"
    shown = torch.zeros((len(made), 5), dtype=torch.uint8).scatter_(1, (tiles[..., 0] // 10).flatten(1).long(), 1)
    assert torch.equal(shown, made.labels)
    assert set(made.labels.sum(dim=1).tolist()) == {1, 2, 3, 4}
    others = torch.arange(SIZES["query"] + SIZES["training"], len(made))
    for part, items in enumerate((parts["query"], parts["training"], others)):
        assert (tiles[items] % 10 == part).all(), "a part has tiles of its own source only"
    assert not torch.equal(tiles[0], tiles[1])


@pytest.fixture
def tiny(monkeypatch):
    dataset = stripes()
    found = {"query": torch.arange(80, 90), "training": torch.arange(60), "database": torch.arange(80)}
    monkeypatch.setattr(study, "parts", lambda root, kind, seed: (dataset, found))


@pytest.mark.parametrize(
    ("method", "kinds"),
    [("adsq", {"f", "average"}), ("greedyhash", {"f"}), ("greedyhash-two", {"f", "average"}), ("itq", {"itq"})],
)
def test_a_run_gives_its_codes_measures(method, kinds, tiny):
    torch.manual_seed(0)
    job = study.job_of(method, "stripes", 16, 0, 2, {"peak_lr": 2e-3})
    record = study.run("", job)
    assert record.keys() == {*job, "machine", "wall_s", "cpu_s", *kinds}
    for kind in kinds:
        assert 0 < record[kind]["map"] <= 1 and record[kind]["recall"][-1] == 1
    json.dumps(record)


def test_settings_reach_schedule_and_method(tiny):
    dataset, found = study.parts("", "", 0)
    make = lambda name, **settings: methods.make_trainer(  # noqa: E731
        methods.METHODS[name], 16, dataset, found["training"], 2, 7, settings
    )
    trainer = make("greedyhash", peak_lr=0.5, penalty=0.7)
    assert trainer.config.peak_lr == 0.5 and trainer.steps.rival.has["penalty"] == 0.7 and trainer.config.seed == 7
    assert make("adsq-one").objective == PosteriorConfig(image_nets=1)
    assert make("dseh", quantization=0.3).objective.quantization == 0.3
    assert all(len(make(name).nets) == method.nets for name, method in methods.METHODS.items())


def test_runs_of_the_file_are_not_repeated(tmp_path):
    jobs = [study.job_of("adsq", "fashion-mnist", 16, seed, 3, {"slope": (1.0, 2.0)}) for seed in (0, 1)]
    path = tmp_path / "runs.jsonl"
    records = [job | {"f": {"map": 0.5}} for job in jobs]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert study.run_missing(path, jobs, "nowhere") == records
    with pytest.raises(FileNotFoundError, match="nowhere"):
        study.run_missing(path, [*jobs, jobs[0] | {"epochs": 4}], "nowhere", processes=1)


def test_time_is_shared_out_by_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "COSTS", tmp_path / "costs.json")
    study.COSTS.write_text(json.dumps({"greedyhash": 2.0, "adsq": 5.0}))
    assert study.epochs_of("greedyhash", "time", 30) == 30
    assert study.epochs_of("adsq", "time", 30) == 12 and study.epochs_of("adsq", "epochs", 30) == 30


def test_the_best_setting_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "TUNING", tmp_path / "tuning.jsonl")
    assert study.chosen("csq") == {}
    runs = [("csq", 0.5, 1.0), ("csq", 0.7, 2.0), ("greedyhash", 0.6, 3.0)]
    records = [{"method": name, "f": {"map": value}, "settings": {"scale": scale}} for name, value, scale in runs]
    study.TUNING.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert study.chosen("csq") == {"scale": 2.0} and study.chosen("greedyhash-two") == {"scale": 3.0}


def test_tables_and_claims(tmp_path):
    def record(method: str, seed: int, value: float, kind: str = "f", bits: int = 32) -> dict:
        code = {"map": value, "precision_at": {"1": value, "10": value}, "ndcg_at": {"100": value}}
        code |= {"recall": [0.1, 1.0], "precision": [None, 0.5]}
        job = study.job_of(method, "fashion-mnist", bits, seed, 4, {})
        return job | {"machine": "an abacus", "cpu_s": 7.2, kind: code}

    records = [record("adsq-one", 0, 0.8), record("adsq-one", 1, 0.9), record("greedyhash", 0, 0.82)]
    records += [record("greedyhash", 1, 0.84), record("csq", 0, 0.99)]
    text = tables.text({"time": records})
    assert "| ADSQ, one ImgNet | F alone | 4 | 7 | 0.850 (0.800 to 0.900) |" in text
    assert "| GreedyHash | F alone | 4 | 7 | 0.830 (0.820 to 0.840) |" in text
    assert "| CSQ |" not in text, "a mean over fewer seeds is no mean"
    assert "one network at query time: 32 bits +0.020 against GreedyHash." in text
    assert "Seeds 0, 1. Not run: ADSQ, ADSQ-likelihood" in text and "Machine: an abacus." in text
    assert "two ImgNets" not in text
    both = [record("adsq", seed, 0.7, "average") for seed in (0, 1)]
    assert "two ImgNets against one ImgNet: 32 bits -0.150." in tables.text({"time": records + both})
    assert "| GreedyHash | penalty 0.1 | 4 | 0.820 |" in tables.tuning([records[2] | {"settings": {"penalty": 0.1}}])
    assert any("precision_at_n" in line for line in tables.figures(tmp_path, records))
    assert (tmp_path / "precision_recall.png").stat().st_size > 1000


def test_parts_that_do_not_earn_their_place_are_named():
    def record(method: str, seed: int, value: float, data: str = "fashion-mnist") -> dict:
        code = {"map": value, "ndcg_at": {"100": value / 2}, "weighted_map": value / 4}
        kind = "average" if methods.METHODS[method].nets == 2 else "f"
        return study.job_of(method, data, 32, seed, 4, {}) | {"machine": "an abacus", "cpu_s": 7.2, kind: code}

    values = {"adsq": (0.8, 0.7), "no-mixing": (0.7, 0.69), "no-balance": (0.6, 0.71), "no-annealing": (0.1,)}
    records = [record(name, seed, value) for name, both in values.items() for seed, value in enumerate(both)]
    records += [record("adsq-likelihood", 0, 0.5), record("likelihood-one", 0, 0.4)]
    assert tables.verdicts(records) == [
        "- Worse for every seed than the objective as it is: no mixing (-0.055), likelihood: one ImgNet (-0.100).",
        "- Not worse for every seed: no balance (-0.095).",
    ]
    several = [record("adsq-one", 0, 0.8, "composites"), record("greedyhash", 0, 0.6, "composites")]
    text = tables.text({"time": several})
    for name, margin in {"mAP@all": "+0.200", "nDCG@100": "+0.100", "Weighted mAP@all": "+0.050"}.items():
        part = text[text.index(name) :]
        assert margin in part[: part.index("GreedyHash.")]
