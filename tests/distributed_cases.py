"""What the tests of several processes run in each: `torch.multiprocessing` imports this file by name."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adsq import distributed, encoding
from adsq.augmentation import Augmentation
from adsq.checkpoint import load_trainer, save_checkpoint
from adsq.data import ImageDataset, TensorImageDataset
from adsq.distributed import Share
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import WITHOUT_LABEL_NET, ObjectiveConfig
from adsq.posterior import Pairs, PosteriorConfig
from adsq.training import Objective, Trainer, TrainingConfig

BITS, IMAGES, BATCH = 8, 27, 8  # a last batch of 3 images: two processes have 2 and 1 of them, four 1, 1, 1 and none
COUNTS = (11, 4, 3, 1)  # rows of a batch
ENCODED = (37, 3, 0)  # images to encode, in batches of 5

OBJECTIVES: dict[str, tuple[Objective, bool]] = {
    "adsq": (PosteriorConfig(hamming_guidance=0.5, quantization=0.2), False),
    "adsq, one net": (PosteriorConfig(image_nets=1), False),
    "adsq, several labels": (PosteriorConfig(similarity="cosine"), True),
    "likelihood": (ObjectiveConfig(), False),
    "likelihood, one net, several labels": (ObjectiveConfig(image_nets=1), True),
    "squared, without LabelNet": (ObjectiveConfig(form="squared", **WITHOUT_LABEL_NET), False),
}
RESUMED = ("adsq", "likelihood")


def pictures(count: int, multi_label: bool = False) -> ImageDataset:
    """Return images of three classes: bright rows at three heights, with noise."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (count,), generator=generator)
    rows = nn.functional.one_hot(labels, 3).to(torch.uint8)
    if multi_label:
        rows |= torch.randint(0, 2, rows.shape, generator=generator, dtype=torch.uint8)
    images = torch.randint(0, 60, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    for label, first in enumerate((0, 3, 6)):
        images[:, 0, first : first + 2] += 150 * rows[:, label].view(-1, 1, 1)
    return TensorImageDataset(images, rows if multi_label else labels, ["a", "b", "c"], name="pictures")


class Backbone(nn.Module):
    """A small network in float64: what cancels in a gradient does so to less than Adam's epsilon."""

    def __init__(self) -> None:
        super().__init__()
        norms = nn.BatchNorm2d(6), nn.BatchNorm1d(20, momentum=None)
        # The second convolution's weights are not contiguous: the model has them channels last.
        convolutions = nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), norms[0], nn.ReLU(), nn.Conv2d(6, 8, 2)
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32, 20), norms[1]).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.double()).float()


def make_trainer(name: str, backbone: type[nn.Module] = Backbone, **schedule: Any) -> Trainer:
    """Return the trainer of a case; the weights depend on the rank, and those of rank 0 are to count."""
    objective, multi_label = OBJECTIVES[name]
    dataset = pictures(IMAGES + 3, multi_label)
    torch.manual_seed(distributed.rank())
    model = ADSQ(ModelConfig(BITS, 3, dataset.image_shape, semantic_dim=12), backbone)
    options: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "label_pretraining": 5, "label_steps": 3}
    config = TrainingConfig(**options | {"bank_columns": 16, "peak_lr": 3e-3} | schedule)
    return Trainer(model, dataset, torch.arange(IMAGES), objective, config, Augmentation(shift=1, flip=True))


def state(trainer: Trainer) -> dict[str, Any]:
    """Return everything that training changes, and what it says of it."""
    tensors = {**trainer.model.state_dict(), "B": trainer.codes, "u": trainer.banks[0], "v": trainer.banks[1]}
    tensors |= {name: value.detach() for name, value in trainer.steps.parameters.items()}
    moments = [value for optimizer in trainer.steps.optimizers for value in optimizer.state_dict()["state"].values()]
    timing = {"seconds", "images_per_second"}
    history = [{name: value for name, value in record.items() if name not in timing} for record in trainer.history]
    return {"tensors": {name: tensor.clone() for name, tensor in tensors.items()}, "history": history, "adam": moments}


