"""What the kinds of satellite data share: how files are read, sources, store, contract, and the loop."""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from geovision.contract import InputContract, input_section
from geovision.datasets.labels import foreign_labels
from geovision.datasets.layouts import SatelliteItem, SatelliteLayout
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
from geovision.models.torchgeo_encoders import find_encoder
from geovision.scenes import open_scene
from geovision.sensors import find_sensor
from geovision.sharpening import repeated
from pipelines.data.store import Sample, Store
from pipelines.kinds.encoders import TORCHGEO
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import InstanceSceneData, LabelledSceneData, SceneData, SensorData, SharpenedSceneData
from pipelines.training.tasks.task import Task
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import ImageSource, find_images

Scenes = TypeVar("Scenes", SceneData, LabelledSceneData, InstanceSceneData, SharpenedSceneData)
Whatever = TypeVar("Whatever")
Patch: TypeAlias = dict[str, Tensor]
Source: TypeAlias = PatchSource | ImageSource[SatelliteItem]


class ScenesKind(Kind[Scenes, Store]):
    """What the kinds of scenes share: sources, store, contract and loop.

    Args:
        recipe: Recipe of data of kind `scene_pretraining`, `scene_mapping`, `scene_instances` or `restoration`.
    """

    evaluates = True
    monitor = ""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.skipped = 0
        self.bands, self.size = bands_of(self.data), size_of(recipe, self.data)
        if self.data.statistics != "training":
            self.input_section(None)
        data = self.data
        self.cutting = replace(
            cutting_of(data, self.known_bands()),
            stride=data.stride or data.patch,
            min_valid=data.min_valid,
            label_values=self.label_values(),
            label_names=tuple(self.class_names()) if self.label_values() else (),
            label_column=getattr(self.data, "label_column", None),
            instances=isinstance(data, InstanceSceneData),
        )
        self.sources: Sequence[Source] = self.find_all()

    def find_all(self) -> Sequence[Source]:
        """The parts of all splits."""
        return self._divide(self.find_pairs())

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes, and their label rasters."""
        raise NotImplementedError

    def images_of(self, layout: SatelliteLayout, options: Entries) -> list[ImageSource[SatelliteItem]]:
        """Images of a data set in its layout, by splits that are its own or drawn."""
        return find_images(
            layout,
            self.root,
            self.class_names(),
            test=self.data.split.test,
            validation=self.data.split.validation,
            seed=self.recipe.split_seed,
            folds=self.recipe.folds,
            options=options,
            bands=self.bands,
        )

    def known_bands(self) -> Sequence[str] | None:
        """Names of the files' bands that the data set is known to have."""
        return None

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
        return divide(
            usable, shapes, **self.data.split.model_dump(), seed=self.recipe.split_seed, folds=self.recipe.folds
        )

    def find_sources(self) -> Sequence[Source]:
        """The parts of all splits."""
        return self.sources

    def test_sources(self) -> list[Source]:
        """The parts that are scored.

        Raises:
            InputError: there are none.
        """
        hint = "part; raise data.split.test, lower data.split.block, or give more scenes"
        return self.of_test_split(self.sources, hint)

    def identify(self, sources: Sequence[Source]) -> list[list[Any]]:
        """Files, splits, and regions or what the data set says of its images, as they are now."""
        return [
            [
                *super(ScenesKind, self).identify(source.files),
                source.split,
                source.regions if isinstance(source, PatchSource) else source.digest,
            ]
            for source in sources
        ]

    def preparation_settings(self) -> Entries:
        """What decides the stored patches."""
        cutting = asdict(self.cutting)
        if not cutting["instances"]:
            del cutting["instances"]  # as what was prepared before it was known
        return {**cutting, "bands": list(self.bands), "label_values": list(self.cutting.label_values)}

    def prepare(self, sources: Sequence[Source], folder: Path) -> None:
        """Cut the patches of all splits."""
        self.fill_store(
            folder,
            sources,
            self.converter(),
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
        )

    def converter(self) -> Callable[[Any], Sample]:
        """How a part becomes what the store keeps; it can be sent to other processes."""
        return functools.partial(to_sample, cutting=self.cutting)

    def open(self, folder: Path) -> Store:
        """The prepared store.

        Raises:
            InputError: no training patch came of the scenes.
        """
        store = self.store(folder)
        if not any(case["record"]["pixels"] for case in store.cases("train")):
            strange = self._foreign_labels(store)
            what = " in which a pixel has a label: they may all be empty (nodata)" if self.label_values() else ""
            raise InputError(
                f"recipe {self.recipe.name}: no training patch of {self.data.patch} pixels{what}; lower data.patch or "
                f"data.min_valid, or give larger scenes{f' ({strange}: give data.label_values)' if strange else ''}"
            )
        return store

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data."""
        counts = {split: sum(case["arrays"]["image"]["shape"][0] for case in prepared.cases(split)) for split in SPLITS}
        lines = ["patches: " + ", ".join(f"{count} {split}" for split, count in counts.items())]
        skipped = self.skipped + prepared.manifest["skipped"]
        if skipped:
            lines.append(f"warning: {skipped} scenes or parts of scenes were left out")
        strange = self._foreign_labels(prepared)
        if strange:
            lines.append(f"note: {strange}; such pixels are left out")
        systems = {case["record"]["crs"] for case in prepared.cases()}
        if len(systems) > 1:
            lines.append(f"note: the scenes have {len(systems)} CRS; each patch keeps its own")
        moved = sum(bool(case["record"].get("reprojected")) for case in prepared.cases())
        if moved:
            lines.append(f"note: in {moved} scenes or parts of scenes, bands of another CRS were reprojected")
        return lines

    def _foreign_labels(self, prepared: Store) -> str:
        values = [value for case in prepared.cases() for value in case["record"].get("foreign_labels", ())]
        return foreign_labels(values, self.cutting.label_values)

    def batch_settings(self) -> Entries:
        """How batches are drawn, normalised and varied."""
        names = {"normalisation", "statistics", "mask_ratio", "resized_crop", "flip"}
        return self.data.model_dump(include=names)

    def evaluation_settings(self) -> Entries:
        """How scenes are mapped, and how many tokens are removed."""
        return self.data.model_dump(include={"overlap", "mask_ratio"})

    def input_section(self, prepared: Store | None) -> Entries:
        """The `input` of the model's card, with the statistics that the recipe asks for."""
        records = None if prepared is None else [case["record"] for case in prepared.measured_cases()]
        return {
            **self.recipe.card.get("input", {}),
            **section_of(self.recipe, self.data, self.bands, self.size, records),
        }

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.bands), self.size, self.size), np.float32)

    def task(self, card: Document, steps: int) -> Task:
        """What learns, by the contract of the card."""
        return self.make_task(InputContract.from_card(card, self.recipe.name), steps)

    def make_task(self, contract: InputContract, steps: int) -> Task:
        """What learns."""
        raise NotImplementedError

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's patches."""
        settings = self.recipe.train
        train_set, val_set = (stored_patches(prepared, split) for split in ("train", "validation"))

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader[Patch]:
            order = PatchOrder(
                len(train_set), batch_size=settings.batch_size, steps=batches, seed=self.recipe.seed, start=start,
                rank=rank, world_size=world_size,
            )  # fmt: skip
            return DataLoader(train_set, batch_sampler=order, collate_fn=_as_it_is)

        validation = DataLoader(val_set, batch_size=settings.batch_size, collate_fn=_as_it_is) if len(val_set) else None
        return TrainingData(loader, len(train_set), validation)


