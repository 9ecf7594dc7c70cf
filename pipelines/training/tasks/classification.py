"""A LightningModule that learns to classify stored images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.recipe.images import LabelledImages
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.task import Task
from shared_backbones.classification.contract import ImageContract


class ClassificationTask(Task):
    """Images to classes: one of each image (cross-entropy), or any number of them (binary cross-entropy of each).

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes)`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        data: of the recipe: mixup and smoothing.
        classes: how many there are.
        multi_label: whether an image can have several.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: ImageContract,
        data: LabelledImages,
        classes: int,
        multi_label: bool = False,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.data, self.classes, self.multi_label = contract, data, classes, multi_label
        if settings.trainable == "head":
            model.requires_grad_(False)
            model.get_submodule(getattr(model, "classifier", "head")).requires_grad_(True)
        self.sums = torch.zeros(3, classes, dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch, mixed with itself where the recipe says so."""
        images, targets = self.contract.normalise(batch["image"]), batch["target"].float()
        if self.data.mixup:
            share = float(torch.distributions.Beta(self.data.mixup, self.data.mixup).sample())
            images = share * images + (1 - share) * images.roll(1, 0)
            targets = share * targets + (1 - share) * targets.roll(1, 0)
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        smoothing = self.data.smoothing
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
        else:
            loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.sums = torch.zeros(3, self.classes, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add hits, images and log-likelihoods of each class."""
        targets = batch["target"].double()
        logits = self.model(self.contract.normalise(batch["image"])).double()
        if self.multi_label:  # a label's answer is right where it has the label's sign; every image counts for each
            hits, count = ((logits > 0) == (targets > 0)).double(), torch.ones_like(targets)
            own = -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        else:
            right = (logits.argmax(1) == targets.argmax(1)).double()[:, None]
            hits, count, own = right * targets, targets, logits.log_softmax(1) * targets
        self.sums += torch.stack([hits.sum(0), count.sum(0), own.sum(0)])

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, its mean over the classes that occur, and the mean log-likelihood."""
        hits, count, likelihood = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        present = count > 0
        self.log("validation_accuracy", (hits.sum() / count.sum().clamp(min=1)).float())
        self.log("validation_balanced_accuracy", (hits[present] / count[present]).mean().float())
        self.log("validation_log_likelihood", (likelihood.sum() / count.sum().clamp(min=1)).float())
