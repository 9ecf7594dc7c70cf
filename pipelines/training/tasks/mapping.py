"""A LightningModule that learns to map patches of scenes; normalisation and augmentation run on the device."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassStatScores

from geovision.contract import InputContract
from geovision.datasets.labels import IGNORED
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task

Batch: TypeAlias = dict[str, Any]
"""Tensors by name, and what a kind of data adds."""


class MappingTask(Task):
    """Patches to label maps.

    Args:
        model: Maps `(B, C, H, W)` to logits `(B, classes, H, W)`.
        settings: Settings of the training.
        steps: Length of the schedule in optimiser steps.
        contract: Contract of the input.
        classes: Names of the classes.
        flip: Whether training patches are mirrored and turned.
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
        self.counts = MulticlassStatScores(len(self.classes), average="none", ignore_index=IGNORED, validate_args=False)
        self.losses = MeanMetric().set_dtype(torch.float64)

    def images_of(self, batch: Batch) -> Tensor:
        """What the network sees of a batch."""
        return self.contract.normalise(batch["image"], batch["valid"])

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy of one batch over its labelled pixels."""
        images = self.images_of(batch)
        labels = batch["labels"].long()
        if self.flip:
            turns, mirror = torch.randint(0, 4, (1,)).item(), torch.rand(1).item() < 0.5
            images, labels = images.rot90(int(turns), (2, 3)), labels.rot90(int(turns), (1, 2))
            if mirror:
                images, labels = images.flip(3), labels.flip(2)
        loss = _cross_entropy(self.model(images), labels)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.counts.reset()
        self.losses.reset()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count a batch's pixels, but for those without a label, and add their loss."""
        images, labels = self.images_of(batch), batch["labels"].long()
        logits = self.model(images)
        self.counts.update(logits.argmax(1), labels)
        self.losses.update(_cross_entropy(logits, labels), (labels != IGNORED).sum())

    def on_validation_epoch_end(self) -> None:
        """Log the mean intersection over union of the classes that occur, the accuracy and the loss."""
        self.log("validation_loss", self.losses.compute().nan_to_num().float())  # without a labelled pixel, 0
        both, only_mapped, _, only_labelled, _ = self.counts.compute().double().unbind(1)
        labelled = both + only_labelled
        present = labelled > 0
        unions = both / (labelled + only_mapped).clamp(min=1)
        self.log("validation_accuracy", (both.sum() / labelled.sum().clamp(min=1)).float())
        self.log("validation_miou", (unions[present].mean() if present.any() else both.sum() * 0).float())


class SpectralMappingTask(MappingTask):
    """Scenes to label maps, each batch with other bands, of a network that has a method `see` for their wavelengths."""

    def images_of(self, batch: Batch) -> Tensor:
        """Reflectances of a batch; the network is told which bands they are."""
        see: Callable[[Sequence[float]], None] = self.model.see  # pyright: ignore[reportAssignmentType]
        see(batch["wavelengths"])
        return batch["images"]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels, of logits `(B, K, H, W)` and labels `(B, H, W)`; 0, not NaN, where there are none."""
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return losses / (labels != IGNORED).sum().clamp(min=1)
