"""What all tasks share: the optimiser, its parameter groups, and the schedule of the learning rate."""

import math

import lightning
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pipelines.recipe.recipe import TrainSection


class Task(lightning.LightningModule):
    """What all tasks share: the optimiser and its schedule.

    Args:
        model: Network that learns.
        settings: Settings of the training.
        steps: Length of the schedule in optimiser steps.
    """

    def __init__(self, model: nn.Module, settings: TrainSection, steps: int) -> None:
        super().__init__()
        self.model, self.settings, self.steps = model, settings, steps

    def rate_of(self, name: str) -> float:
        """Learning rate of a parameter, as a fraction of the recipe's."""
        return 1.0

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict]]:
        """The optimiser, with a schedule that is stepped after every step; biases, norms and tables do not decay."""
        settings = self.settings
        sorted_out: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decay = settings.weight_decay if parameter.ndim > 1 and "bias" not in name else 0.0
                sorted_out.setdefault((self.rate_of(name), decay), []).append(parameter)
        groups = [
            {"params": parameters, "weight_decay": decay, "lr": settings.learning_rate * rate}
            for (rate, decay), parameters in sorted_out.items()
        ]
        optimizer: Optimizer
        if settings.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, self._factor), "interval": "step"}]

    def _factor(self, step: int) -> float:
        warmup, floor = self.settings.warmup_steps, self.settings.final_rate
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, self.steps - warmup))
        if self.settings.schedule == "poly":
            return (1 - progress) ** 0.9
        if self.settings.schedule == "constant":
            return 1.0
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
