"""A LightningModule that learns to segment slices, and its losses."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task


class SegmentationTask(Task):
    """Slices to labels.

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes, H, W)`.
        settings: loss, optimiser and schedule.
        steps: length of the schedule in optimiser steps.
        classes: names of the classes, the background first.
    """

    def __init__(self, model: nn.Module, settings: TrainSection, steps: int, classes: Sequence[str]) -> None:
        super().__init__(model, settings, steps)
        self.loss = make_loss(settings.loss)
        self.classes = list(classes)
        # Per class: voxels in both, in the prediction, in the reference. No buffer: weight averaging swaps buffers.
        self.overlap = torch.zeros(3, len(self.classes), dtype=torch.float64)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images `(B, C, H, W)` and targets `(B, H, W)`."""
        images, targets = batch
        loss = self.loss(self.model(images), targets[:, None])
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.overlap = torch.zeros(3, len(self.classes), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Add a batch's voxels to the counts."""
        images, targets = batch
        found = self.model(images).argmax(1)
        count = len(self.classes)
        for row, labels in enumerate((found[found == targets], found, targets)):
            self.overlap[row] += torch.bincount(labels.flatten().long(), minlength=count)

    def on_validation_epoch_end(self) -> None:
        """Log Dice over all validation voxels, per class and as the mean of the classes that occur."""
        both, found, there = self.trainer.strategy.reduce(self.overlap, reduce_op="sum")[:, 1:]
        dice = 2 * both / (found + there).clamp(min=1)
        for name, value in zip(self.classes[1:], dice, strict=True):
            self.log(f"validation_dice_{name}", value.float())
        present = there > 0
        self.log("validation_dice", (dice[present].mean() if present.any() else dice.sum() * 0).float(), prog_bar=True)


def make_loss(name: str) -> nn.Module:
    """MONAI's loss of that name, of logits `(B, K, H, W)` and labels `(B, 1, H, W)`; Dice leaves out the background.

    Dice is taken over the whole batch: a class that one slice lacks then still has a gradient of the right size.
    """
    losses: Any = importlib.import_module("monai.losses")
    shared = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    if name == "dice_ce":
        return losses.DiceCELoss(**shared)
    if name == "dice_focal":
        return losses.DiceFocalLoss(**shared)
    return _CrossEntropy()


class _CrossEntropy(nn.CrossEntropyLoss):
    """Over labels with a channel axis, as MONAI's losses take them."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target[:, 0].long())
