"""CSQ: Yuan and others, "Central Similarity Quantization for Efficient Image and Video Retrieval", CVPR 2020."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from adsq.training import Trainer
from rivals.frame import Batch, Rival


class CSQ(Rival):
    """Codes follow the hash centre of their label: a row of a Hadamard matrix, or random where there are too few."""

    settings: ClassVar[dict[str, float]] = {"quantization": 1e-4, "scale": 1.0}
    centres: Tensor

    def make(self, trainer: Trainer) -> None:
        """Draw the centres; both nets have the same."""
        generator = torch.Generator().manual_seed(trainer.config.seed)
        matrix = torch.ones((1, 1))
        while len(matrix) < self.bits:
            matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        centres = torch.cat([matrix, -matrix])
        if len(matrix) > self.bits or len(centres) < self.classes:
            centres = torch.randint(0, 2, (self.classes, self.bits), generator=generator) * 2.0 - 1
        self.register_buffer("centres", centres[: self.classes])
        self.register_buffer("tie", torch.randint(0, 2, (self.bits,), generator=generator) * 2.0 - 1)

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy of each bit with that of the centre (several labels: the majority), and (|u| - 1)^2."""
        votes = batch.rows @ self.centres
        centre = torch.where(votes == 0, self.tie, votes.sign())
        z = self.has["scale"] * batch.z
        central = binary_cross_entropy_with_logits(2 * z, (centre + 1) / 2)  # sigmoid(2 z) = (tanh z + 1) / 2
        return central + self.has["quantization"] * (torch.tanh(z).abs() - 1).square().mean()

    def relaxed(self, z: Tensor) -> Tensor:
        """Keep codes in (-1, 1)."""
        return torch.tanh(z)
