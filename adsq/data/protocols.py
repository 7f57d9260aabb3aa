"""Named, seeded splits of a data set into queries, training images and database."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adsq.data.dataset import ImageDataset

_EXAMPLES = 3


@dataclass(frozen=True)
class Protocol:
    """How many images of each class are queries and how many are trained on.

    Args:
        name: Enters the random draw: two protocols of equal counts and other names draw other images.
        queries_per_class: Query images of each class, at least 1.
        training_per_class: Training images of each class, at least 1.
        database: "rest": all but the queries, so that training images are searched too. "disjoint": neither
            queries nor training images.

    Raises:
        TypeError, ValueError: Counts that are not integers of at least 1; another database rule.
    """

    name: str
    queries_per_class: int
    training_per_class: int
    database: str = "rest"

    def __post_init__(self) -> None:
        for argument in ("queries_per_class", "training_per_class"):
            value = getattr(self, argument)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{argument}: expected an int, got {value!r}")
            if value < 1:
                raise ValueError(f"{argument}: expected at least 1, got {value}")
        if self.database not in ("rest", "disjoint"):
            raise ValueError(f'database: expected "rest" or "disjoint", got {self.database!r}')


# Digits: the smallest class has 174 images, so 20 queries and 100 training images leave a third of it for the
# database alone. Fashion-MNIST: the protocol of docs/method.md. Folders: see default_protocol.
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("digits-20-100", 20, 100),
        Protocol("fashion-mnist-100-500", 100, 500),
        Protocol("folder-100-500", 100, 500),
        Protocol("folder-20-100", 20, 100),
        Protocol("folder-5-20", 5, 20),
        Protocol("folder-1-4", 1, 4),
    )
}
_FOLDER_PROTOCOLS = [name for name in PROTOCOLS if name.startswith("folder-")]
_NAMED_SETS = {"digits": "digits-20-100", "fashion-mnist": "fashion-mnist-100-500"}


def find_protocol(text: str) -> Protocol:
    """The protocol of a name in PROTOCOLS or of counts: "100/500/rest" or "100/500/disjoint".

    Counts are queries and training images per class; the protocol's name is the text itself.

    Raises:
        ValueError: Neither; the message lists what is possible.
    """
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    match = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)/(rest|disjoint)", text)
    if match is None:
        raise ValueError(
            f"protocol: expected one of {', '.join(PROTOCOLS)}, or counts per class as "
            f'queries/training/database, such as "100/500/rest" or "100/500/disjoint", got {text!r}'
        )
    return Protocol(text, int(match[1]), int(match[2]), match[3])


def default_protocol(dataset: ImageDataset) -> Protocol:
    """The protocol of a named data set, else the largest folder protocol that the smallest class can fill.

    Raises:
        ValueError: The smallest class is too small for all of them; the message names it.
    """
    source = dataset.spec.get("source")
    if source in _NAMED_SETS:
        return PROTOCOLS[_NAMED_SETS[source]]
    counts = _class_counts(dataset)
    for protocol in map(PROTOCOLS.__getitem__, _FOLDER_PROTOCOLS):
        if min(counts) >= protocol.queries_per_class + protocol.training_per_class:
            return protocol
    smallest = int(np.argmin(counts))
    raise ValueError(
        f"class {dataset.class_names[smallest]!r} has {counts[smallest]} images, too few for any of "
        f'{", ".join(_FOLDER_PROTOCOLS)}; add images or give counts such as "1/1/rest"'
    )


@dataclass(frozen=True, eq=False)
class Split:
    """Which images of a data set are queries, trained on, and searched.

    Args:
        protocol: The rule it was made by.
        seed: The seed it was made with.
        query: int64 [Q], image numbers in the data set.
        training: int64 [T].
        database: int64 [D].
        copies: Images that have an exact copy in the data set and were therefore not drawn as queries.
    """

    protocol: Protocol
    seed: int
    query: Tensor
    training: Tensor
    database: Tensor
    copies: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the three sizes and then query, training, database as little-endian int64."""
        parts = (self.query, self.training, self.database)
        sizes = torch.tensor([len(part) for part in parts])
        return hashlib.sha256(torch.cat([sizes, *parts]).numpy().astype("<i8").tobytes()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """JSON dict of the protocol with its counts, the seed, sizes and digest."""
        return {
            "protocol": self.protocol.name,
            "counts": {
                "queries_per_class": self.protocol.queries_per_class,
                "training_per_class": self.protocol.training_per_class,
                "database": self.protocol.database,
            },
            "seed": self.seed,
            "sizes": {
                "query": len(self.query),
                "training": len(self.training),
                "database": len(self.database),
            },
            "copies_excluded_from_queries": self.copies,
            "digest": self.digest,
        }


def make_split(dataset: ImageDataset, protocol: Protocol | str, seed: int = 0) -> Split:
    """Draw a split: the same for the same data set, protocol and seed on every platform and library version.

    All images are put in one random order (see _random_order). Then each class, from the rarest to the most
    common (equal ones by class number), takes its queries from the front: images of that class that no class
    has taken, and that have no exact copy (content_hashes) anywhere in the data set, since finding the copy
    of a query in the database shows nothing. Then each class takes its training images likewise, copies
    included. Index tensors are sorted. The split has passed check_split.

    Args:
        dataset: With class ids or multi-hot labels; an image with several labels counts for the class that
            takes it.
        protocol: A Protocol, or a text for find_protocol.
        seed: At least 0.

    Raises:
        OSError: An image file that cannot be read for its content hash.
        TypeError, ValueError: An unknown protocol; a seed that is not an int of at least 0; a class with too
            few images (named, with what is needed and found); nothing left for the database.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    hashes = dataset.content_hashes()
    occurrences = Counter(hashes)
    has_copy = np.array([occurrences[each] > 1 for each in hashes])

    members = _members(dataset, _random_order(len(dataset), protocol.name, seed))
    taken = np.zeros(len(dataset), dtype=bool)
    query = _draw("query", protocol.queries_per_class, members, taken, has_copy, dataset.class_names)
    is_query = taken.copy()
    no_copies = np.zeros_like(has_copy)
    training = _draw("training", protocol.training_per_class, members, taken, no_copies, dataset.class_names)
    database = np.flatnonzero(~(taken if protocol.database == "disjoint" else is_query))
    if not len(database):
        raise ValueError(f"protocol {protocol.name}: queries and training images leave no database")
    split = Split(protocol, seed, query, training, torch.from_numpy(database), int(has_copy.sum()))
    check_split(dataset, split)
    return split


def check_split(dataset: ImageDataset, split: Split) -> None:
    """Refuse a split that shares an image between its queries and its database or training images.

    Shared means: the same number, or the same content_hashes entry under two numbers.

    Raises:
        OSError: An image file that cannot be read for its content hash.
        TypeError: Indices that are not int64 tensors.
        ValueError: Indices of another shape than [n], none at all, outside the data set or twice in one part;
            an image shared, with examples.
    """
    parts = {"query": split.query, "training": split.training, "database": split.database}
    for name, indices in parts.items():
        if indices.dtype != torch.int64:
            raise TypeError(f"{name}: expected int64 indices, got {indices.dtype}")
        if indices.ndim != 1 or not len(indices):
            raise ValueError(f"{name}: expected indices [n] with n >= 1, got shape {list(indices.shape)}")
        if indices.min() < 0 or indices.max() >= len(dataset):
            raise ValueError(
                f"{name}: expected indices in 0..{len(dataset) - 1}, got {int(indices.min())}..{int(indices.max())}"
            )
        repeated = torch.bincount(indices) > 1
        if repeated.any():
            raise ValueError(f"{name}: image {int(repeated.nonzero()[0])} occurs more than once")

    hashes = dataset.content_hashes()
    query_of = {hashes[index]: index for index in split.query.tolist()}
    for name in ("training", "database"):
        shared = [(query_of[hashes[index]], index) for index in parts[name].tolist() if hashes[index] in query_of]
        if shared:
            examples = "; ".join(_describe(dataset, *pair) for pair in shared[:_EXAMPLES])
            raise ValueError(f"split: {len(shared)} {name} images are also queries: {examples}")


def _describe(dataset: ImageDataset, query: int, other: int) -> str:
    names = [dataset.path(index) or f"image {index}" for index in (query, other)]
    return names[0] if query == other else f"{names[1]} has the content of query {names[0]}"


def _random_order(size: int, name: str, seed: int) -> np.ndarray:
    """A permutation of 0..size-1, int64, from the protocol's name and the seed.

    It sorts raw PCG64 output: numpy keeps the raw stream of a bit generator from version to version (its NEP
    19), which neither its own permutation functions nor torch's promise.
    """
    words = hashlib.sha256(name.encode()).digest()[:8]
    keys = np.random.PCG64([seed, int.from_bytes(words, "little")]).random_raw(size)
    return np.argsort(keys, kind="stable").astype(np.int64)


def _members(dataset: ImageDataset, order: np.ndarray) -> list[np.ndarray]:
    """The images of each class, in the given order."""
    labels = dataset.labels.numpy()[order]
    if labels.ndim == 1:
        by_class = np.argsort(labels, kind="stable")
    else:
        _, by_class = labels.T.nonzero()
    return np.split(order[by_class], np.cumsum(_class_counts(dataset))[:-1])


def _class_counts(dataset: ImageDataset) -> list[int]:
    labels = dataset.labels
    counts = labels.bincount(minlength=dataset.num_classes) if labels.ndim == 1 else labels.sum(0)
    return counts.tolist()


def _draw(
    role: str,
    count: int,
    members: list[np.ndarray],
    taken: np.ndarray,
    barred: np.ndarray,
    class_names: Iterable[str],
) -> Tensor:
    """Take the first `count` free images of each class, rarest class first, and mark them in `taken`."""
    drawn = []
    for images, name in sorted(zip(members, class_names, strict=True), key=lambda each: len(each[0])):
        free = images[~taken[images] & ~barred[images]]
        if len(free) < count:
            raise ValueError(
                f"class {name!r} has too few images: {count} {role} images needed, {len(free)} found "
                f"({len(images)} in the class, {int(taken[images].sum())} already drawn, "
                f"{int((barred & ~taken)[images].sum())} with an exact copy in the data set)"
            )
        taken[free[:count]] = True
        drawn.append(free[:count])
    return torch.from_numpy(np.sort(np.concatenate(drawn)))