def to_sample(source: PatchSource, cutting: Cutting) -> Sample:
    """A part of a scene as the store keeps it, without its name."""
    arrays, record = cut(source, cutting)
    name = identity(source, record["sha256"])
    return Sample(name, name, source.split, arrays, record)


def bands_of(data: SensorData) -> tuple[str, ...]:
    """Names of the bands that the network sees, as the sensor has them.

    Raises:
        InputError: the sensor is unknown, or has no such band.
    """
    sensor = find_sensor(data.sensor)
    return tuple(sensor.band(name).name for name in data.bands)


def size_of(recipe: Recipe, data: SensorData) -> int:
    """Side in pixels of what the network sees."""
    size = recipe.model.arguments.get("img_size", data.patch)
    return int(size if isinstance(size, int) else size[0])


def cutting_of(data: SensorData, known_bands: Sequence[str] | None) -> Cutting:
    """How files of a sensor are read.

    Args:
        data: Section of the recipe.
        known_bands: Names of a Sentinel-2 file's bands that the data set is known to have.
    """
    sensor = find_sensor(data.sensor)
    known = list(known_bands) if known_bands and data.sensor.startswith("sentinel2") else None
    return Cutting(
        sensor=sensor.name,
        bands=bands_of(data),
        scale=sensor.scale or data.scale or 1.0,
        patch=data.patch,
        stride=data.patch,
        min_valid=0.0,
        options={
            "bands": data.file_bands or known,
            "scale": data.scale,
            "offset": data.offset,
            "reproject": True,
            "mask_clouds": data.mask_clouds,
            **(
                repeated(data.ratio if len(data.coarse) == len(data.bands) else 1)
                if isinstance(data, SharpenedSceneData)
                else {}
            ),
        },
    )