def gathered(count: int) -> dict[str, Tensor]:
    """Return the own gradient of a loss of all pairs of rows, and the loss; each process sums those of its rows."""
    generator = torch.Generator().manual_seed(count)
    rows, weights = (torch.randn(count, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    share = Share.of(count)
    own = share.own_rows(rows).clone().requires_grad_()
    loss = (torch.tanh(own @ share.gather(own * own).T) * (share.own_rows(weights) @ weights.T)).sum()
    loss.backward()
    return {"loss": distributed.total(loss), "gradient": own.grad, "whole": share.gather(own.detach())}


def paired(count: int, balanced: bool) -> dict[str, Tensor]:
    """Return the loss of the pairs of codes of two networks, its gradients by the own codes, and by scale and bias."""
    generator = torch.Generator().manual_seed(count)
    u, v = (torch.randn(count, BITS, dtype=torch.float64, generator=generator).tanh() for _ in range(2))
    targets = torch.randn(count, 3, dtype=torch.float64, generator=generator).softmax(dim=1)
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (6.0, -1.0))
    share = Share.of(count)
    mine_u, mine_v = (share.own_rows(codes).clone().requires_grad_() for codes in (u, v))
    pairs = Pairs(share.own_rows(targets), PosteriorConfig(balanced=balanced), share)
    loss = pairs.loss(mine_u, share.gather(mine_v), scale, bias)
    loss.backward()
    found = {"loss": loss.detach(), "scale": scale.grad, "bias": bias.grad}
    return {name: distributed.total(value) for name, value in found.items()} | {"u": mine_u.grad, "v": mine_v.grad}


def normalized(count: int, dims: int, options: dict[str, Any]) -> dict[str, Tensor]:
    """Return what batch norm makes of the own rows in two steps, its gradients, and what it keeps."""
    generator = torch.Generator().manual_seed(count)
    shape = (count, 4, 3, 2)[: 2 + dims]
    weights = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2)]
    layers = nn.Sequential((nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[dims](4, dtype=torch.float64, **options))
    distributed.synchronize_batch_norm(layers, torch.device("cpu"))
    share = Share.of(count)
    found = {}
    for step in range(2):
        rows = 3 + torch.randn(shape, dtype=torch.float64, generator=generator)
        own = share.own_rows(rows).clone().requires_grad_()
        normal = layers(own)
        (normal * share.own_rows(weights[step])).sum().backward()
        found |= {f"{step} rows": normal.detach(), f"{step} gradient": own.grad}
    distributed.total_gradients(layers.parameters(), torch.zeros(0))
    learned = {f"gradient of {name}": weight.grad for name, weight in layers.named_parameters()}
    after = {"evaluated": layers.eval()(share.own_rows(weights[0]))} if options.get("track_running_stats", True) else {}
    return (
        found | after | learned | {name: value for name, value in layers.state_dict().items() if "weight" not in name}
    )


NORMS: dict[str, tuple[int, dict[str, Any]]] = {
    "images": (2, {}),
    "features": (0, {"momentum": None}),
    "sequences": (1, {"affine": False, "track_running_stats": False}),
}


class Watched(ImageDataset):
    """Counts the images that are read, and fails when it has read some."""

    def __init__(self, images: ImageDataset, limit: int = 10**9, failure: Callable[[], None] | None = None) -> None:
        super().__init__(
            name=images.name,
            spec=images.spec,
            labels=images.labels,
            class_names=images.class_names,
            image_shape=images.image_shape,
        )
        self.images, self.limit, self.failure, self.read = images, limit, failure, []  # type: ignore[var-annotated]

    def path(self, index: int) -> str | None:
        return None

    def _read(self, indices: Tensor) -> Tensor:
        if self.failure is not None and len(self.read) + len(indices) > self.limit:
            self.failure()
        self.read += indices.tolist()
        return self.images.__getitems__(indices)

    def _hash(self) -> list[bytes]:
        return self.images.content_hashes()


def fail() -> None:
    """Fail as reading an image does."""
    raise OSError("cannot be read")


def encoder() -> ADSQ:
    """Return a model to encode with: two bytes a code."""
    torch.manual_seed(3)
    return ADSQ(ModelConfig(13, 3, (1, 8, 8), semantic_dim=12))


def items(count: int) -> Tensor:
    """Return which images are encoded, in an order of their own."""
    return torch.randperm(50, generator=torch.Generator().manual_seed(count))[:count]


def encode(folder: Path, count: int, dataset: ImageDataset | None = None, **options: Any) -> Tensor:
    """Encode by all processes, noting each batch."""
    dataset, options = dataset or pictures(50), {"batch_size": 5, "kind": "f"} | options
    with patch.object(encoding, "SECONDS_A_MARK", 0.0):
        return encoding.encode_in_parts(encoder(), dataset, items(count), folder, **options).clone()


def said(function: Callable[[], Any]) -> str:
    """Return what the function raised, in a line."""
    try:
        return f"nothing: {function()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def mistakes(folder: Path) -> dict[str, str]:
    """Return what is said here to a mistake on the last rank, or on all."""
    last = distributed.rank() == distributed.world_size() - 1 > 0
    trainers = {name: make_trainer("adsq") for name in ("config", "indices", "objective", "labels")}
    if last:
        trainers["config"].config = replace(trainers["config"].config, seed=7)
        trainers["indices"].indices = torch.arange(IMAGES).flip(0)
        trainers["objective"].objective = PosteriorConfig(symmetric=0.25)
        trainers["labels"].labels = trainers["labels"].labels.flip(0)
    found = {name: said(trainer.fit) for name, trainer in trainers.items()}
    return found | {
        "other kind": said(lambda: encode(folder / "none", 3, kind="g" if last else "f")),
        "kind": said(lambda: encode(folder / "none", 3, kind="h")),
        "no folder": said(lambda: encode(folder / "not" / "there", 3)),
        "stale": said(lambda: encode(folder / "stopped", 37, kind="g")),
    }


class Drawing(Backbone):
    """Draws from the global generator, as dropout does."""

    drawn: list[float]

    def forward(self, images: Tensor) -> Tensor:
        self.drawn = [*getattr(self, "drawn", []), float(torch.rand(()))]
        return super().forward(images)


def work(rank: int, world_size: int, folder: Path) -> None:
    """Run everything on one rank and write what came out to the folder; then die while encoding."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=world_size, timeout=timedelta(seconds=120)
    )
    found: dict[Any, Any] = {"gather": {count: gathered(count) for count in COUNTS}}
    found["pairs"] = {(count, balanced): paired(count, balanced) for count in COUNTS for balanced in (True, False)}
    found["norm"] = {(name, count): normalized(count, *NORMS[name]) for name in NORMS for count in COUNTS[:-1]}
    for name in OBJECTIVES:
        trainer = make_trainer(name)

        def save(trainer: Trainer, name: str = name) -> None:
            if rank == 0 and trainer.epoch == 1:
                save_checkpoint(folder / f"{name} of several", trainer)

        trainer.fit(after_epoch=save)
        found[name] = state(trainer)
    for name in RESUMED:
        resumed, _ = load_trainer(folder / name, make_trainer(name).dataset, backbone=Backbone)
        resumed.fit()
        found[name, "resumed"] = state(resumed)
    watched = make_trainer("adsq", epochs=1)
    watched.dataset = Watched(watched.dataset)
    watched.fit()
    found["read"] = watched.dataset.read
    drawing = make_trainer("adsq", Drawing, epochs=1)
    drawing.fit()
    found["drawn"], found["after drawing"] = drawing.model.img_net_f.backbone.drawn, state(drawing)
    found["mistakes"] = mistakes(folder)
    found["encoded"] = {count: encode(folder / f"codes-{count}", count) for count in ENCODED}
    dataset = Watched(pictures(50))
    told: list[int] = []
    found["encoded after a stop"] = encode(folder / "stopped", 37, dataset, progress=told.append)
    found["encoded images"], found["told"] = dataset.read, told
    (folder / f"found-{rank}").write_bytes(pickle.dumps(found))
    dist.barrier()
    dying = Watched(pictures(50), 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
    encode(folder / "killed", 37, dying)
