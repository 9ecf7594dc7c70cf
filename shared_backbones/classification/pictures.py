"""Classifiers of pictures, whose bands hold values from 0 to 1."""

import functools
from typing import TypeVar

import torch
from torch import Tensor

from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.classification.contract import ImageContract
from shared_backbones.errors import InputError

PictureContractT = TypeVar("PictureContractT", bound=ImageContract)


class PictureClassifier(ImageClassifier[PictureContractT]):
    """A trained classifier of pictures: images of 8 bits, or of floating point from 0 to 1."""

    def prepare(self, images: Tensor) -> Tensor:
        """The part that the network sees, at its size: the middle, resized (bicubic, smoothed where it shrinks).

        As the training's images were, and reduced to their detail first where those were enlarged: the middle may begin
        and end within a pixel, and pixels beyond its border count.

        Args:
            images: `(N, C, H, W)` uint8, or floating point from 0 to 1.

        Returns:
            `(N, C, size, size)` float32 from 0 to 1.

        Raises:
            InputError: another number of bands than the model takes.
        """
        bands = self.contract.bands
        if images.ndim != 4 or images.shape[1] != len(bands):
            actual = images.shape[1] if images.ndim == 4 else f"shape {tuple(images.shape)} and no"
            raise InputError(f"images have {actual} bands, the model takes {len(bands)}: {', '.join(bands)}")
        values = images.float() if images.is_floating_point() else images.float() / 255
        height, width = images.shape[2:]
        side, size = self.contract.crop * min(height, width), self.contract.size
        detail = self.contract.detail
        if detail is not None and side > detail:
            down, across = (_resampling(length, side, detail) for length in (height, width))
            # steps of 8 bits, as such images are stored
            values = (down @ values @ across.T).clamp(0, 1).mul(255).round().div(255)
            height = width = side = detail
        down, across = (_resampling(length, side, size) for length in (height, width))
        return (down @ values @ across.T).clamp(0, 1)


@functools.lru_cache(maxsize=64)
def _resampling(length: int, side: float, size: int) -> Tensor:
    """Weights `(size, length)` of a line's pixels: bicubic (a = -0.5), widened where the middle `side` shrinks."""
    scale = side / size
    centres = (length - side) / 2 + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    away = ((torch.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0)).abs()
    near, far = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - 0.5 * away) * away - 4) * away + 2
    factors = torch.where(away < 1, near, torch.where(away < 2, far, torch.zeros_like(away)))
    return (factors / factors.sum(1, keepdim=True)).float()
