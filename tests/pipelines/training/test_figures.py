"""Figures while training: those of the steps, at the interval that the recipe gives."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.training.callbacks import Finite
from pipelines.training.outcome import HISTORY
from pipelines.training.tasks.segmentation import SegmentationTask
from tests.pipelines import small_training


@pytest.mark.parametrize(("every", "accumulate"), [(5, 1), (7, 2)])
def test_loss_and_gradient_norm_are_those_of_the_steps(
    every: int, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses: list[float] = []
    norms: list[float] = []
    step = SegmentationTask.training_step

    def noting(self: SegmentationTask, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        loss = step(self, batch, batch_index)
        losses.append(loss.item())
        return loss

    def squared(self: SegmentationTask, optimizer: Any) -> None:
        gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
        norms.append(math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients)))

    monkeypatch.setattr(SegmentationTask, "training_step", noting)
    monkeypatch.setattr(SegmentationTask, "on_before_optimizer_step", squared)
    small_training.train(tmp_path, log_every=every, accumulate=accumulate)
    lines = [json.loads(line) for line in (tmp_path / HISTORY).read_text().splitlines()]
    noted = {line["step"]: line for line in lines if "loss" in line}
    steps = small_training.STEPS
    assert list(noted) == sorted({*range(every, steps, every), steps})
    begin = 0
    for number, line in noted.items():
        mean = sum(losses[begin * accumulate : number * accumulate]) / ((number - begin) * accumulate)
        assert line["loss"] == pytest.approx(mean, rel=1e-6)
        assert line["gradient_norm"] == pytest.approx(norms[number - 1], rel=1e-5)
        assert line["learning_rate"] > 0
        begin = number
    validated = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in validated] == [8, 16, 24]
    assert all(0 < line["validation_loss"] < 5 for line in validated)


def test_gradients_that_may_overflow_are_looked_at_for_the_lines_alone():
    network = nn.Linear(2, 1)
    finite = Finite(scaled=True, every=3, steps=5)
    seen = {}
    for step in range(5):
        for weight in network.parameters():
            weight.grad = torch.full_like(weight, math.inf if step == 4 else float(step))
        trainer: Any = SimpleNamespace(global_step=step)
        module: Any = network
        finite.on_before_optimizer_step(trainer, module, torch.optim.SGD(network.parameters()))
        seen[step + 1] = finite.norm
    norm = pytest.approx(2 * math.sqrt(3))
    assert math.isnan(seen[1]) and math.isnan(seen[2]) and seen[3] == norm == seen[4] and math.isinf(seen[5])
