"""Seeded splits: what they draw, that they never change, and what they refuse."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adsq import data
from adsq.data import PROTOCOLS, Protocol, TensorImageDataset, make_split
from split_cases import SMALL, classes, dataset_of, folder_dataset, hand_made


def multi_hot(n: int = 200) -> Tensor:
    """Five classes, of about 5 to 80 % of the images; class 4 never without class 3."""
    chance = torch.tensor([0.2, 0.8, 0.05, 0.4, 0.3])
    labels = torch.rand(n, 5, generator=torch.Generator().manual_seed(2)) < chance
    labels[:, 3] |= labels[:, 4]
    return labels.to(torch.uint8)


# What is drawn


@pytest.mark.parametrize("database", ["rest", "disjoint"])
def test_counts_and_parts(database: str) -> None:
    labels = classes(9, 30, 5)
    dataset = dataset_of(labels)
    split = make_split(dataset, Protocol("p", 2, 3, database), 1)
    assert labels[split.query].bincount().tolist() == [2, 2, 2]
    assert labels[split.training].bincount().tolist() == [3, 3, 3]
    left_out = set(split.query.tolist()) | (set(split.training.tolist()) if database == "disjoint" else set())
    assert split.database.tolist() == [index for index in range(44) if index not in left_out]
    assert not set(split.query.tolist()) & set(split.training.tolist())
    for part in (split.query, split.training):
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(part.tolist())


def test_a_class_may_be_used_up() -> None:
    labels = classes(5, 5)
    split = make_split(dataset_of(labels), SMALL, 0)
    assert sorted(split.query.tolist() + split.training.tolist()) == list(range(10))
    with pytest.raises(ValueError, match="2/3/disjoint: queries and training images leave no database"):
        make_split(dataset_of(labels), "2/3/disjoint", 0)


def test_every_image_can_be_drawn() -> None:
    dataset = dataset_of(classes(8, 8))
    splits = [make_split(dataset, SMALL, seed) for seed in range(60)]
    for part in ("query", "training"):
        times = torch.cat([getattr(split, part) for split in splits]).bincount(minlength=16)
        expected = 60 * len(getattr(splits[0], part)) / 16
        assert times.min() > expected / 3
        assert times.max() < expected * 2.5


def test_several_labels() -> None:
    labels = multi_hot()
    split = make_split(dataset_of(labels), Protocol("p", 2, 4), 3)
    assert len(split.query) == 10
    assert len(split.training) == 20
    assert (labels[split.query].sum(0) >= 2).all()
    assert (labels[split.training].sum(0) >= 4).all()
    assert len(split.database) == 190


def test_rare_classes_draw_first() -> None:
    # Class 0: everything; class 1: the first two images only. Class 0 first would often take one of those.
    labels = torch.zeros(6, 2, dtype=torch.uint8)
    labels[:, 0], labels[:2, 1] = 1, 1
    for seed in range(10):
        split = make_split(dataset_of(labels), "1/1/rest", seed)
        assert labels[split.query, 1].sum() == labels[split.training, 1].sum() == 1


def test_one_label_each_draws_alike_as_ids_and_multi_hot() -> None:
    ids = classes(9, 30, 5)
    rows = torch.nn.functional.one_hot(ids).to(torch.uint8)
    assert make_split(dataset_of(ids), SMALL, 4).digest == make_split(dataset_of(rows), SMALL, 4).digest


def test_images_without_labels_are_only_searched() -> None:
    labels = torch.cat([torch.zeros(50, 2, dtype=torch.uint8), torch.eye(2, dtype=torch.uint8).repeat(5, 1)])
    split = make_split(dataset_of(labels), SMALL, 0)
    assert min(split.query.min(), split.training.min()) >= 50
    assert split.database[:50].tolist() == list(range(50))


# The same for ever


def test_the_draw_never_changes() -> None:
    """Written down once: another platform or library version must give the same splits."""
    numbers = torch.arange(40)
    split = make_split(dataset_of(numbers % 3), SMALL, 7)
    assert split.query.tolist() == [10, 12, 14, 24, 25, 29]
    assert split.training.tolist() == [0, 9, 26, 28, 30, 31, 32, 34, 35]
    labels = torch.stack([numbers % 2 == 0, numbers % 3 == 0, numbers % 7 < 2], dim=1).to(torch.uint8)
    expected = "72d3a1f969931e94ec53b8bde94a2156cf3608fb781580264d49f5397d706441"
    assert make_split(dataset_of(labels), "1/2/disjoint", 2**40).digest == expected


def test_seed_and_name_decide() -> None:
    dataset = dataset_of(classes(20, 30))
    digests = {
        make_split(dataset, protocol, seed).digest
        for protocol in (SMALL, dataclasses.replace(SMALL, name="other"), "2/3/rest", "2/3/disjoint")
        for seed in (0, 1, 2**70)
    }
    assert len(digests) == 12
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert make_split(dataset, SMALL).digest == make_split(dataset, SMALL, 0).digest
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])


def test_the_digest_changes_with_anything() -> None:
    splits = [
        hand_made([0, 1], [2, 3], [4, 5]),
        hand_made([1, 0], [2, 3], [4, 5]),
        hand_made([0], [1, 2, 3], [4, 5]),
        hand_made([0, 1, 2], [3], [4, 5]),
        hand_made([0, 1], [2, 3], [4, 6]),
        hand_made([0, 1], [2, 3], [4]),
        hand_made([0, 1], [2], [3, 4, 5]),
        hand_made([2, 3], [0, 1], [4, 5]),
    ]
    assert len({split.digest for split in splits}) == len(splits)
    assert all(len(split.digest) == 64 for split in splits)
    assert splits[0].digest == hand_made([0, 1], [2, 3], [4, 5]).digest


def test_the_digest_is_sha256_of_sizes_and_indices() -> None:
    numbers = np.array([2, 1, 3, 7, 5, 6, 0, 1, 2**40], dtype="<i8")
    expected = hashlib.sha256(numbers.tobytes()).hexdigest()
    assert hand_made([7, 5], [6], [0, 1, 2**40]).digest == expected


def test_summary_is_json() -> None:
    split = make_split(dataset_of(classes(9, 30, 5), {1: 0}), SMALL, 7)
    assert json.loads(json.dumps(split.summary())) == {
        "protocol": "small",
        "counts": {"queries_per_class": 2, "training_per_class": 3, "database": "rest"},
        "seed": 7,
        "sizes": {"query": 6, "training": 9, "database": 38},
        "copies_excluded_from_queries": 2,
        "digest": split.digest,
    }


# Too few images, wrong arguments


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("5/1/rest", "class 'class 2' has too few images: 5 query images needed, 4 found"),
        (
            "2/3/rest",
            r"class 'class 2' .* 3 training images needed, 2 found \(4 in the class, 2 already drawn, 0",
        ),
        ("9/1/rest", "class 'class 2'"),
    ],
)
def test_the_class_with_too_few_images_is_named(protocol: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(dataset_of(classes(9, 30, 4)), protocol, 0)


def test_a_class_without_images_is_named() -> None:
    dataset = TensorImageDataset(
        torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1),
        torch.tensor([0, 2] * 6),
        ["x", "y", "z"],
        name="t",
    )
    with pytest.raises(ValueError, match="class 'y' has too few images: 1 query images needed, 0 found"):
        make_split(dataset, "1/1/rest", 0)
    with pytest.raises(ValueError, match="class 'y' has 0 images, too few for any of folder-100-500"):
        data.default_protocol(dataset)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)])
def test_wrong_seeds_are_refused(seed: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed"):
        make_split(dataset_of(classes(9, 9)), SMALL, seed)


@pytest.mark.parametrize(
    "text", ["", "cifar", "1/2", "1/2/all", "0/2/rest", "-1/2/rest", "1/2/rest/", "01/2/rest", "1/2/rest\n"]
)
def test_unknown_protocols_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'expected one of digits-20-100, .*"100/500/rest"'):
        data.find_protocol(text)


def test_protocols_by_text() -> None:
    assert data.find_protocol("100/500/disjoint") == Protocol("100/500/disjoint", 100, 500, "disjoint")
    assert all(data.find_protocol(name) is protocol and protocol.name == name for name, protocol in PROTOCOLS.items())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 1), ValueError),
        ((1, -1), ValueError),
        ((1.5, 1), TypeError),
        ((1, True), TypeError),
        ((1, 1, "x"), ValueError),
        ((0, None), ValueError),
    ],
)
def test_wrong_protocols_are_refused(arguments: tuple, error: type[Exception]) -> None:
    with pytest.raises(error, match="expected"):
        Protocol("p", *arguments)


# Defaults


def test_default_protocols(tmp_path: Path) -> None:
    assert data.default_protocol(dataset_of(classes(24, 900))).name == "folder-1-4"
    assert data.default_protocol(dataset_of(classes(25, 900))).name == "folder-5-20"
    assert data.default_protocol(dataset_of(classes(600, 900))).name == "folder-100-500"
    assert data.default_protocol(dataset_of(multi_hot(1000))).name == "folder-5-20"
    with pytest.raises(ValueError, match=r"class 'a' has 4 images, too few for any of .*1/1/rest"):
        data.default_protocol(folder_dataset(tmp_path))


def test_the_default_split_of_the_digits() -> None:
    digits = data.load("digits")
    split = make_split(digits, data.default_protocol(digits), 0)
    assert split.protocol.name == "digits-20-100"
    assert split.summary()["sizes"] == {"query": 200, "training": 1000, "database": 1597}
    assert digits.labels[split.query].bincount().tolist() == [20] * 10
    assert digits.labels[split.training].bincount().tolist() == [100] * 10
    assert split.digest == "9ddb3aac3bd3b828f55cab1a528a09dacbac159d6ba7120986e58b62ecebc642"
