"""What autograd sees of the pair loss in eager mode: gradients that are handed out once, and what raises."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from adsq.kernels import pairwise_similarity_loss


def leaf_and_loss() -> tuple[Tensor, Tensor]:
    u = torch.randn(5, 3, requires_grad=True)
    return u, pairwise_similarity_loss(u, torch.randn(6, 3), torch.arange(5), torch.arange(6))


def test_gradients_of_one_graph_are_independent():
    u, loss = leaf_and_loss()
    (first,) = torch.autograd.grad(loss, u, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss * 3, u, retain_graph=True)
    assert torch.equal(first, kept)
    first.zero_()
    (third,) = torch.autograd.grad(loss, u)
    assert torch.equal(third, kept)
    torch.testing.assert_close(second, 3 * kept)


def test_gradients_add_up_in_leaves():
    u, loss = leaf_and_loss()
    loss.backward(retain_graph=True)
    one = u.grad.clone()
    (0.25 * loss).backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(u.grad, 2.25 * one)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_what_changes_in_place_before_backward_does_no_harm():
    u = torch.randn(4, 3, requires_grad=True)
    for changed in ("codes", "labels", "weights"):
        parts = {"codes": u * 1, "labels": torch.arange(4), "weights": torch.ones(4)}
        codes, labels, weights = parts.values()
        loss = pairwise_similarity_loss(codes, codes, labels, labels, column_weights=weights)
        want = torch.autograd.grad(pairwise_similarity_loss(u, u, labels, labels), u)[0]
        parts[changed].detach().zero_()
        assert torch.equal(torch.autograd.grad(loss, u, retain_graph=True)[0], want)  # made in the forward pass
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()  # has to make them again


def test_under_fake_tensors():
    with FakeTensorMode():
        u, v = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
        loss = pairwise_similarity_loss(u, v, torch.arange(4), torch.arange(5))
        loss.backward()
        assert u.grad.shape == u.shape


def test_vmap_without_gradients():
    u, v, labels = torch.randn(3, 4, 2), torch.randn(5, 2), (torch.arange(4), torch.arange(5))
    each = torch.stack([pairwise_similarity_loss(x, v, *labels) for x in u])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a missing batching rule
        assert torch.equal(torch.func.vmap(lambda x: pairwise_similarity_loss(x, v, *labels))(u), each)


def test_transforms_raise():
    u, v, labels = torch.randn(4, 3), torch.randn(4, 3), torch.arange(4)

    def loss(u):
        return pairwise_similarity_loss(u, v, labels, labels)

    for transform in (torch.func.grad, torch.func.hessian):
        with pytest.raises(RuntimeError, match="pairwise_similarity_loss does not run under"):
            transform(loss)(u)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward mode AD"):
        loss(forward_ad.make_dual(u, v))
