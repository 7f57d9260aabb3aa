"""DPSH: Li, Wang, Kang, "Feature Learning based Deep Supervised Hashing with Pairwise Labels", IJCAI 2016."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from adsq.kernels import sign_quantization_loss
from rivals.frame import Batch, Rival, pair_loss


class DPSH(Rival):
    """Likelihood of the similarity under u_i.u_j / 2 for unbounded codes u, against those last seen of all images."""

    settings: ClassVar[dict[str, float]] = {"quantization": 0.1, "balanced": 1.0}

    def loss(self, batch: Batch) -> Tensor:
        """Pairs of the batch with the bank, and eta |u - sgn u|^2."""
        pairs = pair_loss(batch.z, batch.bank, batch.labels, self.trainer.labels, self.has["balanced"], scale=0.5)
        return pairs + self.has["quantization"] * sign_quantization_loss(batch.z)[0]
