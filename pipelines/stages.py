"""Stages of a pipeline; so far: train a segmentation model on synthetic slices."""

import copy
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings, SyntheticSlices
from medvision.models.catalogue import find_model
from pipelines.recipe import Recipe
from pipelines.tasks import SegmentationTask
from shared_backbones import weights
from shared_backbones.errors import InputError


def train(recipe: Recipe) -> Path:
    """Train and write a trained-model folder; a run that was stopped goes on from its last checkpoint.

    Args:
        recipe: with `data.root` (folder of label maps) and `output` set.

    Returns:
        The trained-model folder, `<output>/model`; it is rewritten at every checkpoint with the averaged weights.

    Raises:
        InputError: a path or a setting that the recipe needs is missing or wrong.
    """
    if not recipe.data.root or not recipe.output:
        raise InputError(f"recipe {recipe.name}: data.root and output are needed; pass data.root=DIR output=DIR")
    output = Path(recipe.output)
    output.mkdir(parents=True, exist_ok=True)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    lightning.seed_everything(recipe.seed, verbose=False)

    model = weights.build(recipe.model.architecture, recipe.model.arguments)
    if recipe.model.init:
        model.load_state_dict(weights.load(find_model(recipe.model.init)).module.state_dict())
    task = SegmentationTask(
        model,
        steps=recipe.train.steps,
        learning_rate=recipe.train.learning_rate,
        warmup_steps=recipe.train.warmup_steps,
        weight_decay=recipe.train.weight_decay,
    )
    checkpoint = output / "last.ckpt"
    done = _steps_in(checkpoint)
    drawn = done * recipe.train.batch_size * recipe.train.devices
    data = SyntheticData(recipe, start=drawn // recipe.data.slices_per_volume)
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=recipe.train.devices,
        max_steps=recipe.train.steps,
        gradient_clip_val=recipe.train.gradient_clip,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=50,
        callbacks=[
            EMAWeightAveraging(decay=recipe.train.ema_decay),
            ModelCheckpoint(output, every_n_train_steps=recipe.train.checkpoint_every, save_top_k=0, save_last=True),
            _ModelFolder(recipe, output / "model"),
            _PlainLines(),
        ],
    )
    with warnings.catch_warnings():
        # one loading process a trainer is what two cores have room for
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(task, data, ckpt_path=checkpoint if done else None, weights_only=True)
    return output / "model"


class SyntheticData(lightning.LightningDataModule):
    """Batches of synthetic slices; every process of a run draws volumes of its own.

    Args:
        recipe: says where the label maps are and how slices are drawn.
        start: number of the first volume.
    """

    def __init__(self, recipe: Recipe, start: int = 0) -> None:
        super().__init__()
        self.recipe, self.start = recipe, start

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Endless loader of images `(B, C, H, W)` and targets `(B, H, W)`."""
        data = self.recipe.data
        assert self.trainer is not None  # noqa: S101 - Lightning sets it before it asks for a loader
        stream = SyntheticSlices(
            LabelMapSynthesizer(str(data.root), SynthesisSettings(**data.synthesis)),
            context=data.slices,
            size=data.size,
            slices_per_volume=data.slices_per_volume,
            buffer=data.buffer,
            seed=self.recipe.seed,
            start=self.start,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return DataLoader(
            stream,
            batch_size=self.recipe.train.batch_size,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
        )


class _ModelFolder(Callback):
    """Writes the averaged weights as a trained-model folder whenever a checkpoint is saved."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.synthesis = asdict(SynthesisSettings(**recipe.data.synthesis))

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.is_global_zero:
            return
        # the averaging callback stands before this one and has put its weights here
        state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        module = weights.build(self.recipe.model.architecture, self.recipe.model.arguments)
        module.load_state_dict(state)
        card = copy.deepcopy(self.recipe.card)
        card["input"] = {
            **card.get("input", {}),
            "spacing_mm": self.synthesis["spacing_mm"],
            "slices": self.recipe.data.slices,
        }
        card["training"] = {
            **card.get("training", {}),
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "init": self.recipe.model.init,
            "steps": trainer.global_step,
            "batch_size": self.recipe.train.batch_size * trainer.world_size,
            "synthesis": self.synthesis,
        }
        weights.save(self.folder, module, card)


class _PlainLines(Callback):
    """One line of progress every so many steps, also where there is no terminal."""

    def __init__(self, every: int = 50) -> None:
        self.every, self.since, self.sums = every, time.monotonic(), {}

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        if not trainer.is_global_zero:
            return
        for name, value in trainer.callback_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        if trainer.global_step % self.every:
            return
        now = time.monotonic()
        losses = "  ".join(f"{name} {total / self.every:.4f}" for name, total in self.sums.items())
        speed = self.every / (now - self.since)
        print(f"step {trainer.global_step}/{trainer.max_steps}  {losses}  {speed:.2f} steps/s", flush=True)
        self.since, self.sums = now, {}


def _steps_in(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)["global_step"])
