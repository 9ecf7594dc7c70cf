"""A LightningModule that learns to segment images, slices or patches of volumes, and its losses."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassStatScores

from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task


class SegmentationTask(Task):
    """Images, slices or patches of volumes to labels.

    Args:
        model: Maps `(B, C, ...)` to logits `(B, classes, ...)`.
        settings: Loss, optimiser and schedule.
        steps: Length of the schedule in optimiser steps.
        classes: Names of the classes, the background first.
    """

    def __init__(self, model: nn.Module, settings: TrainSection, steps: int, classes: Sequence[str]) -> None:
        super().__init__(model, settings, steps)
        self.loss = make_loss(settings.loss)
        self.classes = list(classes)
        self.overlap = MulticlassStatScores(len(self.classes), average="none", validate_args=False)
        self.losses = MeanMetric().set_dtype(torch.float64)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images `(B, C, ...)` and targets `(B, ...)`.

        Where the network learns with deep supervision, each of its outputs counts half as much as the one before.
        """
        images, targets = batch
        if isinstance(self.loss, UncertaintyLoss):
            self.loss.progress = self.global_step / self.steps
        logits = self.model(images)
        outputs = logits.unbind(1) if logits.ndim > images.ndim else (logits,)
        scale = sum(0.5**level for level in range(len(outputs)))
        losses = [0.5**level / scale * self.loss(output, targets[:, None]) for level, output in enumerate(outputs)]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def rate_of(self, name: str) -> float:
        """Backbones learn at a rate of their own."""
        return self.settings.backbone_rate if name.startswith(("backbone.", "encoder.")) else 1.0

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.overlap.reset()
        self.losses.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Count a batch's voxels, and add its loss."""
        images, targets = batch
        logits = self.model(images)
        self.overlap.update(logits.argmax(1), targets.long())
        self.losses.update(self.loss(logits, targets[:, None]), len(images))

    def on_validation_epoch_end(self) -> None:
        """Log Dice over all validation voxels, per class and as the mean of the classes that occur, and the loss."""
        self.log("validation_loss", self.losses.compute().float())
        both, only_predicted, _, only_labelled, _ = self.overlap.compute().double()[1:].unbind(1)
        dice = 2 * both / (2 * both + only_predicted + only_labelled).clamp(min=1)
        for name, value in zip(self.classes[1:], dice, strict=True):
            self.log(f"validation_dice_{name}", value.float())
        present = both + only_labelled > 0
        self.log("validation_dice", (dice[present].mean() if present.any() else dice.sum() * 0).float(), prog_bar=True)


def make_loss(name: str) -> nn.Module:
    """MONAI's loss of that name, of logits `(B, K, ...)` and labels `(B, 1, ...)`; Dice leaves out the background.

    Dice is taken over the whole batch: a class that one slice lacks then still has a gradient of the right size.
    """
    from monai.losses.dice import DiceCELoss, DiceFocalLoss

    if name == "dice_ce":
        return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    if name == "dice_focal":
        return DiceFocalLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return UncertaintyLoss() if name == "ce_uncertainty" else _CrossEntropy()


class _CrossEntropy(nn.CrossEntropyLoss):
    """Over labels with a channel axis, as MONAI's losses take them."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target[:, 0].long())


class UncertaintyLoss(_CrossEntropy):
    """Cross-entropy, and how unsure each pixel is of each class but the background (Pang et al., arXiv 2203.02688).

    A probability p costs 1 - (2p - 1)^2 beside, times a factor that rises by a cosine from 0 to 1.

    Attributes:
        progress: Share of the training that is done, from 0 to 1; in a validation that of the last step.
    """

    progress = 0.0

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Loss of logits `(B, K, ...)` and labels `(B, 1, ...)`."""
        unsure = 1 - (2 * input.softmax(1)[:, 1:] - 1).square()
        return super().forward(input, target) + (1 - math.cos(math.pi * self.progress)) / 2 * unsure.mean()
