"""adsq: learn and search binary codes.

The names below are loaded when first used, so that `import adsq.kernels` needs torch alone.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ADSQ": "networks",
    "Augmentation": "augmentation",
    "Evaluation": "evaluation",
    "HammingIndex": "index",
    "ImgNet": "networks",
    "LabelNet": "networks",
    "ModelConfig": "networks",
    "ObjectiveConfig": "objective",
    "PosteriorConfig": "posterior",
    "ShardedHammingIndex": "sharded",
    "Trainer": "training",
    "TrainingConfig": "training",
    "evaluate": "evaluation",
    "load_model": "checkpoint",
    "load_trainer": "checkpoint",
    "make_split": "data",
    "save_checkpoint": "checkpoint",
    "save_model": "checkpoint",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adsq' has no attribute {name!r}")
    return getattr(importlib.import_module(f"adsq.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
