"""Seeded splits of a data set into queries, training images and database."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adsq.data.dataset import ImageDataset
from adsq.data.protocols import Protocol, find_protocol

_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Which images of a data set are queries, trained on, and searched.

    Args:
        protocol: The rule it was made by.
        seed: The seed it was made with.
        query: int64 [Q], image numbers in the data set.
        training: int64 [T].
        database: int64 [D].
        copies: Images that have an exact copy in the data set and were therefore not drawn as queries; of queries
            that the data set gives, those that have one. None: contents were not compared.
    """

    protocol: Protocol
    seed: int
    query: Tensor
    training: Tensor
    database: Tensor
    copies: int | None = 0

    @property
    def digest(self) -> str:
        """SHA-256 in hex over the three sizes and then query, training, database as little-endian int64."""
        parts = (self.query, self.training, self.database)
        sizes = torch.tensor([len(part) for part in parts])
        return hashlib.sha256(torch.cat([sizes, *parts]).numpy().astype("<i8").tobytes()).hexdigest()

    def in_words(self) -> str:
        """Protocol, seed, sizes and digest, in a line."""
        parts = {"query": self.query, "training": self.training, "database": self.database}
        sizes = ", ".join(f"{name} {len(indices):,}" for name, indices in parts.items())
        return f"{self.protocol.name}, seed {self.seed}: {sizes}; digest {self.digest[:16]}"

    def summary(self) -> dict[str, Any]:
        """JSON dict of the protocol with its counts, the seed, sizes and digest."""
        drawn = self.protocol.queries_per_class is not None
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
            "copies_excluded_from_queries" if drawn else "queries_with_a_copy": self.copies,
            "digest": self.digest,
        }


def make_split(dataset: ImageDataset, protocol: Protocol | str, seed: int = 0) -> Split:
    """Draw a split: the same for the same data set, protocol and seed on every platform and library version.

    All images are put in one random order (see _random_order). Then each class, from the rarest to the most
    common (equal ones by class number), takes its queries from the front: images of that class that no class
    has taken, and that have no exact copy (content_hashes) anywhere in the data set, since finding the copy
    of a query in the database shows nothing. Then each class takes its training images likewise, copies
    included. What the data set gives by the protocol is taken as it is. Index tensors are sorted. The split has
    passed check_split. Contents are not compared where the data set says so (compares_contents).

    Args:
        dataset: With class ids or multi-hot labels; an image with several labels counts for the class that
            takes it.
        protocol: A Protocol, or a text for find_protocol.
        seed: At least 0.

    Raises:
        OSError: An image file that cannot be read for its content hash.
        TypeError, ValueError: An unknown protocol; a seed that is not an int of at least 0; a class with too
            few images (named, with what is needed and found); a part the data set does not give; nothing left for
            the database.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed: expected an int, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    has_copy = np.zeros(len(dataset), dtype=bool)
    if dataset.compares_contents:
        hashes = dataset.content_hashes()
        occurrences = Counter(hashes)
        has_copy = np.array([occurrences[each] > 1 for each in hashes])

    members = _members(dataset, _random_order(len(dataset), protocol.name, seed))
    taken = np.zeros(len(dataset), dtype=bool)

    def take(role: str, count: int | None, barred: np.ndarray) -> Tensor:
        if count is not None:
            return _draw(role, count, members, taken, barred, dataset.class_names)
        given = _given(dataset, protocol, role)
        taken[given] = True
        return given

    query = take("query", protocol.queries_per_class, has_copy)
    is_query = taken.copy()
    training = take("training", protocol.training_per_class, np.zeros_like(has_copy))
    if protocol.database == "given":
        database = _given(dataset, protocol, "database")
    else:
        database = torch.from_numpy(np.flatnonzero(~(taken if protocol.database == "disjoint" else is_query)))
    if not len(database):
        raise ValueError(f"protocol {protocol.name}: queries and training images leave no database")
    copies = int(has_copy.sum() if protocol.queries_per_class is not None else has_copy[query].sum())
    split = Split(protocol, seed, query, training, database, copies if dataset.compares_contents else None)
    check_split(dataset, split)
    return split


def check_split(dataset: ImageDataset, split: Split) -> None:
    """Refuse a split that shares an image between its queries and its database or training images.

    Shared means: the same number, or the same content_hashes entry under two numbers. Contents are not compared
    where the data set says so (compares_contents), nor for queries that it gives: those are everybody's.

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

    drawn = split.protocol.queries_per_class is not None
    hashes = dataset.content_hashes() if dataset.compares_contents and drawn else range(len(dataset))
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
    return np.split(order[by_class], np.cumsum(dataset.class_counts())[:-1])


def _given(dataset: ImageDataset, protocol: Protocol, role: str) -> Tensor:
    """The images that the data set gives to a part, sorted."""
    if role not in dataset.parts:
        raise ValueError(f"protocol {protocol.name}: takes the {role} images from the data set, which gives none")
    return dataset.parts[role].sort().values


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
