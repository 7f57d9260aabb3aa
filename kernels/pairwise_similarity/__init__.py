"""Semantic similarity of labels, and the loss that makes codes follow it. See README.md in this folder."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from adsq.kernels import _checks, _ops
from adsq.kernels.pairwise_similarity import op

__all__ = ["mean_pairwise_similarity", "pairwise_similarity", "pairwise_similarity_loss"]

_KINDS = ("shared", "cosine", "dot")


def pairwise_similarity(labels_u: Tensor, labels_v: Tensor, kind: str = "shared") -> Tensor:
    """Return the semantic similarity of every pair of items.

    "shared": 1 where two items share a label, else 0. "cosine": l_i.l_j / (|l_i| |l_j|), 0 for an item without labels.
    "dot": l_i.l_j clipped to [0, 1], for real-valued rows such as posteriors. For class ids the three are one.
    See docs/method.md, "Similarity".

    Args:
        labels_u: Class ids, int64 [n], or label rows, [n, C] of bool, uint8, int8 to int64, float16,
            bfloat16, float32 or float64.
        labels_v: The same for m items.
        kind: "shared", "cosine" or "dot".

    Returns:
        S, float32 [n, m].

    Raises:
        TypeError, ValueError: The labels are not of that form, or do not fit each other.
    """
    _check_labels(labels_u, labels_v, kind, "kind")
    return op.pairwise_similarity(labels_u, labels_v, kind)


def mean_pairwise_similarity(
    labels_u: Tensor, labels_v: Tensor, kind: str = "shared", column_weights: Tensor | None = None
) -> Tensor:
    """Return the mean of S without holding S: the share of similar pairs, by which a loss balances its two sides.

    Args:
        labels_u: Labels of n items, as in `pairwise_similarity`.
        labels_v: Labels of m items.
        kind: "shared", "cosine" or "dot".
        column_weights: Real [m], how often column j counts; all once by default.

    Returns:
        Scalar float32; 0 where there is no pair.

    Raises:
        TypeError, ValueError: As in `pairwise_similarity`.
    """
    _check_labels(labels_u, labels_v, kind, "kind")
    _check_column_weights(column_weights, labels_v, "labels_v")
    return op.mean_pairwise_similarity(labels_u, labels_v, column_weights, kind)


def pairwise_similarity_loss(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    *,
    similarity: str = "shared",
    form: str = "likelihood",
    scale: float | Tensor | None = None,
    bias: float | Tensor = 0.0,
    positive_weight: float | Tensor = 1.0,
    negative_weight: float | Tensor = 1.0,
    column_weights: Tensor | None = None,
    exclude_diagonal: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Return the loss of all pairs of codes against their semantic similarity S, in O(n + m) memory.

    With x_ij = scale u_i.v_j + bias and w_ij = positive_weight S_ij + negative_weight (1 - S_ij):

        likelihood   sum_ij c_j w_ij (softplus(x_ij) - S_ij x_ij)
        squared      sum_ij c_j w_ij (x_ij - (2 S_ij - 1))^2

    divided, for the mean, by the number of pairs, sum_ij c_j. See docs/method.md, "Pair loss".

    Args:
        u: Codes or features, [n, K] of float16, bfloat16, float32 or float64.
        v: The same for m items, of the same dtype; under autocast halves are taken as float32.
        labels_u: Labels of the rows of `u`: class ids, int64 [n], or label rows, [n, C].
        labels_v: Labels of the rows of `v`.
        similarity: "shared", "cosine" or "dot", see `pairwise_similarity`.
        form: "likelihood" or "squared".
        scale: Number or scalar tensor, may want a gradient. Default: 1/2 for the likelihood, 1/K for the squared form.
        bias: Number or scalar tensor, may want a gradient.
        positive_weight: Weight of similar pairs, a number or a scalar tensor, held constant.
        negative_weight: Weight of dissimilar pairs, likewise.
        column_weights: Real [m], how often column j counts (c_j); all once by default. Held constant.
        exclude_diagonal: Leave out the pairs i = j (n = m), for items compared with themselves.
        reduction: "mean" over the pairs, 0 where there are none, or "sum".

    Returns:
        Scalar, float64 for float64 inputs, else float32. Gradients come in the dtype of their input and are summed in
        float32 or better. A second derivative, `torch.func.grad` and forward mode raise.

    Raises:
        TypeError, ValueError: An argument has another shape, dtype or device than said here.
    """
    _checks.check_matrix(u, "u", "[n, K]")
    _checks.check_matrix(v, "v", "[m, K]")
    u, v = _checks.autocast_to_float32(u, v)
    _checks.check_float(u, "u")
    _checks.check_same(v, "v", u, "u")
    if v.shape[1] != u.shape[1]:
        raise ValueError(f"v: expected {u.shape[1]} columns as in u, got {v.shape[1]}")
    _checks.check_labels(labels_u, "labels_u", u.shape[0], "u")
    _checks.check_labels(labels_v, "labels_v", v.shape[0], "v")
    _checks.check_label_pair(labels_u, "labels_u", labels_v, "labels_v")
    _checks.check_choice(similarity, "similarity", _KINDS)
    _checks.check_same(labels_u, "labels_u", u, "u", dtype=False)
    _checks.check_choice(form, "form", ("likelihood", "squared"))
    _check_column_weights(column_weights, v, "v")
    if exclude_diagonal and u.shape[0] != v.shape[0]:
        raise ValueError(f"exclude_diagonal: expected as many rows in u as in v, got {u.shape[0]} and {v.shape[0]}")
    if scale is None:
        scale = 0.5 if form == "likelihood" else 1 / max(1, u.shape[1])
    parameters = _parameters(u, scale, bias, positive_weight, negative_weight)
    mean = _checks.check_reduction(reduction)
    constants = labels_u.detach(), labels_v.detach(), None if column_weights is None else column_weights.detach()
    options = similarity, form, exclude_diagonal, mean
    wants = [torch.is_grad_enabled() and x.requires_grad for x in (u, v, parameters)]
    if torch.compiler.is_compiling() or not (any(wants) or forward_ad._current_level >= 0):
        return op.pairwise_similarity_loss(u, v, *constants, parameters, *options, *wants)[0]

    def compute(u: Tensor, v: Tensor, parameters: Tensor, *constants: Tensor | None) -> tuple[Any, list[Tensor | None]]:
        loss, *gradients = op.pairwise_similarity_loss(u, v, *constants, parameters, *options, *wants)
        return (loss,), [gradient if want else None for gradient, want in zip(gradients, wants, strict=True)]

    inputs = u, v, parameters
    return _ops.fused_loss("pairwise_similarity_loss", compute, op.backward, inputs, constants)[0]


