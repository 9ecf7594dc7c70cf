"""LightningModules: how each kind of model learns."""

import math

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class SegmentationTask(lightning.LightningModule):
    """Cross-entropy plus soft Dice on slices, AdamW, linear warm-up and cosine decay.

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes, H, W)`.
        steps: length of the schedule in optimiser steps.
        learning_rate: highest learning rate.
        warmup_steps: steps of linear warm-up.
        weight_decay: applied to matrices and kernels, not to biases, norms and bias tables.
    """

    def __init__(
        self, model: nn.Module, *, steps: int, learning_rate: float, warmup_steps: int, weight_decay: float
    ) -> None:
        super().__init__()
        self.model = model
        self.steps, self.learning_rate = steps, learning_rate
        self.warmup_steps, self.weight_decay = warmup_steps, weight_decay

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch: images `(B, C, H, W)` and targets `(B, H, W)`."""
        images, targets = batch
        logits = self.model(images)
        targets = targets.long()
        entropy = F.cross_entropy(logits, targets)
        dice = soft_dice_loss(logits, targets)
        self.log_dict({"cross_entropy": entropy, "dice_loss": dice}, prog_bar=True)
        return entropy + dice

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict]]:
        """AdamW with a schedule that is stepped every batch."""
        decayed = [p for name, p in self.model.named_parameters() if p.ndim > 1 and "bias" not in name]
        others = [p for name, p in self.model.named_parameters() if p.ndim <= 1 or "bias" in name]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate)
        schedule = LambdaLR(optimizer, self._factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def soft_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - mean soft Dice over the foreground classes that the batch holds.

    Args:
        logits: `(B, K, H, W)`.
        targets: `(B, H, W)` int64.
    """
    probabilities = logits.softmax(1)
    onehot = F.one_hot(targets, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    overlap = (probabilities * onehot).sum((0, 2, 3))[1:]
    total = (probabilities + onehot).sum((0, 2, 3))[1:]
    present = onehot.sum((0, 2, 3))[1:] > 0
    score = (2 * overlap + 1) / (total + 1)
    return 1 - score[present].mean() if present.any() else score.sum() * 0
