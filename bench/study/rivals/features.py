"""LSH and ITQ on the features of a classifier: codes of a network that was not trained to hash.

LSH: random hyperplanes (Charikar, STOC 2002). ITQ: Gong, Lazebnik, "Iterative Quantization: A Procrustean Approach to
Learning Binary Codes", CVPR 2011. Both are FAISS's.
"""

from __future__ import annotations

from typing import Any

import faiss
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from adsq.data import batches
from adsq.kernels import pack_codes
from adsq.networks import ADSQ
from adsq.training import Trainer
from rivals.frame import Batch, Rival


class Classifier(Rival):
    """Cross entropy of the labels by a classifier of the semantic features; the hash layer stays as it is."""

    def make(self, trainer: Trainer) -> None:
        """Build the classifier."""
        self.classifier = nn.Linear(trainer.model.config.semantic_dim, self.classes)

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross entropy."""
        logits = self.classifier(batch.semantic)
        if batch.labels.dim() == 1:
            return cross_entropy(logits, batch.labels)
        return binary_cross_entropy_with_logits(logits, batch.rows)


@torch.no_grad()
def semantic_features(model: ADSQ, dataset: Any, indices: Tensor) -> Tensor:
    """Return ImgNet F's semantic features of images, [n, d]."""
    model.eval()
    return torch.cat([model.img_net_f(model.normalize(images))[0] for images in batches(dataset, indices, 256, 0)])


def encode(model: ADSQ, dataset: Any, training: Tensor, parts: list[Tensor], method: str) -> list[Tensor]:
    """Fit "lsh" or "itq" to the features of the training images, and return the packed codes of each part."""
    bits, known = model.config.num_bits, semantic_features(model, dataset, training)
    if method == "itq":
        transform = faiss.ITQTransform(known.shape[1], bits, True)
    else:
        transform = faiss.RandomRotationMatrix(known.shape[1], bits)
        transform.init(0)
    if not transform.is_trained:
        transform.train(known.numpy())
    centre = known.mean(dim=0) if method == "lsh" else torch.zeros(known.shape[1])
    features = (semantic_features(model, dataset, part) - centre for part in parts)
    return [pack_codes(torch.from_numpy(transform.apply(part.numpy()))) for part in features]
