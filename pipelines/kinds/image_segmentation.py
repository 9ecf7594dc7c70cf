"""What the stages do for medical images with masks: learning to mark one thing in them, and judging the masks."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from medvision.datasets.masked_images import MaskedItem
from medvision.image_segmentation import KIND, ImageSegmenter, MaskContract
from medvision.metrics.masks import FIGURES, MaskRow, mask_figures
from medvision.metrics.overlap import mean
from pipelines.data.augmentation import Augmentation
from pipelines.data.image_layouts import MASKED_LAYOUTS, find_layout
from pipelines.data.image_reading import to_sample
from pipelines.data.masked_images import StoredMasks, read_masked, read_pair
from pipelines.data.store import Store, parts_of
from pipelines.data.stored_images import DrawOrder
from pipelines.evaluation.bootstrap import intervals
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.images import MaskedImageData
from pipelines.recipe.recipe import Recipe
from pipelines.report.masks import mask_sheet
from pipelines.report.results import Figures, ResultTable, Value, write_summary
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones.errors import InputError
from shared_backbones.files import replacing, write_rows
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import COLORS, ImageSource, Layout, find_images, split_digest

Whatever = TypeVar("Whatever")
Source: TypeAlias = ImageSource[MaskedItem]
_SHOWN = 8  # images of the report, those of the lowest Dice


@dataclass(frozen=True)
class _Scored:
    """A test image: a name that says nothing, its test set and figures."""

    case: str
    test_set: str
    item: MaskedItem
    figures: MaskRow


class ImageSegmentation(Kind[MaskedImageData, Store]):
    """A network learns to mark one thing in medical images.

    Args:
        recipe: Recipe of data of kind `image_segmentation`.
    """

    section = MaskedImageData
    role = "segmenter"
    monitor = "validation_dice"
    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        layout: Layout[MaskedItem] = find_layout(self.data.layout, MASKED_LAYOUTS)
        self.sources: Sequence[Source] = find_images(
            layout,
            self.root,
            self.class_names(),
            test=self.data.split.test,
            validation=self.data.split.validation,
            seed=recipe.split_seed,
            folds=recipe.folds,
            options=self.data.options,
            repeats_grey=True,
        )

    def check_settings(self) -> None:
        """Refuse another number of classes than the background and one."""
        names = self.class_names()
        if len(names) != 2:
            raise InputError(
                f"recipe {self.recipe.name}: card.classes has {len(names)} classes, expected two: the background, and "
                "what the masks show"
            )

    def find_sources(self) -> Sequence[Source]:
        """The images of all splits, in parts."""
        return self.sources

    def test_sources(self) -> list[Source]:
        """The images that are scored.

        Raises:
            InputError: there are none.
        """
        return self.of_test_split(self.sources, "image; raise data.split.test")

    def identify(self, sources: Sequence[Source]) -> list[list[object]]:
        """Files and splits as they are now."""
        return [
            [*super(ImageSegmentation, self).identify(source.files), source.split, source.digest] for source in sources
        ]

    def preparation_settings(self) -> Entries:
        """What decides the stored images."""
        return {"size": self.data.size}

    def prepare(self, sources: Sequence[Source], folder: Path) -> None:
        """Read the images of all splits, so that those of the test are checked before hours of training."""
        self.fill_store(
            folder,
            sources,
            functools.partial(to_sample, read=functools.partial(read_masked, size=self.data.size)),
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
            splits=self.needed_splits("train"),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store."""
        return self.store(folder)

    def notices(self, prepared: Store) -> list[str]:
        """Images of each split, and what names the split."""
        counts = ", ".join(f"{self.count(prepared, split)} {split}" for split in SPLITS)
        lines = [f"images: {counts}", f"split: {self._split_digest()[:16]}"]
        if prepared.manifest["skipped"]:
            lines.append(f"warning: {prepared.manifest['skipped']} parts with images that cannot be used were left out")
        return lines

    def count(self, prepared: Store, split: str) -> int:
        """Number of images of a split."""
        return sum(case["record"]["images"] for case in prepared.cases(split))

    def label_counts(self, prepared: Store, split: str) -> list[int]:
        """Stored pixels of the background and of the masks in a split."""
        records = [case["record"] for case in prepared.cases(split)]
        marked = sum(record["marked"] for record in records)
        return [sum(record["pixels"] for record in records) - marked, marked]

    def batch_settings(self) -> Entries:
        """How batches are varied."""
        return self.data.model_dump(include={"augmentation"})

    def training_section(self) -> Entries:
        """What names the split."""
        return {"split": self._split_digest()}

    def _split_digest(self) -> str:
        items = [item for source in self.sources for item in source.items]
        return split_digest(replace(item, split=self.split_of(item)) for item in items)

    def input_section(self, prepared: Store) -> Entries:
        """The contract, with mean and standard deviation of each band of the training images."""
        records = [case["record"] for case in prepared.measured_cases()]
        count = sum(record["pixels"] for record in records)
        mean = np.sum([record["sums"] for record in records], 0) / count
        std = np.sqrt(np.maximum(np.sum([record["squares"] for record in records], 0) / count - mean**2, 1))
        section = {"kind": KIND, "bands": list(COLORS), "size": self.data.size}
        measured = {"mean": (mean / 255).tolist(), "std": (std / 255).tolist()}
        return {**section, **measured, **self.recipe.card.get("input", {})}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(COLORS), self.data.size, self.data.size), np.float32)

    def task(self, card: Document, steps: int) -> SegmentationTask:
        """The task of segmentation."""
        network = self.network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return SegmentationTask(network, self.recipe.train, steps, self.class_names())

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's images, varied, and those of the validation as they are."""
        settings, seed = self.recipe.train, self.recipe.seed
        contract = MaskContract.from_card(self.card(prepared), self.recipe.name)
        varied = self.data.augmentation
        augment = Augmentation(self.data.size, **varied.model_dump(exclude={"mirrored"}))
        train_set = StoredMasks(
            parts_of(prepared, "train"), contract.normalise, augment=augment, mirrored=varied.mirrored, seed=seed
        )
        val_set = StoredMasks(parts_of(prepared, "validation"), contract.normalise)
        order = functools.partial(DrawOrder, np.zeros(len(train_set), int), seed=seed)

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
            drawn = order(batch_size=settings.batch_size, steps=batches, start=start, rank=rank, world_size=world_size)
            return DataLoader(train_set, batch_sampler=drawn, collate_fn=_as_it_is)

        validation = DataLoader(val_set, settings.batch_size, collate_fn=_as_it_is) if len(val_set) else None
        return TrainingData(loader, len(train_set), validation)

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Mark the test images from their files, as a user does, and score the masks on the images' own pixels."""
        segmenter = ImageSegmenter(model, threads=self.recipe.train.threads)
        scored = list(self._score(segmenter, sources))
        if not scored:
            raise InputError(f"recipe {self.recipe.name}: no test image could be read; fix them")
        random = np.random.default_rng(self.recipe.seed)
        drawn = random.integers(0, len(scored), (self.recipe.evaluate.resamples, len(scored)))
        means: Figures = {"images": len(scored), **_means(scored)}
        for name in ("dice", "iou"):
            values = np.array([np.nan if (v := one.figures[name]) is None else v for one in scored])
            means |= intervals({name: np.nanmean(values[drawn], 1)}) if not np.isnan(values).all() else {}
        table = io.StringIO(newline="")
        rows = [[one.case, segmenter.target["name"], *(one.figures[name] for name in FIGURES)] for one in scored]
        write_rows(table, [("case", "name", *FIGURES), *rows])
        with replacing(folder / "cases.csv") as path:
            path.write_text(table.getvalue(), encoding="utf-8")
        judged = [(dice, one.item) for one in scored if (dice := one.figures["dice"]) is not None]
        worst = sorted(judged, key=lambda pair: pair[0])[:_SHOWN]
        if worst:
            pictures = [self._picture(segmenter, item) for _, item in worst]
            names = [f"Dice {dice:.3f}" for dice, _ in worst]
            with replacing(folder / "images_of_lowest_dice.png") as path:
                mask_sheet(pictures, names).save(path, "PNG")
        write_summary(folder, means, _by_test_set(scored))

    def _score(self, segmenter: ImageSegmenter, sources: Sequence[Source]) -> Iterator[_Scored]:
        items = [item for source in sources for item in source.items]
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, item in enumerate(items, 1):
                try:
                    image, mask = read_pair(item)
                except InputError:
                    if not self.data.skip_unreadable:
                        raise
                    continue
                case = f"case-{hashlib.sha256(image.tobytes()).hexdigest()[:8]}"
                figures = mask_figures(segmenter.probabilities(image), mask)
                yield _Scored(case, item.test_set, item, figures)
                meter(number, len(items))

    def _picture(self, segmenter: ImageSegmenter, item: MaskedItem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, mask = read_pair(item)
        return image, mask, segmenter.probabilities(image) >= 0.5


def _means(scored: Sequence[_Scored]) -> Figures:
    """Mean of each figure over the images that have it."""
    return {name: mean([one.figures[name] for one in scored]) for name in FIGURES}


def _by_test_set(scored: Sequence[_Scored]) -> list[ResultTable]:
    """Figures of each published test set, where there are several."""
    names = sorted({one.test_set for one in scored})
    if len(names) < 2:
        return []
    rows: list[list[Value]] = []
    for name in names:
        members = [one for one in scored if one.test_set == name]
        rows.append([name, len(members), *_means(members).values()])
    columns = ["Test set", "Images", "Dice", "IoU", "MAE", "Weighted F", "E-measure"]
    return [{"title": "Test sets: means over images", "columns": columns, "rows": rows}]


def _as_it_is(batch: Whatever) -> Whatever:
    return batch
