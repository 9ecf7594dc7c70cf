"""LightningModules that learn to restore what was degraded: coarse bands of scenes, thick slices of scans."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from geovision.contract import InputContract
from geovision.sharpening import Sharpening, WaldPair, coarse_offset, filled, sharpened
from medvision.enhancing import Thinning
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task


class RestorationTask(Task):
    """What was degraded is found again.

    Args:
        model: Maps `(B, C, H, W)` to the same shape.
        settings: Optimiser and schedule.
        steps: Length of the schedule in optimiser steps.
        flip: Whether training images are mirrored and turned.
    """

    def __init__(self, model: nn.Module, settings: TrainSection, steps: int, flip: bool) -> None:
        super().__init__(model, settings, steps)
        self.flip = flip
        self.errors = MeanMetric().set_dtype(torch.float64)

    def errors_of(self, batch: dict[str, Tensor], *, turned: bool) -> Tensor:
        """Errors of all known values of a batch, in deviations."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Mean absolute error, in deviations."""
        loss = self.errors_of(batch, turned=self.flip).abs().mean()
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin anew."""
        self.errors.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add the squared errors."""
        self.errors.update(self.errors_of(batch, turned=False).square())

    def on_validation_epoch_end(self) -> None:
        """Log the mean squared error, and the peak signal-to-noise ratio in dB from mean - 2 std to mean + 2 std."""
        error = self.errors.compute()
        self.log("validation_loss", error.float())
        self.log("validation_psnr", (10 * torch.log10(16 / error.clamp(min=1e-12))).float(), prog_bar=True)


class SharpeningTask(RestorationTask):
    """Coarse bands of patches are degraded once more, and found again.

    Args:
        model: Maps `(B, C, H, W)` to the same shape.
        settings: Optimiser and schedule.
        steps: Length of the schedule in optimiser steps.
        contract: Contract of the input.
        sharpening: What is learnt.
        flip: Whether training patches are mirrored and turned.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        sharpening: Sharpening,
        flip: bool,
    ) -> None:
        super().__init__(model, settings, steps, flip)
        self.contract, self.sharpening = contract, sharpening

    def errors_of(self, batch: dict[str, Tensor], *, turned: bool) -> Tensor:
        """Errors of all known values of a batch, in deviations of their bands."""
        pair = wald_pair(self.sharpening, batch)
        images, wanted, valid = pair.images, pair.wanted, pair.valid
        if turned:
            quarter, mirrored = (int(torch.randint(count, ())) for count in (4, 2))
            images, wanted, valid = (_turned(part, quarter, mirrored) for part in (images, wanted, valid))
        prediction = sharpened(self.model, self.contract, images, self.sharpening.coarse)
        std = prediction.new_tensor(self.contract.std)[list(self.sharpening.coarse)][:, None, None]
        return ((prediction - wanted) / std)[valid[:, None].expand_as(prediction)]


class ThinningTask(RestorationTask):
    """Squares of fine slices are made thick along one axis, and found again.

    Args:
        model: Maps `(B, 1, H, W)` to the same shape.
        settings: Optimiser and schedule.
        steps: Length of the schedule in optimiser steps.
        thinning: What is learnt.
        flip: Whether training squares are mirrored and turned.
    """

    def __init__(self, model: nn.Module, settings: TrainSection, steps: int, thinning: Thinning, flip: bool) -> None:
        super().__init__(model, settings, steps, flip)
        self.thinning = thinning

    def errors_of(self, batch: dict[str, Tensor], *, turned: bool) -> Tensor:
        """Errors of all values of a batch, in deviations of the scans."""
        images = batch["squares"].float()[:, None]
        if turned:
            images = _turned(images, *(int(torch.randint(count, ())) for count in (4, 2)))
        return self.thinning.restored(self.model, self.thinning.thick(images)) - images


def wald_pair(sharpening: Sharpening, batch: dict[str, Tensor]) -> WaldPair:
    """Pairs of a batch of stored patches, each cut so that it begins with a whole coarse pixel."""
    ratio = sharpening.ratio
    images, valid = batch["image"].float(), batch["valid"].bool()
    height, width = (cut_side(side, ratio) for side in images.shape[2:])
    parts = []
    for image, known in zip(images, valid, strict=True):
        row, column = coarse_offset(image[list(sharpening.coarse)], ratio)
        part = slice(row, row + height), slice(column, column + width)
        parts.append((image[:, *part], known[part]))
    cut, known = (torch.stack(column) for column in zip(*parts, strict=True))
    return sharpening.wald(filled(cut, known), known)


def cut_side(side: int, ratio: int) -> int:
    """What is used of the side of a patch, wherever coarse pixels begin in it."""
    multiple = 2 * ratio**2 if ratio % 2 else 4 * ratio
    return (side - ratio + 1) // multiple * multiple


def _turned(images: Tensor, quarter: int, mirrored: int) -> Tensor:
    images = torch.rot90(images, quarter, (-2, -1))
    return images.flip(-1) if mirrored else images
