"""From a scene to georeferenced maps, tile by tile, in memory that does not grow with the scene."""

import contextlib
import functools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geovision.certainty import Certainty
from geovision.frames import Frame
from geovision.margins import measure_margin
from geovision.networks import LoadedNetwork
from geovision.rasters import CACHE_BYTES, cloud_optimised
from geovision.scene import Scene
from geovision.tiling import Axis
from shared_backbones.card import Card, ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from shared_backbones.inference import LIBRARIES
from shared_backbones.memory import expect
from shared_backbones.winners import winners
from shared_backbones.work_folders import work_folder

Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]
NODATA = 255
UNKNOWN = "unknown"
"""Name of a class of what looks like none of the others."""
_OUTLINING = 40  # bytes for each pixel of a map while its areas are outlined
_STEP = 32  # by which networks halve their maps at most: 2 ** 5


class Mapper(LoadedNetwork):
    """A network that gives class logits for every pixel, loaded once for many scenes.

    Args:
        model: Folder of a trained model.
        overlap: Fraction of a tile that it has in common with the next, 0 to less than 1. The margin is part of it; in
            what is left, tiles are blended.
        tile: Side of a tile in pixels; by default the card's.
        batch_size: Number of tiles that the network sees at once.
        device: Device, as for `LoadedNetwork`.
        threads: CPU threads, as for `LoadedNetwork`.
        precision: Number format, as for `LoadedNetwork`.
        engine: Engine, as for `LoadedNetwork`.

    Attributes:
        tile: side of a tile in pixels.
        step: tiles start at multiples of it, counted from the origin of the scene's CRS, so that a network that halves
            its maps sees a place in the same phase whatever was cut out.
        margin: pixels along a tile's rim that are thrown away, measured from the network itself.

    Raises:
        InputError: as `LoadedNetwork`; or the network gives no map of its classes, or takes no tiles of that size.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        overlap: float = 0.25,
        tile: int | None = None,
        batch_size: int = 8,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = "torch",
    ) -> None:
        super().__init__(model, device=device, threads=threads, precision=precision, engine=engine)
        if not 0 <= overlap < 1:
            raise InputError(f"overlap is {overlap:g}, expected 0 or more and less than 1")
        if batch_size < 1:
            raise InputError(f"batch size is {batch_size}, expected 1 or more")
        self.overlap, self.batch_size = overlap, batch_size
        self.classes = _classes(self.card, str(model))
        self.tile = tile or self.contract.tile or self.contract.size
        self._check_answer(str(model))
        self.step = min(_STEP, 1 << max(0, (self.tile // 8).bit_length() - 1))
        self.any_size = self._takes(self.tile // 2 // self.step * self.step)
        self.margin = measure_margin(
            self._predict, len(self.contract.bands), self.tile, any_size=self.any_size, step=self.step
        )

    def _check_answer(self, model: str) -> None:
        classes = len(self.classes)
        for size in dict.fromkeys((self.contract.size, self.tile)):
            try:
                if size != self.contract.size:
                    expect(self._network_bytes(size), f"--tile {size}", "the network")
                actual = self._measured(size, functools.partial(self, trial=True))
            except (RuntimeError, ValueError, AssertionError) as error:
                reason = str(error).partition("\n")[0]
                if size != self.contract.size:
                    raise InputError(
                        f"--tile {size}: is none that model {printable(model)} takes ({reason}); leave it out, or give "
                        f"{self.contract.size}"
                    ) from None
                raise InputError(
                    f"model {printable(model)}: does not run on what its card promises ({reason})"
                ) from None
            if actual != (1, classes, size, size):
                raise InputError(
                    f"model {printable(model)}: gives an output of shape {actual}, expected a map of "
                    f"its {classes} classes; use a model that was trained to map"
                )

    def _answer(self, size: int) -> Tensor:
        zeros = torch.zeros(1, len(self.contract.bands), size, size)
        return self(zeros, torch.ones(1, size, size, dtype=torch.bool), trial=True)

    def memory(self, scene: Scene, *, polygons: bool = False) -> float:
        """Estimate of the bytes of this machine's memory that `map` takes: windows, network and files.

        Args:
            scene: opened with the model's bands.
            polygons: Whether the areas of the map are outlined afterwards, for which it is read whole.
        """
        frame = Frame.around(scene, self.tile, self.step, any_size=self.any_size)
        rows, columns = self._axes(frame)
        side, bands, classes = self._side(columns.size), len(self.contract.bands), len(self.classes)
        run = columns.runs(self.batch_size)[0]
        window = rows.size * (columns.starts[run[-1]] + columns.size - columns.starts[0])
        # of a window: two of them as they are read, sums and what they are made of, and how sure each pixel is
        windows = window * (14 * bands + 16 * classes + 24)
        # of its tiles: images before and after they are normalised, logits and probabilities
        tiles = len(run) * side**2 * (12 * bands + 12 * classes)
        outlines = _OUTLINING * math.prod(scene.shape) * polygons
        return LIBRARIES + CACHE_BYTES + max(windows + tiles + self._network_bytes(side, len(run)), outlines)

    def _takes(self, size: int) -> bool:
        try:
            return tuple(self._answer(size).shape) == (1, len(self.classes), size, size)
        except (RuntimeError, ValueError, AssertionError):
            return False

    def _predict(self, images: Tensor) -> Tensor:
        """Probabilities of images that are normalised."""
        with torch.inference_mode():
            return self.network(images.to(self.device)).float().softmax(1)

    def map(
        self,
        scene: Scene,
        output: Path,
        *,
        probabilities: Path | None = None,
        confidence: Path | None = None,
        certainty: Certainty | None = None,
        tags: Mapping[str, str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float]:
        """Write a map of classes, and one of their probabilities, on the scene's own grid.

        Both are cloud-optimised GeoTIFFs with overviews; both appear when both are complete, or none does. Pixels that
        are invalid in the scene have the nodata value: 255, or NaN among the probabilities.

        Args:
            scene: opened with the model's bands.
            output: path of the GeoTIFF of classes, uint8, with names and colours.
            probabilities: path of a GeoTIFF with one float32 band for each class, 0 to 1.
            confidence: path of a GeoTIFF with the probability of the class that was taken, float32.
            certainty: where the same probability is gathered for a picture.
            tags: noted in the files.
            on_progress: called with tiles done and tiles in all.

        Returns:
            Seconds in all, of those spent waiting for the scene (`read`), in the network (`network`), and blending and
            writing (`write`); and for each class `pixels_<id>`, the number of valid ones, and `hectares_<id>`, their
            area on the ground, where the scene's place tells it.

        Raises:
            InputError: the scene is damaged, it would take more memory than the budget, or the disk has no room.
        """
        self._look_through(scene)
        expect(self.memory(scene, polygons=confidence is not None), scene.label, "mapping it")
        height, width = scene.shape
        count = len(self.classes)
        bytes_needed = 2 * height * width * (1 + (4 * count if probabilities else 0) + (4 if confidence else 0))
        _check_room(output.parent, bytes_needed)
        label = f"{self.card.get('name', 'model')} {self.sha256[:12]}"
        noted = {"model": label, "model_sha256": self.sha256, **(tags or {})}
        names = [str(entry["name"]) for entry in self.classes]
        colors = {int(entry["id"]): (*entry["color"], 255) for entry in self.classes}
        seconds: dict[str, float] = dict.fromkeys(("read", "network", "write", "all"), 0.0)
        pixels, areas = np.zeros(count, np.int64), np.zeros(count)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(work_folder(output.parent))
            as_probability = {"dtype": "float32", "nodata": float("nan"), "resampling": "average", "tags": noted}
            classes = {f"class_{entry['id']}": name for entry, name in zip(self.classes, names, strict=True)}
            labels = {"dtype": "uint8", "nodata": NODATA, "resampling": "mode", "tags": {**noted, **classes}}
            wanted: list[tuple[Path, list[str], dict[str, Any]]] = [(output, ["class"], {**labels, "colors": colors})]
            for path, bands in ((probabilities, names), (confidence, ["confidence"])):
                if path is not None:
                    wanted.append((path, bands, as_probability))
            made = [folder / f"{number}.tif" for number in range(len(wanted))]
            with contextlib.ExitStack() as opened:
                targets: dict[Path, Callable[[int, int, np.ndarray], None]] = {
                    path: opened.enter_context(cloud_optimised(place, scene.grid, names=bands, **how))
                    for place, (path, bands, how) in zip(made, wanted, strict=True)
                }
                for row, column, scores, valid in self._blend(scene, folder / "carry", seconds, on_progress):
                    since = time.perf_counter()
                    highest, best = (part.cpu().numpy() for part in winners(scores))
                    pixels += np.bincount(best[valid], minlength=count)
                    area = scene.grid.areas_m2(row, column, *valid.shape)
                    if area is not None:
                        areas += np.bincount(best[valid], area[valid], minlength=count)
                    best[~valid] = NODATA
                    targets[output](row, column, best[None])
                    for path, values in ((probabilities, scores), (confidence, scores.amax(0)[None])):
                        if path is not None:
                            probability = values.cpu().numpy()
                            probability[:, ~valid] = np.nan
                            targets[path](row, column, probability)
                    if certainty is not None:
                        certainty.add(row, column, best, highest, valid)
                    seconds["write"] += time.perf_counter() - since
                since = time.perf_counter()
            seconds["write"] += time.perf_counter() - since  # overviews are made as the writers close
            finals = [stack.enter_context(replacing(path)) for path, _, _ in wanted]
            for place, final in zip(made, finals, strict=True):
                os.replace(place, final)
        seconds["all"] = time.perf_counter() - start
        figures = seconds | {f"pixels_{number}": int(total) for number, total in enumerate(pixels)}
        if scene.grid.gsd_m is not None:
            figures |= {f"hectares_{number}": float(total) / 1e4 for number, total in enumerate(areas)}
        return figures

    def _look_through(self, scene: Scene) -> None:
        """Take the bands that the scene has, where the model takes any."""
        if self.contract.needed:
            self.contract = replace(self.contract, sensor=scene.sensor, bands=tuple(scene.bands))
            self.network.see(self.contract.wavelengths)

    def _blend(
        self, scene: Scene, carry: Path, seconds: dict[str, float], on_progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, int, Tensor, np.ndarray]]:
        """Finished parts of the map: row, column, probabilities `(K, h, w)` and valid pixels `(h, w)`."""
        frame = Frame.around(scene, self.tile, self.step, any_size=self.any_size)
        for row, column, scores, valid in self._blend_framed(frame, carry, seconds, on_progress):
            top, left, height, width = frame.inside(row, column, *valid.shape)
            if height > 0 and width > 0:
                part = slice(top - row, top - row + height), slice(left - column, left - column + width)
                yield top - frame.top, left - frame.left, scores[:, *part], valid[part]

    def _axes(self, frame: Frame) -> tuple[Axis, Axis]:
        """Tiles down and across: at multiples of the step, and so that something is left between two margins."""
        least = 2 * self.margin + max(2, self.step)
        overlap = max(round(self.overlap * frame.tile), least) if self.overlap > 0 or self.margin > 0 else 0
        stride = max(self.step, (frame.tile - overlap) // self.step * self.step)
        rows, columns = (Axis.cover(length, frame.tile, frame.tile - stride, self.margin) for length in frame.shape)
        return rows, columns

    def _blend_framed(
        self, frame: Frame, carry: Path, seconds: dict[str, float], on_progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, int, Tensor, np.ndarray]]:
        rows, columns = self._axes(frame)
        runs = columns.runs(self.batch_size)
        windows = [
            (row, columns.starts[run[0]], rows.size, columns.starts[run[-1]] + columns.size - columns.starts[run[0]])
            for row in rows.starts
            for run in runs
        ]
        with ThreadPoolExecutor(1) as pool, _Carry(carry) as waiting:

            def fetch(number: int) -> Future[tuple[np.ndarray, np.ndarray]]:
                return pool.submit(frame.read, *windows[number], self.contract.scale)

            upcoming = fetch(0)
            for number, (row, column, _, _) in enumerate(windows):
                i, j = divmod(number, len(runs))
                since = time.perf_counter()
                values, valid = upcoming.result()
                if number + 1 < len(windows):
                    upcoming = fetch(number + 1)
                read = time.perf_counter()
                if j == 0:
                    left = None  # what the tiles before gave to the columns that come now
                total = self._run(values, valid, rows.weights[i], columns, runs[j])
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                ran = time.perf_counter()
                seconds["read"] += read - since
                seconds["network"] += ran - read
                if left is not None:
                    total[:, :, : left.shape[2]] += left
                done_rows = rows.finished(i) - row
                done_columns = columns.finished(runs[j][-1]) - column
                left, total = total[:, :, done_columns:].clone(), total[:, :, :done_columns]
                if i:
                    above = waiting.take(j, total.shape[0], rows.starts[i - 1] + rows.size - row, done_columns)
                    total[:, : above.shape[1]] += above.to(total.device)
                waiting.keep(j, total[:, done_rows:])
                seconds["write"] += time.perf_counter() - ran
                yield row, column, total[:, :done_rows], valid[:done_rows, :done_columns]
                if on_progress is not None:
                    on_progress(i * len(columns.starts) + runs[j][-1] + 1, len(rows.starts) * len(columns.starts))

    def _side(self, length: int) -> int:
        """Side of what the network is given for tiles of a length."""
        return length if self.any_size else self.tile

    def _run(
        self, values: np.ndarray, valid: np.ndarray, weights: np.ndarray, columns: Axis, run: Sequence[int]
    ) -> Tensor:
        """Weighted probabilities `(K, h, w)` of tiles side by side; those without a valid pixel are left at 0."""
        first, size = columns.starts[run[0]], self._side(columns.size)
        height, width = valid.shape
        total = torch.zeros(len(self.classes), height, width, device=self.device)
        places = [(tile, columns.starts[tile] - first) for tile in run]
        places = [(tile, at) for tile, at in places if valid[:, at : at + columns.size].any()]
        if not places:
            return total
        images = np.zeros((len(places), len(values), size, size), np.float32)
        known = np.zeros((len(places), size, size), bool)  # where the scene is smaller than a tile, the rest is unknown
        for number, (_, at) in enumerate(places):
            images[number, :, :height, : columns.size] = values[:, :, at : at + columns.size]
            known[number, :height, : columns.size] = valid[:, at : at + columns.size]
        logits = self(torch.from_numpy(images), torch.from_numpy(known))
        probabilities = logits.softmax(1)[:, :, :height, : columns.size]
        down = torch.from_numpy(weights).to(self.device)[:, None]
        across = torch.from_numpy(columns.weights).to(self.device)
        for number, (tile, at) in enumerate(places):
            total[:, :, at : at + columns.size] += probabilities[number] * (down * across[tile])
        return total


class _Carry:
    """Sums that the next row of tiles completes: they wait in a file, so that a wide scene takes no memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.offsets, self.end = path, {}, 0

    def __enter__(self) -> "_Carry":
        self.file = self.path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def keep(self, place: int, sums: Tensor) -> None:
        content = sums.cpu().contiguous().numpy()
        # the last row of tiles may overlap more than the others: then the part moves to the file's end
        if place not in self.offsets or self.offsets[place][1] < content.nbytes:
            self.offsets[place] = (self.end, content.nbytes)
            self.end += content.nbytes
        self.file.seek(self.offsets[place][0])
        self.file.write(content.data)

    def take(self, place: int, *shape: int) -> Tensor:
        self.file.seek(self.offsets[place][0])
        content = bytearray(self.file.read(4 * shape[0] * shape[1] * shape[2]))
        return torch.frombuffer(content, dtype=torch.float32).view(shape) if content else torch.zeros(shape)


def _classes(card: Card, model: str) -> list[ClassEntry]:
    try:
        classes = list(card["classes"])
        if [entry["id"] for entry in classes] != list(range(len(classes))) or not 2 <= len(classes) <= NODATA:
            raise ValueError(f"classes must be numbered 0, 1, ... in order, from 2 to {NODATA} of them")
        for entry in classes:
            if len(entry["color"]) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in entry["color"]):
                raise ValueError(f"color of {entry['name']} is {entry['color']}, expected three numbers from 0 to 255")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"model {printable(model)}: its card is of no model that maps ({error})") from None
    return classes


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{printable(folder)}: the map takes up to {needed / 2**30:.1f} GiB while it is made, but "
            f"{free / 2**30:.1f} GiB are free; make room, or choose another output folder"
        )
