"""DSEH: Li and others, "Deep Joint Semantic-Embedding Hashing", IJCAI 2018: the parts of "adsq-likelihood" it has.

A label network is trained first; one image network then follows its semantic features and its codes. It has no second
image network, and the codes of training images are the signs of the image network's own.
"""

from __future__ import annotations

from adsq.objective import ObjectiveConfig


def dseh(**settings: float) -> ObjectiveConfig:
    """Return the objective; settings are its weights."""
    return ObjectiveConfig(image_nets=1, asymmetric=0.0, anchor_weight=0.0, **settings)
