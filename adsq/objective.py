"""The objective "adsq-likelihood", term by term. Formulas, and what is reconstruction: docs/method.md, "Losses"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from adsq.distributed import Share
from adsq.kernels import mean_pairwise_similarity, pairwise_similarity_loss, sign_quantization_loss


@dataclass(frozen=True)
class ObjectiveConfig:
    """The weight of every term, and the choices within them. A weight of 0 leaves the term out.

    Attributes:
        similarity: What makes two images similar, "shared" or "cosine" ("Similarity" in docs/method.md).
        form: "likelihood" or "squared", the form of all pair losses.
        balanced: Whether similar and dissimilar pairs weigh the same in sum.
        hamming_scale: t_h, the factor of products of codes; with the squared form they are divided by K instead.
        semantic_scale: t_s times d: the products of semantic features are multiplied by semantic_scale / d.
        label_semantic: Weight of (L1), LabelNet's semantic features among each other.
        label_hamming: Weight of (L2), LabelNet's codes among each other.
        label_quantization: Weight of (L3), LabelNet's codes against their signs.
        label_codes: Weight of (L4), LabelNet's codes against the shared codes, after pre-training.
        asymmetric: Weight of (I1), the codes of one ImgNet against those of the other.
        semantic_guidance: Weight of (I2), an ImgNet's semantic features against LabelNet's.
        hamming_guidance: Weight of (I3), an ImgNet's codes against the signs of LabelNet's.
        quantization: Weight eta of (I4), an ImgNet's codes against the shared codes.
        anchor_weight: mu, the vote of LabelNet in the shared codes.
        image_nets: 2, or 1 for the ablation in which F's bank takes the place of G's.
    """

    name: ClassVar[str] = "adsq-likelihood"

    similarity: str = "shared"
    form: str = "likelihood"
    balanced: bool = True
    hamming_scale: float = 0.5
    semantic_scale: float = 10.0
    label_semantic: float = 1.0
    label_hamming: float = 1.0
    label_quantization: float = 0.1
    label_codes: float = 0.1
    asymmetric: float = 1.0
    semantic_guidance: float = 1.0
    hamming_guidance: float = 1.0
    quantization: float = 0.1
    anchor_weight: float = 1.0
    image_nets: int = 2

    def __post_init__(self) -> None:
        """Refuse choices that do not exist."""
        for name, choices in (
            ("similarity", ("shared", "cosine")),
            ("form", ("likelihood", "squared")),
            ("image_nets", (1, 2)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        for name, value in asdict(self).items():
            if isinstance(value, float) and not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")

    @property
    def uses_label_net(self) -> bool:
        """Whether any term or vote needs LabelNet."""
        return max(self.semantic_guidance, self.hamming_guidance, self.anchor_weight) > 0


WITHOUT_LABEL_NET: dict[str, Any] = {"semantic_guidance": 0.0, "hamming_guidance": 0.0, "anchor_weight": 0.0}


class LabelTargets(NamedTuple):
    """What LabelNet says of the R distinct label rows of the training images; constants for the ImgNets."""

    labels: Tensor  # as in the data set: ids [R] or rows [R, C]
    counts: Tensor  # [R], how many training images have them
    semantic: Tensor  # [R, d]
    hashing: Tensor  # [R, K]


def pair_loss(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    scale: float | None,
    config: ObjectiveConfig,
    column_weights: Tensor | None = None,
    share: Share | None = None,
) -> Tensor:
    """Return N(U, V; S, t): the pair loss, balanced if so configured.

    With a share, `u` has the own rows of a batch and `labels_u` the labels of all: the loss is the own part.
    """
    share = share or Share((len(u),))
    positive: float | Tensor = 1.0
    negative: float | Tensor = 1.0
    if config.balanced:
        p = mean_pairwise_similarity(labels_u, labels_v, config.similarity, column_weights).clamp(1e-3, 1 - 1e-3)
        positive, negative = 0.5 / p, 0.5 / (1 - p)
    loss = pairwise_similarity_loss(
        u,
        v,
        share.own_rows(labels_u),
        labels_v,
        similarity=config.similarity,
        form=config.form,
        scale=scale if config.form == "likelihood" else None,
        positive_weight=positive,
        negative_weight=negative,
        column_weights=column_weights,
    )
    return share.part(loss)


def label_net_terms(
    semantic: Tensor, hashing: Tensor, labels: Tensor, codes: Tensor | None, config: ObjectiveConfig
) -> dict[str, Tensor]:
    """Return LabelNet's weighted terms on a batch.

    Args:
        semantic: LabelNet's semantic features P, [n, d].
        hashing: LabelNet's relaxed codes H, [n, K].
        labels: The batch's labels, class ids [n] or rows [n, C].
        codes: Shared codes B of the batch's images, [n, K]; None in pre-training.
        config: The weights.

    Returns:
        Scalars by name; their sum is the loss.
    """
    terms: dict[str, Tensor] = {}
    if config.label_semantic:
        scale = config.semantic_scale / semantic.shape[1]
        terms["label_semantic"] = config.label_semantic * pair_loss(semantic, semantic, labels, labels, scale, config)
    if config.label_hamming:
        loss = pair_loss(hashing, hashing, labels, labels, config.hamming_scale, config)
        terms["label_hamming"] = config.label_hamming * loss
    if config.label_quantization:
        terms["label_quantization"] = config.label_quantization * sign_quantization_loss(hashing)[0]
    if config.label_codes and codes is not None:
        terms["label_codes"] = config.label_codes * sign_quantization_loss(hashing, codes=codes)[0]
    return terms


def img_net_terms(
    semantic: Tensor,
    hashing: Tensor,
    labels: Tensor,
    codes: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    targets: LabelTargets | None,
    config: ObjectiveConfig,
    share: Share | None = None,
) -> dict[str, Tensor]:
    """Return one ImgNet's weighted terms on a batch, or the own part of them.

    Args:
        semantic: The net's semantic features f of the own images, [n, d].
        hashing: The net's relaxed codes U of the own images, [n, K].
        labels: The batch's labels, class ids [m] or rows [m, C].
        codes: Shared codes B of the batch's images, [m, K].
        bank: Relaxed codes of the other ImgNet on some training images, [M, K], held constant.
        bank_labels: Their labels.
        targets: LabelNet's view of the distinct label rows; None without LabelNet.
        config: The weights.
        share: How the batch is spread over the processes; by default the own images are all.

    Returns:
        Scalars by name; their sum is the loss.
    """
    share = share or Share((len(labels),))
    terms: dict[str, Tensor] = {}
    if config.asymmetric:
        loss = pair_loss(hashing, bank, labels, bank_labels, config.hamming_scale, config, None, share)
        terms["asymmetric"] = config.asymmetric * loss
    if targets is not None and config.semantic_guidance:
        scale = config.semantic_scale / semantic.shape[1]
        loss = pair_loss(semantic, targets.semantic, labels, targets.labels, scale, config, targets.counts, share)
        terms["semantic_guidance"] = config.semantic_guidance * loss
    if targets is not None and config.hamming_guidance:
        signs = torch.where(targets.hashing >= 0, 1.0, -1.0).to(hashing.dtype)
        loss = pair_loss(hashing, signs, labels, targets.labels, config.hamming_scale, config, targets.counts, share)
        terms["hamming_guidance"] = config.hamming_guidance * loss
    if config.quantization:
        loss = share.part(sign_quantization_loss(hashing, codes=share.own_rows(codes))[0])
        terms["quantization"] = config.quantization * loss
    return terms
