"""ADSH: Jiang, Li, "Asymmetric Deep Supervised Hashing", AAAI 2018."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from adsq.kernels import pairwise_similarity
from adsq.training import Trainer
from rivals.frame import Batch, Rival


class ADSH(Rival):
    """|u_i.v_j - K S_ij|^2 for codes u = tanh(z) of the net and free codes v of all training images, by turns.

    S is 1 for similar pairs, and for others minus the ratio of the numbers of both, or minus 1 if not balanced.
    """

    settings: ClassVar[dict[str, float]] = {"quantization": 0.1, "balanced": 1.0}
    codes: Tensor

    def make(self, trainer: Trainer) -> None:
        """Start from random codes."""
        self.register_buffer("codes", trainer.banks[0].sign())
        p = self.similarity(trainer.labels, 0.0).mean()
        self.negative = float(p / (1 - p)) if self.has["balanced"] else 1.0

    def similarity(self, labels: Tensor, negative: float) -> Tensor:
        """Return S of some images and all training images."""
        similar = pairwise_similarity(labels, self.trainer.labels)
        return similar * (1 + negative) - negative

    def loss(self, batch: Batch) -> Tensor:
        """The codes v stand still."""
        u = torch.tanh(batch.z)
        pairs = (u @ self.codes.T / self.bits - self.similarity(batch.labels, self.negative)).square().mean()
        return pairs + self.has["quantization"] * (u - self.codes[batch.positions]).square().mean()

    def relaxed(self, z: Tensor) -> Tensor:
        """Keep u."""
        return torch.tanh(z)

    def after_epoch(self) -> None:
        """The codes u stand still: descend along one bit of all v after the other."""
        trainer, v = self.trainer, self.codes
        u = torch.stack(trainer.banks[: len(trainer.nets)]).mean(dim=0)
        pull = self.bits * self.similarity(trainer.labels, self.negative).T @ u + self.has["quantization"] * u
        gram = u.T @ u
        for bit in range(self.bits):
            rest = v @ gram[:, bit] - v[:, bit] * gram[bit, bit]
            v[:, bit] = torch.where(pull[:, bit] - rest >= 0, 1.0, -1.0)
