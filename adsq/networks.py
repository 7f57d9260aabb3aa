"""LabelNet, ImgNet and the ADSQ model of three streams. The mathematics: docs/method.md, "Networks"."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from adsq.backbones import IMAGENET_MEAN, IMAGENET_STD, build_backbone, feature_size
from adsq.data import ImageDataset, batches
from adsq.kernels import pack_codes

CODE_KINDS = ("average", "f", "g")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of an ADSQ model: everything needed to build it again.

    Attributes:
        num_bits: Code length K, 1 to 4096.
        num_classes: Number of labels C, the width of LabelNet's input.
        image_shape: (channels, height, width) of the images.
        backbone: "small-cnn", the name of a torchvision classifier, or "custom" for a module of the user's.
        semantic_dim: Size d of the common semantic space.
        label_hidden: Width of LabelNet's hidden layer.
    """

    num_bits: int
    num_classes: int
    image_shape: tuple[int, int, int]
    backbone: str = "small-cnn"
    semantic_dim: int = 128
    label_hidden: int = 256

    def __post_init__(self) -> None:
        """Refuse shapes that no model has."""
        for name, high in (("num_bits", 4096), ("num_classes", None), ("semantic_dim", None), ("label_hidden", None)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1 or (high and value > high):
                raise ValueError(f"{name}: expected an integer from 1{f' to {high}' if high else ''}, got {value!r}")
        if len(self.image_shape) != 3 or min(self.image_shape) < 1 or self.image_shape[0] not in (1, 3):
            raise ValueError(f"image_shape: expected (1 or 3, height, width), got {self.image_shape!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self) | {"image_shape": list(self.image_shape)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelConfig:
        """Read what `to_dict` wrote."""
        return cls(**fields | {"image_shape": tuple(fields["image_shape"])})


class LabelNet(nn.Module):
    """Three fully connected layers from labels to semantic features and to codes."""

    def __init__(self, num_classes: int, semantic_dim: int, num_bits: int, hidden: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_classes, hidden)
        self.semantic = nn.Linear(hidden, semantic_dim)
        self.hashing = nn.Linear(semantic_dim, num_bits)

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map label rows, float [n, C], to semantic features [n, d] and relaxed codes [n, K], both in (-1, 1)."""
        semantic, hashing = self.logits(labels)
        return semantic, torch.tanh(hashing)

    def logits(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map label rows, float [n, C], to semantic features [n, d] and z, [n, K], whose signs are codes."""
        semantic = torch.tanh(self.semantic(torch.relu(self.hidden(labels))))
        return semantic, self.hashing(semantic)


class ImgNet(nn.Module):
    """A backbone, and heads to semantic features and to codes."""

    def __init__(self, backbone: nn.Module, backbone_dim: int, semantic_dim: int, num_bits: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.semantic = nn.Linear(backbone_dim, semantic_dim)
        self.hashing = nn.Linear(semantic_dim, num_bits)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised images, float [n, C, H, W], to semantic features [n, d] and relaxed codes [n, K]."""
        semantic, hashing = self.heads(self.backbone(images))
        return semantic, torch.tanh(hashing)

    def heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features of the backbone, [n, D], to semantic features [n, d] and z, [n, K], whose signs are codes."""
        semantic = torch.tanh(self.semantic(features))
        return semantic, self.hashing(semantic)


class ADSQ(nn.Module):
    """One LabelNet and two ImgNets of one architecture with their own weights.

    Args:
        config: The shape of the model.
        backbone: A module of the user's, images [n, C, H, W] -> features [n, D], copied for each ImgNet, or a function
            that makes one; by default the backbone that `config` names.
        weights: For a backbone by name: "none", "torchvision" (its default weights, downloaded), or the path of a state
            dict. See `build_backbone`.

    Raises:
        ValueError: The backbone does not give one feature vector an image.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        backbone: nn.Module | Callable[[], nn.Module] | None = None,
        weights: str = "none",
    ) -> None:
        super().__init__()
        if backbone is not None and config.backbone != "custom":
            config = replace(config, backbone="custom")
        self.config = config

        def make() -> nn.Module:
            if backbone is None:
                return build_backbone(config.backbone, config.image_shape, weights)
            return copy.deepcopy(backbone) if isinstance(backbone, nn.Module) else backbone()

        def img_net() -> ImgNet:
            module = make()
            size = feature_size(module, config.image_shape)
            return ImgNet(module, size, config.semantic_dim, config.num_bits)

        self.label_net = LabelNet(config.num_classes, config.semantic_dim, config.num_bits, config.label_hidden)
        self.img_net_f = img_net()
        self.img_net_g = img_net()
        # Per channel, of images scaled to 0..1. Weights come with theirs; without, the trainer measures its images.
        self.pixel_statistics_known = weights != "none"
        channels = config.image_shape[0]
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.pixel_statistics_known else ((0.5,), (0.5,))
        self.register_buffer("pixel_mean", torch.tensor(mean)[:channels].expand(channels).clone())
        self.register_buffer("pixel_std", torch.tensor(std)[:channels].expand(channels).clone())
        # small convolutions on the CPU are faster in this layout
        self.to(memory_format=torch.channels_last)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images, uint8 [n, C, H, W], into the float32 input of an ImgNet."""
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8 (0..255), got {images.dtype}")
        if images.shape[1:] != self.config.image_shape:
            raise ValueError(f"images: expected shape [n, {self.config.image_shape}], got {list(images.shape)}")
        scaled = images.to(self.pixel_mean.device, torch.float32, memory_format=torch.channels_last)
        std = 255 * self.pixel_std.view(-1, 1, 1)
        return (scaled - 255 * self.pixel_mean.view(-1, 1, 1)) / std

    def relaxed_codes(self, images: Tensor, kind: str = "average") -> Tensor:
        """Return real-valued codes whose signs are the codes: U, V, or U + V.

        Args:
            images: uint8 [n, C, H, W].
            kind: "f" or "g" for one ImgNet, "average" for both.

        Returns:
            float32 [n, K].
        """
        if kind not in CODE_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(CODE_KINDS)}, got {kind!r}")
        inputs = self.normalize(images)
        nets = {"f": [self.img_net_f], "g": [self.img_net_g], "average": [self.img_net_f, self.img_net_g]}[kind]
        return torch.stack([net(inputs)[1].float() for net in nets]).sum(dim=0)

    @torch.no_grad()
    def encode_batches(
        self, dataset: ImageDataset, indices: Tensor, *, kind: str = "average", batch_size: int, num_workers: int = 0
    ) -> Iterator[Tensor]:
        """Encode as `encode` does, a batch at a time: yields packed codes, uint8 [B, ceil(K / 8)], on the CPU."""
        was_training = self.training
        self.eval()
        try:
            for images in batches(dataset, indices, batch_size, num_workers):
                yield pack_codes(self.relaxed_codes(images, kind)).cpu()
        finally:
            self.train(was_training)

    def encode(
        self,
        dataset: ImageDataset,
        indices: Tensor | None = None,
        *,
        kind: str = "average",
        batch_size: int = 256,
        num_workers: int = 0,
        progress: Callable[[Iterator[Tensor]], Iterator[Tensor]] | None = None,
    ) -> Tensor:
        """Encode images to packed codes. Row i is the code of item `indices[i]`, whatever the loader does.

        Args:
            dataset: The images.
            indices: int64 [n], which of them; all by default.
            kind: "average", "f" or "g", see `relaxed_codes`. Codes of different kinds do not compare well.
            batch_size: Images a step.
            num_workers: Processes that decode images.
            progress: Wraps the iterator over batches, to show a progress bar.

        Returns:
            Packed codes, uint8 [n, ceil(K / 8)], on the CPU.
        """
        indices = torch.arange(len(dataset)) if indices is None else indices
        steps = self.encode_batches(dataset, indices, kind=kind, batch_size=batch_size, num_workers=num_workers)
        packed = list(steps if progress is None else progress(steps))
        return torch.cat(packed) if packed else torch.empty((0, (self.config.num_bits + 7) // 8), dtype=torch.uint8)
