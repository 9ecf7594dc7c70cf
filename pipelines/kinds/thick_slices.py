"""Restoration of thick slices: a network learns to make them thinner from the fine planes of scans."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.image import structural_similarity_index_measure

from medvision.datasets.layouts import Case, find_cases
from medvision.datasets.slices import SliceOrder
from medvision.enhancing import Thinning
from medvision.volumes.files import Volume, read_volume
from pipelines.data.store import Sample, Store
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.volumes import ThickSliceData
from pipelines.report.results import Figures, ResultTable, Value, write_summary
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.restoration import ThinningTask
from shared_backbones import architectures, weights
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries

_SPAN = 4.0  # deviations of a scan from black to white, which its noise is measured against
_BATCH = 32
_WAYS = ("model", "bicubic")


class ThickSlices(Kind[ThickSliceData, Store]):
    """A network makes thick slices thinner."""

    section = ThickSliceData
    role = "restorer"
    monitor = "validation_psnr"
    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        data = self.data
        self.thinning = Thinning(data.ratio, data.mtf)
        self.cases = find_cases(
            data.layout,
            self.root,
            validation=data.validation,
            seed=recipe.split_seed,
            folds=recipe.folds,
            **data.options,
        )

    def check_settings(self) -> None:
        """Refuse squares that thick slices do not fit."""
        if self.data.patch % self.data.ratio:
            raise InputError(f"data.patch={self.data.patch}: expected a multiple of data.ratio {self.data.ratio}")

    def check_network(self) -> None:
        """Find out whether the network suits the data, and keeps the size of an image.

        Raises:
            InputError: it does not.
        """
        super().check_network()
        architectures.check_keeps_size(self.recipe.model.architecture, self.recipe.model.arguments)

    def find_sources(self) -> list[Case]:
        """All scans."""
        return self.cases

    def test_sources(self) -> list[Case]:
        """Scans that are scored.

        Raises:
            InputError: there are none.
        """
        return self.of_test_split(self.cases, "scan; name some in data.options.test, test_ids_above or test_share")

    def identify(self, sources: Sequence[Case]) -> list[list[object]]:
        """Files and splits as they are now."""
        files = super().identify([path for case in sources for path in case.image])
        return [*files, *([case.split, case.subject] for case in sources)]

    def preparation_settings(self) -> Entries:
        """What decides the stored squares."""
        return self.data.model_dump(include={"patch", "least_contrast"})

    def prepare(self, sources: Sequence[Case], folder: Path) -> None:
        """Cut the squares of all scans."""
        self.fill_store(
            folder,
            sources,
            functools.partial(to_sample, side=self.data.patch, least=self.data.least_contrast),
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
            splits=self.needed_splits("train"),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store.

        Raises:
            InputError: no training scan has a square with something in it.
        """
        store = self.store(folder)
        if not self.count(store, "train"):
            raise InputError(
                f"recipe {self.recipe.name}: no training square of {self.data.patch} voxels with contrast; lower "
                "data.patch or data.least_contrast"
            )
        return store

    def count(self, prepared: Store, split: str) -> int:
        """Squares of a split."""
        return sum(case["record"]["squares"] for case in prepared.cases(split))

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data."""
        return ["squares: " + ", ".join(f"{self.count(prepared, split)} {split}" for split in SPLITS)]

    def batch_settings(self) -> Entries:
        """How squares are varied and made thick."""
        return self.data.model_dump(include={"ratio", "mtf", "flip"})

    def evaluation_settings(self) -> Entries:
        """What of the data's section decides an evaluation."""
        return self.data.model_dump(include={"ratio", "mtf", "patch", "least_contrast"})

    def input_section(self, prepared: Store) -> Entries:
        """The contract: one channel, standardised by the scan's own mean and deviation."""
        return {**self.recipe.card.get("input", {}), "channels": 1, "normalisation": "zscore"}

    def card(self, prepared: Store) -> Entries:
        """The trained model's card, which says what it does."""
        return {**super().card(prepared), "thinning": self.data.model_dump(include={"ratio", "mtf"})}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, 1, H, W)` float32."""
        return np.zeros((2, 1, self.data.patch, self.data.patch), np.float32)

    def task(self, card: Document, steps: int) -> ThinningTask:
        """What learns."""
        return ThinningTask(self.network(), self.recipe.train, steps, self.thinning, self.data.flip)

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's squares."""
        settings = self.recipe.train
        train_set, val_set = (Squares(prepared, split) for split in ("train", "validation"))

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            order = SliceOrder(
                np.zeros(len(train_set), bool), batch_size=settings.batch_size, steps=batches, foreground=0.0,
                seed=self.recipe.seed, start=start, rank=rank, world_size=world_size,
            )  # fmt: skip
            return DataLoader(train_set, batch_sampler=order)

        validation = DataLoader(val_set, batch_size=settings.batch_size) if len(val_set) else None
        return TrainingData(loader, len(train_set), validation)

    def evaluate(self, model: Path, sources: Sequence[Case], folder: Path) -> None:
        """Find the squares of test scans again from thick slices, and compare with bicubic enlargement."""
        trained = weights.load(model)
        thinning, network = Thinning.from_card(trained.card, self.recipe.name), trained.module.eval()
        squares: dict[str, float] = {way: 0.0 for way in _WAYS}
        likeness: dict[str, list[float]] = {way: [] for way in _WAYS}
        values = 0
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, case in enumerate(sources):
                images = _squares(read_volume(case.image[0]), self.data.patch, self.data.least_contrast)
                for part in torch.from_numpy(images)[:, None].split(_BATCH):
                    thick = thinning.thick(part)
                    with torch.inference_mode():
                        results = {"model": thinning.restored(network, thick), "bicubic": thinning.enlarged(thick)}
                    values += part.numel()
                    for way, result in results.items():
                        squares[way] += float((result - part).double().square().sum())
                        ssim = structural_similarity_index_measure(result, part, data_range=_SPAN)
                        likeness[way].append(float(torch.as_tensor(ssim)))
                meter(number + 1, len(sources))
        if not values:
            raise InputError(f"recipe {self.recipe.name}: no test square has contrast; lower data.least_contrast")
        psnr = {way: float(10 * np.log10(_SPAN**2 / max(squares[way] / values, 1e-12))) for way in _WAYS}
        ssim = {way: float(np.mean(likeness[way])) for way in _WAYS}
        figures: Figures = {
            "psnr": psnr["model"], "psnr_bicubic": psnr["bicubic"], "ssim": ssim["model"],
            "ssim_bicubic": ssim["bicubic"], "voxels": values,
        }  # fmt: skip
        rows: list[list[Value]] = [[way, psnr[way], ssim[way]] for way in _WAYS]
        table: ResultTable = {
            "title": f"Slices {thinning.ratio} times as thick, made thin again, over {values:,} voxels of test scans",
            "columns": ["Way", "PSNR (dB)", "SSIM"],
            "rows": rows,
        }
        write_summary(folder, figures, [table])


class Squares(Dataset[dict[str, Tensor]]):
    """Squares of one split, memory-mapped."""

    def __init__(self, store: Store, split: str) -> None:
        self.parts = [store.array(case, "squares") for case in store.cases(split) if case["record"]["squares"]]
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """Squares of all scans."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, place: int | tuple[int, int]) -> dict[str, Tensor]:
        """The square of a number, or of a number and a seed, which varies nothing here."""
        number = place if isinstance(place, int) else place[0]
        part = int(np.searchsorted(self.ends, number, "right"))
        first = 0 if part == 0 else int(self.ends[part - 1])
        return {"squares": torch.from_numpy(np.array(self.parts[part][number - first]))}


def to_sample(case: Case, side: int, least: float) -> Sample:
    """A scan as the store keeps it, without its name."""
    volume = read_volume(case.image[0])
    squares = _squares(volume, side, least)
    return Sample(
        volume.case_id, volume.case_id, case.split, {"squares": squares}, {"squares": len(squares)}
    )  # fmt: skip


def _squares(volume: Volume, side: int, least: float) -> np.ndarray:
    """Squares `(N, side, side)` of the planes along a scan's finest axes, in deviations from its mean."""
    axis = int(np.argmax(volume.grid.spacing_mm))
    planes = np.moveaxis(volume.data, axis, 0)
    planes = (planes - planes.mean(dtype=np.float64)) / max(float(planes.std(dtype=np.float64)), 1e-12)
    short = [(0, max(0, side - length)) for length in planes.shape[1:]]
    planes = np.pad(planes.astype(np.float32), [(0, 0), *short], mode="edge")
    rows, columns = (length // side for length in planes.shape[1:])
    cut = planes[:, : rows * side, : columns * side].reshape(len(planes), rows, side, columns, side)
    squares = cut.transpose(0, 1, 3, 2, 4).reshape(-1, side, side)
    return np.ascontiguousarray(squares[squares.std((1, 2)) >= least])
