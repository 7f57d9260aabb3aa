"""The terms of the objective "adsq" against docs/method.md, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot, softplus

from adsq.distributed import Share
from adsq.posterior import (
    Mixture,
    Pairs,
    PosteriorConfig,
    hamming_guidance_loss,
    hamming_terms,
    label_logits,
    pair_targets,
    prior_logits,
    semantic_loss,
)
from adsq.training import make_objective


def written_out(u: Tensor, v: Tensor, t: Tensor, a: float, c0: float, columns: Tensor | None = None) -> Tensor:
    """(H), balanced, in full; without columns, pairs i = j are left out."""
    c = 1 - torch.eye(len(u)) if columns is None else columns.expand(len(u), -1)
    mean = (c * t).sum() / c.sum()
    weights = 0.5 * t / mean + 0.5 * (1 - t) / (1 - mean)
    x = a * u @ v.T / u.shape[1] + c0
    return (c * weights * (softplus(x) - t * x)).sum() / c.sum()


def test_semantic_loss_of_images_and_mixtures():
    labels, logits = torch.randint(0, 4, (6,)), torch.randn(12, 4)
    mixture = Mixture(torch.rand(6, 1), torch.randperm(6))
    rows = one_hot(labels, 4).float()
    rows = mixture.append(rows, rows)
    share = mixture.share.squeeze(1)
    mixed = share * cross_entropy(logits[6:], labels, reduction="none")
    mixed += (1 - share) * cross_entropy(logits[6:], labels[mixture.partner], reduction="none")
    want = 0.5 * cross_entropy(logits[:6], labels) + mixed.mean()
    torch.testing.assert_close(semantic_loss(logits, rows, True, 6), want)
    torch.testing.assert_close(semantic_loss(logits[:6], rows[:6], True, 6), cross_entropy(logits[:6], labels))


def test_semantic_loss_of_several_labels():
    rows, logits = torch.randint(0, 2, (6, 4)).float(), torch.randn(6, 4)
    want = (softplus(logits) - rows * logits).sum(dim=1).mean()
    torch.testing.assert_close(semantic_loss(logits, rows, False, 6), want)


def test_mixtures_are_the_same_for_a_seed():
    first, second = (Mixture.draw(Share((9,)), torch.Generator().manual_seed(3), torch.device("cpu")) for _ in range(2))
    assert torch.equal(first.share, second.share) and torch.equal(first.partner, second.partner)
    assert first.partner.sort().values.tolist() == list(range(9)) and 0 <= first.share.min() < first.share.max() <= 1
    rows = torch.randn(9, 2)
    mixed = first.append(rows, rows)
    assert torch.equal(mixed[:9], rows)
    torch.testing.assert_close(mixed[9 + 4], first.share[4] * rows[4] + (1 - first.share[4]) * rows[first.partner[4]])


def test_prior():
    rows = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert prior_logits(rows, True).exp().tolist() == pytest.approx([0.75, 0.25, 1e-6])
    assert prior_logits(rows, False).sigmoid().tolist() == pytest.approx([0.75, 0.25, 1e-6])
    f, p, prior = torch.randn(5, 8), torch.randn(3, 8), torch.randn(3)
    torch.testing.assert_close(label_logits(f, p, prior)[2, 1], f[2] @ p[1] + prior[1])


def test_targets_of_pairs():
    logits, rows = torch.randn(5, 3, requires_grad=True), torch.tensor([[1.0, 1, 0]]).expand(5, -1)
    config = PosteriorConfig()
    torch.testing.assert_close(pair_targets(logits, rows, True, config), logits.detach().softmax(1))
    torch.testing.assert_close(pair_targets(logits, rows, False, config), logits.detach().sigmoid())
    assert not pair_targets(logits, rows, True, config).requires_grad
    hard = PosteriorConfig(soft_targets=False)
    assert torch.equal(pair_targets(logits, rows, False, hard), rows)
    cosine = pair_targets(logits, rows, False, PosteriorConfig(soft_targets=False, similarity="cosine"))
    assert float(cosine[0] @ cosine[1]) == pytest.approx(1)


@pytest.mark.parametrize("nets", [1, 2])
def test_hamming_terms(nets):
    codes = [torch.randn(7, 16).tanh().requires_grad_() for _ in range(nets)]
    targets = torch.randn(7, 4).softmax(1)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (6.0, -2.0))
    terms = hamming_terms(codes, targets, scale, bias, PosteriorConfig(quantization=0.3, image_nets=nets))
    t = targets @ targets.T
    want = {"asymmetric": written_out(codes[0], codes[-1], t, scale, bias)}
    if nets == 2:
        for which, own in zip("fg", codes, strict=True):
            want[f"{which}_symmetric"] = 0.5 * written_out(own, own, t, scale, bias)
    signs = torch.where(sum(codes) >= 0, 1.0, -1.0)
    want["quantization"] = 0.3 * sum((own - signs).square().mean() for own in codes) / nets
    assert terms.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(terms[name], want[name])
    inputs = [*codes, scale, bias]
    found = torch.autograd.grad(sum(terms.values()), inputs)
    for one, other in zip(found, torch.autograd.grad(sum(want.values()), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_shared_labels_are_a_clipped_product():
    """Hard targets of several labels are the usual similarity: 1 for any shared label."""
    rows = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])
    u = torch.randn(4, 8)
    a, c0 = torch.tensor(8.0), torch.tensor(-5.0)
    shared = (rows @ rows.T > 0).float()
    torch.testing.assert_close(Pairs(rows, PosteriorConfig()).loss(u, u, a, c0), written_out(u, u, shared, a, c0))


def test_label_rows_count_by_their_images():
    u, h = torch.randn(5, 8).tanh(), torch.randn(3, 8).tanh()
    targets, rows, counts = torch.randn(5, 3).softmax(1), torch.eye(3), torch.tensor([5.0, 2, 1])
    a, c0 = torch.tensor(8.0), torch.tensor(-5.0)
    loss = hamming_guidance_loss(u, h, targets, rows, a, c0, PosteriorConfig(), counts)
    torch.testing.assert_close(loss, written_out(u, h, targets @ rows.T, a, c0, counts))


@pytest.mark.parametrize("targets", [torch.eye(4), torch.ones(4, 1)], ids=["none similar", "all similar"])
def test_one_sided_batches_stay_finite(targets):
    u = torch.randn(4, 8)
    assert torch.isfinite(Pairs(targets, PosteriorConfig()).loss(u, u, torch.tensor(8.0), torch.tensor(-5.0)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"similarity": "dot"}, "similarity: expected one of .*got 'dot'"),
        ({"image_nets": 3}, "image_nets: expected one of"),
        ({"semantic": -1.0}, "semantic: expected a finite number of at least 0, got -1.0"),
        ({"scale": float("inf")}, "scale: expected a finite number"),
        ({"bias": float("nan")}, "bias: expected a finite number"),
        ({"slope": (0.0, 1.0)}, "slope: expected two finite numbers above 0"),
    ],
)
def test_bad_choices_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        make_objective("adsq", **changes)


def test_an_unknown_objective_is_named():
    with pytest.raises(ValueError, match="objective: expected one of adsq, adsq-likelihood, got 'adsh'"):
        make_objective("adsh")
