"""Methods x code lengths x seeds on Fashion-MNIST and its composites: the tables and figures of bench/study/README.md.

    PYTHONPATH=bench python bench/study/study.py --root FOLDER_OF_IDX_FILES [--tune EPOCHS]

Protocol fashion-mnist-100-500: 1,000 queries, 5,000 training images, a database of the other 69,000, which holds the
training images. mAP@all, ties by index, over all relevant images. Each run is a line of results/study.jsonl; runs that
are there already are not repeated. Two processes of one thread work side by side.

--tune first trains each method with the settings it may choose from, on splits of other seeds (100, ...) from which all
queries of the tables (seeds 0, 1, 2) are removed, and writes results/tuning.jsonl. The tables take the best of these.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tables
import torch
from fashion_mnist import machine
from race import write_between
from rich.progress import Progress
from torch import Tensor

from adsq import data
from adsq.evaluation import evaluate
from adsq.files import write_text
from composites import composites
from methods import ABLATIONS, MAIN, METHODS, ON_COMPOSITES, SHARES, make_trainer
from rivals.features import encode

HERE = Path(__file__).parent
STUDY, TUNING, COSTS = (HERE / "results" / name for name in ("study.jsonl", "tuning.jsonl", "costs.json"))
PROTOCOL = "fashion-mnist-100-500"
TABLE_SEEDS, TUNING_SEED = (0, 1, 2), 100
TOP = (1, 10, 100, 500, 1000)
KEY = ("method", "data", "bits", "seed", "epochs", "settings")


@lru_cache(maxsize=2)
def parts(root: str, kind: str, seed: int) -> tuple[data.ImageDataset, dict[str, Tensor]]:
    """Return a data set and the numbers of its query, training and database images."""
    dataset = data.load("fashion-mnist", root=root)
    split = data.make_split(dataset, PROTOCOL, seed)
    if kind == "composites":
        return composites(dataset, split)
    found = {"query": split.query, "training": split.training, "database": split.database}
    if seed not in TABLE_SEEDS:
        barred = torch.cat([data.make_split(dataset, PROTOCOL, other).query for other in TABLE_SEEDS])
        found = {name: items[~torch.isin(items, barred)] for name, items in found.items()}
    return dataset, found


def run(root: str, job: dict[str, Any]) -> dict[str, Any]:
    """Train once and return the record of it."""
    torch.set_num_threads(1)
    method, seed = METHODS[job["method"]], job["seed"]
    dataset, part = parts(root, job["data"], seed)
    torch.manual_seed(seed)
    trainer = make_trainer(method, job["bits"], dataset, part["training"], job["epochs"], seed, job["settings"])
    wall, processor = time.perf_counter(), time.process_time()
    trainer.fit()
    record = job | {
        "machine": machine(),
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - processor, 1),
    }
    codes = {}
    searched = [part["query"], part["database"]]
    if method.features:
        codes[method.features] = encode(trainer.model, dataset, part["training"], searched, method.features)
    else:
        for kind in ("f", "average") if method.nets == 2 else ("f",):
            codes[kind] = [trainer.model.encode(dataset, items, kind=kind) for items in searched]
    labels = [dataset.labels[items] for items in searched]
    for kind, packed in codes.items():
        result = evaluate(*packed, *labels, num_bits=job["bits"], top_n=TOP)
        record[kind] = {
            "map": round(result.mean_average_precision, 5),
            "precision_at": {n: round(value, 5) for n, value in result.precision_at.items()},
            "ndcg_at": {n: round(value, 5) for n, value in result.ndcg_at.items()},
            "weighted_map": result.weighted_mean_average_precision,  # None where images have one label each
            "recall": [round(value, 4) for value in result.recall],
            "precision": [None if value != value else round(value, 4) for value in result.precision],
        }
    return record


def key(job: dict[str, Any]) -> str:
    """Name a job, so that it is not done twice."""
    return json.dumps([job[name] for name in KEY])


def read(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file; none where there is no file."""
    return [json.loads(line) for line in path.open()] if path.exists() else []


def run_missing(path: Path, jobs: list[dict[str, Any]], root: str, processes: int = 2) -> list[dict[str, Any]]:
    """Run the jobs whose records are not in a file yet, and return the records of all of them."""
    records = {key(record): record for record in read(path)}
    missing = [job for job in jobs if key(job) not in records]
    context = get_context("spawn")  # a forked copy of torch's threads may hang
    with Progress() as progress, ProcessPoolExecutor(processes, mp_context=context) as pool:
        task = progress.add_task("runs", total=len(missing))
        for future in as_completed([pool.submit(run, root, job) for job in missing]):
            record = future.result()
            records[key(record)] = record
            write_text(path, "".join(json.dumps(one) + "\n" for one in records.values()))
            progress.advance(task)
    return [records[key(job)] for job in jobs]


