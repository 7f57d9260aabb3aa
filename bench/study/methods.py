"""The methods of the study: how each is trained, and the settings that were tried to choose its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from adsq.data import ImageDataset
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import WITHOUT_LABEL_NET, ObjectiveConfig
from adsq.posterior import PosteriorConfig
from adsq.training import Trainer, TrainingConfig
from rivals import ADSH, CSQ, DPSH, Classifier, GreedyHash, HashNet
from rivals.dseh import dseh
from rivals.frame import Rival, rival_trainer


@dataclass(frozen=True)
class Method:
    """A row of a table.

    Attributes:
        title: Its name in tables.
        make: A class of `rivals`, or a function from settings to an objective of adsq.
        settings: Its own settings; "peak_lr" and "batch_size" are of the schedule.
        tried: The settings of which the best on the validation part is taken; as many for each method.
        nets: How many ImgNets are trained.
        features: "lsh" or "itq", for codes made from a classifier's features.
    """

    title: str
    make: type[Rival] | Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    tried: tuple[dict[str, Any], ...] = ()
    nets: int = 1
    features: str = ""


LIKELIHOOD, POSTERIOR = ObjectiveConfig, PosteriorConfig
FAST, SLOW = {"peak_lr": 4e-3}, {"peak_lr": 2e-3}


def tried(first: dict[str, Any], second: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return four settings: two of the method's own, each at two learning rates."""
    return tuple(own | rate for own in (first, second) for rate in (SLOW, FAST))


MAIN = {
    "adsq-one": Method("ADSQ, one ImgNet", POSTERIOR, {"image_nets": 1}),
    "adsq": Method("ADSQ", POSTERIOR, nets=2),
    "adsq-likelihood": Method("ADSQ-likelihood", LIKELIHOOD, nets=2),
    "greedyhash": Method("GreedyHash", GreedyHash, tried=tried({"penalty": 0.1}, {"penalty": 0.01})),
    "greedyhash-two": Method("GreedyHash, two networks", GreedyHash, nets=2),
    "csq": Method("CSQ", CSQ, tried=tried({"scale": 1.0}, {"scale": 0.25})),
    "adsh": Method("ADSH", ADSH, tried=tried({"balanced": 1.0}, {"balanced": 0.0})),
    "hashnet": Method("HashNet", HashNet, tried=tried({"scale": 10.0}, {"scale": 16.0})),
    "dpsh": Method("DPSH", DPSH, tried=tried({"balanced": 1.0}, {"balanced": 0.0})),
    "dseh": Method("DSEH", dseh, tried=tried({"quantization": 0.1}, {"quantization": 0.01})),
    "itq": Method("ITQ on features", Classifier, tried=(SLOW, FAST), features="itq"),
    "lsh": Method("LSH on features", Classifier, features="lsh"),
}
SHARES = {"greedyhash-two": "greedyhash", "lsh": "itq"}  # settings chosen for another method

ABLATIONS = {
    "no-label-net": Method(
        "no LabelNet: pairs follow labels", POSTERIOR, {"semantic": 0.0, "soft_targets": False}, nets=2
    ),
    "hard-targets": Method("pairs follow labels", POSTERIOR, {"soft_targets": False}, nets=2),
    "no-mixing": Method("no mixing", POSTERIOR, {"mixing": False}, nets=2),
    "no-asymmetric": Method("no asymmetric term", POSTERIOR, {"asymmetric": 0.0}, nets=2),
    "no-symmetric": Method("no symmetric term", POSTERIOR, {"symmetric": 0.0}, nets=2),
    "no-annealing": Method("beta stays 1", POSTERIOR, {"slope": (1.0, 1.0)}, nets=2),
    "no-balance": Method("no balance", POSTERIOR, {"balanced": False}, nets=2),
    "hamming-guidance": Method("with Hamming guidance", POSTERIOR, {"hamming_guidance": 1.0}, nets=2),
    "quantization": Method("with the quantization term", POSTERIOR, {"quantization": 0.1}, nets=2),
    "likelihood-no-label-net": Method("likelihood: no LabelNet", LIKELIHOOD, WITHOUT_LABEL_NET, nets=2),
    "likelihood-one": Method("likelihood: one ImgNet", LIKELIHOOD, {"image_nets": 1}),
    "likelihood-no-semantic": Method(
        "likelihood: no semantic guidance", LIKELIHOOD, {"semantic_guidance": 0.0}, nets=2
    ),
    "likelihood-no-hamming": Method("likelihood: no Hamming guidance", LIKELIHOOD, {"hamming_guidance": 0.0}, nets=2),
    "likelihood-no-asymmetric": Method("likelihood: no asymmetric term", LIKELIHOOD, {"asymmetric": 0.0}, nets=2),
    "likelihood-no-quantization": Method("likelihood: no quantization term", LIKELIHOOD, {"quantization": 0.0}, nets=2),
    "likelihood-squared": Method("likelihood: squared form", LIKELIHOOD, {"form": "squared"}, nets=2),
}
COSINE = {
    "adsq-cosine": Method("ADSQ, cosine", POSTERIOR, {"similarity": "cosine"}, nets=2),
    "likelihood-cosine": Method("ADSQ-likelihood, cosine", LIKELIHOOD, {"similarity": "cosine"}, nets=2),
}
METHODS = MAIN | ABLATIONS | COSINE
ON_COMPOSITES = ("adsq-one", "adsq", "adsq-likelihood", "greedyhash", "csq", *COSINE)


def make_trainer(
    method: Method, bits: int, dataset: ImageDataset, training: Tensor, epochs: int, seed: int, settings: dict[str, Any]
) -> Trainer:
    """Return the trainer of a method with its own settings and others."""
    model = ADSQ(ModelConfig(bits, dataset.num_classes, dataset.image_shape))
    settings = method.settings | settings
    of_schedule = {name: settings.pop(name) for name in ("peak_lr", "batch_size") if name in settings}
    if isinstance(method.make, type) and issubclass(method.make, Rival):
        config = TrainingConfig(epochs=epochs, seed=seed, **{"batch_size": 128, "peak_lr": 4e-3} | of_schedule)
        return rival_trainer(method.make, model, dataset, training, config, method.nets, **settings)
    objective = method.make(**settings)
    config = TrainingConfig.default(objective.name, epochs=epochs, seed=seed, **of_schedule)
    return Trainer(model, dataset, training, objective, config)
