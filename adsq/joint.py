"""Training for "adsq": all streams descend together. The schedule: docs/method.md, "Targets from posteriors"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adsq.distributed import Share
from adsq.monitoring import TermLog
from adsq.posterior import (
    Mixture,
    PosteriorConfig,
    hamming_guidance_loss,
    hamming_terms,
    label_logits,
    pair_targets,
    prior_logits,
    semantic_loss,
)

if TYPE_CHECKING:
    from adsq.training import Trainer


class Joint:
    """The steps of a trainer whose objective is a `PosteriorConfig`.

    Attributes:
        optimizers: One for everything.
        schedulers: Its own.
        parameters: The learned scale a and bias c0.
    """

    def __init__(self, trainer: Trainer, objective: PosteriorConfig) -> None:
        self.trainer, self.objective = trainer, objective
        start = {"scale": objective.scale, "bias": objective.bias}
        self.parameters = {
            name: nn.Parameter(torch.tensor(value, device=trainer.device)) for name, value in start.items()
        }
        weights = [weight for net in trainer.nets for weight in net.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": trainer.config.weight_decay},
            {"params": list(trainer.model.label_net.parameters())},
            {"params": list(self.parameters.values())},
        ]
        self.optimizers = [torch.optim.Adam(groups, trainer.config.peak_lr, fused=trainer.fused)]
        peak = trainer.config.peak_lr
        self.schedulers = [trainer.one_cycle(self.optimizers[0], [peak, peak, peak * objective.parameter_lr])]
        self._rows = trainer.label_rows(trainer.labels)
        self.exclusive = bool((self._rows.sum(dim=1) == 1).all())
        self.mixing = self.exclusive if objective.mixing is None else objective.mixing
        self._prior = prior_logits(self._rows, self.exclusive)
        self._single = torch.eye(trainer.model.config.num_classes, device=trainer.device)

    def start(self) -> None:
        """Nothing comes before the first step."""

    def begin_epoch(self) -> None:
        """Nothing holds for an epoch only."""

    def slope(self) -> float:
        """Return beta as of the steps done."""
        first, last = self.objective.slope
        scheduler = self.schedulers[0]
        return first + (last - first) * scheduler.last_epoch / scheduler.total_steps

    def step(self, positions: Tensor, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of all streams; each ImgNet has its own view of the batch.

        Args:
            positions: Which of the training images the batch has, [m].
            images: Those of this process's share.
            generator: What to draw from, the same on all processes.

        Returns:
            The terms of the whole batch.
        """
        trainer, objective, slope = self.trainer, self.objective, self.slope()
        share = Share.of(len(positions))
        pairs = share.times(2) if self.mixing else share
        batch_rows = self._rows[positions]
        rows = share.own_rows(batch_rows)
        mixture = Mixture.draw(share, generator, trainer.device) if self.mixing else None
        if mixture is not None:
            rows = mixture.append(rows, batch_rows)
        label_semantic = trainer.model.label_net.logits(self._single)[0]
        logits, codes = [], []
        for net in trainer.nets:
            view = trainer.model.normalize(trainer.augmentation(images, generator, share))
            with trainer.autocast():
                features = net.backbone(view)
                if mixture is not None:
                    features = mixture.append(features, share.gather(features))
                semantic, hashing = net.heads(features)
            logits.append(label_logits(semantic.float(), label_semantic, self._prior))
            codes.append(torch.tanh(slope * hashing.float()))
        targets = pair_targets(torch.stack(logits).mean(dim=0), rows, self.exclusive, objective)
        terms: dict[str, Tensor] = {}
        if objective.semantic:
            for which, own in zip("fg", logits, strict=False):
                loss = semantic_loss(own, rows, self.exclusive, len(images), share.count)
                terms[f"{which}_semantic"] = objective.semantic * loss
        terms |= hamming_terms(codes, targets, self.parameters["scale"], self.parameters["bias"], objective, pairs)
        if objective.hamming_guidance:
            terms |= self._hamming_guidance(codes, targets, slope, pairs)
        values = trainer.descend(terms, self.optimizers[0])
        self.schedulers[0].step()
        relaxed = [share.gather(own[: len(images)].detach()) for own in codes]
        for bank, own in zip(trainer.banks, relaxed, strict=False):
            bank[positions] = own
        trainer.codes[positions] = torch.where(torch.stack(relaxed).sum(dim=0) >= 0, 1.0, -1.0)
        return values

    def _hamming_guidance(self, codes: list[Tensor], targets: Tensor, slope: float, pairs: Share) -> dict[str, Tensor]:
        """Return (HL): codes of images against LabelNet's codes of the distinct label rows."""
        trainer, objective = self.trainer, self.objective
        labels, counts = trainer.distinct
        rows = trainer.label_rows(labels)
        label_codes = torch.tanh(slope * trainer.model.label_net.logits(rows)[1])
        label_targets = nn.functional.normalize(rows) if objective.similarity == "cosine" else rows
        terms = {}
        for which, own in zip("fg", codes, strict=False):
            scale, bias = self.parameters["scale"], self.parameters["bias"]
            loss = hamming_guidance_loss(
                own, label_codes, targets, label_targets, scale, bias, objective, counts, pairs
            )
            terms[f"{which}_hamming_guidance"] = objective.hamming_guidance * loss
        return terms

    def end_epoch(self, log: TermLog, generator: torch.Generator) -> None:
        """LabelNet has descended with the others."""
