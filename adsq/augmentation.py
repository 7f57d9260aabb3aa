"""Random shifts and flips of whole batches, on the device the images are on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adsq.distributed import Share


@dataclass(frozen=True)
class Augmentation:
    """What training does to its images.

    Attributes:
        shift: Largest shift in pixels, both ways, borders repeated.
        flip: Whether every second image is mirrored from left to right.
    """

    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator, share: Share | None = None) -> Tensor:
        """Return shifted and flipped copies of images, [n, C, H, W] of any dtype, in channels-last memory format.

        Args:
            images: The batch; it is not changed.
            generator: A CPU generator, so that every device draws the same.
            share: Which images of a batch these are, where other processes have the rest; all draw for the whole batch.
        """
        share = share or Share((len(images),))
        n, (height, width) = share.count, images.shape[2:]
        rows = torch.arange(height).expand(n, -1)
        columns = torch.arange(width).expand(n, -1)
        if self.flip:
            mirrored = torch.randint(0, 2, (n, 1), generator=generator, dtype=torch.bool)
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.shift:
            shifts = torch.randint(-self.shift, self.shift + 1, (2, n, 1), generator=generator)
            rows = (rows + shifts[0]).clamp(0, height - 1)
            columns = (columns + shifts[1]).clamp(0, width - 1)
        if not self.flip and not self.shift:
            return images
        batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
        rows, columns = (share.own_rows(places).to(images.device) for places in (rows, columns))
        return images.permute(0, 2, 3, 1)[batch, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)

    @classmethod
    def default(cls, name: str, image_shape: tuple[int, int, int]) -> Augmentation:
        """Choose by data set: shifts of a fourteenth of the side, and flips where mirrored images keep their class."""
        return cls(shift=max(1, min(image_shape[1:]) // 14), flip=name != "digits")
