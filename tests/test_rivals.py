"""The methods of bench/study/rivals: each learns, and their formulas are those of their papers."""

from __future__ import annotations

import pytest
import torch
from test_training import stripes
from torch import nn
from torch.nn.functional import binary_cross_entropy, cross_entropy, softplus

from adsq.kernels import unpack_codes
from adsq.networks import ADSQ, ModelConfig
from adsq.training import Trainer, TrainingConfig
from rivals import RIVALS
from rivals.adsh import ADSH
from rivals.csq import CSQ
from rivals.dseh import dseh
from rivals.features import encode
from rivals.frame import Batch, rival_trainer
from rivals.greedyhash import GreedyHash
from rivals.hashnet import HashNet

BITS = 16


def make(method, nets=1, epochs=12, multi_label=False, **settings) -> Trainer:
    dataset = stripes(multi_label=multi_label)
    torch.manual_seed(0)
    model = ADSQ(ModelConfig(BITS, 3, dataset.image_shape, semantic_dim=16))
    config = TrainingConfig(epochs=epochs, batch_size=16, label_pretraining=60, bank_columns=32)
    if method is dseh:
        return Trainer(model, dataset, torch.arange(60), dseh(**settings), config)
    return rival_trainer(method, model, dataset, torch.arange(60), config, nets, **settings)


def batch_of(trainer: Trainer, count: int = 8, progress: float = 0.5) -> Batch:
    labels = trainer.labels[:count]
    z = torch.randn(count, BITS)
    return Batch(
        torch.randn(count, 16), z, labels, trainer.label_rows(labels), torch.arange(count), trainer.banks[0], progress
    )


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("method", [*RIVALS.values(), dseh], ids=[*RIVALS, "dseh"])
def test_each_learns(method, multi_label):
    trainer = make(method, multi_label=multi_label)
    trainer.fit()
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    unseen = torch.arange(60, 90)
    if method is RIVALS["classifier"]:
        packed = encode(trainer.model, trainer.dataset, trainer.indices, [unseen], "itq")[0]
    else:
        packed = trainer.model.encode(trainer.dataset, unseen, kind="f")
    codes = unpack_codes(packed, BITS)
    assert codes.abs().eq(1).all() and codes.shape == (30, BITS)
    rows = trainer.label_rows(trainer.dataset.labels[unseen])
    similar = rows @ rows.T > 0
    products = codes @ codes.T
    assert products[similar].mean() > products[~similar].mean() + 2


def test_two_nets_share_the_classifier():
    """So that a bit means the same in both, and their average is a code too."""
    trainer = make(GreedyHash, nets=2)
    trainer.fit()
    assert {"f_loss", "g_loss"} <= trainer.history[-1].keys()
    f, g = (unpack_codes(trainer.model.encode(trainer.dataset, torch.arange(60, 90), kind=kind), BITS) for kind in "fg")
    assert (f == g).float().mean() > 0.8
    states = (trainer.model.img_net_f.state_dict(), trainer.model.img_net_g.state_dict())
    assert not torch.equal(states[0]["hashing.weight"], states[1]["hashing.weight"])


def test_lsh_and_itq_of_two_parts():
    trainer = make(RIVALS["classifier"], epochs=2)
    trainer.fit()
    parts = [torch.arange(60, 80), torch.arange(80, 90)]
    for method in ("lsh", "itq"):
        first, second = encode(trainer.model, trainer.dataset, trainer.indices, parts, method)
        assert (first.shape, second.shape) == ((20, 2), (10, 2)) and len(torch.unique(first, dim=0)) > 1


def test_adsh_codes_go_down_bit_by_bit():
    """No single bit of v can be turned to a lower loss after an update of that bit alone."""
    trainer = make(ADSH, epochs=1)
    rival = trainer.steps.rival
    u = trainer.banks[0] = torch.randn(60, BITS).tanh()
    s = rival.similarity(trainer.labels, rival.negative)
    same = trainer.labels[:, None] == trainer.labels
    torch.testing.assert_close(s, torch.where(same, 1.0, -float(same.float().mean() / (~same).float().mean())))

    def objective(v: torch.Tensor) -> float:
        return float((u @ v.T - BITS * s).square().sum() + rival.has["quantization"] * (v - u).square().sum())

    before = objective(rival.codes)
    rival.after_epoch()
    best = objective(rival.codes)
    assert best < before
    for row in range(60):  # the last bit was updated with all others as they are now
        turned = rival.codes.clone()
        turned[row, -1] *= -1
        assert objective(turned) >= best - 1e-2


def test_csq_centres_and_loss():
    trainer = make(CSQ, quantization=0.5)
    rival = trainer.steps.rival
    assert torch.equal(rival.centres @ rival.centres.T, BITS * torch.eye(3)), "rows of a Hadamard matrix"
    batch = batch_of(trainer)
    u = batch.z.tanh()
    want = (
        binary_cross_entropy((u + 1) / 2, (rival.centres[batch.labels] + 1) / 2) + 0.5 * (u.abs() - 1).square().mean()
    )
    torch.testing.assert_close(rival.loss(batch), want)


def test_greedyhash_loss_and_gradient():
    trainer = make(GreedyHash, penalty=0.2)
    rival = trainer.steps.rival
    batch = batch_of(trainer)
    z = batch.z.requires_grad_()
    codes = torch.where(z >= 0, 1.0, -1.0).requires_grad_()
    penalty = 0.2 * (z.abs() - 1).abs().pow(3).mean()
    plain = cross_entropy(rival.classifier(codes), batch.labels)
    torch.testing.assert_close(rival.loss(batch), plain + penalty)
    want = torch.autograd.grad(plain, codes)[0] + torch.autograd.grad(penalty, z)[0]
    torch.testing.assert_close(torch.autograd.grad(rival.loss(batch), z)[0], want)


def test_hashnet_loss():
    trainer = make(HashNet, scale=8.0, slope=5.0)
    batch = batch_of(trainer, progress=0.25)
    u = torch.tanh(7**0.5 * batch.z)
    s = (batch.labels[:, None] == batch.labels).float()
    p = s.mean()
    x = 0.5 * u @ u.T
    losses = (0.5 * s / p + 0.5 * (1 - s) / (1 - p)) * (softplus(x) - s * x)
    off = ~torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(trainer.steps.rival.loss(batch), losses[off].mean())


def test_an_unknown_setting_is_named():
    with pytest.raises(ValueError, match="settings: expected some of penalty, got margin"):
        make(GreedyHash, margin=1.0)
    assert isinstance(make(GreedyHash).steps.rival, nn.Module)
