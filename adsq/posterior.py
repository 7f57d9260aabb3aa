"""The objective "adsq": pairs follow posteriors. The formulas: docs/method.md, "Targets from posteriors"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from adsq.kernels import mean_pairwise_similarity, pairwise_similarity_loss, sign_quantization_loss


@dataclass(frozen=True)
class PosteriorConfig:
    """The weights and the choices of the objective "adsq". A weight of 0 leaves the term out.

    Attributes:
        similarity: "shared" or "cosine"; one and the same for images of one label each.
        image_nets: 2, or 1 for F alone; G is then a copy of F.
        soft_targets: Whether the targets of pairs are posteriors; the labels themselves if not.
        mixing: Whether mixtures of features are trained on too; None: where each image has one label.
        balanced: Whether similar and dissimilar pairs weigh the same in sum.
        semantic: Weight of (S), the cross entropy of labels by LabelNet's semantic features.
        asymmetric: Weight of (H), pairs of a code of F and one of G; with one ImgNet, pairs of codes of F.
        symmetric: Weight of the same pairs within F, and within G, where there are two ImgNets.
        hamming_guidance: Weight of (HL), codes against LabelNet's.
        quantization: Weight of (Q), codes against the shared codes.
        slope: beta at the start and at the end of training; it grows linearly.
        scale: Start of a, the factor of products of codes, learned.
        bias: Start of c0, the logit of a product of 0, learned.
        parameter_lr: Learning rate of a and c0, times that of the networks.
    """

    name: ClassVar[str] = "adsq"

    similarity: str = "shared"
    image_nets: int = 2
    soft_targets: bool = True
    mixing: bool | None = None
    balanced: bool = True
    semantic: float = 1.0
    asymmetric: float = 1.0
    symmetric: float = 0.5
    hamming_guidance: float = 0.0
    quantization: float = 0.0
    slope: tuple[float, float] = (1.0, 10.0)
    scale: float = 8.0
    bias: float = 0.0
    parameter_lr: float = 30.0

    def __post_init__(self) -> None:
        """Refuse choices that do not exist."""
        for name, choices in (("similarity", ("shared", "cosine")), ("image_nets", (1, 2))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        for name, value in asdict(self).items():
            if isinstance(value, float) and not (0 <= value < float("inf") or name == "bias"):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
        if not abs(self.bias) < float("inf"):
            raise ValueError(f"bias: expected a finite number, got {self.bias}")
        if len(self.slope) != 2 or not all(0 < beta < float("inf") for beta in self.slope):
            raise ValueError(f"slope: expected two finite numbers above 0, got {self.slope}")
        object.__setattr__(self, "slope", tuple(self.slope))  # a list where it was read from JSON


class Mixture(NamedTuple):
    """Which images of a batch are mixed, and in which shares."""

    share: Tensor  # lambda, [m, 1]
    partner: Tensor  # sigma, a permutation of 0..m-1

    @classmethod
    def draw(cls, size: int, generator: torch.Generator, device: torch.device) -> Mixture:
        """Draw lambda from U(0, 1) and sigma, the same on every device."""
        share = torch.rand((size, 1), generator=generator)
        return cls(share.to(device), torch.randperm(size, generator=generator).to(device))

    def append(self, rows: Tensor) -> Tensor:
        """Return the rows and, below them, their mixtures: [m, .] -> [2 m, .]."""
        return torch.cat([rows, self.share * rows + (1 - self.share) * rows[self.partner]])


def label_logits(semantic: Tensor, label_semantic: Tensor, prior: Tensor) -> Tensor:
    """Return the logits of the C labels, f_i.p_c plus the prior's: [n, d], [C, d], [C] -> [n, C]."""
    return semantic @ label_semantic.T + prior


def prior_logits(rows: Tensor, exclusive: bool) -> Tensor:
    """Return the logits of the labels' shares among the training images, [n, C] -> [C]."""
    share = rows.mean(dim=0).clamp(1e-6, 1 - 1e-6)  # finite for a label that no image has, or each
    return share.log() if exclusive else share.logit()


