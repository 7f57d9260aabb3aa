"""What training aims at and how long: objectives by name, and the schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adsq.objective import ObjectiveConfig
from adsq.posterior import PosteriorConfig

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
Objective = ObjectiveConfig | PosteriorConfig
OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (PosteriorConfig, ObjectiveConfig)}


def make_objective(name: str, **fields: Any) -> Objective:
    """Return the objective of a name, "adsq" or "adsq-likelihood", with the given fields changed."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {name!r}")
    return OBJECTIVES[name](**fields)


@dataclass(frozen=True)
class TrainingConfig:
    """The schedule; its defaults are those of the objective "adsq".

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step, of all processes together.
        peak_lr: Highest learning rate of the ImgNets' one-cycle schedule (Adam).
        weight_decay: Of the ImgNets.
        label_lr: LabelNet's learning rate (Adam).
        label_batch: Label rows a step of LabelNet.
        label_pretraining: Steps of LabelNet before the ImgNets start.
        label_steps: Steps of LabelNet after each epoch.
        bank_columns: How many random training images the codes of a batch are compared with.
        precision: "float32", "bfloat16" or "float16" of the ImgNets on a GPU; "auto" takes bfloat16 on a GPU that has
            it. The CPU always computes in float32.
        num_workers: Processes that decode images.
        seed: Of everything random.
    """

    epochs: int = 20
    batch_size: int = 128
    peak_lr: float = 3e-3
    weight_decay: float = 1e-4
    label_lr: float = 1e-3
    label_batch: int = 256
    label_pretraining: int = 400
    label_steps: int = 20
    bank_columns: int = 1024
    precision: str = "auto"
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse schedules that cannot run."""
        lowest = {"epochs": 1, "batch_size": 2, "label_batch": 2, "bank_columns": 1}
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < lowest.get(name, 0):
                raise ValueError(f"{name}: expected at least {lowest.get(name, 0)}, got {value}")
            if isinstance(value, float) and not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @classmethod
    def default(cls, objective: str, **changes: Any) -> TrainingConfig:
        """Return the schedule that goes with an objective, with the given fields changed."""
        own = {"batch_size": 64, "peak_lr": 2e-3} if objective == ObjectiveConfig.name else {}
        return cls(**own | changes)
