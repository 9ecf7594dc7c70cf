"""Pretraining: a masked autoencoder learns from satellite scenes without labels."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geovision.contract import InputContract
from geovision.datasets.patches import (
    Patches,
)
from geovision.metrics import (
    linear_fill,
    mean_fill,
    psnr,
    summarise_psnr,
)
from geovision.scenes import find_scenes
from pipelines.kinds.scenes import ScenesKind, find_all_images, shown_bands, to_sample, write_summary
from pipelines.recipe.scenes import SceneData
from pipelines.report.scenes import reconstruction_panel
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.pretraining import PretrainingTask, reconstruct, span_of
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.files import replacing

_PANELS = 6  # reconstructions that a report shows


class ScenePretraining(ScenesKind[SceneData]):
    """A masked autoencoder learns from scenes without labels."""

    section = SceneData
    role = "autoencoder"
    monitor = "validation_psnr"

    def find_all(self) -> list[Any]:
        """Parts of scenes, or images of a data set."""
        return find_all_images(self) if self.data.layout else super().find_all()

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes alone."""
        return [(scene, None) for scene in find_scenes(self.root)]

    def make_task(self, contract: InputContract, steps: int) -> PretrainingTask:
        """The autoencoder's task."""
        data, network = self.data, self.network()
        return PretrainingTask(
            network, self.recipe.train, steps, contract, data.mask_ratio, data.resized_crop, self.recipe.seed
        )

    def evaluate(self, model: Path, sources: Sequence[Any], folder: Path) -> None:
        """Reconstruct the test patches, and compare with filling by means and by interpolation."""
        data = self.data
        trained = weights.load(model)
        network: Any = trained.module
        contract = InputContract.from_card(trained.card, self.recipe.name)
        groups = [list(group) for group in network.trunk.groups or [range(len(self.bands))]]
        names = ["_".join(self.bands[band] for band in group) for group in groups]
        span, rows, panels = span_of(contract), [], []
        with contextlib.closing(Meter("evaluate")) as meter, torch.inference_mode():
            for number, source in enumerate(sources):
                patches = Patches([to_sample(source, self.cutting, len(self.recipe.card.get("classes", ()))).arrays])
                for first in range(0, len(patches), 16):
                    batch = patches.__getitems__(range(first, min(first + 16, len(patches))))
                    seed = self.recipe.seed * 1_000_003 + len(rows)
                    images, found, removed = (
                        part.numpy() for part in reconstruct(network, contract, batch, data.mask_ratio, seed=seed)
                    )
                    removed = np.broadcast_to(removed, images.shape)
                    for image, guess, gone in zip(images, found, removed, strict=True):
                        rows.append(_compared(image, guess, gone, groups, names, span))
                        if len(panels) < _PANELS:
                            panels.append((image, guess, gone))
                meter(number + 1, len(sources))
        if not rows:
            raise InputError(f"recipe {self.recipe.name}: no test patch; lower data.min_valid or data.patch")
        summary = summarise_psnr(rows)
        table = [
            [name.replace("_", " "), *(summary[f"{way}_{name}"] for way in ("psnr", "psnr_mean", "psnr_linear"))]
            for name in ["all", *names]
        ]
        columns = ["Bands", "Model", "Mean of what is visible", "Interpolated from what is visible"]
        note = f"Peak signal-to-noise ratio in dB over removed pixels; {len(rows)} test patches"
        with replacing(folder / "reconstructions.png") as path:
            reconstruction_panel(path, panels, [self.bands.index(band) for band in shown_bands(self.bands)])
        write_summary(folder, summary | {"patches": len(rows)}, [{"title": note, "columns": columns, "rows": table}])


def _compared(
    image: np.ndarray,
    guess: np.ndarray,
    gone: np.ndarray,
    groups: Sequence[Sequence[int]],
    names: Sequence[str],
    span: float,
) -> dict[str, float]:
    """Figures of one image: the model's, and those of filling by means and by interpolation."""
    means = np.stack([mean_fill(band, mask) for band, mask in zip(image, gone, strict=True)])
    lines = np.stack([linear_fill(band, mask) for band, mask in zip(image, gone, strict=True)])
    row = {}
    for name, group in zip(["all", *names], [range(len(image)), *groups], strict=True):
        bands = list(group)
        for way, values in (("psnr", guess), ("psnr_mean", means), ("psnr_linear", lines)):
            row[f"{way}_{name}"] = psnr(values[bands], image[bands], gone[bands], span)
    return row
