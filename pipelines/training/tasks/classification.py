"""A LightningModule that learns to classify stored images."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.data.batch_augmentation import BatchAugmentation
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.scores import ClassScores
from pipelines.training.tasks.task import Task
from shared_backbones.classification.contract import Contract


class ClassificationTask(Task):
    """Images to classes: one of each image (cross-entropy), or any number of them (binary cross-entropy of each).

    Args:
        model: Maps `(B, C, H, W)` to logits `(B, classes)`.
        settings: Settings of the training.
        steps: Length of the schedule in optimiser steps.
        contract: Contract of the input.
        classes: Number of classes.
        multi_label: Whether an image can have several.
        smoothing: Smoothing of the labels.
        augment: Varies batches that are normalised; None lets them be.
        view: What a validation sees of images that are normalised; None for the images themselves.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: Contract,
        classes: int,
        *,
        multi_label: bool = False,
        smoothing: float = 0.0,
        augment: BatchAugmentation | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.classes, self.multi_label = contract, classes, multi_label
        self.smoothing, self.augment, self.view = smoothing, augment, view
        if settings.trainable == "head":
            model.requires_grad_(False)
            model.get_submodule(getattr(model, "classifier", "head")).requires_grad_(True)
        trunk = getattr(model, "trunk", None)
        self.depth = 0 if trunk is None else len(trunk.blocks)
        self.scores = ClassScores(classes, multi_label)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch."""
        images = self.contract.normalise(batch["image"], batch.get("valid"))
        targets = batch["target"].float()
        if self.augment is not None:
            images, targets = self.augment(images, targets)
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        smoothing = self.smoothing
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
        else:
            loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.scores.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Count a batch's answers."""
        images = self.contract.normalise(batch["image"], batch.get("valid"))
        self.scores.update(self.model(images if self.view is None else self.view(images)), batch["target"])

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all processes together; the loss is that of labels that are not smoothed."""
        figures = self.scores.compute()
        for name, value in {"loss": -figures["log_likelihood"], **figures}.items():
            self.log(f"validation_{name}", value.float())

    def rate_of(self, name: str) -> float:
        """Layer-wise decay: the embedding learns most slowly, what stands above the blocks at the full rate.

        The tables of groups learn at the full rate, as the released list of embeddings leaves them out.
        """
        decay, depth = self.settings.layer_decay, self.depth
        if name.startswith(("trunk.class_token", "trunk.positions", "trunk.patch_embeddings")):
            return decay ** (depth + 1)
        if name.startswith("trunk.blocks."):
            return decay ** (depth - int(name.split(".")[2]))
        return 1.0
