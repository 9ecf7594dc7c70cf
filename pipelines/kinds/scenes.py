"""What the kinds of satellite data share: sources, store, contract, and the loop."""

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from geovision.contract import InputContract, input_section
from geovision.datasets.images import read_images
from geovision.datasets.layouts import SatelliteItem
from geovision.datasets.patches import (
    Cutting,
    Patches,
    PatchOrder,
    PatchSource,
    cut,
    divide,
    identity,
    statistics,
)
from geovision.scenes import open_scene
from geovision.sensors import find_sensor
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.data.store import Sample, Store
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import LabelledImageData, LabelledSceneData, SceneData
from pipelines.training.tasks.task import Task
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.labelled_images import ImageSource, find_images

Scenes = TypeVar("Scenes", SceneData, LabelledSceneData, LabelledImageData)


class ScenesKind(Kind[Scenes, Store]):
    """What the kinds of satellite data share: sources, store, contract and loop.

    Args:
        recipe: of data of kind `scenes` or `labelled_scenes`.
    """

    evaluates = True
    monitor = ""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.skipped = 0
        sensor = find_sensor(self.data.sensor)
        self.bands = tuple(sensor.band(name).name for name in self.data.bands)
        size = recipe.model.arguments.get("img_size", self.data.patch)
        self.size = int(size if isinstance(size, int) else size[0])
        if self.data.statistics == "published":
            self.input_section(None)
        self.cutting = Cutting(
            sensor=sensor.name,
            bands=self.bands,
            scale=sensor.scale or self.data.scale or 1.0,
            patch=self.data.patch,
            stride=self.data.stride or self.data.patch,
            min_valid=self.data.min_valid,
            options={
                "bands": self.file_bands(),
                "scale": self.data.scale,
                "offset": self.data.offset,
                "reproject": True,
            },
            label_values=self.label_values(),
        )
        self.sources: list[Any] = self.find_all()

    def find_all(self) -> list[Any]:
        """The parts of all splits."""
        return self._divide(self.find_pairs())

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes, and their label rasters."""
        raise NotImplementedError

    def file_bands(self) -> list[str] | None:
        """Names of the files' bands: the recipe's, or those that the layout is known to have."""
        layout = getattr(self.data, "layout", None)
        known = find_layout(layout, SATELLITE_LAYOUTS).file_bands if layout else None
        return self.data.file_bands or (list(known) if known and self.data.sensor.startswith("sentinel2") else None)

    def label_values(self) -> tuple[int, ...]:
        """Values of the classes in label rasters."""
        return ()

    def _divide(self, pairs: Sequence[tuple[Path, Path | None]]) -> list[PatchSource]:
        usable, shapes = [], []
        for pair in pairs:
            try:
                with open_scene(
                    pair[0], sensor=self.cutting.sensor, wanted=self.bands, **self.cutting.options
                ) as scene:
                    usable.append(pair)
                    shapes.append(scene.shape)
            except InputError as error:
                if not self.data.skip_unreadable:
                    raise
                print(f"cannot be used: {error}", file=sys.stderr, flush=True)
        self.skipped = len(pairs) - len(usable)
        return divide(usable, shapes, **self.data.split.model_dump(), seed=self.recipe.seed)

    def find_sources(self) -> list[Any]:
        """The parts of all splits."""
        return self.sources

    def test_sources(self) -> list[Any]:
        """The parts that are scored.

        Raises:
            InputError: there are none.
        """
        hint = "part; raise data.split.test, lower data.split.block, or give more scenes"
        return self.of_test_split(self.sources, hint)

    def identify(self, sources: Sequence[Any]) -> list[list[Any]]:
        """Files, splits and regions as they are now."""
        return [
            [*super(ScenesKind, self).identify(source.files), source.split, getattr(source, "regions", None)]
            for source in sources
        ]

    def preparation_settings(self) -> dict[str, Any]:
        """What decides the stored patches."""
        return {**asdict(self.cutting), "bands": list(self.bands), "label_values": list(self.cutting.label_values)}

    def prepare(self, sources: Sequence[Any], folder: Path) -> None:
        """Cut the patches of all splits."""
        classes = len(self.recipe.card.get("classes", ()))
        self.fill_store(
            folder,
            sources,
            functools.partial(to_sample, cutting=self.cutting, classes=classes),
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
        )

    def open(self, folder: Path) -> Store:
        """The prepared store.

        Raises:
            InputError: no training patch came of the scenes.
        """
        store = Store(folder)
        if not any(case["record"]["pixels"] for case in store.cases("train")):
            raise InputError(
                f"recipe {self.recipe.name}: no training patch of {self.data.patch} pixels; lower data.patch or "
                "data.min_valid, or give larger scenes"
            )
        return store

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data."""
        counts = {split: sum(case["arrays"]["image"]["shape"][0] for case in prepared.cases(split)) for split in SPLITS}
        lines = ["patches: " + ", ".join(f"{count} {split}" for split, count in counts.items())]
        skipped = self.skipped + prepared.manifest["skipped"]
        if skipped:
            lines.append(f"warning: {skipped} scenes or parts of scenes were left out")
        systems = {case["record"]["crs"] for case in prepared.cases()}
        if len(systems) > 1:
            lines.append(f"note: the scenes have {len(systems)} CRS; each patch keeps its own")
        moved = sum(bool(case["record"].get("reprojected")) for case in prepared.cases())
        if moved:
            lines.append(f"note: in {moved} scenes or parts of scenes, bands of another CRS were reprojected")
        return lines

    def batch_settings(self) -> dict[str, Any]:
        """How batches are drawn, normalised and varied."""
        names = {"normalisation", "statistics", "mask_ratio", "resized_crop", "flip", "mixup", "cutmix", "smoothing"}
        return self.data.model_dump(include=names)

    def evaluation_settings(self) -> dict[str, Any]:
        """How scenes are mapped, and how many neighbours count."""
        return self.data.model_dump(include={"overlap", "neighbours", "mask_ratio"})

    def input_section(self, prepared: Store | None) -> dict[str, Any]:
        """The `input` of the model's card, with the statistics that the recipe asks for."""
        found, distance = None, None
        if prepared is not None:
            records = [case["record"] for case in prepared.cases("train")]
            found = statistics(records) if self.data.statistics == "training" else None
            sizes = {round(record["gsd_m"], 1) for record in records if record["gsd_m"] is not None}
            distance = sizes.pop() if len(sizes) == 1 else None
        section = input_section(
            self.data.sensor,
            self.bands,
            self.size,
            normalisation=self.data.normalisation,
            statistics=found,
            scale=find_sensor(self.data.sensor).scale or self.data.scale,
            gsd_m=distance,
        )
        return {**self.recipe.card.get("input", {}), **section}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.bands), self.size, self.size), np.float32)

    def task(self, card: Mapping[str, Any], steps: int) -> Task:
        """What learns, by the contract of the card."""
        return self.make_task(InputContract.from_card(card, self.recipe.name), steps)

    def make_task(self, contract: InputContract, steps: int) -> Task:
        """What learns."""
        raise NotImplementedError

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's patches."""
        settings = self.recipe.train
        train_set, val_set = (stored_patches(prepared, split) for split in ("train", "validation"))

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            order = PatchOrder(
                len(train_set), batch_size=settings.batch_size, steps=batches, seed=self.recipe.seed, start=start,
                rank=rank, world_size=world_size,
            )  # fmt: skip
            return DataLoader(train_set, batch_sampler=order, collate_fn=_as_it_is)

        validation = DataLoader(val_set, batch_size=settings.batch_size, collate_fn=_as_it_is) if len(val_set) else None
        return TrainingData(loader, len(train_set), validation)