def _parameters(u: Tensor, *values: float | Tensor) -> Tensor:
    """Return scale, bias and the two weights as one tensor [4]: one argument, and no wait for the GPU."""
    dtype = op.compute_dtype(u.dtype)
    if not any(isinstance(value, Tensor) for value in values):
        if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
            return torch.tensor(values, dtype=dtype, device=u.device)
        return _constants(values, dtype, u.device)
    scalars = []
    for value, name in zip(values, ("scale", "bias", "positive_weight", "negative_weight"), strict=True):
        if isinstance(value, Tensor):
            scalar = value.to(dtype=dtype, device=u.device)
        else:  # filled on the device: a copy from the host cannot be captured in a CUDA graph
            scalar = torch.full((), value, dtype=dtype, device=u.device)
        if scalar.numel() != 1:
            raise ValueError(f"{name}: expected a number or a tensor of one element, got shape {list(scalar.shape)}")
        if name.endswith("weight") and scalar.requires_grad:
            raise ValueError(f"{name}: expected a constant, got a tensor that requires a gradient")
        scalars.append(scalar.reshape(()))
    return torch.stack(scalars)


@functools.lru_cache(maxsize=256)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once: copying numbers to a GPU at each call takes time, and cannot be captured in a CUDA graph."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _check_labels(labels_u: Tensor, labels_v: Tensor, kind: str, kind_name: str) -> None:
    for labels, name in ((labels_u, "labels_u"), (labels_v, "labels_v")):
        _checks.check_tensor(labels, name)
        _checks.check_labels(labels, name, labels.shape[0] if labels.dim() else 0, name)
    _checks.check_label_pair(labels_u, "labels_u", labels_v, "labels_v")
    _checks.check_choice(kind, kind_name, _KINDS)


def _check_column_weights(column_weights: Tensor | None, columns: Tensor, columns_name: str) -> None:
    if column_weights is None:
        return
    _checks.check_tensor(column_weights, "column_weights")
    if column_weights.shape != columns.shape[:1] or column_weights.is_complex():
        raise ValueError(
            f"column_weights: expected real numbers of shape {[columns.shape[0]]}, one for each row of {columns_name}, "
            f"got {column_weights.dtype} of shape {list(column_weights.shape)}"
        )
    _checks.check_same(column_weights, "column_weights", columns, columns_name, dtype=False)
