"""A LightningModule that pretrains a masked autoencoder on patches of scenes."""

import math

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from geovision.contract import InputContract
from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.pretraining import evaluation_views, pyramid, random_crops, removed_pixels
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task
from shared_backbones.errors import InputError


class PretrainingTask(Task):
    """A masked autoencoder learns to reconstruct, at its own and at higher resolutions.

    Args:
        model: Network, `geovision.models.satmae_pp.MaskedAutoencoder` or `GroupMaskedAutoencoder`.
        settings: Settings of the training.
        steps: Length of the schedule in optimiser steps.
        contract: Contract of the input.
        mask_ratio: Fraction of the tokens that are removed.
        crop: Smallest and largest fraction of a patch's area in a training view.
        seed: Seed of the masks of the validation.
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
        network = autoencoder(model)
        self.scales, self.size = len(network.multiscale.blocks), network.trunk.img_size[0]
        self.errors = MeanMetric().set_dtype(torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch of patches."""
        images = self.contract.normalise(batch["image"], batch["valid"])
        *targets, inputs = pyramid(random_crops(images, self.size << self.scales, self.crop), self.scales)
        loss = self.model(inputs, *reversed(targets), mask_ratio=self.mask_ratio).loss
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin anew."""
        self.errors.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add the squared errors of removed pixels; the masks are the same in every validation."""
        images, reconstruction, removed = reconstruct(
            autoencoder(self.model), self.contract, batch, self.mask_ratio, seed=self.seed * 1_000_003 + batch_index
        )
        self.errors.update((reconstruction - images).square()[removed.expand_as(images)])

    def on_validation_epoch_end(self) -> None:
        """Log the mean squared error over removed pixels, and their peak signal-to-noise ratio in dB."""
        error = self.errors.compute()
        self.log("validation_loss", error.float())
        value = 10 * torch.log10(span_of(self.contract) ** 2 / error.clamp(min=1e-12))
        self.log("validation_psnr", value.float())


def reconstruct(
    model: Autoencoder, contract: InputContract, batch: dict[str, Tensor], mask_ratio: float, *, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruct a batch with an autoencoder.

    Args:
        model: Autoencoder.
        contract: Contract of its input.
        batch: Its `image` and `valid`, on the model's device.
        mask_ratio: Fraction of the tokens that are removed.
        seed: Seed of the masks, which are drawn on the CPU and thus alike everywhere.

    Returns:
        Normalised images `(B, C, H, W)`, their reconstruction, and the removed pixels `(B, C or 1, H, W)`.
    """
    trunk = model.trunk
    images = contract.normalise(batch["image"], batch["valid"])
    images = evaluation_views(images, trunk.img_size[0])
    places = math.prod(trunk.grid) * (1 if trunk.groups is None or model.spatial_mask else len(trunk.groups))
    noise = torch.rand(len(images), places, generator=torch.Generator().manual_seed(seed)).to(images.device)
    answer = model(images, mask_ratio=mask_ratio, noise=noise)
    reconstruction = model.to_images(answer.prediction.float())
    groups = None if trunk.groups is None else [list(group) for group in trunk.groups]
    return images, reconstruction, removed_pixels(answer.mask, trunk.patch_size, trunk.grid, groups)


def autoencoder(network: nn.Module) -> Autoencoder:
    """A network that is a masked autoencoder of SatMAE++.

    Raises:
        InputError: it is another one.
    """
    if not isinstance(network, Autoencoder):
        raise InputError(
            f"{type(network).__name__}: expected a masked autoencoder of SatMAE++; use satmae_pp_mae_group or "
            "satmae_pp_mae_rgb"
        )
    return network


def span_of(contract: InputContract) -> float:
    """Range of normalised values to which reconstruction errors are compared: from mean - 2 std to mean + 2 std."""
    return 1.0 if contract.normalisation == "satmae" else 4.0
