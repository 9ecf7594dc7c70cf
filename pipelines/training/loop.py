"""The training loop: Lightning, made to go on after any interruption exactly as if there had been none."""

import functools
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Sized
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from pipelines.recipe.recipe import TrainSection
from pipelines.runtime import processes
from pipelines.runtime.memory import keep_freed_memory
from pipelines.training.callbacks import LAST, MODEL, Finite, Keeper, Log, Progress, Reseed, Statistics
from pipelines.training.checkpoints import SafetensorsCheckpoints, steps_in
from pipelines.training.fsdp import Sharded
from pipelines.training.outcome import HISTORY, STOPPED, Diverged, note_stop, read_stop
from shared_backbones.devices import choose_threads
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document


class Batches(lightning.LightningDataModule):
    """What training and validation read.

    Args:
        make: Function of `(start, rank, world_size)` that gives the training loader from batch `start` on.
        validation: Loader of all validation items, or None; each process takes every `world_size`-th item.
        statistics: Loader of batches that every process measures batch norms on before each validation, or None.
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
        loader.pin_memory = torch.cuda.is_available()  # so that a batch is copied during the step before
        return loader

    def val_dataloader(self) -> DataLoader | list:
        """Validation batches; an empty list where there is no validation."""
        assert self.trainer is not None  # noqa: S101
        if self.validation is None:
            return []
        items, world_size = self.validation.dataset, self.trainer.world_size
        total = len(items) if isinstance(items, Sized) else 0
        if world_size == 1 or total < world_size:
            return self.validation  # figures are ratios of sums: counting all in every process changes none
        own = np.arange(self.trainer.global_rank, total, world_size)
        # As many batches in each process, though their items differ by one: all enter a sharded network together.
        largest, smallest = -(-total // world_size), total // world_size
        count = min(-(-largest // (self.validation.batch_size or 1)), smallest)
        parts = [part.tolist() for part in np.array_split(own, count)]
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
    card: Document,
    monitor: str = "validation_dice",
    origin: str = "",
    log: Log | None = None,
) -> Path:
    """Train until `steps`, from the last checkpoint in `folder` if there is one.

    Everything random at a step is drawn from a generator seeded with the step's number, so that a run that was killed
    and started again ends with the weights of one that was not, bit for bit on a CPU. When preempted (see
    `pipelines.runtime.preemption`), all processes write a checkpoint after the same step.

    Args:
        task: Task with the network as `task.model`.
        batches: Batches of images and targets.
        settings: Section `train` of the recipe.
        steps: Optimiser steps in all.
        validate_every: Optimiser steps between validations.
        seed: Seed of everything random while training.
        folder: Folder for `last.safetensors` (weights, averaged weights, optimiser and counters) and `model`, the
            trained-model folder: of the best validation, or of the last checkpoint where nothing is validated.
        card: Content of `model.json` beside what training adds.
        monitor: Validation figure that chooses the checkpoint; higher is better.
        origin: Name of everything that decides the result; a checkpoint of another one is refused.
        log: Function that is called with figures and the step, in the first process only.

    Returns:
        The trained-model folder.

    Raises:
        InputError: a checkpoint is damaged or of another training, a batch cannot be divided among the processes, a
            loss or a gradient is not finite, a process that reads data was killed, or the disk is full.
        Preempted: a scheduler or a user asked the process to stop.
    """
    devices, nodes = processes.placement(settings.devices)
    processes.share_of(settings.batch_size, devices * nodes)
    choose_threads(settings.threads)
    keep_freed_memory()
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
    sharded = Sharded(devices * nodes) if settings.strategy == "fsdp" else None  # which averages nothing
    average = WeightAveraging(use_buffers=False, multi_avg_fn=_moving_average(settings.ema_decay))
    network = sharded.whole_network if sharded else functools.partial(_averaged, average)
    finite = Finite(settings.precision == "16-mixed", settings.log_every, steps)
    keeper = Keeper(folder, card, settings, steps, network, monitor if validated else None)
    trainer = lightning.Trainer(
        accelerator="auto",
        strategy=sharded or "auto",
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
        inference_mode=not sharded,  # whose tensors take no gradients when the network is gathered among them
        limit_val_batches=None if validated else 0,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        plugins=[SafetensorsCheckpoints(origin), processes.environment()],
        callbacks=[
            *([] if sharded else [average]),
            Statistics(batches.statistics),
            Reseed(seed),
            finite,
            Progress(steps, settings.log_every, folder / HISTORY, log, finite),
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
        # under FSDP: no network of ours changes in place what a block of it gives
        warnings.filterwarnings("ignore", message=".*returned a view tensor.*")
        # Lightning's own use of a part of torch that will change
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
        # where SLURM is installed: `pipelines.runtime.processes` knows what started this process
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        if settings.compile:
            _check_compiler()
            task.get_submodule("model").compile()  # in place: names of weights stay
        _fit(trainer, task, batches, folder, done)
    return folder / MODEL


def _fit(
    trainer: lightning.Trainer, task: lightning.LightningModule, batches: Batches, folder: Path, done: int
) -> None:
    """Train; what ends it is one line where a user can do something about it."""
    stopped = read_stop(folder)
    if stopped and processes.first_process():
        print(f"note: the last start of this training ended with {stopped}; it goes on from step {done}", flush=True)
    try:
        trainer.fit(task, batches, ckpt_path=folder / LAST if done else None)
    except Diverged as problem:
        if processes.first_process():
            note_stop(folder, problem)
        raise
    except RuntimeError as error:
        killed = re.search(r"DataLoader worker .*killed by signal: (\w+)", str(error))
        if killed is None:
            raise
        raise InputError(
            f"a process that makes training data was killed by signal {killed[1]}, most likely for want of memory; "
            "lower data.workers or train.batch_size, or give the job more memory"
        ) from None
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    (folder / STOPPED).unlink(missing_ok=True)


def _check_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise InputError(
            "train.compile=true: needs a C++ compiler, found neither g++ nor clang++; install one, or leave it out"
        )


def _averaged(average: WeightAveraging) -> nn.Module | None:
    """The network with averaged weights, in every process; None before training begins."""
    model = average._average_model  # Lightning shows it nowhere else
    return None if model is None else model.get_submodule("module.model")


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Exponential moving average of weights, over fewer steps at first: a new network's weights are soon forgotten."""

    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        done = int(count)
        now = min(decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(now)(averages, weights, count)

    return update
