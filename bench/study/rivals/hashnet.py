"""HashNet: Cao, Long, Wang, Yu, "HashNet: Deep Learning to Hash by Continuation", ICCV 2017."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rivals.frame import Batch, Rival, pair_loss


class HashNet(Rival):
    """Weighted likelihood of the similarity under alpha u_i.u_j, u = tanh(beta z), beta growing as a square root."""

    settings: ClassVar[dict[str, float]] = {"scale": 10.0, "slope": 10.0}

    def loss(self, batch: Batch) -> Tensor:
        """Pairs within the batch; alpha is scale / K."""
        beta = (1 + (self.has["slope"] ** 2 - 1) * batch.progress) ** 0.5
        u = torch.tanh(beta * batch.z)
        scale = self.has["scale"] / self.bits
        return pair_loss(u, u, batch.labels, batch.labels, True, scale=scale, exclude_diagonal=True)

    def relaxed(self, z: Tensor) -> Tensor:
        """Keep codes in (-1, 1)."""
        return torch.tanh(z)
