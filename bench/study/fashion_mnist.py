"""ADSQ-likelihood on Fashion-MNIST with fused and with blocked losses: a part of bench/study/README.md.

    PYTHONPATH=bench python bench/study/fashion_mnist.py --root FOLDER_OF_IDX_FILES

Protocol fashion-mnist-100-500: 1,000 queries, 5,000 training images, a database of the other 69,000, which holds the
training images. mAP@all, ties by index, over all relevant images. Each run is a line of results/fashion_mnist.jsonl;
runs that are there already are not repeated. Then the table is written from that file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from blocked import blocked_pytorch
from race import write_between
from rich.progress import track

from adsq import __version__, data
from adsq.evaluation import mean_average_precision
from adsq.files import write_text
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import WITHOUT_LABEL_NET, ObjectiveConfig
from adsq.training import Trainer, TrainingConfig

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fashion_mnist.jsonl"
STEP = HERE / "results" / "training_step.json"
BITS = 32
BLOCKED = "adsq-blocked"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "adsq": ("ADSQ", {}),
    BLOCKED: ("ADSQ, losses as blocked PyTorch", {}),
    "no-label-net": ("without LabelNet (no guidance, no vote)", WITHOUT_LABEL_NET),
    "one-img-net": ("with one ImgNet (its own bank)", {"image_nets": 1}),
}


def machine() -> str:
    """Name the processor, the threads and the versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return (
        f"{names[0] if names else platform.machine()}, {threads} threads, torch {torch.__version__}, adsq {__version__}"
    )


def run(dataset: data.ImageDataset, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train once and return the record of it."""
    split = data.make_split(dataset, "fashion-mnist-100-500", seed)
    torch.manual_seed(seed)
    model = ADSQ(ModelConfig(BITS, dataset.num_classes, dataset.image_shape))
    objective = ObjectiveConfig(**METHODS[method][1])
    config = TrainingConfig.default(objective.name, epochs=epochs, seed=seed)
    trainer = Trainer(model, dataset, split.training, objective, config)
    with blocked_pytorch() if method == BLOCKED else nullcontext():
        trainer.fit()
    record: dict[str, Any] = {"method": method, "seed": seed, "bits": BITS, "epochs": epochs}
    record |= {"split": split.digest[:16], "machine": machine()}
    for kind in ("f", "g", "average") if objective.image_nets == 2 else ("f",):
        query, database = (model.encode(dataset, part, kind=kind) for part in (split.query, split.database))
        labels = dataset.labels[split.query], dataset.labels[split.database]
        record[kind] = round(mean_average_precision(query, database, *labels), 5)
    return record


def table(records: list[dict[str, Any]]) -> str:
    """Return the README's text from the records of all runs."""
    seeds = sorted({record["seed"] for record in records})
    lines = [
        "Written by `fashion_mnist.py` (see its head for the protocol) from `results/fashion_mnist.jsonl`. "
        f"{BITS} bits, small CNN, {records[0]['epochs']} epochs, seeds {', '.join(map(str, seeds))} (split, training). "
        "mAP@all of 1,000 queries against 69,000 codes, ties by index. The spread over seeds is the noise.",
        "",
        "| method | code | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean |",
        "|---|---|" + "---|" * (len(seeds) + 1),
    ]
    means: dict[tuple[str, str], float] = {}
    names = {"f": "F alone", "g": "G alone", "average": "average of F and G"}
    for method, (title, _) in METHODS.items():
        runs = {record["seed"]: record for record in records if record["method"] == method}
        for kind, name in names.items():
            values = [runs[seed][kind] for seed in seeds if seed in runs and kind in runs[seed]]
            if len(values) == len(seeds):
                means[method, kind] = statistics.mean(values)
                cells = " | ".join(f"{value:.3f}" for value in (*values, means[method, kind]))
                lines.append(f"| {title} | {name} | {cells} |")
    if ("adsq", "f") in means and ("one-img-net", "f") in means:
        gains = [means["adsq", kind] - means["one-img-net", "f"] for kind in ("f", "average")]
        lines += ["", f"Against one ImgNet, F alone gains {gains[0]:+.3f} and the average {gains[1]:+.3f}."]
    lines += ["", f"Machine: {'; '.join(sorted({record['machine'] for record in records}))}.", ""]
    if STEP.exists():
        lines += training_step(json.loads(STEP.read_text()))
    return "\n".join(lines)


def training_step(record: dict[str, Any]) -> list[str]:
    """Return the README's part about the cost of a step, from what training_step.py measured."""
    times, shares = record["milliseconds"], record["shares"]
    saved = 1 - times["fused kernels"] / times["blocked PyTorch"]
    parts = sorted(shares.items(), key=lambda part: (part[0] == "others", -part[1]))
    quartiles = {name: "{} to {}".format(*record["quartiles"][name]) for name in times}
    return [
        "### A training step",
        "",
        "Written from what `training_step.py` measured: both ImgNets on a batch of 64, banks of 1,024 columns; the two "
        "ways of computing the losses took turns in one run.",
        "",
        "| losses | milliseconds a step, median (quartiles) |",
        "|---|---|",
        *(f"| {name} | {times[name]} ({quartiles[name]}) |" for name in ("blocked PyTorch", "fused kernels")),
        "",
        f"The fused kernels save {saved:.0%} of a step. Where the time within operators goes with them, by the "
        "profiler:",
        "",
        "| part | share |",
        "|---|---|",
        *(f"| {name} | {share:.1%} |" for name, share in parts),
        "",
        f"Machine: {record['machine']}.",
        "",
    ]


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    records = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    done = {(record["method"], record["seed"]) for record in records if record["epochs"] == arguments.epochs}
    missing = [(m, s) for s in arguments.seeds for m in METHODS if (m, s) not in done]
    dataset = data.load("fashion-mnist", root=arguments.root)
    for method, seed in track(missing, "runs"):
        records.append(run(dataset, method, seed, arguments.epochs))
        write_text(RESULTS, "".join(json.dumps(record) + "\n" for record in records))
        print(json.dumps(records[-1]))
    wanted = [r for r in records if r["epochs"] == arguments.epochs and r["seed"] in arguments.seeds]
    write_between(HERE / "README.md", "fashion-mnist", table(wanted))


if __name__ == "__main__":
    main()
