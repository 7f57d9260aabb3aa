"""Su, Zhang, Han, Tian, "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN", NeurIPS 2018."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from adsq.training import Trainer
from rivals.frame import Batch, Rival


class GreedyHash(Rival):
    """A classifier of the codes sgn z, whose gradient goes to z as it is."""

    settings: ClassVar[dict[str, float]] = {"penalty": 0.1}

    def make(self, trainer: Trainer) -> None:
        """Build the classifier."""
        self.classifier = nn.Linear(self.bits, self.classes)

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the labels, and alpha ||z| - 1|^3."""
        codes = torch.where(batch.z >= 0, 1.0, -1.0)
        logits = self.classifier(batch.z + (codes - batch.z).detach())
        if batch.labels.dim() == 1:
            loss = cross_entropy(logits, batch.labels)
        else:
            loss = binary_cross_entropy_with_logits(logits, batch.rows)
        return loss + self.has["penalty"] * (batch.z.abs() - 1).abs().pow(3).mean()