def section_of(
    recipe: Recipe, data: SensorData, bands: Sequence[str], size: int, records: Sequence[Document] | None
) -> Entries:
    """The `input` of a model's card.

    Args:
        recipe: Recipe, which says what training starts from.
        data: Section of the recipe, which says whose statistics the bands have.
        bands: Names of the network's bands.
        size: Side in pixels of what the network sees.
        records: What the store notes of the training's parts; None before there is a store.
    """
    measured, gsd_m = _statistics_of_start(recipe, data, bands) if data.statistics == "init" else None, None
    if records is not None:
        measured = statistics(records) if data.statistics == "training" else measured
        sizes = {round(record["gsd_m"], 1) for record in records if record["gsd_m"] is not None}
        gsd_m = sizes.pop() if len(sizes) == 1 else None
    return input_section(
        data.sensor,
        bands,
        size,
        normalisation=data.normalisation,
        statistics=measured,
        scale=find_sensor(data.sensor).scale or data.scale,
        gsd_m=gsd_m,
    )


def _statistics_of_start(recipe: Recipe, data: SensorData, bands: Sequence[str]) -> dict[str, list[float]]:
    """Means and deviations of the bands of the model that training starts from.

    Raises:
        InputError: there is none, or it has another sensor, other bands or another normalisation.
    """
    init = recipe.model.init
    if recipe.model.architecture == TORCHGEO:
        known = find_encoder(str(recipe.model.arguments.get("weights"))).input
        places = [known["bands"].index(band) for band in bands]
        return {name: [known[name][place] for place in places] for name in ("mean", "std")}
    if not init or not Path(init).is_dir():
        raise InputError(f"recipe {recipe.name}: data.statistics=init needs a model; give model.init=FOLDER")
    contract = InputContract.from_card(weights.read_card(init), init)
    lacking = [band for band in bands if band not in contract.bands]
    if contract.sensor.name != data.sensor or contract.normalisation != data.normalisation or lacking:
        raise InputError(
            f"recipe {recipe.name}: data.statistics=init: model.init takes {', '.join(contract.bands)} of "
            f"{contract.sensor.name}, normalised by {contract.normalisation}; give data.bands, data.sensor and "
            "data.normalisation so"
        )
    places = [contract.bands.index(band) for band in bands]
    return {"mean": [contract.mean[place] for place in places], "std": [contract.std[place] for place in places]}


def stored_patches(store: Store, split: str) -> Patches:
    """Patches of one split, memory-mapped."""
    return Patches([{name: store.array(case, name) for name in case["arrays"]} for case in store.cases(split)])


def _as_it_is(batch: Whatever) -> Whatever:
    return batch
