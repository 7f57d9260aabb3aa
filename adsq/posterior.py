"""The objective "adsq": pairs follow posteriors. The formulas: docs/method.md, "Targets from posteriors"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from adsq.distributed import Share, total
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
    partner: Tensor  # sigma, a permutation of 0..m-1; or the rows of one process of it

    @classmethod
    def draw(cls, rows: Share, generator: torch.Generator, device: torch.device) -> Mixture:
        """Draw lambda from U(0, 1) and sigma, the same on every device; keep those of the own rows."""
        share = torch.rand((rows.count, 1), generator=generator)
        partner = torch.randperm(rows.count, generator=generator)
        return cls(rows.own_rows(share).to(device), rows.own_rows(partner).to(device))

    def append(self, rows: Tensor, whole: Tensor) -> Tensor:
        """Return the own rows and, below them, their mixtures with rows of the whole batch: [m, .] -> [2 m, .]."""
        return torch.cat([rows, self.share * rows + (1 - self.share) * whole[self.partner]])


def label_logits(semantic: Tensor, label_semantic: Tensor, prior: Tensor) -> Tensor:
    """Return the logits of the C labels, f_i.p_c plus the prior's: [n, d], [C, d], [C] -> [n, C]."""
    return semantic @ label_semantic.T + prior


def prior_logits(rows: Tensor, exclusive: bool) -> Tensor:
    """Return the logits of the labels' shares among the training images, [n, C] -> [C]."""
    share = rows.mean(dim=0).clamp(1e-6, 1 - 1e-6)  # finite for a label that no image has, or each
    return share.log() if exclusive else share.logit()


def semantic_loss(logits: Tensor, rows: Tensor, exclusive: bool, images: int, batch: int | None = None) -> Tensor:
    """Return (S): the cross entropy of label rows, of images (weight 1/2 beside mixtures) and of mixtures.

    Args:
        logits: Of the labels, [n, C].
        rows: Label rows, [n, C]; those of mixtures are mixed.
        exclusive: Whether each image has one label: softmax, and sigmoids otherwise.
        images: How many of the rows are images; the others are mixtures.
        batch: How many images all processes have, by default these; the loss is then the part of the own ones.
    """
    if exclusive:
        losses = cross_entropy(logits, rows, reduction="none")
    else:
        losses = binary_cross_entropy_with_logits(logits, rows, reduction="none").sum(dim=1)
    batch = images if batch is None else batch
    if len(rows) == images:
        return losses.sum() / batch
    return 0.5 * (losses[:images].sum() / batch) + losses[images:].sum() / batch


def pair_targets(logits: Tensor, rows: Tensor, exclusive: bool, config: PosteriorConfig) -> Tensor:
    """Return rows q of which T_ij = q_i.q_j, clipped to [0, 1], is the target of a pair: [n, C], without gradient."""
    targets = rows
    if config.soft_targets:
        targets = logits.detach().softmax(dim=1) if exclusive else logits.detach().sigmoid()
    return normalize(targets) if config.similarity == "cosine" else targets


def balance(p: Tensor) -> dict[str, Tensor]:
    """Return the weights with which similar and dissimilar pairs count the same in sum, p the share of similar ones."""
    p = p.clamp(1e-3, 1 - 1e-3)
    return {"positive_weight": 0.5 / p, "negative_weight": 0.5 / (1 - p)}


