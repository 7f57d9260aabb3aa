"""Image backbones: a small CNN, any torchvision classifier without its last layer, or a module of the user's."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL_CNN = "small-cnn"


class SmallCNN(nn.Sequential):
    """Three convolutions with pooling and one fully connected layer, for images of about 8 to 64 pixels a side."""

    def __init__(self, channels: int, height: int, width: int, features: int = 256) -> None:
        if min(height, width) < 8:
            raise ValueError(f"image_shape: {SMALL_CNN} needs images of at least 8 x 8 pixels, got {height} x {width}")
        layers: list[nn.Module] = []
        for size in (16, 32, 64):
            layers += [nn.Conv2d(channels, size, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(size), nn.ReLU()]
            channels = size
        flat = channels * (height // 8) * (width // 8)
        super().__init__(*layers, nn.Flatten(), nn.Linear(flat, features), nn.ReLU())


class _Gray(nn.Module):
    """Feeds gray images to a backbone made for three channels."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images.expand(-1, 3, -1, -1))


def backbone_names() -> list[str]:
    """Return the names that `build_backbone` knows."""
    return [SMALL_CNN, *models.list_models(module=models)]


def build_backbone(name: str, image_shape: tuple[int, int, int], weights: str = "none") -> nn.Module:
    """Build a backbone by name.

    Args:
        name: "small-cnn" or a torchvision classifier such as "alexnet" or "resnet18"; its last linear layer is removed.
        image_shape: (channels, height, width) of the images.
        weights: "none", "torchvision" (the model's default weights, which torchvision downloads), or the path of a
            state dict of the whole classifier: .safetensors, or a .pth file that holds tensors only.

    Returns:
        A module from images [n, C, H, W] to features [n, D].

    Raises:
        ValueError: An unknown name, or weights that do not fit it.
        OSError: The weights cannot be read.
    """
    channels = image_shape[0]
    if name == SMALL_CNN:
        if weights != "none":
            raise ValueError(f"weights: {SMALL_CNN} has none to start from, expected 'none', got {weights!r}")
        return SmallCNN(*image_shape)
    if name not in backbone_names():
        raise ValueError(f"backbone: expected {SMALL_CNN} or a torchvision classifier such as resnet18, got {name!r}")
    try:
        model = models.get_model(name, weights="DEFAULT" if weights == "torchvision" else None)
    except OSError as error:
        raise OSError(f"weights: torchvision could not fetch those of {name} ({error}); give a file instead") from error
    if weights not in ("none", "torchvision"):
        _load_weights(model, name, Path(weights))
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"backbone: {name} has no linear layer to put the hash layer in the place of")
    model.set_submodule(linear[-1], nn.Identity())
    return _Gray(model) if channels == 1 else model


def _load_weights(model: nn.Module, name: str, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path} (expected a state dict, 'torchvision' or 'none')")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as error:  # safetensors and torch.load raise a dozen types for a damaged file
        raise OSError(f"weights: {path} is not a state dict that can be read safely: {error}") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"weights: {path} does not fit {name}: {error}") from error


@torch.no_grad()
def feature_size(backbone: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return D by trying the backbone on one blank image. Raises ValueError unless it gives [1, D]."""
    training = backbone.training
    backbone.eval()
    try:
        output = backbone(torch.zeros((1, *image_shape)))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"backbone: does not take images of shape {image_shape}: {error}") from error
    finally:
        backbone.train(training)
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"backbone: expected one feature vector an image, [n, D], got {shape}")
    return output.shape[1]
