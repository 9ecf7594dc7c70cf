"""The training loop: Lightning, made to go on after any interruption exactly as if there had been none."""

import json
import logging
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from pipelines.recipe.recipe import TrainSection
from pipelines.runtime import preemption, processes
from pipelines.runtime.progress import Meter
from pipelines.training.checkpoints import SafetensorsCheckpoints, steps_in
from pipelines.training.fsdp import Sharded
from shared_backbones import weights
from shared_backbones.errors import InputError

LAST = "last.safetensors"
MODEL = "model"
HISTORY = "history.jsonl"

Log = Callable[[Mapping[str, float], int], None]


class Batches(lightning.LightningDataModule):
    """What training and validation read.

    Args:
        make: the training loader from batch `start` on, for `(start, rank, world_size)`.
        validation: all of it, or None; each process takes every `world_size`-th item.
        statistics: batches such as validation's that every process measures batch norms on before it, or None.
    """

    def __init__(
        self,
        make: Callable[[int, int, int], DataLoader],
        validation: DataLoader | None = None,
        statistics: DataLoader | None = None,
    ) -> None:
        super().__init__()
        self.make, self.validation, self.statistics, self.start = make, validation, statistics, 0

    def train_dataloader(self) -> DataLoader:
        """Batches from where the last checkpoint stands."""
        assert self.trainer is not None  # noqa: S101 - Lightning sets it before it asks for a loader
        loader = self.make(self.start, self.trainer.global_rank, self.trainer.world_size)
        loader.pin_memory = torch.cuda.is_available()  # so that a batch is copied while the one before is learnt from
        return loader

    def val_dataloader(self) -> DataLoader | list:
        """Validation batches; an empty list where there is no validation."""
        assert self.trainer is not None  # noqa: S101
        if self.validation is None:
            return []
        items: Any = self.validation.dataset
        if self.trainer.world_size == 1 or len(items) < self.trainer.world_size:
            return self.validation  # figures are ratios of sums: counting all in every process changes none
        share = np.arange(self.trainer.global_rank, len(items), self.trainer.world_size)
        # As many batches in each process, though shares differ by one: all enter a sharded network together.
        largest, smallest = -(-len(items) // self.trainer.world_size), len(items) // self.trainer.world_size
        count = min(-(-largest // (self.validation.batch_size or 1)), smallest)
        parts: Any = [part.tolist() for part in np.array_split(share, count)]
        return DataLoader(items, batch_sampler=parts, collate_fn=self.validation.collate_fn)


def fit(
    task: lightning.LightningModule,
    batches: Batches,
    settings: TrainSection,
    *,
    steps: int,
    validate_every: int,
    seed: int,
    folder: Path,
    card: Mapping[str, Any],
    monitor: str = "validation_dice",
    origin: str = "",
    log: Log | None = None,
) -> Path:
    """Train until `steps`, from the last checkpoint in `folder` if there is one.

    Everything random at a step is drawn from a generator seeded with the step's number, so that a run that was killed
    and started again ends with the weights of one that was not, bit for bit on a CPU. Told to leave (see
    `pipelines.runtime.preemption`), all processes write a checkpoint after the same step.

    Args:
        task: with the network as `task.model`.
        batches: of images and targets.
        settings: of the recipe.
        steps: optimiser steps in all.
        validate_every: optimiser steps between validations.
        seed: of everything random while training.
        folder: gets `last.safetensors` (weights, averaged weights, optimiser and counters) and `model`, the
            trained-model folder: of the best validation, or of the last checkpoint where nothing is validated.
        card: content of `model.json` beside what training adds.
        monitor: the validation figure that is to be high.
        origin: stands for everything that decides the result; a checkpoint of another one is refused.
        log: called with figures and the step, in the first process only.

    Returns:
        The trained-model folder.

    Raises:
        InputError: a checkpoint is damaged or of another training, batches cannot be shared out, or the disk is full.
        Preempted: the process was told to leave.
    """
    devices, nodes = processes.placement(settings.devices)
    processes.share_of(settings.batch_size, devices * nodes)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hardware lists and advertisements
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / LAST
    done = steps_in(last, origin)
    validate_every = min(validate_every, steps)  # at least once, at the end
    if done >= steps:
        return folder / MODEL
    batches.start = done * settings.accumulate
    validated = batches.validation is not None
    # Statistics of batch norms are the latest, not averages: those lag behind the averaged weights, at times fatally.
    sharded = settings.strategy == "fsdp"  # then nothing is averaged, see the recipe
    moving = _moving_average(settings.ema_decay)
    average = None if sharded else WeightAveraging(use_buffers=False, multi_avg_fn=moving)
    keeper = _Keeper(folder, card, settings, steps, average, monitor if validated else None)
    trainer = lightning.Trainer(
        accelerator="auto",
        strategy=Sharded(devices * nodes) if sharded else "auto",
        devices=devices,
        num_nodes=nodes,
        sync_batchnorm=settings.sync_batchnorm,
        use_distributed_sampler=False,
        precision=settings.precision,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=validate_every * settings.accumulate if validated else None,
        check_val_every_n_epoch=None if validated else 1,
        num_sanity_val_steps=0,
        inference_mode=not sharded,  # whose tensors cannot be learnt from when the network is gathered among them
        limit_val_batches=None if validated else 0,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        plugins=[SafetensorsCheckpoints(origin), processes.environment()],
        callbacks=[
            *([average] if average else []),
            _Statistics(batches.statistics),
            _Reseed(seed),
            _Progress(steps, folder / HISTORY, log),
            keeper,
        ],
    )
    with warnings.catch_warnings():
        # packed data needs no loading processes, and synthesis has those its recipe names
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # figures of a validation are the same in every process when they are logged
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        # the order of batches is a function of the step
        warnings.filterwarnings("ignore", message=".*not resumable.*")
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
        # of shares: no network of ours changes in place what a block of it gives
        warnings.filterwarnings("ignore", message=".*returned a view tensor.*")
        # where SLURM is installed: who starts this process is known
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        if settings.compile:
            _check_compiler()
            task.get_submodule("model").compile()  # in place: names of weights stay
        try:
            trainer.fit(task, batches, ckpt_path=last if done else None)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    return folder / MODEL


def _check_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise InputError(
            "train.compile=true: wants a C++ compiler, found neither g++ nor clang++; install one, or leave it out"
        )


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Exponential moving average of weights, over fewer steps at first: a new network's weights are soon forgotten."""

    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        done = int(count)
        now = min(decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(now)(averages, weights, count)

    return update


class _Statistics(Callback):
    """Measures batch norms' statistics for the weights that are validated, where there are batches for it.

    Running statistics are of augmented images, under dropout and of weights that are no longer there: validation then
    goes up and down by the epoch (Wu and Johnson, arXiv 2105.07576, section 3).
    """

    def __init__(self, statistics: DataLoader | None) -> None:
        self.statistics = statistics

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
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


class _Reseed(Callback):
    """Draws dropout and stochastic depth of a batch from the batch's own seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        name = f"{self.seed}:{trainer.global_step}:{batch_idx % trainer.accumulate_grad_batches}:{trainer.global_rank}"
        torch.manual_seed(zlib.crc32(name.encode()))


class _Keeper(Callback):
    """Writes the last checkpoint and the trained-model folder, and ends training that no longer gets better."""

    def __init__(
        self,
        folder: Path,
        card: Mapping[str, Any],
        settings: TrainSection,
        steps: int,
        average: WeightAveraging | None,
        monitor: str | None,
    ) -> None:
        self.folder, self.card, self.settings, self.steps = folder, card, settings, steps
        self.average, self.monitor = average, monitor
        self.best, self.best_step, self.since_best = float("-inf"), 0, 0
        self.saved_at, self.leaving = -1, False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "since_best": self.since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self.since_best = state_dict["since_best"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        preemption.listen_again()  # Lightning has handlers of its own
        # Killed after the last validation that patience allowed, and before the end.
        trainer.should_stop = bool(self.settings.patience and self.since_best >= self.settings.patience)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
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
                self._write_model(trainer, pl_module)
        self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self.monitor is None:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.best:
            self.best, self.best_step, self.since_best = value, trainer.global_step, 0
            self._write_model(trainer, pl_module)
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
                print(f"told to leave: checkpoint at step {trainer.global_step} of {self.steps}", flush=True)
            raise preemption.Preempted

    def _validates_now(self, trainer: lightning.Trainer) -> bool:
        if self.monitor is None:
            return False
        return (trainer.fit_loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0

    def _save(self, trainer: lightning.Trainer) -> None:
        self.saved_at = trainer.global_step
        trainer.save_checkpoint(self.folder / LAST)

    def _write_model(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if self.average is None:
            sharded: Any = trainer.strategy
            network = sharded.whole_network()  # all processes take part
        else:
            average: Any = self.average._average_model  # Lightning shows it nowhere else
            network = average.module.model
        if not trainer.is_global_zero:
            return
        figures = {self.monitor: self.best} if self.monitor else {}
        training = {**self.card.get("training", {}), "steps": trainer.global_step, **figures}
        weights.save(self.folder / MODEL, network, {**self.card, "training": training})


def _agreed(trainer: lightning.Trainer, asked: bool) -> bool:
    """Whether any process was told to leave: signals reach them one by one, and all must stop after the same step."""
    return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked


class _Progress(Callback):
    """A line of progress every so many steps; the figures go to a file, too, and to whoever tracks them."""

    def __init__(self, steps: int, history: Path, log: Log | None, every: int = 50) -> None:
        self.history = history
        self.steps, self.sink, self.every = steps, log, every  # `log` is Lightning's own
        self.since, self.counted_from = time.monotonic(), -1
        self.sums: dict[str, float] = {}
        self.count = 0
        self.meter = Meter("train", every=None)  # where there is no terminal, the lines of figures tell

    def state_dict(self) -> dict[str, Any]:
        # means of a run that goes on are those of one that never stopped
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums, self.count = state_dict["sums"], state_dict["count"]

    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self.meter.close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.meter.close()  # else the terminal stays without a cursor

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")  # over all processes
        self.sums["loss"] = self.sums.get("loss", 0.0) + float(loss) * trainer.accumulate_grad_batches
        self.count += 1
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self.counted_from < 0:
            self.counted_from = step - 1
        if trainer.is_global_zero:
            self.meter(step, self.steps)
        if step % self.every and step != self.steps:
            return
        now = time.monotonic()
        figures = {name: total / self.count for name, total in self.sums.items()}
        figures["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        figures["steps_per_second"] = (step - self.counted_from) / max(now - self.since, 1e-9)
        if trainer.is_global_zero:
            self._tell(figures, step)
        self.since, self.counted_from, self.count, self.sums = now, step, 0, {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation")}
            self._tell(found, trainer.global_step)

    def _tell(self, figures: Mapping[str, float], step: int) -> None:
        if not figures:
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"step {step}/{self.steps}  {shown}", flush=True)
        with self.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        if self.sink is not None:
            self.sink(figures, step)
