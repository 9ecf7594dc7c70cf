"""A recipe that runs in seconds, on volumes in the layout of the Medical Segmentation Decathlon."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

MARKER = "Jane_Doe_19700101"


def write_raw(root: Path) -> Path:
    """Six crops, each with a bright ball whose halves are two parts; names and headers hold a patient's name."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for number in range(1, 7):
        random = np.random.default_rng(number)
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 28, 20)), indexing="ij"))
        centre = np.array([12, 14, 10]) + random.integers(-2, 3, 3)
        inside = np.square(grid - centre[:, None, None, None]).sum(0) < 36
        labels = (inside * (1 + (grid[1] > centre[1]))).astype(np.uint8)
        image = (100 * inside + random.normal(40, 6, inside.shape)).astype(np.float32)
        for folder, data in (("imagesTr", image), ("labelsTr", labels)):
            file = nib.Nifti1Image(data, np.diag([-1.0, 1, 1, 1]))
            file.header["descrip"] = MARKER.encode()
            nib.save(file, root / folder / f"{MARKER}_{number:03}.nii.gz")
    return root


def write_recipe(path: Path, raw: Path, output: Path, **changes: Any) -> str:
    """The recipe's file; `changes` replace whole sections."""
    content = {
        "name": "ball",
        "seed": 1,
        "output": str(output),
        "data": {
            "kind": "volumes", "layout": "msd", "root": str(raw), "validation": 0.25,
            "options": {"test": [f"{MARKER}_005", f"{MARKER}_006"]},
            "slices": [-1, 0, 1], "size": 32, "augmentation": {"rotation_degrees": 5, "shift": 0.02},
        },
        "model": {
            "architecture": "hbformer",
            "arguments": {
                "num_classes": 3, "in_chans": 3, "stem_channels": 3, "feature_size": 4, "depths": [1, 1, 1, 1],
                "head_dim": 4, "window_size": 4, "img_size": 32,
            },
        },
        "train": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "warmup_steps": 1, "ema_decay": 0.5},
        "evaluate": {"resamples": 50},
        "card": {
            "name": "ball",
            "version": "1.0.0",
            "classes": [
                {"id": 0, "name": "background", "color": [0, 0, 0]},
                {"id": 1, "name": "back", "color": [200, 0, 0]},
                {"id": 2, "name": "front", "color": [0, 0, 200]},
            ],
            "input": {"smallest_piece": 0},
        },
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content | changes))
    return str(path)
