"""A LightningModule that pretrains a masked autoencoder on patches of scenes."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from geovision.contract import InputContract
from geovision.pretraining import evaluation_views, pyramid, random_crops, removed_pixels
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task


class PretrainingTask(Task):
    """A masked autoencoder learns to reconstruct, at its own and at higher resolutions.

    Args:
        model: `geovision.models.satmae_pp.MaskedAutoencoder` or `GroupMaskedAutoencoder`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        mask_ratio: share of tokens removed.
        crop: smallest and largest share of a patch's area in a training view.
        seed: of the masks of the validation.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        mask_ratio: float,
        crop: tuple[float, float],
        seed: int,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.mask_ratio, self.crop, self.seed = contract, mask_ratio, crop, seed
        network: Any = model
        self.scales = len(network.multiscale.blocks)
        self.size = network.trunk.img_size[0]
        self.errors = torch.zeros(2, dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch of patches."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        *targets, inputs = pyramid(random_crops(images, self.size << self.scales, self.crop), self.scales)
        found = self.model(inputs, *reversed(targets), mask_ratio=self.mask_ratio)
        self.log("loss", found.loss.detach())
        return found.loss

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.errors = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add the squared errors of removed pixels; the masks are the same in every validation."""
        images, found, removed = reconstruct(
            self.model, self.contract, batch, self.mask_ratio, seed=self.seed * 1_000_003 + batch_index
        )
        errors = (found - images).square()[removed.expand_as(images)].double()
        self.errors += torch.stack([errors.sum(), torch.full_like(errors.sum(), errors.numel())])

    def on_validation_epoch_end(self) -> None:
        """Log the peak signal-to-noise ratio over removed pixels, in dB."""
        total, count = self.trainer.strategy.reduce(self.errors, reduce_op="sum")
        span = span_of(self.contract)
        value = 10 * torch.log10(span**2 / (total / count.clamp(min=1)).clamp(min=1e-12))
        self.log("validation_psnr", value.float())


def reconstruct(
    model: Any, contract: InputContract, batch: dict[str, Tensor], mask_ratio: float, *, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruct a batch with an autoencoder.

    Args:
        model: the autoencoder.
        contract: of its input.
        batch: `image` and `valid`, on the model's device.
        mask_ratio: share of tokens removed.
        seed: of the masks, which are drawn on the CPU and thus alike everywhere.

    Returns:
        Normalised images `(B, C, H, W)`, their reconstruction, and the removed pixels `(B, C or 1, H, W)`.
    """
    trunk = model.trunk
    images = contract.normalise(batch["image"].float(), batch["valid"])
    images = evaluation_views(images, trunk.img_size[0])
    places = math.prod(trunk.grid) * (1 if trunk.groups is None or model.spatial_mask else len(trunk.groups))
    noise = torch.rand(len(images), places, generator=torch.Generator().manual_seed(seed)).to(images.device)
    answer = model(images, mask_ratio=mask_ratio, noise=noise)
    found = model.to_images(answer.prediction.float())
    groups = None if trunk.groups is None else [list(group) for group in trunk.groups]
    return images, found, removed_pixels(answer.mask, trunk.patch_size, trunk.grid, groups)


def span_of(contract: InputContract) -> float:
    """Range of normalised values to which reconstruction errors are compared: from mean - 2 std to mean + 2 std."""
    return 1.0 if contract.normalisation == "satmae" else 4.0
