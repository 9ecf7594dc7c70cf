"""Patches cut from scenes: where they lie, which split they belong to, and how they are read again."""

import functools
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from geovision.datasets.instance_labels import InstanceRaster
from geovision.datasets.labels import LabelRaster
from geovision.footprints import noted_corners
from geovision.scene import Scene
from geovision.scenes import files_of as scene_files
from geovision.scenes import find_scenes, open_scene
from geovision.tiling import Axis
from geovision.vectors import VECTORS
from geovision.vectors import files_of as vector_files
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.folds import fold_name
from shared_backbones.json_values import Document, Entries

_PORTION = 2**22  # pixels of a scene that are cut at once
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class PatchSource:
    """What one split takes from one scene, or a portion of it.

    Attributes:
        scene: its path.
        labels: path of its label raster, if any.
        split: `train`, `validation`, `test` or a fold.
        regions: row, column, height and width of the parts of the scene that belong to the split.
    """

    scene: Path
    labels: Path | None
    split: str
    regions: tuple[Region, ...]

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return [*(scene_files(self.scene) or [self.scene]), *(vector_files(self.labels) if self.labels else [])]


@dataclass(frozen=True)
class Cutting:
    """How patches are cut.

    Attributes:
        sensor: name of the scenes' sensor.
        bands: to read, in order.
        scale: one stored number is this much in the bands' unit.
        patch: side in pixels.
        stride: from one patch to the next.
        min_valid: patches with a smaller share of valid (and labelled) pixels are left out.
        options: further arguments of `geovision.scenes.open_scene`.
        label_values: value of each class in the label raster.
        label_names: names of the classes, by which polygons may call them.
        label_column: column of the polygons' classes; None where it can be told.
        instances: whether labels are single objects, and what is of none is known to be so.
    """

    sensor: str
    bands: tuple[str, ...]
    scale: float
    patch: int
    stride: int
    min_valid: float
    options: Document
    label_values: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()
    label_column: str | None = None
    instances: bool = False

    def labels(self, path: Path | None, scene: Scene) -> LabelRaster:
        """The labels of a scene, to be opened with `with`."""
        kind = InstanceRaster if self.instances else LabelRaster
        return kind(path, scene, self.label_values, self.label_names, self.label_column)


def find_labelled(root: Path) -> list[tuple[Path, Path]]:
    """Scenes of `root/images`, each with the labels of its name in `root/labels`, or the only ones there.

    Labels are rasters, or polygons in a GeoPackage, a GeoJSON file or a shapefile.

    Raises:
        InputError: a folder is missing or empty, or a scene has no label raster.
    """
    for name in ("images", "labels"):
        if not (root / name).is_dir():
            raise InputError(f"{printable(root)}: has no folder {name}; expected images and labels")
    vectors = [path for path in sorted((root / "labels").iterdir()) if path.suffix.lower() in VECTORS]
    rasters = {path.stem: path for path in vectors or find_scenes(root / "labels")}
    pairs = []
    for scene in find_scenes(root / "images"):
        labels = rasters.get(scene.stem) or (next(iter(rasters.values())) if len(rasters) == 1 else None)
        if labels is None:
            raise InputError(f"{printable(scene)}: no label raster {scene.stem}.tif in {printable(root / 'labels')}")
        pairs.append((scene, labels))
    return pairs


