"""Training for "adsq-likelihood": LabelNet, F and G take turns. The schedule: docs/method.md, "Training"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adsq.distributed import Share
from adsq.kernels import sign_quantization_loss
from adsq.monitoring import TermLog
from adsq.objective import LabelTargets, ObjectiveConfig, img_net_terms, label_net_terms

if TYPE_CHECKING:
    from adsq.training import Trainer


class Alternating:
    """The steps of a trainer whose objective is an `ObjectiveConfig`.

    Attributes:
        optimizers: LabelNet's, then one for each ImgNet.
        schedulers: One for each ImgNet.
        parameters: What is learned besides the model: nothing.
    """

    def __init__(self, trainer: Trainer, objective: ObjectiveConfig) -> None:
        self.trainer, self.objective = trainer, objective
        config, label_net = trainer.config, trainer.model.label_net
        label_optimizer = torch.optim.Adam(label_net.parameters(), config.label_lr, fused=trainer.fused)
        image_optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(net.parameters(), config.peak_lr, weight_decay=config.weight_decay, fused=trainer.fused)
            for net in trainer.nets
        ]
        self.optimizers: list[torch.optim.Optimizer] = [label_optimizer, *image_optimizers]
        self.schedulers = [trainer.one_cycle(optimizer, config.peak_lr) for optimizer in image_optimizers]
        self.parameters: dict[str, Tensor] = {}
        self._targets: LabelTargets | None = None

    def start(self) -> None:
        """Train LabelNet on labels alone, then start the banks and the shared codes from its codes."""
        trainer = self.trainer
        if not self.objective.uses_label_net:
            return
        self._train_label_net(trainer.config.label_pretraining, None, trainer.generator("pretraining"))
        hashing = self._label_targets().hashing[trainer.row_of]
        trainer.banks = [hashing.clone() for _ in trainer.banks]
        trainer.codes = torch.where(hashing >= 0, 1.0, -1.0)

    def begin_epoch(self) -> None:
        """LabelNet's view of the labels holds for an epoch."""
        self._targets = self._label_targets() if self.objective.uses_label_net else None

    def step(self, positions: Tensor, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of each ImgNet on its own view of the batch, then new shared codes for the batch.

        Args:
            positions: Which of the training images the batch has, [m].
            images: Those of this process's share.
            generator: What to draw from, the same on all processes.

        Returns:
            The terms of the whole batch.
        """
        trainer, targets = self.trainer, self._targets
        share = Share.of(len(positions))
        labels, codes = trainer.labels[positions], trainer.codes[positions]
        columns = torch.randperm(len(trainer.indices), generator=generator)[: trainer.config.bank_columns]
        columns = columns.to(trainer.device)
        terms: dict[str, Tensor] = {}
        relaxed = []
        for which, (net, optimizer) in enumerate(zip(trainer.nets, self.optimizers[1:], strict=True)):
            view = trainer.model.normalize(trainer.augmentation(images, generator, share))
            with trainer.autocast():
                semantic, hashing = net(view)
            semantic, hashing = semantic.float(), hashing.float()
            bank = trainer.banks[-1 - which][columns]  # the other net's; with one net, its own
            bank_labels = trainer.labels[columns]
            own = img_net_terms(semantic, hashing, labels, codes, bank, bank_labels, targets, self.objective, share)
            values = trainer.descend(own, optimizer)
            self.schedulers[which].step()
            terms |= {f"{'fg'[which]}_{name}": value for name, value in values.items()}
            relaxed.append(share.gather(hashing.detach()))
            trainer.banks[which][positions] = relaxed[-1]
        anchor = targets.hashing[trainer.row_of[positions]] if targets is not None else None
        weight = self.objective.anchor_weight
        trainer.codes[positions] = sign_quantization_loss(*relaxed, anchor=anchor, anchor_weight=weight)[1]
        return terms

    def end_epoch(self, log: TermLog, generator: torch.Generator) -> None:
        """Train LabelNet, against the shared codes too."""
        if self.objective.uses_label_net:
            self._train_label_net(self.trainer.config.label_steps, log, generator)

    def _train_label_net(self, steps: int, log: TermLog | None, generator: torch.Generator) -> None:
        """Train LabelNet on random training labels; against the shared codes too once there is a log of an epoch.

        It is so small that every process trains it on the whole batch.
        """
        trainer = self.trainer
        reads = log or trainer.new_log(0)
        for _ in range(steps):
            drawn = torch.randint(len(trainer.indices), (trainer.config.label_batch,), generator=generator)
            drawn = drawn.to(trainer.device)
            labels = trainer.labels[drawn]
            semantic, hashing = trainer.model.label_net(trainer.label_rows(labels))
            codes = trainer.codes[drawn] if log is not None else None
            terms = label_net_terms(semantic, hashing, labels, codes, self.objective)
            reads.add(trainer.descend(terms, self.optimizers[0], alike=True), new_step=False)
        reads.read()

    @torch.no_grad()
    def _label_targets(self) -> LabelTargets:
        labels, counts = self.trainer.distinct
        return LabelTargets(labels, counts, *self.trainer.model.label_net(self.trainer.label_rows(labels)))