class Pairs:
    """The pairs i != j of a batch: i runs over the own images, j over those of all processes.

    Args:
        targets: Rows of `pair_targets` of the own images and mixtures, [n, C].
        config: Whether to balance.
        share: How images and mixtures are spread over the processes; by default these are all.
    """

    def __init__(self, targets: Tensor, config: PosteriorConfig, share: Share | None = None) -> None:
        self.targets = targets
        self.share = share = share or Share((len(targets),))
        n, m = len(targets), share.count
        self._all_pairs = max(1, m * (m - 1))
        whole = share.gather(targets)
        self._other_targets = share.other_rows(whole) if share.several else None
        self._weights: dict[str, Tensor] = {}
        if config.balanced:
            p = mean_pairwise_similarity(targets, whole, "dot")
            diagonal = (targets * targets).sum(dim=1).clamp(0, 1).sum()
            self._weights = balance(total(n * m * p - diagonal) / self._all_pairs)

    def loss(self, u: Tensor, v: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Return the own part of (H): the likelihood of targets T under logits a u_i.v_j / K + c0.

        Args:
            u: Relaxed codes of the own images and mixtures, [n, K].
            v: Relaxed codes of those of all processes, [m, K], as `Share.gather` gives them.
            scale: a, a scalar.
            bias: c0, a scalar.
        """
        options: dict[str, Any] = {"similarity": "dot", "scale": scale / u.shape[1], "bias": bias, **self._weights}
        own = self.share.own_rows(v)
        loss = pairwise_similarity_loss(u, own, self.targets, self.targets, exclude_diagonal=True, **options)
        if self._other_targets is None:
            return loss
        n, others = len(u), self.share.other_rows(v)
        across = pairwise_similarity_loss(u, others, self.targets, self._other_targets, **options)
        return (n * (n - 1) * loss + n * len(others) * across) / self._all_pairs


def hamming_guidance_loss(
    u: Tensor,
    v: Tensor,
    targets_u: Tensor,
    targets_v: Tensor,
    scale: Tensor,
    bias: Tensor,
    config: PosteriorConfig,
    column_weights: Tensor,
    share: Share | None = None,
) -> Tensor:
    """Return the own part of (HL): the likelihood of targets T under logits a u_i.v_j / K + c0.

    Args:
        u: Relaxed codes of the own images and mixtures, [n, K].
        v: Relaxed codes of label rows, [m, K].
        targets_u: Rows of `pair_targets` of u, [n, C].
        targets_v: Those of v, [m, C].
        scale: a, a scalar.
        bias: c0, a scalar.
        config: Whether to balance.
        column_weights: How many images have a label row, [m].
        share: How images and mixtures are spread over the processes; by default these are all.
    """
    share = share or Share((len(u),))
    weights: dict[str, Any] = {}
    if config.balanced:
        weights = balance(total(share.part(mean_pairwise_similarity(targets_u, targets_v, "dot", column_weights))))
    loss = pairwise_similarity_loss(
        u,
        v,
        targets_u,
        targets_v,
        similarity="dot",
        scale=scale / u.shape[1],
        bias=bias,
        column_weights=column_weights,
        **weights,
    )
    return share.part(loss)


def hamming_terms(
    codes: list[Tensor],
    targets: Tensor,
    scale: Tensor,
    bias: Tensor,
    config: PosteriorConfig,
    share: Share | None = None,
) -> dict[str, Tensor]:
    """Return the own parts of the weighted terms (H) between and within ImgNets, and (Q).

    Args:
        codes: Relaxed codes of the own images and mixtures by each ImgNet, [n, K] each.
        targets: Rows of `pair_targets`, [n, C].
        scale: a, a scalar.
        bias: c0, a scalar.
        config: The weights.
        share: How images and mixtures are spread over the processes; by default these are all.

    Returns:
        Scalars by name.
    """
    share = share or Share((len(targets),))
    terms: dict[str, Tensor] = {}
    if config.asymmetric or config.symmetric:
        pairs, wholes = Pairs(targets, config, share), [share.gather(own) for own in codes]
    if config.asymmetric:
        terms["asymmetric"] = config.asymmetric * pairs.loss(codes[0], wholes[-1], scale, bias)
    if config.symmetric and len(codes) == 2:
        for which, own, whole in zip("fg", codes, wholes, strict=True):
            terms[f"{which}_symmetric"] = config.symmetric * pairs.loss(own, whole, scale, bias)
    if config.quantization:
        terms["quantization"] = config.quantization * share.part(sign_quantization_loss(*codes)[0])
    return terms