def divide(
    pairs: Sequence[tuple[Path, Path | None]],
    shapes: Sequence[tuple[int, int]],
    *,
    by: str,
    test: float,
    validation: float,
    block: int,
    seed: int,
    folds: int | None = None,
) -> list[PatchSource]:
    """Divide scenes into splits by place, so that no pixel, and no neighbour of it in a block, is in two of them.

    Scenes that cover the same pixels (several dates) are divided alike, as the division depends on place alone.

    Args:
        pairs: scene and label raster.
        shapes: height and width of each scene.
        by: `scenes`; `last`, the last ones by name for the test and those before for the validation; `blocks`; or
            `halves`, north for training and south for the test.
        test: share of the test, but for halves.
        validation: share of the rest; of halves, the southern part of the north.
        block: side of the blocks in pixels.
        seed: seed of the draw.
        folds: number of folds that all outside the test is divided into, in place of training and validation; not for
            halves.
    """
    draw = functools.partial(_draw, test=test, validation=validation, folds=folds)
    regions_of: dict[tuple[int, str], list[Region]] = {}
    count = max(1, len(pairs))
    order = (np.random.default_rng(seed).permutation(len(pairs)) if by == "scenes" else np.arange(count)[::-1]) / count
    for number, (height, width) in enumerate(shapes):
        if by in {"scenes", "last"}:
            whole = (0, 0, height, width)
            regions_of.setdefault((number, draw(float(order[number]))), []).append(whole)
        elif by == "halves":
            middle = height // 2
            border = middle - round(middle * validation)
            for split, top, bottom in (("train", 0, border), ("validation", border, middle), ("test", middle, height)):
                if bottom > top:
                    regions_of.setdefault((number, split), []).append((top, 0, bottom - top, width))
        else:
            for row in range(0, height, block):
                for column in range(0, width, block):
                    position = zlib.crc32(f"{seed}:{row // block}:{column // block}".encode()) / 2**32
                    region = (row, column, min(block, height - row), min(block, width - column))
                    regions_of.setdefault((number, draw(position)), []).append(region)
    return [
        PatchSource(*pairs[number], split, portion)
        for (number, split), regions in regions_of.items()
        for portion in _portions(regions)
    ]


def cut(source: PatchSource, cutting: Cutting) -> tuple[dict[str, np.ndarray], Entries]:
    """Patches of one split of one scene.

    Returns:
        Arrays: `image` `(N, C, P, P)`, uint16 where that loses nothing and else float32, in the model's numbers;
        `valid` `(N, P, P)` bool; with labels also `labels` `(N, P, P)`, as `Cutting.labels` reads them. And a record:
        sha256, CRS, footprints, places, and sums from which means and deviations are made.

    Raises:
        InputError: the scene cannot be read or used, or the label raster is on another grid.
    """
    with open_scene(source.scene, sensor=cutting.sensor, wanted=cutting.bands, **cutting.options) as scene:
        scene.check_range()
        images, masks, labels, places = [], [], [], []
        with cutting.labels(source.labels, scene) as raster:
            for row, column in _places(source.regions, cutting.patch, cutting.stride):
                window = (row, column, cutting.patch, cutting.patch)
                values, valid = scene.read(*window, cutting.scale)
                known = valid
                if source.labels is not None:
                    drawn = raster.read(*window)
                    drawn[~valid] = raster.nothing
                    known = valid if cutting.instances else drawn != raster.nothing
                if not known.any() or known.mean() < cutting.min_valid:
                    continue
                images.append(values)
                masks.append(valid)
                places.append((row, column))
                if source.labels is not None:
                    labels.append(drawn)
        size, bands = cutting.patch, len(cutting.bands)
        stack = np.stack(images) if images else np.zeros((0, bands, size, size), np.float32)
        known = np.stack(masks) if masks else np.zeros((0, size, size), bool)
        arrays = {"image": packed(stack), "valid": known}
        if source.labels is not None:
            arrays["labels"] = np.stack(labels) if labels else np.zeros((0, size, size), raster.dtype)
        rows, columns = (np.array([place[axis] for place in places]) for axis in (0, 1))
        crs = scene.grid.crs
        outlines = noted_corners(scene.grid, rows, columns, (size, size)) if crs is not None and places else None
        record = {
            "sha256": scene.sha256(),
            "crs": None if crs is None else crs.to_string(),
            "reprojected": scene.reprojected,
            "gsd_m": scene.grid.gsd_m,
            "unit": scene.layers[0].unit,
            "places": places,
            "foreign_labels": sorted(raster.foreign),
            "footprints": outlines,
            **sums(stack, known),
        }
    return arrays, record


def sums(images: np.ndarray, valid: np.ndarray) -> Entries:
    """What `statistics` needs of some images: valid pixels, and each band's sum and sum of squares over them."""
    values = images.astype(np.float64)
    return {
        "pixels": int(valid.sum()),
        "sums": (values * valid[:, None]).sum((0, 2, 3)).tolist(),
        "squares": (values**2 * valid[:, None]).sum((0, 2, 3)).tolist(),
    }


def statistics(records: Sequence[Document]) -> dict[str, list[float]]:
    """Mean and standard deviation of each band over all valid pixels of some sources."""
    count = sum(record["pixels"] for record in records)
    if not count:
        raise InputError("the training patches have no valid pixel; lower data.min_valid, or give other scenes")
    mean = np.sum([record["sums"] for record in records], 0) / count
    spread = np.sqrt(np.maximum(np.sum([record["squares"] for record in records], 0) / count - mean**2, 0))
    return {"mean": mean.tolist(), "std": np.maximum(spread, 1e-6).tolist()}


