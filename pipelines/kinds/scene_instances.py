"""What the stages do for scenes with labelled objects: learning to find each of them, and judging what is found."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from geovision.contract import InputContract
from geovision.datasets.instance_labels import split_codes
from geovision.datasets.patches import PatchSource, find_labelled
from geovision.instances import InstanceMapper, Objects
from geovision.pictures import shown_bands
from geovision.rasters import open_raster
from geovision.scenes import open_scene
from pipelines.data.store import Store
from pipelines.evaluation.panoptic import PanopticQuality
from pipelines.kinds.scenes import ScenesKind, Source
from pipelines.recipe.scenes import InstanceSceneData
from pipelines.report.results import Figures, ResultTable, Value, write_summary
from pipelines.report.scenes import object_panel
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.instances import InstanceTask
from shared_backbones import architectures
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.json_values import Entries

_STRIDE = 32  # of the networks' coarsest maps


class SceneInstances(ScenesKind[InstanceSceneData]):
    """A network of mask queries learns to find single objects in scenes."""

    section = InstanceSceneData
    role = "segmenter"
    monitor = "validation_pq"

    @property
    def has_background(self) -> bool:
        """No: each class is of objects."""
        return False

    def check_settings(self) -> None:
        """Refuse patches that the networks would pad, which points of masks must not lie in."""
        if self.data.patch % _STRIDE:
            raise InputError(
                f"recipe {self.recipe.name}: data.patch is {self.data.patch}, expected a multiple of {_STRIDE}"
            )

    def check_network(self) -> None:
        """Find out whether the network suits the data, and finds objects.

        Raises:
            InputError: it does not.
        """
        super().check_network()
        name = self.recipe.model.architecture
        if not hasattr(architectures.find(name), "predict"):
            raise InputError(f"recipe {self.recipe.name}: {name} finds no single objects; take pem")

    def label_values(self) -> tuple[int, ...]:
        """Values of the classes in the column of classes: the recipe's, or the classes' numbers."""
        names = self.class_names()
        values = self.data.label_values or list(range(len(names)))
        if len(values) != len(names) or len(set(values)) < len(values):
            raise InputError(
                f"recipe {self.recipe.name}: data.label_values are {values} for {len(names)} classes; expected one "
                "number for each, all different"
            )
        return tuple(values)

    def label_counts(self, prepared: Store, split: str) -> list[int]:
        """Objects of each class in the patches of a split; one that lies in several patches counts in each."""
        count = len(self.class_names())
        total = np.zeros(count, int)
        for case in prepared.cases(split):
            for codes in np.asarray(prepared.array(case, "labels")):
                total += np.bincount(split_codes(codes, count)[1], minlength=count)
        return total.tolist()

    def find_pairs(self) -> list[tuple[Path, Path | None]]:
        """Scenes with labels of objects."""
        return list(find_labelled(self.root))

    def batch_settings(self) -> Entries:
        """How batches are normalised and varied, and from which probability on an object counts."""
        return {**super().batch_settings(), "threshold": self.data.threshold}

    def card(self, prepared: Store) -> Entries:
        """The trained model's card, which says that it finds single objects, and how."""
        return {**super().card(prepared), "instances": self.data.model_dump(include={"threshold", "overlap"})}

    def make_task(self, contract: InputContract, steps: int) -> InstanceTask:
        """The task of finding objects."""
        data = self.data
        network = self.network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return InstanceTask(network, self.recipe.train, steps, contract, self.class_names(), data.flip, data.threshold)

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Find the objects of the test scenes as a user does, and compare them with those of the test regions."""
        names = self.class_names()
        mapper = InstanceMapper(model, overlap=self.data.overlap, threads=self.recipe.train.threads)
        quality = PanopticQuality(names)
        by_scene: dict[Path, list[PatchSource]] = {}
        for source in sources:
            if isinstance(source, PatchSource):
                by_scene.setdefault(source.scene, []).append(source)
        with contextlib.closing(Meter("evaluate")) as meter:
            for number, (path, parts) in enumerate(by_scene.items(), 1):
                with open_scene(
                    path, sensor=self.cutting.sensor, wanted=mapper.contract.bands, **self.cutting.options
                ) as scene:
                    target = folder / f"case-{scene.sha256()[:8]}.tif"
                    objects, _ = mapper.map(scene, target)
                    with self.cutting.labels(parts[0].labels, scene) as labels:
                        for part in parts:
                            for region in part.regions:
                                truth = split_codes(labels.read(*region), len(names))
                                _, valid = scene.read(*region)
                                _count(quality, target, objects, region, *truth, valid)
                        if number == 1:
                            with replacing(folder / "objects.png") as picture:
                                object_panel(picture, scene, target, shown_bands(self.bands), labels)
                meter(number, len(by_scene))
        write_summary(folder, _figures(quality), [_table(quality)])


def _count(
    quality: PanopticQuality,
    target: Path,
    objects: Objects,
    region: tuple[int, int, int, int],
    truth: np.ndarray,
    kinds: Sequence[int],
    valid: np.ndarray,
) -> None:
    """Count the objects of a region: those of the map, and those that are there."""
    from rasterio.windows import Window

    row, column, height, width = region
    with open_raster(target) as source:
        mapped = source.read(1, window=Window(column, row, width, height))  # pyright: ignore[reportCallIssue]
    known, numbers = np.unique(np.append(mapped.ravel(), 0), return_inverse=True)
    classes = objects.classes[known[1:].astype(np.int64) - 1].tolist()
    quality.update(numbers[:-1].reshape(mapped.shape), classes, truth, kinds, ~valid)


def _figures(quality: PanopticQuality) -> Figures:
    """Means over the classes that are present, and how many objects there were."""
    present = [count for count in quality.counts if count.present]
    matched = sum(count.matched for count in quality.counts)
    return {
        "pq": _mean([count.quality for count in present]),
        "sq": _mean([count.segmentation for count in present if count.matched]),
        "rq": _mean([count.recognition for count in present]),
        "objects": matched + sum(count.missed for count in quality.counts),
        "matched": matched,
        "false": sum(count.false for count in quality.counts),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _table(quality: PanopticQuality) -> ResultTable:
    """Figures of each class."""
    rows: list[list[Value]] = [
        [name, count.matched + count.missed, *_shown(count.quality, count.segmentation, count.recognition),
         count.matched, count.false, count.missed]
        for name, count in zip(quality.classes, quality.counts, strict=True)
    ]  # fmt: skip
    return {
        "title": "Panoptic quality (PQ) is that of outlines (SQ) times that of what was found (RQ)",
        "columns": ["Class", "Objects", "PQ", "SQ", "RQ", "Matched", "False", "Missed"],
        "rows": rows,
    }


def _shown(*values: float) -> list[Value]:
    return [None if np.isnan(value) else value for value in values]
