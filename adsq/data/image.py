"""One picture from disk or from PIL, as a uint8 tensor of a wanted shape."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor


def load_image(path: str | Path, image_shape: tuple[int, int, int]) -> Tensor:
    """Read one picture from disk, prepared as every image of a folder or CSV data set is.

    The EXIF orientation is applied; transparency is laid over white; 16-bit grey keeps its high byte; colours
    become RGB (3 channels) or luminance (1 channel). Then the shorter side is resized, bilinear with
    antialiasing, and the longer one cropped around the centre, in one step, so that a strip of 1 x 10,000
    pixels is never blown up whole.

    Args:
        path: Picture in any format that PIL reads.
        image_shape: (channels, height, width) wanted; 1 or 3 channels.

    Returns:
        uint8 [channels, height, width].

    Raises:
        OSError: Missing, unreadable, empty, broken or truncated file, or not a picture; names the path.
        ValueError: An impossible image shape.
    """
    check_image_shape(image_shape)
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return fit_image(image, image_shape)
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        reason = "the file is empty" if empty else "not a picture in a known format"
        raise OSError(f"cannot read image {path}: {reason}") from error
    # PIL's decoders answer broken files with SyntaxError, struct.error, KeyError and more.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OSError(f"cannot read image {path}: {reason or type(error).__name__}") from error


def fit_image(image: Image.Image, image_shape: tuple[int, int, int]) -> Tensor:
    """A PIL image of any mode as uint8 [C, H, W]; see load_image for the rules."""
    channels, height, width = image_shape
    image = _eight_bits(image).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return pil_to_tensor(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Opaque picture of 8 bits a channel. PIL's own conversion clips 16 bits at 255 and drops alpha."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save the picture with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"pixels {pixels.min()}..{pixels.max()} do not fit 16 bits")
        return Image.fromarray((pixels >> 8).astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas
    return image


def check_image_size(image_size: int) -> int:
    """The side as an int; TypeError for another type, ValueError below 1."""
    if isinstance(image_size, bool) or not isinstance(image_size, int):
        raise TypeError(f"image_size: expected an int (pixels), got {image_size!r}")
    if image_size < 1:
        raise ValueError(f"image_size: expected at least 1 pixel, got {image_size}")
    return image_size


def check_image_shape(image_shape: tuple[int, int, int]) -> None:
    """ValueError unless the shape is (1 or 3, at least 1, at least 1)."""
    if len(image_shape) != 3 or image_shape[0] not in (1, 3) or min(image_shape) < 1:
        raise ValueError(f"image_shape: expected (1 or 3, height, width), got {tuple(image_shape)}")
