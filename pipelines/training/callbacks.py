"""What happens beside the steps of a training: statistics, seeds, progress, checkpoints and the trained model."""

import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypedDict

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from pipelines.recipe.recipe import TrainSection
from pipelines.runtime import preemption
from pipelines.runtime.progress import Meter
from pipelines.training.outcome import Diverged
from shared_backbones import weights
from shared_backbones.json_values import Document

LAST = "last.safetensors"
MODEL = "model"
_LOSSES = 50  # that are kept on the device

Log: TypeAlias = Callable[[Mapping[str, float], int], None]
Module: TypeAlias = lightning.LightningModule
Batch: TypeAlias = Mapping[str, Tensor] | tuple[Tensor, ...] | Tensor
"""What a data loader gives; only the task knows its form."""
Outputs: TypeAlias = Mapping[str, Tensor]
"""What a training step returns, the loss among it."""


class Means(TypedDict):
    """Sums over the steps since the last line of progress, and how many there are."""

    sums: dict[str, float]
    count: int


class Statistics(Callback):
    """Measures batch norms' statistics for the weights that are validated, where there are batches for it.

    Running statistics are of augmented images, under dropout and of weights that are no longer there: validation then
    goes up and down by the epoch (Wu and Johnson, arXiv 2105.07576, section 3).
    """

    def __init__(self, statistics: DataLoader | None) -> None:
        self.statistics = statistics

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Module) -> None:
        """Measure the statistics."""
        norms = [module for module in pl_module.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
        if self.statistics is None or not norms:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        with torch.no_grad():
            for number, batch in enumerate(self.statistics):
                batch = trainer.strategy.batch_to_device(batch, pl_module.device)
                pl_module.validation_step(batch, number)  # its counts start anew when validation itself begins
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


class Reseed(Callback):
    """Draws dropout and stochastic depth of a batch from the batch's own seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Module, batch: Batch, batch_idx: int) -> None:
        """Seed torch by the step, the part of the step, and the process."""
        name = f"{self.seed}:{trainer.global_step}:{batch_idx % trainer.accumulate_grad_batches}:{trainer.global_rank}"
        torch.manual_seed(zlib.crc32(name.encode()))


class Finite(Callback):
    """Ends training at the first loss or gradient that is not finite, before it reaches the weights.

    All processes end at the same step: their gradients are the same, and so is the loss, which is their mean.

    Args:
        scaled: Whether the loss is scaled, as 16-bit floats need: a gradient that overflows is then skipped, and the
            scale lowered.
        every: Steps between the lines of progress, which show the norm.
        steps: Optimiser steps in all.

    Attributes:
        norm: Norm of the last gradient that was looked at, before it is clipped; the lines of progress show it.
    """

    def __init__(self, scaled: bool, every: int, steps: int) -> None:
        self.scaled, self.every, self.steps = scaled, every, steps
        self.loss: Tensor | None = None
        self.norm = math.nan

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: Module, loss: Tensor) -> None:
        """Remember the loss, which explains a gradient."""
        self.loss = loss.detach()

    def on_before_optimizer_step(self, trainer: lightning.Trainer, pl_module: Module, optimizer: Optimizer) -> None:
        """Look at the gradient of all weights together; where it may overflow, only for the lines of progress."""
        if self.scaled and not _is_due(trainer.global_step + 1, self.every, self.steps):
            return
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.norm = norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not self.scaled and not math.isfinite(norm):
            loss = math.nan if self.loss is None else float(self.loss) * trainer.accumulate_grad_batches
            what = f"a gradient of {norm}, at a loss of {loss:.4g}," if math.isfinite(loss) else f"a loss of {loss}"
            raise self._diverged(trainer, what)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Module, outputs: Outputs, batch: Batch, batch_idx: int
    ) -> None:
        """Look at the loss, where gradients are not looked at."""
        if self.scaled:
            loss = float(trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean"))
            if not math.isfinite(loss):
                raise self._diverged(trainer, f"a loss of {loss}")

    @staticmethod
    def _diverged(trainer: lightning.Trainer, what: str) -> Diverged:
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        return Diverged(f"{what} at step {trainer.global_step + 1}, with learning rate {rate:.3g}")


class Keeper(Callback):
    """Writes the last checkpoint and the trained-model folder, and ends training that no longer gets better.

    Args:
        folder: Folder of both.
        card: Content of `model.json` beside what training adds.
        settings: Settings of the training.
        steps: Optimiser steps in all.
        network: Gives the network to keep, in the first process at least; all processes call it together.
        monitor: Validation figure that is to be high; None where nothing is validated.
    """

    def __init__(
        self,
        folder: Path,
        card: Document,
        settings: TrainSection,
        steps: int,
        network: Callable[[], nn.Module | None],
        monitor: str | None,
    ) -> None:
        self.folder, self.card, self.settings, self.steps = folder, card, settings, steps
        self.network, self.monitor = network, monitor
        self.best, self.best_step, self.since_best = float("-inf"), 0, 0
        self.saved_at, self.leaving = -1, False

    def state_dict(self) -> dict[str, float]:
        """The best validation, and how many there were since."""
        return {"best": self.best, "best_step": self.best_step, "since_best": self.since_best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_step = state_dict["best"], int(state_dict["best_step"])
        self.since_best = int(state_dict["since_best"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Module) -> None:
        """Stop at once where patience had run out before."""
        preemption.listen_again()  # Lightning has handlers of its own
        # Killed after the last validation that patience allowed, and before the end.
        trainer.should_stop = bool(self.settings.patience and self.since_best >= self.settings.patience)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Module, outputs: Outputs, batch: Batch, batch_idx: int
    ) -> None:
        """Write a checkpoint where one is due, and leave where a scheduler asks for it."""
        if (batch_idx + 1) % self.settings.accumulate:
            return  # gradients of half a step are in no checkpoint
        step = trainer.global_step
        self.leaving = _agreed(trainer, preemption.asked()) and step < self.steps
        due = step % self.settings.checkpoint_every == 0 or step == self.steps or self.leaving
        if self._validates_now(trainer):
            return  # which comes next, and saves
        if due and step != self.saved_at:
            self._save(trainer)
            if self.monitor is None:
                self._write_model(trainer)
        self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Module) -> None:
        """Keep the model where it is the best so far, then write a checkpoint."""
        if self.monitor is None:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.best:
            self.best, self.best_step, self.since_best = value, trainer.global_step, 0
            self._write_model(trainer)
        else:
            self.since_best += 1
        if self.settings.patience and self.since_best >= self.settings.patience:
            trainer.should_stop = True
        # Only now: whoever starts from this checkpoint has this validation behind them.
        self._save(trainer)
        self._leave(trainer)

    def _leave(self, trainer: lightning.Trainer) -> None:
        if self.leaving:
            if trainer.is_global_zero:
                print(f"preempted: checkpoint at step {trainer.global_step} of {self.steps}", flush=True)
            raise preemption.Preempted

    def _validates_now(self, trainer: lightning.Trainer) -> bool:
        if self.monitor is None:
            return False
        return (trainer.fit_loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0

    def _save(self, trainer: lightning.Trainer) -> None:
        self.saved_at = trainer.global_step
        trainer.save_checkpoint(self.folder / LAST)

    def _write_model(self, trainer: lightning.Trainer) -> None:
        network = self.network()
        if network is None or not trainer.is_global_zero:
            return
        figures = {self.monitor: self.best} if self.monitor else {}
        training = {**self.card.get("training", {}), "steps": trainer.global_step, **figures}
        weights.save(self.folder / MODEL, network, {**self.card, "training": training})


def _agreed(trainer: lightning.Trainer, asked: bool) -> bool:
    """Whether any process was asked to stop: signals reach them one by one, and all must stop after the same step."""
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked


def _is_due(step: int, every: int, steps: int) -> bool:
    """Whether a line of progress follows a step."""
    return step % every == 0 or step == steps


class Progress(Callback):
    """A line of progress every so many steps; the figures go to a file, too, and to whoever tracks them.

    Args:
        steps: Optimiser steps in all.
        every: Steps between lines.
        history: File of the figures.
        log: Function that is called with figures and the step, in the first process only.
        finite: What looks at the gradients.
    """

    def __init__(self, steps: int, every: int, history: Path, log: Log | None, finite: Finite) -> None:
        self.history, self.finite = history, finite
        self.steps, self.sink, self.every = steps, log, every  # `log` is Lightning's own
        self.since, self.counted_from = time.monotonic(), -1
        self.sums: dict[str, float] = {}
        self.count = 0
        self.losses: list[Tensor] = []  # not added up yet, as reading one waits for the device
        self.meter = Meter("train", lines=False)  # where there is no terminal, the lines of figures tell

    def state_dict(self) -> Means:
        """The sums so far: means of a resumed run are those of one that never stopped."""
        self._add_up()
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state_dict: Means) -> None:
        """Go on from a checkpoint."""
        self.sums, self.count = state_dict["sums"], state_dict["count"]

    def teardown(self, trainer: lightning.Trainer, pl_module: Module, stage: str) -> None:
        """Remove the bar."""
        self.meter.close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Module, exception: BaseException) -> None:
        """Remove the bar; otherwise the terminal stays without a cursor."""
        self.meter.close()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Module, outputs: Outputs, batch: Batch, batch_idx: int
    ) -> None:
        """Add the loss, and print a line of progress where one is due."""
        step = trainer.global_step
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")  # over all processes
        self.losses.append(loss * trainer.accumulate_grad_batches)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self.counted_from < 0:
            self.counted_from = step - 1
        if trainer.is_global_zero:
            self.meter(step, self.steps)
        if len(self.losses) >= _LOSSES:
            self._add_up()
        if not _is_due(step, self.every, self.steps):
            return
        self._add_up()
        now = time.monotonic()
        figures = {name: total / self.count for name, total in self.sums.items()}
        if math.isfinite(self.finite.norm):
            figures["gradient_norm"] = self.finite.norm
        figures["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        figures["steps_per_second"] = (step - self.counted_from) / max(now - self.since, 1e-9)
        if trainer.is_global_zero:
            self._tell(figures, step)
        self.since, self.counted_from, self.count, self.sums = now, step, 0, {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Module) -> None:
        """Print the figures of the validation."""
        if trainer.is_global_zero:
            figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation")}
            self._tell(figures, trainer.global_step)

    def _add_up(self) -> None:
        for loss in self.losses:
            self.sums["loss"] = self.sums.get("loss", 0.0) + float(loss)
        self.count += len(self.losses)
        self.losses = []

    def _tell(self, figures: Mapping[str, float], step: int) -> None:
        if not figures:
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"step {step}/{self.steps}  {shown}", flush=True)
        with self.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        if self.sink is not None:
            self.sink(figures, step)
