"""The handwritten digits that ship with scikit-learn."""

import numpy as np
import torch

from adsq.data.dataset import TensorImageDataset


def load_digits(image_size: int | None = None) -> TensorImageDataset:
    """1,797 grey images of handwritten digits, 8 x 8, ten classes of 174 to 183 images; no download.

    scikit-learn's pixels are whole numbers v in 0..16; here they are (255 v + 8) // 16, which is 255 v / 16
    rounded to the nearest integer, halves up.

    Args:
        image_size: Side to which images are resized when read; None: 8.

    Returns:
        uint8 [1797, 1, 8, 8] with labels int64 [1797].
    """
    # Here and not at the top: this import takes longer than the rest of adsq.data together.
    from sklearn.datasets import load_digits as load_from_scikit_learn

    digits = load_from_scikit_learn()
    pixels = (digits.images.astype(np.int64) * 255 + 8) // 16
    return TensorImageDataset(
        torch.from_numpy(pixels.astype(np.uint8)[:, None]),
        torch.from_numpy(digits.target.astype(np.int64)),
        [str(digit) for digit in range(10)],
        name="digits",
        spec={"source": "digits", "image_size": image_size},
        image_size=image_size,
    )
