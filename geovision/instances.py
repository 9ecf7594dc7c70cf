"""From a scene to its single objects, tile by tile: a raster of their numbers, and what each of them is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geovision.frames import Frame
from geovision.networks import LoadedNetwork
from geovision.rasters import CACHE_BYTES, cloud_optimised
from geovision.scene import Scene
from geovision.tiling import Axis
from shared_backbones.card import ClassEntry
from shared_backbones.engines import TORCH
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from shared_backbones.inference import LIBRARIES
from shared_backbones.json_values import Document
from shared_backbones.memory import expect
from shared_backbones.networks.mask_queries import MaskQueries, panoptic
from shared_backbones.work_folders import work_folder

_STEP = 32  # pixels at whose multiples tiles start
_SAME = 0.5  # share of their pixels that two parts of one object have in common, where both tiles have seen them
_OUTLINING = 40  # bytes for each pixel of a raster while its objects are outlined
_ROWS = 512  # that are looked at together


@dataclass(frozen=True)
class Objects:
    """What was found in a scene: object number n of the raster has place n - 1.

    Attributes:
        classes: class of each, `(N,)` int64.
        scores: highest probability of the class that a tile gave, `(N,)`.
        pixels: number of its pixels, `(N,)` int64.
        areas_m2: its area on the ground, `(N,)`; None where the scene has no place.
    """

    classes: np.ndarray
    scores: np.ndarray
    pixels: np.ndarray
    areas_m2: np.ndarray | None


class InstanceMapper(LoadedNetwork):
    """A network of mask queries, loaded once for many scenes.

    Args:
        model: Folder of a trained model.
        overlap: Share of a tile that the next one sees again, 0 to 0.9; by default the card's.
        device: Device, as for `LoadedNetwork`.
        threads: CPU threads, as for `LoadedNetwork`.
        precision: Number format, as for `LoadedNetwork`.
        engine: `torch` alone.

    Attributes:
        tile: Side of a tile in pixels.
        classes: Classes of the objects.

    Raises:
        InputError: as `LoadedNetwork`; or the model finds no objects.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        overlap: float | None = None,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = TORCH,
    ) -> None:
        if engine != TORCH:
            raise InputError(f"engine {engine}: objects are found by {TORCH} alone; leave it out")
        super().__init__(model, device=device, threads=threads, precision=precision)
        about = finds_objects(self.card)
        if about is None or not hasattr(self.network, "predict"):
            raise InputError(f"model {printable(model)}: finds no single objects; use one that was trained to")
        try:
            self.threshold = float(about["threshold"])
            self.overlap = float(about["overlap"]) if overlap is None else overlap
            self.classes: list[ClassEntry] = [{**entry, "name": str(entry["name"])} for entry in self.card["classes"]]
            if not (0 <= self.threshold <= 1 and 0 <= self.overlap <= 0.9 and self.classes):
                raise ValueError(f"threshold is {self.threshold:g}, overlap {self.overlap:g}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"model {printable(model)}: its card cannot be used ({error}); choose another") from None
        self.tile = self.contract.tile or self.contract.size
        try:
            self._measured(self.tile, lambda numbers, _: self._queries(numbers).masks)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not run on what its card promises ({reason})") from None

    def map(
        self,
        scene: Scene,
        output: Path,
        *,
        outlines: bool = False,
        tags: Mapping[str, str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Objects, dict[str, float]]:
        """Write the raster of the objects' numbers on the scene's own grid, uint32, 0 where there is none.

        Tiles overlap. Parts of one class are one object where they share more than half of the pixels that both tiles
        see (intersection over union). Pixels stay with the first object that they were given to; a part of which other
        objects have more than half is left out.

        Args:
            scene: Opened with the model's bands.
            output: Path of the GeoTIFF.
            outlines: Whether the objects are outlined afterwards, for which the raster is read whole.
            tags: Noted in it.
            on_progress: Called with tiles done and tiles in all.

        Returns:
            The objects, and seconds in all and in the network.

        Raises:
            InputError: the scene is damaged, it would take more memory than the budget, or the disk has no room.
        """
        expect(self.memory(scene, outlines=outlines), scene.label, "finding its objects")
        seconds, start = {"network": 0.0}, time.perf_counter()
        noted = {"model": f"{self.card.get('name', 'model')} {self.sha256[:12]}", "model_sha256": self.sha256}
        with work_folder(output.parent) as folder:
            numbers = np.memmap(folder / "numbers", np.uint32, "w+", shape=scene.shape)
            joined = _Joined(numbers)
            for part in self._tiles(scene, seconds, on_progress):
                joined.add(part)
            objects, order = joined.objects(scene)
            made = folder / "map.tif"
            how = {"nodata": 0, "resampling": "nearest", "tags": {**noted, **(tags or {})}}
            with cloud_optimised(made, scene.grid, "uint32", ["object"], **how) as write:
                for row in range(0, scene.shape[0], _ROWS):
                    write(row, 0, order[numbers[row : row + _ROWS]][None])
            with replacing(output) as final:
                made.replace(final)
        return objects, {**seconds, "all": time.perf_counter() - start}

    def memory(self, scene: Scene, *, outlines: bool = False) -> float:
        """Estimate of the bytes of this machine's memory that `map` takes; the numbers of all pixels are in a file.

        Args:
            scene: Opened with the model's bands.
            outlines: Whether the objects are outlined afterwards.
        """
        queries = self.card["arguments"].get("num_queries", 100)
        tile = self.tile**2 * (12 * len(self.contract.bands) + 12 * queries) + self._network_bytes(self.tile)
        height, width = scene.shape
        return LIBRARIES + CACHE_BYTES + max(tile, _ROWS * width * 24, _OUTLINING * height * width * outlines)

    def _queries(self, numbers: torch.Tensor, valid: torch.Tensor | None = None) -> MaskQueries:
        """Queries of the last layer for images `(B, C, H, W)` in the model's numbers, with masks of their size."""
        known = torch.ones(len(numbers), *numbers.shape[2:], dtype=torch.bool) if valid is None else valid
        images = self.contract.normalise(numbers.to(self.device), known.to(self.device))
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            last = self.network.predict(images)[-1]
        return MaskQueries(last.classes.float(), last.masks.float()).resized(images.shape[2:])

    def _tiles(
        self, scene: Scene, seconds: dict[str, float], on_progress: Callable[[int, int], None] | None
    ) -> "Iterator[_Part]":
        """What the network says of each tile's part of the scene, row by row."""
        step = min(_STEP, self.tile)
        frame = Frame.around(scene, self.tile, step, any_size=False)
        stride = max(step, round(self.tile * (1 - self.overlap)) // step * step)
        rows, columns = (Axis.cover(length, self.tile, self.tile - stride).starts for length in frame.shape)
        for done, (i, j) in enumerate(np.ndindex(len(rows), len(columns)), 1):
            row, column = rows[i], columns[j]
            top, left, height, width = frame.inside(row, column, self.tile, self.tile)
            values, valid = frame.read(row, column, self.tile, self.tile, self.contract.scale)
            if valid.any():
                since = time.perf_counter()
                queries = self._queries(torch.from_numpy(values)[None], torch.from_numpy(valid)[None])
                things = range(len(self.classes))
                (answer,) = panoptic(queries, things=things, object_threshold=self.threshold)
                seconds["network"] += time.perf_counter() - since
                seen = np.zeros((self.tile, self.tile), bool)
                seen[: rows[i - 1] + self.tile - row if i else 0] = True
                seen[:, : columns[j - 1] + self.tile - column if j else 0] = True
                inside = slice(top - row, top - row + height), slice(left - column, left - column + width)
                yield _Part(
                    top - frame.top,
                    left - frame.left,
                    (answer.segments.cpu().numpy() * valid)[inside],
                    seen[inside],
                    answer.classes.tolist(),
                    answer.scores.tolist(),
                )
            if on_progress is not None:
                on_progress(done, len(rows) * len(columns))


@dataclass(frozen=True)
class _Part:
    """Segments of a tile, within the scene.

    Attributes:
        row: First row in the scene.
        column: First column in the scene.
        segments: Number of each pixel's segment, from 1, `(h, w)`; 0 for none.
        seen: Pixels that earlier tiles have seen, `(h, w)`.
        classes: Class of each segment.
        scores: Probability of that class.
    """

    row: int
    column: int
    segments: np.ndarray
    seen: np.ndarray
    classes: Sequence[int]
    scores: Sequence[float]


class _Joined:
    """Objects so far.

    Args:
        numbers: Number of each pixel's object in the scene, from 1, 0 for none; it is filled.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self.classes: list[int] = []
        self.scores: list[float] = []

    def add(self, part: _Part) -> None:
        """Join a tile's segments with the objects that earlier tiles have found, or add new ones."""
        height, width = part.segments.shape
        place = self.numbers[part.row : part.row + height, part.column : part.column + width]
        given = np.zeros(len(part.classes) + 1, np.uint32)
        for segment, (kind, score) in enumerate(zip(part.classes, part.scores, strict=True), 1):
            mask = part.segments == segment
            number = self._same(place, mask & part.seen, part.seen, kind)
            if number:
                self.scores[number - 1] = max(self.scores[number - 1], score)
            elif np.count_nonzero(place[mask]) <= _SAME * np.count_nonzero(mask):
                self.classes.append(kind)
                self.scores.append(score)
                number = len(self.classes)
            given[segment] = number
        free = place == 0
        place[free] = given[part.segments[free]]

    def _same(self, place: np.ndarray, mask: np.ndarray, seen: np.ndarray, kind: int) -> int:
        """Number of the object of a class whose pixels, of those that were seen before, are mostly a segment's."""
        known, shared = np.unique(place[mask], return_counts=True)
        for number, both in zip(known.tolist(), shared.tolist(), strict=True):
            if number and self.classes[number - 1] == kind:
                either = np.count_nonzero(mask) + np.count_nonzero((place == number) & seen) - both
                if both > _SAME * either:
                    return number
        return 0

    def objects(self, scene: Scene) -> tuple[Objects, np.ndarray]:
        """The objects that have a pixel, and the final number of each number of the raster."""
        pixels, areas = np.zeros(len(self.classes) + 1, np.int64), np.zeros(len(self.classes) + 1)
        ground: np.ndarray | None = None
        for row in range(0, self.numbers.shape[0], _ROWS):
            part = self.numbers[row : row + _ROWS]
            pixels += np.bincount(part.ravel(), minlength=len(pixels))
            ground = scene.grid.areas_m2(row, 0, *part.shape)
            if ground is not None:
                areas += np.bincount(part.ravel(), ground.ravel(), len(pixels))
        kept = np.flatnonzero(pixels[1:])
        order = np.zeros(len(pixels), np.uint32)
        order[1 + kept] = np.arange(1, len(kept) + 1)
        objects = Objects(
            np.array(self.classes, np.int64)[kept],
            np.array(self.scores, np.float64)[kept],
            pixels[1 + kept],
            None if ground is None else areas[1 + kept],
        )
        return objects, order


def finds_objects(card: Document) -> Document | None:
    """What a card says of a model that finds single objects: `threshold` and `overlap`; None of another model."""
    about = card.get("instances")
    return about if isinstance(about, dict) else None
