"""The objective's terms against docs/method.md, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from adsq.objective import (
    WITHOUT_LABEL_NET,
    LabelTargets,
    ObjectiveConfig,
    img_net_terms,
    label_net_terms,
    pair_loss,
)


def written_out(u: Tensor, v: Tensor, s: Tensor, t: float, columns: Tensor | None = None) -> Tensor:
    """N(U, V; S, t), balanced, in full."""
    c = torch.ones(len(v)) if columns is None else columns
    p = ((s * c).sum() / (len(u) * c.sum())).clamp(1e-3, 1 - 1e-3)
    weights = c * (s / (2 * p) + (1 - s) / (2 * (1 - p)))
    x = t * u @ v.T
    return (weights * (softplus(x) - s * x)).sum() / (len(u) * c.sum())


def same(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] == b[None]).float()


def test_label_net_terms():
    p, h = torch.randn(12, 20).tanh(), torch.randn(12, 8).tanh()
    labels, codes = torch.arange(12) % 4, torch.randn(12, 8).sign()
    terms = label_net_terms(p, h, labels, codes, ObjectiveConfig())
    s = same(labels, labels)
    want = {
        "label_semantic": written_out(p, p, s, 10 / 20),
        "label_hamming": written_out(h, h, s, 0.5),
        "label_quantization": 0.1 * (h - h.sign()).square().mean(),
        "label_codes": 0.1 * (h - codes).square().mean(),
    }
    assert terms.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(terms[name], want[name])
    assert "label_codes" not in label_net_terms(p, h, labels, None, ObjectiveConfig())


def test_img_net_terms():
    f, u, v = torch.randn(9, 20).tanh(), torch.randn(9, 8).tanh(), torch.randn(30, 8).tanh()
    labels, bank_labels, codes = torch.arange(9) % 4, torch.arange(30) % 4, torch.randn(9, 8).sign()
    rows, counts = torch.arange(4), torch.tensor([8.0, 8, 7, 7])
    p, h = torch.randn(4, 20).tanh(), torch.randn(4, 8).tanh()
    terms = img_net_terms(f, u, labels, codes, v, bank_labels, LabelTargets(rows, counts, p, h), ObjectiveConfig())
    s = same(labels, rows)
    want = {
        "asymmetric": written_out(u, v, same(labels, bank_labels), 0.5),
        "semantic_guidance": written_out(f, p, s, 10 / 20, counts),
        "hamming_guidance": written_out(u, h.sign(), s, 0.5, counts),
        "quantization": 0.1 * (u - codes).square().mean(),
    }
    assert terms.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(terms[name], want[name])


def test_distinct_rows_with_counts_equal_all_images():
    """Guidance over distinct label rows is the sum over every training image."""
    labels = torch.randint(0, 5, (40,))
    rows, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    u, p = torch.randn(7, 6), torch.randn(len(rows), 6)
    of_u = torch.arange(7) % 5
    config = ObjectiveConfig()
    few = pair_loss(u, p, of_u, rows, 0.5, config, counts.float())
    torch.testing.assert_close(few, pair_loss(u, p[inverse], of_u, labels, 0.5, config))


def test_multi_hot_and_cosine():
    labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.uint8)
    u = torch.randn(3, 6)
    shared = torch.tensor([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    torch.testing.assert_close(pair_loss(u, u, labels, labels, 0.5, ObjectiveConfig()), written_out(u, u, shared, 0.5))
    cosine = torch.tensor([[1, 0.5, 0], [0.5, 1, 2**-0.5], [0, 2**-0.5, 1]])
    config = ObjectiveConfig(similarity="cosine")
    torch.testing.assert_close(pair_loss(u, u, labels, labels, 0.5, config), written_out(u, u, cosine, 0.5))


def test_squared_form_divides_by_the_code_length():
    u, labels = torch.randn(5, 16), torch.arange(5)
    config = ObjectiveConfig(form="squared", balanced=False)
    want = (u @ u.T / 16 - (2 * torch.eye(5) - 1)).square().mean()
    torch.testing.assert_close(pair_loss(u, u, labels, labels, 0.5, config), want)


def test_one_sided_batches_stay_finite():
    """All pairs similar, or none: the balance is clamped."""
    u = torch.randn(4, 8)
    for labels in (torch.zeros(4, dtype=torch.int64), torch.arange(4)):
        assert torch.isfinite(pair_loss(u, u, labels, labels + 0, 0.5, ObjectiveConfig()))
        assert torch.isfinite(pair_loss(u, u, labels, labels + 9, 0.5, ObjectiveConfig()))


def test_a_weight_of_zero_leaves_the_term_out():
    without = ObjectiveConfig(asymmetric=0.0, quantization=0.0)
    f, u = torch.randn(4, 20), torch.randn(4, 8)
    labels = torch.arange(4)
    assert img_net_terms(f, u, labels, u.sign(), u, labels, None, without) == {}
    assert not ObjectiveConfig(**WITHOUT_LABEL_NET).uses_label_net and ObjectiveConfig().uses_label_net


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"similarity": "dot"}, "similarity: expected one of .*got 'dot'"),
        ({"form": "hinge"}, "form: expected one of"),
        ({"image_nets": 3}, "image_nets: expected one of"),
        ({"quantization": -1.0}, "quantization: expected a finite number of at least 0, got -1.0"),
        ({"asymmetric": float("nan")}, "asymmetric: expected a finite number"),
    ],
)
def test_bad_weights_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        ObjectiveConfig(**changes)
