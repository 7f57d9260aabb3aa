"""What all rivals share: adsq's own trainer with its batches, images, networks, optimizer and schedule.

A rival is a module that turns the outputs z of an ImgNet into a loss. It replaces what a step of `adsq.Trainer` does;
everything else is the trainer's. The code of an image is sgn(z), as in ADSQ.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from adsq.kernels import mean_pairwise_similarity, pairwise_similarity_loss
from adsq.monitoring import TermLog
from adsq.networks import ADSQ
from adsq.objective import ObjectiveConfig
from adsq.training import Trainer, TrainingConfig


class Batch(NamedTuple):
    """What a rival sees of a step."""

    semantic: Tensor  # semantic features, [m, d]
    z: Tensor  # outputs of the hash layer, [m, K]
    labels: Tensor  # as in the data set: ids [m] or rows [m, C]
    rows: Tensor  # label rows, float [m, C]
    positions: Tensor  # which of the training images, [m]
    bank: Tensor  # codes last seen of all training images by the net that gave z, [n, K]
    progress: float  # 0 at the first step, 1 at the end


class Rival(nn.Module):
    """A method.

    Args:
        trainer: The trainer it belongs to.
        settings: Values in place of those of `settings`.
    """

    settings: ClassVar[dict[str, float]] = {}

    def __init__(self, trainer: Trainer, **settings: float) -> None:
        super().__init__()
        unknown = settings.keys() - self.settings.keys()
        if unknown:
            raise ValueError(f"settings: expected some of {', '.join(self.settings)}, got {', '.join(sorted(unknown))}")
        self.trainer = trainer
        self.has = self.settings | settings
        self.bits, self.classes = trainer.model.config.num_bits, trainer.model.config.num_classes
        self.make(trainer)

    def make(self, trainer: Trainer) -> None:
        """Build what the method has besides the ImgNet."""

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        raise NotImplementedError

    def relaxed(self, z: Tensor) -> Tensor:
        """Return the codes that the trainer's bank keeps."""
        return z

    def after_epoch(self) -> None:
        """Do what the method does between epochs."""


class RivalSteps:
    """Takes the place of `Trainer.steps`.

    Two ImgNets share what the rival adds, a classifier say, so that a bit means the same in both and they can be
    averaged; their losses add up.
    """

    def __init__(self, trainer: Trainer, method: type[Rival], settings: dict[str, float]) -> None:
        self.trainer, self.rival = trainer, method(trainer, **settings).to(trainer.device)
        self.parameters: dict[str, Tensor] = {}
        config = trainer.config
        weights = [weight for module in (*trainer.nets, self.rival) for weight in module.parameters()]
        self.optimizers = [
            torch.optim.Adam(weights, config.peak_lr, weight_decay=config.weight_decay, fused=trainer.fused)
        ]
        self.schedulers = [trainer.one_cycle(self.optimizers[0], config.peak_lr)]

    def start(self) -> None:
        """Nothing comes before the first step."""

    def begin_epoch(self) -> None:
        """Nothing holds for an epoch only."""

    def step(self, positions: Tensor, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step; each ImgNet has its own view of the batch."""
        trainer, rival, scheduler = self.trainer, self.rival, self.schedulers[0]
        labels = trainer.labels[positions]
        rows, progress = trainer.label_rows(labels), scheduler.last_epoch / scheduler.total_steps
        terms: dict[str, Tensor] = {}
        relaxed: list[Tensor] = []
        for name, net, bank in zip("fg", trainer.nets, trainer.banks, strict=False):
            view = trainer.model.normalize(trainer.augmentation(images, generator))
            semantic, z = net.heads(net.backbone(view))
            terms[f"{name}_loss"] = rival.loss(Batch(semantic, z, labels, rows, positions, bank, progress))
            relaxed.append(rival.relaxed(z.detach()))
        trainer.descend(terms, self.optimizers[0])
        scheduler.step()
        for bank, own in zip(trainer.banks, relaxed, strict=False):
            bank[positions] = own
        total = sum(bank[positions] for bank in trainer.banks[: len(trainer.nets)])
        trainer.codes[positions] = torch.where(total >= 0, 1.0, -1.0)
        return {name: term.detach() for name, term in terms.items()}

    def end_epoch(self, log: TermLog, generator: torch.Generator) -> None:
        """Let the rival do what it does between epochs."""
        self.rival.after_epoch()


def rival_trainer(
    method: type[Rival],
    model: ADSQ,
    dataset: Any,
    indices: Tensor,
    config: TrainingConfig,
    nets: int = 1,
    **settings: float,
) -> Trainer:
    """Return a trainer of the ImgNets of a model by a rival."""
    trainer = Trainer(model, dataset, indices, ObjectiveConfig(image_nets=nets), config)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        trainer.steps = RivalSteps(trainer, method, settings)
    return trainer


def pair_loss(u: Tensor, v: Tensor, labels_u: Tensor, labels_v: Tensor, balanced: float, **options: Any) -> Tensor:
    """Return the mean loss of pairs, similar and dissimilar ones weighing the same in sum if `balanced`."""
    if balanced:
        p = mean_pairwise_similarity(labels_u, labels_v).clamp(1e-3, 1 - 1e-3)
        options |= {"positive_weight": 0.5 / p, "negative_weight": 0.5 / (1 - p)}
    return pairwise_similarity_loss(u, v, labels_u, labels_v, **options)
