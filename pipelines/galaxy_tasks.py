"""A LightningModule that learns to classify images of galaxies."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrovision.contract import InputContract
from pipelines.recipe import GalaxyData, TrainSection
from pipelines.tasks import Task


class GalaxyTask(Task):
    """Images to classes.

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes)`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        data: of the recipe: mixup and smoothing.
        classes: how many there are.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        data: GalaxyData,
        classes: int,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.data, self.classes = contract, data, classes
        if settings.learnt == "head":
            model.requires_grad_(False)
            model.get_submodule(getattr(model, "classifier", "head")).requires_grad_(True)
        self.sums = torch.zeros(3, classes, dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Cross-entropy of one batch, mixed with itself where the recipe says so."""
        images, targets = self.contract.normalise(batch["image"]), F.one_hot(batch["label"], self.classes).float()
        if self.data.mixup:
            share = float(torch.distributions.Beta(self.data.mixup, self.data.mixup).sample())
            images = share * images + (1 - share) * images.roll(1, 0)
            targets = share * targets + (1 - share) * targets.roll(1, 0)
        images = images.contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(self.model(images), targets, label_smoothing=self.data.smoothing)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.sums = torch.zeros(3, self.classes, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add hits, images and log-likelihoods of each class."""
        labels = batch["label"]
        logits = self.model(self.contract.normalise(batch["image"])).float()
        own = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
        for row, values in enumerate((logits.argmax(1) == labels, torch.ones_like(own), own)):
            self.sums[row] += torch.bincount(labels, values.double(), minlength=self.classes)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, its mean over the classes that occur, and the mean log-likelihood."""
        hits, count, likelihood = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        present = count > 0
        self.log("validation_accuracy", (hits.sum() / count.sum().clamp(min=1)).float())
        self.log("validation_balanced_accuracy", (hits[present] / count[present]).mean().float())
        self.log("validation_log_likelihood", (likelihood.sum() / count.sum().clamp(min=1)).float())
