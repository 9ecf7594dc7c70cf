"""Validation of each kind on ten images, by the processes that torchrun starts: figures are those of all ten.

`python -m torch.distributed.run --nproc-per-node=3 -m tests.pipelines.training.validation_processes FOLDER`, where
FOLDER holds a recipe for each kind, and gets what each process logged.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning
from torch.utils.data import DataLoader, Subset

from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.runtime import processes
from pipelines.training.loop import Batches

IMAGES = 10


def validated(recipe: Path) -> tuple[Any, Batches]:
    """The task of a recipe whose data are prepared beside it, and ten of its validation images in batches of three."""
    kind = find_kind(load_recipe(str(recipe)))
    prepared = kind.open(recipe.with_suffix(""))
    loader = kind.training_data(prepared).validation
    images = Subset(loader.dataset, range(IMAGES))
    assert len(loader.dataset) >= IMAGES, f"{recipe}: {len(loader.dataset)} validation images"
    batches = DataLoader(images, batch_size=3, collate_fn=loader.collate_fn)
    return kind.task(kind.card(prepared), 1), Batches(lambda *_: batches, batches)


def figures(recipe: Path) -> dict[str, float]:
    """What this process logs of a validation that all processes take part in."""
    task, batches = validated(recipe)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy="ddp", logger=False,
        use_distributed_sampler=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, plugins=[processes.environment()],
    )  # fmt: skip
    trainer.validate(task, datamodule=batches, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def main(folder: Path) -> None:
    logged = {recipe.stem: figures(recipe) for recipe in sorted(folder.glob("*.yaml"))}
    (folder / f"figures-{os.environ['RANK']}.json").write_text(json.dumps(logged))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
