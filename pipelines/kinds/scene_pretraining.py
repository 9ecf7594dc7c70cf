"""Pretraining: a masked autoencoder learns from satellite scenes without labels."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geovision.contract import InputContract
from geovision.datasets.images import read_images
from geovision.datasets.layouts import SatelliteLayout
from geovision.datasets.patches import Patches
from geovision.metrics import linear_fill, mean_fill, psnr, summarise_psnr
from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.pictures import shown_bands
from geovision.scenes import find_scenes
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.data.image_reading import to_sample
from pipelines.data.store import Sample
from pipelines.kinds.scenes import ScenesKind, Source
from pipelines.recipe.scenes import SceneData
from pipelines.report.results import ResultTable, Value, write_summary
from pipelines.report.scenes import reconstruction_panel
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.pretraining import PretrainingTask, autoencoder, reconstruct, span_of
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.files import replacing

_PANELS = 6  # reconstructions that a report shows


class ScenePretraining(ScenesKind[SceneData]):
    """A masked autoencoder learns from scenes without labels."""

    section = SceneData
    role = "autoencoder"
    monitor = "validation_psnr"

    @property
    def layout(self) -> SatelliteLayout | None:
        """Layout of the data set's images; None where there are scenes."""
        return find_layout(self.data.layout, SATELLITE_LAYOUTS) if self.data.layout else None

    def known_bands(self) -> Sequence[str] | None:
        """Names of the files' bands that the layout is known to have."""
        return self.layout.file_bands if self.layout else None

    def find_all(self) -> Sequence[Source]:
        """Parts of scenes, or images of a data set."""
        if self.layout is None:
            return super().find_all()
        return self.images_of(self.layout, self.data.options)

    def converter(self) -> Callable[[Any], Sample]:
        """How a part of a scene, or of a data set's images, becomes what the store keeps."""
        if self.layout is None:
            return super().converter()
        classes = len(self.recipe.card.get("classes", ()))
        return functools.partial(to_sample, read=functools.partial(read_images, cutting=self.cutting, classes=classes))

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes alone."""
        return [(scene, None) for scene in find_scenes(self.root)]

    def make_task(self, contract: InputContract, steps: int) -> PretrainingTask:
        """The autoencoder's task."""
        data, network = self.data, self.network()
        return PretrainingTask(
            network, self.recipe.train, steps, contract, data.mask_ratio, data.resized_crop, self.recipe.seed
        )

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Reconstruct the test patches, and compare with filling by means and by interpolation."""
        trained = weights.load(model)
        contract = InputContract.from_card(trained.card, self.recipe.name)
        network = autoencoder(trained.module)
        groups = [list(group) for group in network.trunk.groups or [range(len(self.bands))]]
        names = ["_".join(self.bands[band] for band in group) for group in groups]
        span, rows, panels = span_of(contract), [], []
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, source in enumerate(sources):
                for image, reconstruction, mask in self._reconstructions(network, contract, source, len(rows)):
                    rows.append(_compared(image, reconstruction, mask, groups, names, span))
                    if len(panels) < _PANELS:
                        panels.append((image, reconstruction, mask))
                meter(number + 1, len(sources))
        if not rows:
            raise InputError(f"recipe {self.recipe.name}: no test patch; lower data.min_valid or data.patch")
        summary = summarise_psnr(rows)
        with replacing(folder / "reconstructions.png") as path:
            reconstruction_panel(path, panels, [self.bands.index(band) for band in shown_bands(self.bands)])
        write_summary(folder, {**summary, "patches": len(rows)}, [_table(summary, names, len(rows))])

    def _reconstructions(
        self, network: Autoencoder, contract: InputContract, source: Source, first: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Image, reconstruction and mask of the removed pixels of each patch of a part, `(C, H, W)` each.

        Args:
            network: Autoencoder.
            contract: Contract of its input.
            source: Part of the data.
            first: Number of the first patch, which the masks depend on.
        """
        patches = Patches([self.converter()(source).arrays])
        for start in range(0, len(patches), 16):
            batch = patches.__getitems__(range(start, min(start + 16, len(patches))))
            seed = self.recipe.seed * 1_000_003 + first + start
            with torch.inference_mode():
                parts = reconstruct(network, contract, batch, self.data.mask_ratio, seed=seed)
            images, reconstructions, removed = (part.numpy() for part in parts)
            yield from zip(images, reconstructions, np.broadcast_to(removed, images.shape), strict=True)


def _table(summary: Mapping[str, float], names: Sequence[str], patches: int) -> ResultTable:
    """Figures of all bands, and of each group of them."""
    rows: list[list[Value]] = [
        [name.replace("_", " "), *(summary[f"{way}_{name}"] for way in ("psnr", "psnr_mean", "psnr_linear"))]
        for name in ["all", *names]
    ]
    return {
        "title": f"Peak signal-to-noise ratio in dB over removed pixels; {patches} test patches",
        "columns": ["Bands", "Model", "Mean of what is visible", "Interpolated from what is visible"],
        "rows": rows,
    }


def _compared(
    image: np.ndarray,
    reconstruction: np.ndarray,
    mask: np.ndarray,
    groups: Sequence[Sequence[int]],
    names: Sequence[str],
    span: float,
) -> dict[str, float]:
    """Figures of one image: the model's, and those of filling by means and by interpolation."""
    means = np.stack([mean_fill(*pair) for pair in zip(image, mask, strict=True)])
    lines = np.stack([linear_fill(*pair) for pair in zip(image, mask, strict=True)])
    row = {}
    for name, group in zip(["all", *names], [range(len(image)), *groups], strict=True):
        bands = list(group)
        for way, values in (("psnr", reconstruction), ("psnr_mean", means), ("psnr_linear", lines)):
            row[f"{way}_{name}"] = psnr(values[bands], image[bands], mask[bands], span)
    return row