def semantic_loss(logits: Tensor, rows: Tensor, exclusive: bool, images: int) -> Tensor:
    """Return (S): the cross entropy of label rows, of images (weight 1/2 beside mixtures) and of mixtures.

    Args:
        logits: Of the labels, [n, C].
        rows: Label rows, [n, C]; those of mixtures are mixed.
        exclusive: Whether each image has one label: softmax, and sigmoids otherwise.
        images: How many of the rows are images; the others are mixtures.
    """
    if exclusive:
        losses = cross_entropy(logits, rows, reduction="none")
    else:
        losses = binary_cross_entropy_with_logits(logits, rows, reduction="none").sum(dim=1)
    if len(rows) == images:
        return losses.mean()
    return 0.5 * losses[:images].mean() + losses[images:].mean()


def pair_targets(logits: Tensor, rows: Tensor, exclusive: bool, config: PosteriorConfig) -> Tensor:
    """Return rows q of which T_ij = q_i.q_j, clipped to [0, 1], is the target of a pair: [n, C], without gradient."""
    targets = rows
    if config.soft_targets:
        targets = logits.detach().softmax(dim=1) if exclusive else logits.detach().sigmoid()
    return normalize(targets) if config.similarity == "cosine" else targets


def hamming_loss(
    u: Tensor,
    v: Tensor,
    targets_u: Tensor,
    targets_v: Tensor,
    scale: Tensor,
    bias: Tensor,
    config: PosteriorConfig,
    column_weights: Tensor | None = None,
) -> Tensor:
    """Return (H): the likelihood of targets T under logits a u_i.v_j / K + c0, without pairs of an image with itself.

    Args:
        u: Relaxed codes, [n, K].
        v: Relaxed codes, [m, K]: of the same images, or of label rows where there are column weights.
        targets_u: Rows of `pair_targets` of u, [n, C].
        targets_v: Those of v, [m, C].
        scale: a, a scalar.
        bias: c0, a scalar.
        config: Whether to balance.
        column_weights: How many images have a label row, [m]; None where u and v are codes of the same images.
    """
    same = column_weights is None
    positive: float | Tensor = 1.0
    negative: float | Tensor = 1.0
    if config.balanced:
        p = mean_pairwise_similarity(targets_u, targets_v, "dot", column_weights)
        if same:  # leave out the diagonal
            n = len(targets_u)
            own = (targets_u * targets_v).sum(dim=1).clamp(0, 1).sum()
            p = (n * n * p - own) / (n * (n - 1))
        p = p.clamp(1e-3, 1 - 1e-3)
        positive, negative = 0.5 / p, 0.5 / (1 - p)
    return pairwise_similarity_loss(
        u,
        v,
        targets_u,
        targets_v,
        similarity="dot",
        scale=scale / u.shape[1],
        bias=bias,
        positive_weight=positive,
        negative_weight=negative,
        column_weights=column_weights,
        exclude_diagonal=same,
    )


def hamming_terms(
    codes: list[Tensor], targets: Tensor, scale: Tensor, bias: Tensor, config: PosteriorConfig
) -> dict[str, Tensor]:
    """Return the weighted terms (H) between and within ImgNets, and (Q).

    Args:
        codes: Relaxed codes of each ImgNet, [n, K] each.
        targets: Rows of `pair_targets`, [n, C].
        scale: a, a scalar.
        bias: c0, a scalar.
        config: The weights.

    Returns:
        Scalars by name.
    """
    terms: dict[str, Tensor] = {}
    if config.asymmetric:
        loss = hamming_loss(codes[0], codes[-1], targets, targets, scale, bias, config)
        terms["asymmetric"] = config.asymmetric * loss
    if config.symmetric and len(codes) == 2:
        for which, own in zip("fg", codes, strict=True):
            loss = hamming_loss(own, own, targets, targets, scale, bias, config)
            terms[f"{which}_symmetric"] = config.symmetric * loss
    if config.quantization:
        terms["quantization"] = config.quantization * sign_quantization_loss(*codes)[0]
    return terms
