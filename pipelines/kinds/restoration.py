"""Restoration: coarse bands of scenes at the fine ones' resolution, or all bands at a finer one, from scenes alone."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from geovision.contract import InputContract
from geovision.datasets.patches import Patches
from geovision.scenes import find_scenes
from geovision.sharpening import Sharpening, sharpened
from pipelines.data.store import Store
from pipelines.kinds.scenes import ScenesKind, Source
from pipelines.recipe.scenes import SharpenedSceneData
from pipelines.report.results import ResultTable, Value, write_summary
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.restoration import SharpeningTask, cut_side, wald_pair
from shared_backbones import architectures, weights
from shared_backbones.degrading import enlarge
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries

_RIM = 4  # coarse pixels at the border of a patch that are not judged: nothing of a scene is beyond it
_LEAST = 2 * _RIM + 6  # coarse pixels of a patch, of which SSIM sees those within the rim
_BATCH = 16
_WAYS = ("model", "bicubic")


class Restoration(ScenesKind[SharpenedSceneData]):
    """A network brings coarse bands to the fine ones' resolution."""

    section = SharpenedSceneData
    role = "restorer"
    monitor = "validation_psnr"

    def check_settings(self) -> None:
        """Refuse coarse bands that are none of the network's, and tiles that coarse pixels do not fit."""
        data = self.data
        missing = [band for band in data.coarse if band not in data.bands]
        if missing or len(set(data.coarse)) < len(data.coarse):
            raise InputError(
                f"data.coarse={list(data.coarse)}: expected different ones of data.bands {list(data.bands)}"
            )
        if data.tile % data.ratio or data.overlap >= data.tile:
            raise InputError(
                f"data.tile={data.tile}: expected a multiple of data.ratio {data.ratio} above data.overlap"
            )
        if cut_side(data.patch, data.ratio) < _LEAST * data.ratio:
            enough = next(side for side in itertools.count() if cut_side(side, data.ratio) >= _LEAST * data.ratio)
            raise InputError(f"data.patch={data.patch}: expected {enough} pixels or more")

    def check_network(self) -> None:
        """Find out whether the network suits the data, and keeps the size of an image.

        Raises:
            InputError: it does not.
        """
        super().check_network()
        architectures.check_keeps_size(self.recipe.model.architecture, self.recipe.model.arguments)

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes alone."""
        return [(scene, None) for scene in find_scenes(self.root)]

    def batch_settings(self) -> Entries:
        """How batches are drawn, normalised, degraded and varied."""
        names = {"normalisation", "statistics", "flip", "coarse", "ratio", "mtf", "tile", "overlap"}
        return self.data.model_dump(include=names)

    def input_section(self, prepared: Store | None) -> Entries:
        """The `input` of the model's card, with the side of the tiles in which scenes are enhanced."""
        return {**super().input_section(prepared), "tile": self.data.tile}

    def card(self, prepared: Store) -> Entries:
        """The trained model's card, which says what is sharpened and how."""
        return {
            **super().card(prepared),
            "sharpening": self.data.model_dump(include={"coarse", "ratio", "mtf", "overlap"}),
        }

    def make_task(self, contract: InputContract, steps: int) -> SharpeningTask:
        """The task of restoration."""
        card = {"sharpening": self.data.model_dump(include={"coarse", "ratio", "mtf", "overlap"})}
        sharpening = Sharpening.from_card(card, contract, self.recipe.name)
        return SharpeningTask(self.network(), self.recipe.train, steps, contract, sharpening, self.data.flip)

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Find the coarse bands of test patches again, one scale below, and compare with bicubic enlargement."""
        trained = weights.load(model)
        contract = InputContract.from_card(trained.card, self.recipe.name)
        what = Sharpening.from_card(trained.card, contract, self.recipe.name)
        names, network = [contract.bands[band] for band in what.coarse], trained.module.eval()
        errors = {way: torch.zeros(len(names), dtype=torch.float64) for way in _WAYS}
        further: dict[str, list[list[float]]] = {way: [] for way in _WAYS}
        pixels = 0
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, source in enumerate(sources):
                patches = Patches([self.converter()(source).arrays])
                for start in range(0, len(patches), _BATCH):
                    batch = patches.__getitems__(range(start, min(start + _BATCH, len(patches))))
                    pair = wald_pair(what, batch)
                    with torch.inference_mode():
                        results = {
                            "model": sharpened(network, contract, pair.images, what.coarse),
                            "bicubic": enlarge(pair.coarser, what.ratio),
                        }
                    inner = slice(_RIM, -_RIM)
                    known = pair.valid[:, inner, inner]
                    pixels += int(known.sum())
                    wanted = pair.wanted[:, :, inner, inner]
                    for way, result in results.items():
                        result = result[:, :, inner, inner]
                        missing = (result - wanted).double().square() * known[:, None]
                        errors[way] += missing.sum((0, 2, 3))
                        whole = known.flatten(1).all(1)
                        if whole.any():
                            further[way].append(_further(result[whole], wanted[whole], what.ratio))
                meter(number + 1, len(sources))
        if not pixels:
            raise InputError(f"recipe {self.recipe.name}: no test pixel; give larger scenes, or raise data.patch")
        spans = torch.tensor([4 * contract.std[band] for band in what.coarse], dtype=torch.float64)
        psnr = {way: 10 * torch.log10(spans**2 / (value / pixels).clamp(min=1e-12)) for way, value in errors.items()}
        figures: dict[str, float] = {"psnr": float(psnr["model"].mean()), "psnr_bicubic": float(psnr["bicubic"].mean())}
        for place, name in enumerate(("ssim", "sam", "ergas")):
            for way in _WAYS:
                values = [row[place] for row in further[way]]
                key = name if way == "model" else f"{name}_{way}"
                figures[key] = sum(values) / len(values) if values else float("nan")
        for i, name in enumerate(names):
            figures |= {f"psnr_{name}": float(psnr["model"][i]), f"psnr_bicubic_{name}": float(psnr["bicubic"][i])}
        rows: list[list[Value]] = [
            [name, float(psnr["model"][i]), float(psnr["bicubic"][i]), float(psnr["model"][i] - psnr["bicubic"][i])]
            for i, name in enumerate(names)
        ]
        table: ResultTable = {
            "title": f"Peak signal-to-noise ratio in dB one scale below, over {pixels:,} test pixels",
            "columns": ["Band", "Model", "Bicubic", "Gain"],
            "rows": rows,
        }
        write_summary(folder, {**figures, "pixels": pixels}, [table])


def _further(prediction: torch.Tensor, wanted: torch.Tensor, ratio: int) -> list[float]:
    """SSIM, spectral angle in degrees and ERGAS of whole patches."""
    span = float(wanted.max() - wanted.min())
    ssim = torch.as_tensor(structural_similarity_index_measure(prediction, wanted, data_range=max(span, 1e-6)))
    angle = torch.rad2deg(spectral_angle_mapper(prediction, wanted)) if prediction.shape[1] > 1 else torch.tensor(0.0)
    return [float(ssim), float(angle), float(error_relative_global_dimensionless_synthesis(prediction, wanted, ratio))]
