"""Named protocols: how many images of each class are queries and trained on, and what is searched."""

import re
from dataclasses import dataclass

import numpy as np

from adsq.data.dataset import ImageDataset


@dataclass(frozen=True)
class Protocol:
    """How many images of each class are queries and how many are trained on.

    Args:
        name: Enters the random draw: two protocols of equal counts and other names draw other images.
        queries_per_class: Query images of each class, at least 1; None: those the data set gives (its parts).
        training_per_class: Training images of each class, at least 1; None: those the data set gives.
        database: "rest": all but the queries, so that training images are searched too. "disjoint": neither
            queries nor training images. "given": those the data set gives.

    Raises:
        TypeError, ValueError: Counts that are not integers of at least 1; another database rule.
    """

    name: str
    queries_per_class: int | None
    training_per_class: int | None
    database: str = "rest"

    def __post_init__(self) -> None:
        for argument in ("queries_per_class", "training_per_class"):
            value = getattr(self, argument)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{argument}: expected an int, got {value!r}")
            if value < 1:
                raise ValueError(f"{argument}: expected at least 1, got {value}")
        if self.database not in ("rest", "disjoint", "given"):
            raise ValueError(f'database: expected "rest", "disjoint" or "given", got {self.database!r}')


# Digits: the smallest class has 174 images, so 20 queries and 100 training images leave a third of it for the
# database alone. Folders: see default_protocol. The others: docs/method.md, "Data sets and protocols".
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("digits-20-100", 20, 100),
        Protocol("fashion-mnist-100-500", 100, 500),
        Protocol("cifar10-1k-5k-54k", 100, 500, "disjoint"),
        Protocol("cifar10-1k-5k-59k", 100, 500),
        Protocol("cifar10-10k-50k-50k", None, None),
        Protocol("nuswide-2100-10500", 100, 500),
        Protocol("imagenet100-5k-10k", None, 100),
        Protocol("imagenet100-5k-13k", None, 130),
        Protocol("given", None, None, "given"),
        Protocol("folder-100-500", 100, 500),
        Protocol("folder-20-100", 20, 100),
        Protocol("folder-5-20", 5, 20),
        Protocol("folder-1-4", 1, 4),
    )
}
_FOLDER_PROTOCOLS = [name for name in PROTOCOLS if name.startswith("folder-")]
_NAMED_SETS = {
    "digits": "digits-20-100",
    "fashion-mnist": "fashion-mnist-100-500",
    "cifar10": "cifar10-1k-5k-54k",
    "nuswide": "nuswide-2100-10500",
    "imagenet100": "imagenet100-5k-10k",
    "list": "given",
}


def find_protocol(text: str) -> Protocol:
    """The protocol of a name in PROTOCOLS or of counts: "100/500/rest", "100/500/disjoint", "given/100/rest".

    Counts are queries and training images per class, or "given"; the protocol's name is the text itself.

    Raises:
        ValueError: Neither; the message lists what is possible.
    """
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    match = re.fullmatch(r"([1-9][0-9]*|given)/([1-9][0-9]*|given)/(rest|disjoint|given)", text)
    if match is None:
        raise ValueError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}, or counts per class as "
            f'queries/training/database, such as "100/500/rest" or "100/500/disjoint", got {text!r}'
        )
    queries, training = (None if count == "given" else int(count) for count in match.groups()[:2])
    return Protocol(text, queries, training, match[3])


def default_protocol(dataset: ImageDataset) -> Protocol:
    """The protocol of a named data set, else the largest folder protocol that the smallest class can fill.

    Raises:
        ValueError: The smallest class is too small for all of them; the message names it.
    """
    source = dataset.spec.get("source")
    if source in _NAMED_SETS:
        return PROTOCOLS[_NAMED_SETS[source]]
    counts = dataset.class_counts()
    for protocol in map(PROTOCOLS.__getitem__, _FOLDER_PROTOCOLS):
        if min(counts) >= (protocol.queries_per_class or 0) + (protocol.training_per_class or 0):
            return protocol
    smallest = int(np.argmin(counts))
    raise ValueError(
        f"class {dataset.class_names[smallest]!r} has {counts[smallest]} images, too few for any of "
        f'{", ".join(_FOLDER_PROTOCOLS)}; add images or give counts such as "1/1/rest"'
    )
