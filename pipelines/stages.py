"""Stages of a pipeline; so far: train a segmentation model on synthetic slices."""

import logging
import time
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from medvision.contract import InputContract
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
    card = _card(recipe)
    InputContract.from_card(card, recipe.name)  # a card that nothing can use shows now, not after training
    output = Path(recipe.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output}: cannot be made ({error.strerror}); choose another folder") from None
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hardware lists and advertisements
    lightning.seed_everything(recipe.seed, verbose=False)

    model = weights.build(recipe.model.architecture, recipe.model.arguments)
    if recipe.model.init:
        trained = weights.load(find_model(recipe.model.init))
        weights.fill(model, trained.module.state_dict(), f"model.init={recipe.model.init}")
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
            # without a counter the file always has one name, which a later run goes on from
            ModelCheckpoint(
                output,
                every_n_train_steps=recipe.train.checkpoint_every,
                save_top_k=0,
                save_last=True,
                enable_version_counter=False,
            ),
            _ModelFolder(recipe, card, checkpoint),
            _PlainLines(),
        ],
    )
    with warnings.catch_warnings():
        # one loading process a trainer is what two cores have room for
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # the checkpoint callback keeps no state that a run with another `checkpoint_every` would miss
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
        try:
            trainer.fit(task, data, ckpt_path=checkpoint if done else None, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    return output / "model"


def _synthesis(recipe: Recipe) -> SynthesisSettings:
    known = [setting.name for setting in fields(SynthesisSettings)]
    for name in recipe.data.synthesis:
        if name not in known:
            raise InputError(
                f"recipe {recipe.name}: data.synthesis.{name}: unknown key; expected one of: {', '.join(known)}"
            )
    return SynthesisSettings(**recipe.data.synthesis)


def _card(recipe: Recipe) -> dict[str, Any]:
    """The trained model's card, but for the steps."""
    synthesis = asdict(_synthesis(recipe))
    given = recipe.card.get("input", {})
    return {
        **recipe.card,
        "input": {**given, "spacing_mm": synthesis["spacing_mm"], "slices": recipe.data.slices},
        "training": {
            **recipe.card.get("training", {}),
            "recipe": recipe.name,
            "seed": recipe.seed,
            "init": recipe.model.init,
            "batch_size": recipe.train.batch_size * recipe.train.devices,
            "synthesis": synthesis,
        },
    }


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
            LabelMapSynthesizer(str(data.root), _synthesis(self.recipe)),
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
    """Writes the averaged weights as a trained-model folder beside every checkpoint, and sees that the end has one."""

    def __init__(self, recipe: Recipe, card: dict[str, Any], checkpoint: Path) -> None:
        self.model, self.card, self.checkpoint = recipe.model, card, checkpoint
        self.every = recipe.train.checkpoint_every

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        if trainer.global_step == trainer.max_steps and trainer.global_step % self.every:
            trainer.save_checkpoint(self.checkpoint)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.is_global_zero:
            return
        # the averaging callback stands before this one and has put its weights here
        state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        module = weights.build(self.model.architecture, self.model.arguments)
        module.load_state_dict(state)
        card = {**self.card, "training": {**self.card["training"], "steps": trainer.global_step}}
        weights.save(self.checkpoint.with_name("model"), module, card)


class _PlainLines(Callback):
    """One line of progress every so many steps, also where there is no terminal."""

    def __init__(self, every: int = 50) -> None:
        self.every, self.since = every, time.monotonic()
        self.count, self.sums = 0, {}

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        if not trainer.is_global_zero:
            return
        self.count += 1
        for name, value in trainer.callback_metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        if trainer.global_step % self.every and trainer.global_step != trainer.max_steps:
            return
        now = time.monotonic()
        losses = "  ".join(f"{name} {total / self.count:.4f}" for name, total in self.sums.items())
        speed = self.count / (now - self.since)
        print(f"step {trainer.global_step}/{trainer.max_steps}  {losses}  {speed:.2f} steps/s", flush=True)
        self.since, self.count, self.sums = now, 0, {}


def _steps_in(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)["global_step"])