def to_sample(source: PatchSource | ImageSource[SatelliteItem], cutting: Cutting, classes: int) -> Sample:
    """A part of the data as the store keeps it, without its name."""
    if isinstance(source, PatchSource):
        arrays, record = cut(source, cutting)
        name = identity(source, record["sha256"])
    else:
        arrays, record = read_images(source, cutting, classes)
        name = f"case-{record['sha256'][:8]}"
    return Sample(name, name, source.split, arrays, record)


def find_all_images(kind: ScenesKind) -> list[Any]:
    """The images of a data set's layout, in parts."""
    data = kind.data
    assert isinstance(data, SceneData | LabelledImageData) and data.layout  # noqa: S101 - asked for such data only
    return find_images(
        find_layout(data.layout, SATELLITE_LAYOUTS),
        kind.root,
        kind.class_names(),
        test=data.split.test,
        validation=data.split.validation,
        seed=kind.recipe.seed,
        options=data.options,
    )


def stored_patches(store: Store, split: str) -> Patches:
    """Patches of one split, memory-mapped."""
    return Patches([{name: store.array(case, name) for name in case["arrays"]} for case in store.cases(split)])


def shown_bands(bands: Sequence[str]) -> list[str]:
    """Three bands that make a picture: the true colours where they are there."""
    for wanted in (("B4", "B3", "B2"), ("red", "green", "blue"), ("B3", "B2", "B1")):
        if all(name in bands for name in wanted):
            return list(wanted)
    return [bands[0]] * 3


def write_summary(folder: Path, figures: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> None:
    """Write `summary.json`, which the report and the tracking store read."""
    with replacing(folder / "summary.json") as path:
        path.write_text(json.dumps({"figures": figures, "tables": tables}, indent=2) + "\n", encoding="utf-8")


def _as_it_is(batch: Any) -> Any:
    return batch
