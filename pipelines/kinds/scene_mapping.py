"""What the stages do for scenes with label rasters: learning to map them."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from geovision.contract import InputContract
from geovision.datasets.layouts import SatelliteItem
from geovision.datasets.patches import Cutting, PatchSource, cut, find_labelled
from geovision.mapping import Mapper
from geovision.metrics import confusion, map_figures
from geovision.models.satmae_pp import is_pretrained_encoder
from geovision.models.torchgeo_model import TorchGeo
from geovision.pictures import shown_bands
from geovision.rasters import open_raster
from geovision.scene import Scene
from geovision.scenes import open_scene
from pipelines.data.image_layouts import MASK_LAYOUTS, find_layout
from pipelines.data.store import Sample, Store
from pipelines.kinds.encoders import take_encoder_arguments
from pipelines.kinds.scenes import ScenesKind, Source
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import LabelledSceneData
from pipelines.report.results import ResultTable, Value, write_summary
from pipelines.report.scenes import map_panel
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.mapping import MappingTask
from shared_backbones import architectures, weights
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import ImageSource

if TYPE_CHECKING:
    from geovision.datasets.torchgeo import TorchGeoMasks

_TILE = 256  # side in pixels of the tiles of networks that take any size


class SceneMapping(ScenesKind[LabelledSceneData]):
    """A network learns to map scenes from label rasters."""

    section = LabelledSceneData
    role = "segmenter"
    monitor = "validation_miou"

    def __init__(self, recipe: Recipe) -> None:
        take_encoder_arguments(recipe)
        super().__init__(recipe)

    def label_values(self) -> tuple[int, ...]:
        """Values of the classes in label rasters: the recipe's, or the classes' numbers."""
        names = self.class_names()
        values = self.data.label_values or list(range(len(names)))
        if len(values) != len(names) or len(set(values)) < len(values) or len(values) > 255:
            raise InputError(
                f"recipe {self.recipe.name}: data.label_values are {values} for {len(names)} classes; expected one "
                "number for each, all different"
            )
        return tuple(values)

    @property
    def has_background(self) -> bool:
        """No: what is of no class has no label."""
        return False

    def label_counts(self, prepared: Store, split: str) -> list[int]:
        """Pixels of each class in the patches of a split."""
        count = len(self.class_names())
        labels = [np.asarray(prepared.array(case, "labels")) for case in prepared.cases(split)]
        return sum((np.bincount(part.ravel(), minlength=256)[:count] for part in labels), np.zeros(count, int)).tolist()

    @functools.cached_property
    def layout(self) -> "TorchGeoMasks | None":
        """Layout of the data set's samples; None where there are scenes."""
        return find_layout(self.data.layout, MASK_LAYOUTS) if self.data.layout else None

    def find_all(self) -> Sequence[Source]:
        """Parts of scenes, or samples of a data set, each by itself."""
        if self.layout is None:
            return super().find_all()
        sources = self.images_of(self.layout, self.data.options)
        return [replace(source, items=(item,)) for source in sources for item in source.items]

    def converter(self) -> Callable[[Source], Sample]:
        """How a part of a scene, or a sample of a data set, becomes what the store keeps."""
        return super().converter() if self.layout is None else functools.partial(masked_sample, cutting=self.cutting)

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes with label rasters."""
        return list(find_labelled(self.root))

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Take a whole mapping model's weights, or those of a pretrained encoder."""
        take: Callable[[torch.nn.Module], None] | None = getattr(network, "load_autoencoder", None)
        if take is not None and is_pretrained_encoder(trained.module):
            take(trained.module)
        elif isinstance(network, TorchGeo) and isinstance(trained.module, TorchGeo):
            weights.fill(network.backbone, weights.tensors_of(trained.module.backbone), label)
        else:
            super().start_from(network, trained, label)

    def input_section(self, prepared: Store | None) -> Entries:
        """The `input` of the model's card, with the side of the tiles in which scenes are mapped."""
        section = super().input_section(prepared)
        return {**section, "tile": max(_TILE, self.size) if self._takes_any_size else self.size}

    @functools.cached_property
    def _takes_any_size(self) -> bool:
        """Whether the network takes larger images than those that it learns from: convolutions do."""
        network = architectures.build(self.recipe.model.architecture, self.recipe.model.arguments).eval()
        sides = self.size, 2 * self.size
        try:
            with torch.inference_mode():
                return all(
                    network(torch.zeros(1, len(self.bands), side, side)).shape[2:] == (side, side) for side in sides
                )
        except (RuntimeError, ValueError, AssertionError):
            return False

    def make_task(self, contract: InputContract, steps: int) -> MappingTask:
        """The task of mapping."""
        data = self.data
        return MappingTask(self.network(), self.recipe.train, steps, contract, self.class_names(), data.flip)

    def _scenes(self, sources: Sequence[Source]) -> Iterator[list[PatchSource]]:
        """The parts of some sources, scene by scene; the files of a sample are there until the next is asked for."""
        by_scene: dict[Path, list[PatchSource]] = {}
        for source in sources:
            if isinstance(source, PatchSource):
                by_scene.setdefault(source.scene, []).append(source)
            elif self.layout is not None:
                with self.layout.whole(source.items[0], source.split, self.cutting) as part:
                    yield [part]
        yield from by_scene.values()

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Map the test scenes as a user does, and compare with the labels of the test regions."""
        names = self.class_names()
        mapper = Mapper(model, overlap=self.data.overlap, threads=self.recipe.train.threads)
        matrix = np.zeros((len(names), len(names)), np.int64)
        count = len({source.scene if isinstance(source, PatchSource) else source.digest for source in sources})
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, parts in enumerate(self._scenes(sources)):
                with open_scene(
                    parts[0].scene, sensor=self.cutting.sensor, wanted=mapper.contract.bands, **self.cutting.options
                ) as scene:
                    target = folder / f"case-{scene.sha256()[:8]}.tif"
                    mapper.map(scene, target)
                    for part in parts:
                        matrix += compare(target, part, scene, self.cutting, len(names))
                    if not number:
                        with (
                            self.cutting.labels(parts[0].labels, scene) as labels,
                            replacing(folder / "map.png") as picture,
                        ):
                            map_panel(picture, scene, target, labels, mapper.classes, shown_bands(self.bands))
                meter(number + 1, count)
        figures = map_figures(matrix, names)
        per_class = {f"iou_{row['name']}": row["iou"] for row in figures["classes"]}
        shown = {name: figures[name] for name in ("accuracy", "majority", "mean_iou", "macro_f1")}
        write_summary(folder, shown | per_class, mapping_tables(figures, matrix, names))


def masked_sample(source: ImageSource[SatelliteItem], cutting: Cutting) -> Sample:
    """A sample of a data set with masks as the store keeps it, without its name."""
    layout: TorchGeoMasks = source.layout  # pyright: ignore[reportAssignmentType]
    with layout.whole(source.items[0], source.split, cutting) as part:
        arrays, record = cut(part, cutting)
    digest = hashlib.sha256(f"{record['sha256']}:{source.digest}".encode()).hexdigest()
    name = f"case-{digest[:12]}"
    return Sample(name, name, source.split, arrays, record)


def mapping_tables(figures: Document, matrix: np.ndarray, names: Sequence[str]) -> list[ResultTable]:
    """Figures of each class, and the confusion of labels and map."""
    rows: list[list[Value]] = [
        [row["name"], row["pixels"], *(row[part] for part in ("iou", "f1", "precision", "recall"))]
        for row in figures["classes"]
    ]
    counted: list[list[Value]] = [[name, *map(int, counts)] for name, counts in zip(names, matrix, strict=True)]
    return [
        {
            "title": f"Classes, over {figures['pixels']:,} labelled pixels of the test regions",
            "columns": ["Class", "Pixels", "IoU", "F1", "Precision", "Recall"],
            "rows": rows,
        },
        {
            "title": "Confusion: labels in rows, the map in columns",
            "columns": ["Label", *names],
            "rows": counted,
        },
    ]


def compare(target: Path, source: PatchSource, scene: Scene, cutting: Cutting, count: int) -> np.ndarray:
    """Confusion of a map and the labels within a source's regions, `(count, count)`."""
    from rasterio.windows import Window

    matrix = np.zeros((count, count), np.int64)
    with open_raster(target) as mapped, cutting.labels(source.labels, scene) as labels:
        for row, column, height, width in source.regions:
            for top in range(row, row + height, 512):  # no more than a strip at once
                rows = min(512, row + height - top)
                window = Window(column, top, width, rows)  # pyright: ignore[reportCallIssue]
                matrix += confusion(mapped.read(1, window=window), labels.read(top, column, rows, width), count)
    return matrix
