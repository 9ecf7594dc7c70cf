"""A LightningModule that learns to map patches of scenes; normalisation and augmentation run on the device."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.contract import InputContract
from geovision.datasets.patches import IGNORED
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task


class MappingTask(Task):
    """Patches to label maps.

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes, H, W)`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        classes: names of the classes.
        flip: mirror and turn training patches.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        classes: Sequence[str],
        flip: bool,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.classes, self.flip = contract, list(classes), flip
        self.counts = torch.zeros(3, len(self.classes), dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Cross-entropy of one batch over its labelled pixels."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        labels = batch["labels"].long()
        if self.flip:
            turns, mirror = torch.randint(0, 4, (1,)).item(), torch.rand(1).item() < 0.5
            images, labels = images.rot90(int(turns), (2, 3)), labels.rot90(int(turns), (1, 2))
            if mirror:
                images, labels = images.flip(3), labels.flip(2)
        # reduced by hand: a batch without a labelled pixel has loss 0, not NaN
        losses = F.cross_entropy(self.model(images), labels, ignore_index=IGNORED, reduction="sum")
        loss = losses / (labels != IGNORED).sum().clamp(min=1)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.counts = torch.zeros(3, len(self.classes), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add a batch's pixels to the counts."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        known = batch["labels"] != IGNORED
        labels, found = batch["labels"][known].long(), self.model(images).argmax(1)[known]
        for row, values in enumerate((found[found == labels], found, labels)):
            self.counts[row] += torch.bincount(values, minlength=len(self.classes))

    def on_validation_epoch_end(self) -> None:
        """Log the mean intersection over union of the classes that occur, and the accuracy."""
        both, found, there = self.trainer.strategy.reduce(self.counts, reduce_op="sum")
        present = there > 0
        unions = both / (found + there - both).clamp(min=1)
        self.log("validation_accuracy", (both.sum() / there.sum().clamp(min=1)).float())
        self.log("validation_miou", (unions[present].mean() if present.any() else both.sum() * 0).float())
