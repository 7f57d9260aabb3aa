"""Model files and training checkpoints: safetensors with JSON inside, no pickle.

A checkpoint is a model file that also holds what the trainer needs to go on, so either can be loaded as a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adsq.augmentation import Augmentation
from adsq.data import ImageDataset
from adsq.files import read_tensors, write_tensors
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import ObjectiveConfig
from adsq.training import Trainer, TrainingConfig, make_objective

KIND, VERSION = "adsq-model", 1
MODEL_FILE, CHECKPOINT_FILE = "model.safetensors", "checkpoint.safetensors"

Backbone = nn.Module | Callable[[], nn.Module] | None


def save_model(path: str | Path, model: ADSQ, about: dict[str, Any] | None = None) -> None:
    """Write a model file.

    Args:
        path: The file; it is replaced only when the new one is complete.
        model: The model.
        about: JSON-able facts to keep with it, such as its data set and split.

    Raises:
        OSError: The file cannot be written; an older one is as it was.
    """
    meta = {"model": model.config.to_dict(), "about": about or {}}
    write_tensors(path, _model_tensors(model), kind=KIND, version=VERSION, meta=meta)


def load_model(
    path: str | Path, *, backbone: Backbone = None, device: torch.device | str = "cpu"
) -> tuple[ADSQ, dict[str, Any]]:
    """Read a model from a model file, a checkpoint, or a folder that `adsq train` wrote.

    Args:
        path: The file or folder.
        backbone: For a model with a module of the user's as its backbone: that module, as given to `ADSQ`.
        device: Where to put the model.

    Returns:
        The model, in evaluation mode, and the facts saved with it.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged, of another kind, or needs a `backbone`.
    """
    tensors, meta = _read(path, (MODEL_FILE, CHECKPOINT_FILE))
    return _build_model(tensors, meta, backbone).to(device).eval(), meta["about"]


def save_checkpoint(path: str | Path, trainer: Trainer, about: dict[str, Any] | None = None) -> None:
    """Write everything a trainer needs to go on after the epoch it has done.

    Args:
        path: The file; it is replaced only when the new one is complete.
        trainer: The trainer, between two epochs.
        about: JSON-able facts to keep with it, such as its data set and split.

    Raises:
        OSError: The file cannot be written; an older one is as it was.
    """
    tensors = _model_tensors(trainer.model) | {"codes": trainer.codes, "indices": trainer.indices}
    tensors |= {f"banks.{which}": bank for which, bank in enumerate(trainer.banks)}
    tensors |= {f"parameters.{name}": parameter.detach() for name, parameter in trainer.steps.parameters.items()}
    groups = []
    for which, optimizer in enumerate(trainer.steps.optimizers):
        state = optimizer.state_dict()
        groups.append(state["param_groups"])
        for parameter, values in state["state"].items():
            tensors |= {f"optimizers.{which}.{parameter}.{key}": value for key, value in values.items()}
    meta = {
        "model": trainer.model.config.to_dict(),
        "about": about or {},
        "trainer": {
            "objective": {"name": trainer.objective.name, **asdict(trainer.objective)},
            "training": asdict(trainer.config),
            "augmentation": asdict(trainer.augmentation),
            "epoch": trainer.epoch,
            "history": trainer.history,
            "optimizers": groups,
            "schedulers": [scheduler.state_dict() for scheduler in trainer.steps.schedulers],
            "scaler": trainer.scaler.state_dict(),
        },
    }
    write_tensors(path, tensors, kind=KIND, version=VERSION, meta=meta)


def load_trainer(
    path: str | Path,
    dataset: ImageDataset,
    *,
    backbone: Backbone = None,
    device: torch.device | str = "cpu",
) -> tuple[Trainer, dict[str, Any]]:
    """Read a checkpoint and stand where it was written. On the CPU training then goes on bit for bit.

    Args:
        path: A checkpoint, or the folder that `adsq train` wrote it to.
        dataset: The data set it was trained on.
        backbone: As in `load_model`.
        device: Where to train.

    Returns:
        The trainer, and the facts saved with it.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged, of another kind, or holds a model without its training state; or `dataset` is
            not what it was trained on.
    """
    tensors, meta = _read(path, (CHECKPOINT_FILE,))
    if "trainer" not in meta:
        raise ValueError(f"{path}: holds a trained model, but no training state to go on from")
    saved, indices = meta["trainer"], tensors["indices"]
    if int(indices.max()) >= len(dataset):
        raise ValueError(
            f"dataset: expected the one of {path}, with image {int(indices.max())}, got {len(dataset)} images"
        )
    trainer = Trainer(
        _build_model(tensors, meta, backbone),
        dataset,
        indices,
        # files of before there were two objectives name none
        make_objective(**{"name": ObjectiveConfig.name} | saved["objective"]),
        TrainingConfig(**saved["training"]),
        Augmentation(**saved["augmentation"]),
        device,
    )
    trainer.epoch, trainer.history = saved["epoch"], saved["history"]
    trainer.codes = tensors["codes"].to(device)
    trainer.banks = [tensors[f"banks.{which}"].to(device) for which in range(len(trainer.banks))]
    for learned, value in trainer.steps.parameters.items():
        value.data.copy_(tensors[f"parameters.{learned}"])
    for which, optimizer in enumerate(trainer.steps.optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for name in tensors:
            if name.startswith(f"optimizers.{which}."):
                _, _, parameter, key = name.split(".")
                value, weight = tensors[name], weights[int(parameter)]
                # Fused Adam goes through weights and moments side by side in memory, so their strides must be the same.
                state.setdefault(int(parameter), {})[key] = (
                    torch.empty_like(weight, dtype=value.dtype).copy_(value) if value.shape == weight.shape else value
                )
        optimizer.load_state_dict({"state": state, "param_groups": saved["optimizers"][which]})
    for scheduler, values in zip(trainer.steps.schedulers, saved["schedulers"], strict=True):
        scheduler.load_state_dict(values)
    trainer.scaler.load_state_dict(saved["scaler"])
    return trainer, meta["about"]


def read_about(path: str | Path) -> dict[str, Any]:
    """Return the facts saved with a checkpoint, without reading its tensors. Errors: as in `load_trainer`."""
    return _read(path, (CHECKPOINT_FILE,), mmap=True)[1]["about"]


def _read(path: str | Path, names: tuple[str, ...], mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in names if (path / name).exists()]
        if not found:
            raise FileNotFoundError(f"{path}: holds no {' or '.join(names)}")
        path = found[0]
    return read_tensors(path, kind=KIND, version=VERSION, mmap=mmap)


def _build_model(tensors: dict[str, Tensor], meta: dict[str, Any], backbone: Backbone) -> ADSQ:
    config = ModelConfig.from_dict(meta["model"])
    if config.backbone == "custom" and backbone is None:
        raise ValueError("backbone: the model was trained on a module of the user's: pass it here again")
    model = ADSQ(config, backbone)
    prefix = "model."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"backbone: the saved weights do not fit: {error}") from error
    model.pixel_statistics_known = True
    return model


def _model_tensors(model: ADSQ) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
