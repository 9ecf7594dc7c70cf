"""A recipe whose runs take a second each, and differ in the last digits with whatever is varied."""

from pathlib import Path
from typing import Any

from tests.pipelines.balls import MARKER, write_recipe

QUICK = [
    "tracking.system_metrics=false", "train.epochs=1", "train.steps_per_epoch=2", "train.warmup_steps=0",
    "train.ema_decay=0", "train.schedule=constant", "evaluate.resamples=20",
]  # fmt: skip


def write_small_recipe(folder: Path, raw: Path, name: str = "run", **changes: Any) -> str:
    """Patches of the volumes of `tests.pipelines.balls` for a network of two levels; the output is `folder/name`."""
    data = {
        "kind": "volume_patches", "layout": "msd", "root": str(raw), "validation": 0.25, "patch": [16, 16, 16],
        "options": {"test": [f"{MARKER}_005", f"{MARKER}_006"]}, "overlap": 0,
    }  # fmt: skip
    model = {"architecture": "skip_unet", "arguments": {"num_classes": 3, "widths": [4, 8]}}
    return write_recipe(folder / f"{name}.yaml", raw, folder / name, data=data, model=model, **changes)
