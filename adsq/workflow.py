"""What the commands do, step by step: train, encode, index, search, evaluate. `adsq.cli` only parses and prints."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adsq import __version__, data, distributed
from adsq.augmentation import Augmentation
from adsq.checkpoint import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    load_model,
    load_trainer,
    read_about,
    save_checkpoint,
    save_model,
)
from adsq.data import ImageDataset, Protocol, Split
from adsq.encoding import encode_in_parts
from adsq.evaluation import Evaluation, evaluate
from adsq.export import ROW_GROUP, to_parquet
from adsq.files import read_tensors, write_tensors, write_text
from adsq.index import HammingIndex
from adsq.networks import ADSQ, ModelConfig
from adsq.progress import batch_bar, console, row_bar, training_bar
from adsq.training import Objective, Trainer, TrainingConfig

CODES_KIND, CODES_VERSION = "adsq-codes", 1
CODES_FILE, INDEX_FILE, PARQUET_FILE, METRICS_FILE, EVALUATION_FILE = (
    "codes.safetensors",
    "index.adsq",
    "codes.parquet",
    "metrics.jsonl",
    "evaluation.json",
)


@dataclass(frozen=True)
class Run:
    """A trained model with the data it was trained on."""

    model: ADSQ
    dataset: ImageDataset
    split: Split
    about: dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """An evaluation with the codes it was computed from."""

    result: Evaluation
    query: Codes
    database: Codes


@dataclass(frozen=True)
class Codes:
    """Packed codes of items of a data set, as `adsq encode` writes them."""

    packed: Tensor
    items: Tensor
    labels: Tensor
    about: dict[str, Any]


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" takes CUDA where there is one. Each of several processes gets its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and distributed.world_size() > 1:
            if device.index is not None:
                raise ValueError(f"device: expected auto, cpu or cuda with several processes, got {name}")
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", distributed.rank())))
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def train(
    folder: Path,
    dataset: ImageDataset,
    split: Split,
    model: ModelConfig,
    objective: Objective,
    schedule: TrainingConfig,
    *,
    augmentation: Augmentation | None = None,
    weights: str = "none",
    device: torch.device | str = "cpu",
    overwrite: bool = False,
) -> Trainer:
    """Train a new model. Writes a checkpoint and the metrics after every epoch, and the model at the end.

    Under `torchrun` all processes train together, and rank 0 writes.
    """
    if (folder / CHECKPOINT_FILE).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a run already: resume it, or choose another folder")
    with torch.random.fork_rng():
        torch.manual_seed(schedule.seed)
        network = ADSQ(model, weights=weights)
    about = {
        "adsq": __version__,
        "data": dataset.spec,
        "data_digest": dataset.digest(),
        "read": dataset.summary(),
        "split": split.summary(),
        "class_names": dataset.class_names,
    }
    trainer = Trainer(network, dataset, split.training, objective, schedule, augmentation, device)
    folder.mkdir(parents=True, exist_ok=True)
    return _fit(folder, trainer, about | {"weights": weights})


def resume(folder: Path, *, epochs: int | None = None, device: torch.device | str = "cpu") -> Trainer:
    """Go on with a run from its last checkpoint."""
    dataset = _open_data(read_about(folder))
    trainer, about = load_trainer(folder, dataset, device=device)
    _open_split(dataset, about)  # refuses data that changed since
    if epochs is not None and epochs != trainer.config.epochs:
        raise ValueError(
            f"epochs: the run was planned for {trainer.config.epochs}, to which its learning rates belong; got {epochs}"
        )
    return _fit(folder, trainer, about)


def _fit(folder: Path, trainer: Trainer, about: dict[str, Any]) -> Trainer:
    def after_epoch(trainer: Trainer) -> None:
        if distributed.rank() > 0:
            return
        save_checkpoint(folder / CHECKPOINT_FILE, trainer, about)
        write_text(folder / METRICS_FILE, "".join(json.dumps(record) + "\n" for record in trainer.history))
        warning = trainer.collapse_warning()
        if warning is not None:
            console.print(f"[yellow]epoch {trainer.epoch}: {warning}[/yellow]")

    with training_bar(trainer) as after_step:
        trainer.fit(after_step, after_epoch)
    if distributed.rank() == 0:
        save_model(folder / MODEL_FILE, trainer.model, about)
    distributed.meet()
    return trainer


def open_run(path: Path, device: torch.device | str = "cpu") -> Run:
    """Load a model with its data set and split, and make sure the data have not changed."""
    model, about = load_model(path, device=device)
    dataset = _open_data(about)
    return Run(model, dataset, _open_split(dataset, about), about)


def _open_data(about: dict[str, Any]) -> ImageDataset:
    if not about.get("data"):
        raise ValueError("the model was saved without its data set: use it from Python")
    dataset = data.load(**about["data"])
    saved, found = about.get("data_digest"), dataset.digest()
    if saved not in (None, found):
        raise ValueError(
            f"data: {dataset.name} changed since training: its labels and images had digest {saved[:12]}, now have "
            f"{found[:12]}; then {about['read']}, now {dataset.summary()}"
        )
    return dataset


def _open_split(dataset: ImageDataset, about: dict[str, Any]) -> Split:
    saved = about["split"]
    split = data.make_split(dataset, Protocol(saved["protocol"], **saved["counts"]), saved["seed"])
    if split.digest != saved["digest"]:
        raise ValueError(
            f"data: {dataset.name} changed since training: split {saved['protocol']} with seed {saved['seed']} "
            f"had digest {saved['digest'][:12]}, now has {split.digest[:12]}"
        )
    return split


def encode(run: Run, images: str, kind: str, *, batch_size: int = 256, num_workers: int = 0) -> Codes:
    """Encode the "query", "training" or "database" images of the split, or "all"."""
    items = _items(run, images)
    bar = batch_bar(f"encoding {images}", -(-len(items) // batch_size))
    packed = run.model.encode(
        run.dataset, items, kind=kind, batch_size=batch_size, num_workers=num_workers, progress=bar
    )
    return _codes(run, images, kind, items, packed)


def encode_to_file(
    path: Path, run: Run, model: Path, images: str, kind: str, *, batch_size: int = 256, num_workers: int = 0
) -> Codes:
    """Encode images to a file of `write_codes`, going on with what an earlier call left in the folder PATH.partial.

    Under `torchrun` all processes encode, and rank 0 writes the file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    items = _items(run, images)
    folder = path.with_name(f"{path.name}.partial")
    facts = {"data": run.dataset.spec, "data_digest": run.about.get("data_digest")}
    options: dict[str, Any] = {"kind": kind, "batch_size": batch_size, "num_workers": num_workers}
    with row_bar(f"encoding {images}", len(items)) as progress:
        packed = encode_in_parts(run.model, run.dataset, items, folder, facts=facts, progress=progress, **options)
    codes = _codes(run, images, kind, items, packed)
    if distributed.rank() == 0:
        write_codes(path, codes, model)
        shutil.rmtree(folder)
    distributed.meet()
    return codes


