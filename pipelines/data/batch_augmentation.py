"""How training batches are varied on the device where the network is, once they are normalised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from geovision.pretraining import random_crops

BatchAugmentation: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Makes of images `(B, C, H, W)` and targets `(B, K)` other ones, targets from 0 to 1."""


@dataclass(frozen=True)
class Mixup:
    """Mixes a batch with itself (Zhang et al. 2018).

    Attributes:
        alpha: Parameter of the Beta distribution that the weights are drawn from; 0 mixes nothing.
    """

    alpha: float

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Images and targets, each mixed with those before it by one weight."""
        if not self.alpha:
            return images, targets
        own = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        images = own * images + (1 - own) * images.roll(1, 0)
        return images, own * targets + (1 - own) * targets.roll(1, 0)


@dataclass(frozen=True)
class SatelliteViews:
    """Random crops, and mixup or cutmix, as SatMAE++ is fine-tuned.

    Attributes:
        size: Side in pixels of what the network sees.
        resized_crop: Smallest and largest fraction of the area that a crop has.
        mirrored: Whether half of the crops are mirrored.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none. Where both are given, half of the batches get each.
    """

    size: int
    resized_crop: tuple[float, float]
    mirrored: bool = True
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Crops `(B, C, size, size)` and their targets."""
        images = random_crops(images, self.size, self.resized_crop, self.mirrored)
        ways: list[BatchAugmentation] = []
        if len(images) > 1 and (self.mixup or self.cutmix):
            from torchvision.transforms import v2

            ways += [v2.MixUp(alpha=self.mixup)] if self.mixup else []
            ways += [v2.CutMix(alpha=self.cutmix)] if self.cutmix else []
        return ways[int(torch.randint(0, len(ways), (1,)))](images, targets) if ways else (images, targets)