def job_of(method: str, kind: str, bits: int, seed: int, epochs: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a job as JSON gives it back."""
    return json.loads(json.dumps(dict(zip(KEY, (method, kind, bits, seed, epochs, settings), strict=True))))


def chosen(method: str) -> dict[str, Any]:
    """Return the settings that were best for a method in tuning; none where it was not tuned."""
    method = SHARES.get(method, method)
    records = [record for record in read(TUNING) if record["method"] == method]
    if not records:
        return {}
    return max(records, key=lambda record: max(code["map"] for code in tables.codes_of(record).values()))["settings"]


def measure_costs(root: str, rounds: int = 5, steps: int = 8) -> dict[str, float]:
    """Return the processor seconds of an epoch of each method, methods taking turns: the median of some rounds."""
    torch.set_num_threads(1)
    dataset, part = parts(root, "fashion-mnist", TUNING_SEED)
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, method in METHODS.items():
            trainer = make_trainer(method, 32, dataset, part["training"], 1, 0, {})
            size = trainer.config.batch_size
            generator = torch.Generator().manual_seed(0)
            trainer.steps.begin_epoch()
            for step in range(steps + 2):
                if step == 2:  # the first steps are slower
                    started = time.process_time()
                positions = torch.arange(step * size, (step + 1) * size)
                trainer.steps.step(positions, dataset.__getitems__(trainer.indices[positions]), generator)
            seconds[name].append((time.process_time() - started) / steps * trainer.steps_per_epoch)
    return {name: round(statistics.median(times), 4) for name, times in seconds.items()}


def epochs_of(method: str, budget: str, epochs: int) -> int:
    """Return how many epochs a method has: as many as all, or as many as take GreedyHash's time for all of its."""
    if budget == "epochs":
        return epochs
    costs = json.loads(COSTS.read_text())
    return max(1, round(epochs * costs["greedyhash"] / costs[method]))


def grid(arguments: argparse.Namespace, budget: str) -> list[dict[str, Any]]:
    """Return the jobs of a budget; ablations and composites have 32 bits, and no other budget than time."""
    jobs = []
    for kind, seed, bits, method in itertools.product(
        arguments.data, arguments.seeds, arguments.bits, arguments.methods
    ):
        table = kind == "fashion-mnist" and method in MAIN
        if not table and (bits != 32 or budget == "epochs"):
            continue
        if method not in (ON_COMPOSITES if kind == "composites" else MAIN | ABLATIONS):
            continue
        epochs = epochs_of(method, budget, arguments.epochs)
        jobs.append(job_of(method, kind, bits, seed, epochs, chosen(method)))
    return jobs


def main() -> None:
    """Run what is missing, then write the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of the idx files")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--data", nargs="+", default=["fashion-mnist", "composites"])
    parser.add_argument("--budgets", nargs="+", default=["time", "epochs"], choices=["time", "epochs"])
    parser.add_argument("--bits", type=int, nargs="+", default=list(tables.BITS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TABLE_SEEDS))
    parser.add_argument("--epochs", type=int, default=34, help="of GreedyHash; others have its time, or as many")
    parser.add_argument("--tune", type=int, metavar="EPOCHS", help="choose settings first, in runs of so many epochs")
    parser.add_argument("--redraw", action="store_true", help="train nothing: write what the runs so far show")
    parser.add_argument("--quick", metavar="FOLDER", help="one seed, 32 bits, two epochs, written to a folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(arguments.quick) if arguments.quick else HERE / "results"
    if arguments.quick:
        arguments.seeds, arguments.bits, arguments.epochs = [TABLE_SEEDS[0]], [32], 2
    folder.mkdir(parents=True, exist_ok=True)
    if not COSTS.exists():
        write_text(COSTS, json.dumps(measure_costs(arguments.root), indent=1) + "\n")
    if arguments.tune:
        jobs = [
            job_of(name, "fashion-mnist", 32, TUNING_SEED, arguments.tune, settings)
            for name in arguments.methods
            for settings in METHODS[name].tried
        ]
        run_missing(TUNING, jobs, arguments.root)
    jobs = {budget: grid(arguments, budget) for budget in arguments.budgets}
    once = {key(job): job for every in jobs.values() for job in every}
    if not arguments.redraw:
        run_missing(folder / STUDY.name, list(once.values()), arguments.root)
    records = {key(record): record for record in read(folder / STUDY.name)}
    by_budget = {b: [records[key(job)] for job in every if key(job) in records] for b, every in jobs.items()}
    shown = [*tables.figures(folder, by_budget.get("time", [])), *tables.tuning(read(TUNING))]
    text = "\n".join([tables.text(by_budget), *shown])
    if arguments.quick:
        write_text(folder / "README.md", text)
    else:
        write_between(HERE / "README.md", "study", text)


if __name__ == "__main__":
    main()