def _items(run: Run, images: str) -> Tensor:
    parts = {part: getattr(run.split, part) for part in ("query", "training", "database")}
    parts["all"] = torch.arange(len(run.dataset))
    if images not in parts:
        raise ValueError(f"images: expected one of {', '.join(parts)}, got {images!r}")
    return parts[images]


def _codes(run: Run, images: str, kind: str, items: Tensor, packed: Tensor) -> Codes:
    about = {"num_bits": run.model.config.num_bits, "kind": kind, "images": images, "data": run.dataset.spec}
    about |= {"class_names": run.dataset.class_names, "split": run.about["split"]}
    return Codes(packed, items, run.dataset.labels[items], about)


def write_codes(path: Path, codes: Codes, model: Path) -> None:
    """Write codes with the items they belong to, and where their model lies."""
    tensors = {"codes": codes.packed, "items": codes.items, "labels": codes.labels}
    meta = codes.about | {"model": str(model.resolve())}
    write_tensors(path, tensors, kind=CODES_KIND, version=CODES_VERSION, meta=meta)


def read_codes(path: Path) -> Codes:
    """Read a file of `write_codes`, or the one in a run's folder."""
    path = path / CODES_FILE if path.is_dir() else path
    tensors, about = read_tensors(path, kind=CODES_KIND, version=CODES_VERSION)
    return Codes(tensors["codes"], tensors["items"], tensors["labels"], about)


def build_index(codes: Codes) -> HammingIndex:
    """Index codes under their item numbers; the index carries what a search by image needs."""
    index = HammingIndex(codes.about["num_bits"])
    index.add(codes.packed, ids=codes.items)
    index.meta = codes.about
    return index


def export(index: HammingIndex, path: Path) -> None:
    """Write codes and ids of an index to a Parquet file."""
    to_parquet(index, path, progress=batch_bar("exporting", -(-len(index) // ROW_GROUP)))


def encode_pictures(index: HammingIndex, pictures: Sequence[Path], model: Path | None) -> tuple[Tensor, Tensor]:
    """Return pictures from disk as the model of an index sees them, uint8 [Q, C, H, W], and their packed codes."""
    path = model or index.meta.get("model")
    if path is None:
        raise ValueError("model: the index does not say which model its codes come from, expected --model")
    network, _ = load_model(path)
    if network.config.num_bits != index.num_bits:
        raise ValueError(f"model: expected one of {index.num_bits} bits as in the index, got {network.config.num_bits}")
    images = torch.stack([data.load_image(picture, network.config.image_shape) for picture in pictures])
    dataset = data.TensorImageDataset(images, torch.zeros(len(images), dtype=torch.int64), ["picture"], name="pictures")
    return images, network.encode(dataset, kind=index.meta.get("kind", "average"))


def open_indexed_data(index: HammingIndex) -> ImageDataset | None:
    """Load the data set an index was made from; None where the index does not say."""
    return data.load(**index.meta["data"]) if index.meta.get("data") else None


def score(run: Run, kind: str, *, num_workers: int = 0, **rules: Any) -> Scored:
    """Encode queries and database of the split, and evaluate the search of one in the other."""
    query, database = (encode(run, images, kind, num_workers=num_workers) for images in ("query", "database"))
    bits = run.model.config.num_bits
    result = evaluate(query.packed, database.packed, query.labels, database.labels, num_bits=bits, **rules)
    return Scored(result, query, database)


def write_evaluation(path: Path, scored: Scored, run: Run) -> None:
    """Write an evaluation as JSON with the split and the rules it holds for."""
    record = {"adsq": __version__} | {key: run.about.get(key) for key in ("data", "data_digest", "read", "split")}
    record["code"] = scored.query.about["kind"]
    write_text(path, json.dumps(record | scored.result.to_dict(), indent=1) + "\n")


def describe(dataset: ImageDataset | None, item: int) -> tuple[str, str]:
    """Return the labels of an item in words, and its path; empty where they are not known."""
    if dataset is None:
        return "", ""
    labels = dataset.labels[item]
    present = [int(labels)] if labels.dim() == 0 else labels.nonzero().flatten().tolist()
    return ", ".join(dataset.class_names[label] for label in present), dataset.path(item) or ""


def default_epochs(dataset: ImageDataset) -> int:
    """Return more epochs for a small data set, so that every run takes a sensible number of steps."""
    return 30 if dataset.name == "digits" else 20
