"""load_image: one picture from disk, whatever its mode, size or damage."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adsq.data import load_image


def gradient(height: int, width: int) -> np.ndarray:
    return np.arange(height * width, dtype=np.int64).reshape(height, width) % 256


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_of_the_wanted_size_is_unchanged(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = saved(tmp_path / "a.png", Image.fromarray(pixels.numpy()))
    image = load_image(str(path), (3, 9, 7))
    assert image.dtype == torch.uint8
    assert torch.equal(image, pixels.permute(2, 0, 1))


def test_grey_becomes_three_equal_channels_and_stays_one(tmp_path: Path) -> None:
    pixels = gradient(4, 4).astype(np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert np.array_equal(load_image(path, (1, 4, 4))[0], pixels)
    assert all(np.array_equal(channel, pixels) for channel in load_image(path, (3, 4, 4)))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bits_keep_their_high_byte(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 255, 256, 32768], [65535, 65280, 511, 512]], dtype=np.uint16)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(wide))
    assert np.array_equal(load_image(path, (1, 2, 4))[0], wide >> 8)
    assert np.array_equal(load_image(path, (3, 2, 4))[2], wide >> 8)


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[True, False]])))
    assert load_image(path, (1, 1, 2)).tolist() == [[[255, 0]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    hidden_black = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    hidden_black.putpixel((1, 0), (0, 0, 0, 255))
    path = saved(tmp_path / "a.png", hidden_black.convert(mode))
    assert load_image(path, (3, 1, 2)).tolist() == [[[255, 0]]] * 3
    assert load_image(path, (1, 1, 2)).tolist() == [[[255, 0]]]


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.putpixel((1, 0), 1)
    assert load_image(saved(tmp_path / "a.png", image), (3, 1, 2))[:, 0].T.tolist() == [
        [200, 100, 50],
        [1, 2, 3],
    ]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert load_image(path, (3, 2, 2))[:, 0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    path = saved(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    image = load_image(path, (3, 4, 2))
    assert image[0].nonzero().tolist() == [[0, 1]]


def test_the_centre_is_kept_and_the_longer_side_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 77
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert (load_image(path, (3, 8, 8)) == 77).all()
    path = saved(tmp_path / "b.png", Image.fromarray(pixels.transpose(1, 0, 2)))
    assert (load_image(path, (3, 8, 8)) == 77).all()
    whole = Image.fromarray(pixels).resize((9, 3), Image.Resampling.BILINEAR)
    assert np.array_equal(load_image(tmp_path / "a.png", (3, 3, 3)), np.asarray(whole)[:, 3:6].transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (3, 2)])
def test_any_size_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", size, (10, 20, 30)))
    image = load_image(path, (3, 64, 48))
    assert image.shape == (3, 64, 48)
    assert [channel.unique().tolist() for channel in image] == [[10], [20], [30]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"just a text\n", "not a picture in a known format"),
        (b"\x89PNG\r\n\x1a\n", "cannot read image"),
        (None, "No such file"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OSError, match=reason) as error:
        load_image(path, (3, 8, 8))
    assert str(error.value).count(str(path)) == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "bmp", "webp"])
def test_truncated_and_damaged_pictures_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    for kept in (len(whole) // 2, len(whole) // 10, 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(OSError, match=path.name):
            load_image(path, (3, 64, 64))


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        load_image(tmp_path, (3, 8, 8))


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_floating_point_pixels_are_refused(tmp_path: Path, value: float) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.full((4, 4), value, dtype=np.float32)))
    with pytest.raises(OSError, match=r"a\.tiff: floating-point pixels"):
        load_image(path, (1, 4, 4))


@pytest.mark.parametrize("value", [-1, 65536])
def test_pixels_beyond_16_bits_are_refused(tmp_path: Path, value: int) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.full((4, 4), value, dtype=np.int32)))
    with pytest.raises(OSError, match=r"a\.tiff: pixels .* do not fit 16 bits"):
        load_image(path, (1, 4, 4))


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 0, 8), (3, 8), (3, 8, -1)])
def test_impossible_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match="image_shape"):
        load_image(path, shape)