class Patches(Dataset[Any]):
    """Stored patches, read a batch at a time.

    Args:
        parts: arrays of each source, as `cut` gives them; memory-mapped ones stay so.
    """

    def __init__(self, parts: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.parts = [part for part in parts if len(part["image"])]
        self.ends = np.cumsum([len(part["image"]) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch: `image` `(B, C, P, P)` in its stored type, `valid` `(B, P, P)`, and labels or targets, if any."""
        wanted = np.asarray(indices)
        homes = np.searchsorted(self.ends, wanted, side="right")
        batches: dict[str, Tensor] = {}
        kinds = {part["image"].dtype for part in self.parts}
        for name in self.parts[0]:
            first = self.parts[0][name]
            kind = np.result_type(*kinds) if name == "image" else first.dtype
            batch = np.empty((len(wanted), *first.shape[1:]), kind)
            for home in np.unique(homes):
                members = np.flatnonzero(homes == home)
                start = self.ends[home] - len(self.parts[home][name])
                batch[members] = self.parts[home][name][wanted[members] - start]
            batches[name] = torch.from_numpy(batch)
        return batches


class PatchOrder(Sampler[list[int]]):
    """Batches of patch numbers for every step from `start` on; any step's batch depends on nothing before it.

    Args:
        count: number of patches.
        batch_size: patches in a batch of all processes together; each has every `world_size`-th of its places.
        steps: batches in all.
        seed: seed of the order.
        start: first batch.
        rank: rank of this process.
        world_size: number of processes.
    """

    def __init__(
        self, count: int, *, batch_size: int, steps: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.count, self.batch_size, self.steps, self.seed = count, batch_size, steps, seed
        self.start, self.rank, self.world_size = start, rank, world_size
        self._lap: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in all, those before `start` included: Lightning counts on from there."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            first = step * self.batch_size
            yield [self._at(turn) for turn in range(first + self.rank, first + self.batch_size, self.world_size)]

    def _at(self, turn: int) -> int:
        lap, position = divmod(turn, self.count)
        if self._lap is None or self._lap[0] != lap:
            self._lap = lap, np.random.default_rng((self.seed, lap)).permutation(self.count)
        return int(self._lap[1][position])


def _portions(regions: Sequence[Region]) -> Iterator[tuple[Region, ...]]:
    """Regions in portions of at most so many pixels, so that a scene of any size is cut in little memory."""
    portion: list[Region] = []
    waiting = list(reversed(regions))
    while waiting:
        row, column, height, width = waiting.pop()
        if height * width > _PORTION:
            if height >= width:
                top = height // 2
                waiting += [(row + top, column, height - top, width), (row, column, top, width)]
            else:
                left = width // 2
                waiting += [(row, column + left, height, width - left), (row, column, height, left)]
            continue
        if sum(part[2] * part[3] for part in portion) + height * width > _PORTION:
            yield tuple(portion)
            portion = []
        portion.append((row, column, height, width))
    yield tuple(portion)


def _places(regions: Sequence[Region], patch: int, stride: int) -> Iterator[tuple[int, int]]:
    for row, column, height, width in regions:
        if min(height, width) >= patch:
            downs, rights = (Axis.cover(length, patch, patch - stride).starts for length in (height, width))
            yield from ((row + down, column + right) for down in downs for right in rights)


def packed(values: np.ndarray) -> np.ndarray:
    """Numbers as uint16 where that loses nothing."""
    if values.size and values.min() >= 0 and values.max() <= 65535:
        whole = values.round()
        if np.abs(whole - values).max() < 1e-2:  # scale and back leaves a rounding error
            return whole.astype(np.uint16)
    return values if values.size else values.astype(np.uint16)


def _draw(position: float, test: float, validation: float, folds: int | None) -> str:
    if position < test:
        return "test"
    if folds:
        return fold_name(int((position - test) / (1 - test) * folds) + 1)
    return "validation" if position < test + (1 - test) * validation else "train"


def identity(source: PatchSource, sha256: str) -> str:
    """Name of a stored part: the scene's hash, its labels' and the split's."""
    text = f"{sha256}:{source.split}:{source.regions}"
    return f"case-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
