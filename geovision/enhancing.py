"""From a scene to one whose coarse bands have the fine ones' resolution, tile by tile, in bounded memory."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geovision.frames import Frame
from geovision.networks import LoadedNetwork
from geovision.rasters import CACHE_BYTES, cloud_optimised, open_raster
from geovision.scene import Scene
from geovision.scenes import Opening
from geovision.sharpening import Sharpening, coarse_offset, filled, to_numbers, wholly_seen
from geovision.tiling import Axis
from shared_backbones.degrading import RMS, WORST, consistent, degrade
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from shared_backbones.inference import LIBRARIES
from shared_backbones.json_values import Entries
from shared_backbones.memory import expect
from shared_backbones.work_folders import work_folder

_SEEN = 256  # side of the window in which repeated values are looked for
_STRIP = 64  # coarse rows that are compared at once
_HALO = 4  # coarse rows above and below them


class Enhancer(LoadedNetwork):
    """A network that sharpens coarse bands, loaded once for many scenes.

    The tile, its overlap and where coarse pixels begin decide the result, and nothing else does.

    Args:
        model: folder of a trained model.
        device: device, as for `LoadedNetwork`.
        threads: CPU threads, as for `LoadedNetwork`.
        precision: number format, as for `LoadedNetwork`.
        engine: engine, as for `LoadedNetwork`.

    Attributes:
        sharpening: what it does.

    Raises:
        InputError: as `LoadedNetwork`; or the model sharpens nothing.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = "torch",
    ) -> None:
        super().__init__(model, device=device, threads=threads, precision=precision, engine=engine)
        self.sharpening = Sharpening.from_card(self.card, self.contract, printable(model))
        self.tile = int(self.contract.tile or 0)
        try:
            expected = (1, len(self.contract.bands), self.tile, self.tile)
            actual = self._measured(self.tile, functools.partial(self, trial=True))
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not run on what its card promises ({reason})") from None
        if actual != expected:
            raise InputError(
                f"model {printable(model)}: gives an output of shape {actual}, expected {expected}; use a model that "
                "was trained to sharpen"
            )

    @property
    def opening(self) -> Opening:
        """How `open_for_model` is to open scenes."""
        return self.sharpening.opening(len(self.contract.bands))

    def memory(self, scene: Scene) -> float:
        """Estimate of the bytes of this machine's memory that `enhance` takes: strips, network and files.

        Args:
            scene: opened with the model's bands.
        """
        bands, coarse, ratio = len(self.contract.bands), len(self.sharpening.coarse), self.sharpening.ratio
        width = scene.shape[1] + 2 * self.tile
        # of a strip: sums, the next ones, and what was read; of a tile: what the network sees, and what is made of it
        strips = width * self.tile * (8 * coarse + 18 * bands)
        tiles = self.tile**2 * 16 * (bands + coarse)
        # of a strip that is compared: what was measured, and what was written, degraded
        rows = min(scene.shape[0], (_STRIP + 2 * _HALO) * ratio)
        compared = width * rows * (14 * bands + 32 * coarse)
        return LIBRARIES + CACHE_BYTES + max(strips + tiles + self._network_bytes(self.tile), compared)

    def enhance(
        self,
        scene: Scene,
        output: Path,
        *,
        bands: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Entries]:
        """Write all bands on the scene's own, fine grid: a cloud-optimised GeoTIFF, float32, NaN where unknown.

        Values are in the bands' unit, such as reflectance. Fine bands are as they were.

        Args:
            scene: opened with the model's bands and as `opening` says: coarse values are repeated.
            output: path of the GeoTIFF.
            bands: names of those to write; by default all.
            tags: noted in the file.
            on_progress: called with tiles done and tiles in all.

        Returns:
            For each coarse band that was written its `name`, and how far the result degraded again is from what was
            measured, as shares of its mean: `rms` and `worst`.

        Raises:
            InputError: a band is unknown, the scene is damaged or would take more memory than the budget, or the file
                cannot be written.
        """
        expect(self.memory(scene), scene.label, "enhancing it")
        chosen, names = self._chosen(bands), self.chosen(bands)
        with work_folder(output.parent) as folder:
            made = folder / "0.tif"
            how = {"nodata": float("nan"), "resampling": "average", "tags": {**(tags or {}), "enhanced": "yes"}}
            offset = self._offset(scene)
            with cloud_optimised(made, scene.grid, "float32", names, **how) as write:
                for row, column, values, valid in self._strips(scene, offset, on_progress):
                    values = values[chosen] * self.contract.scale
                    values[:, ~valid] = np.nan
                    write(row, column, values)
            figures = self._compared(scene, made, chosen, offset)
            with replacing(output) as final:
                os.replace(made, final)
        return figures

    def chosen(self, bands: Sequence[str] | None) -> list[str]:
        """Names of the bands that are written; by default all.

        Raises:
            InputError: a band is unknown, or comes twice.
        """
        return [self.contract.bands[band] for band in self._chosen(bands)]

    def _chosen(self, bands: Sequence[str] | None) -> list[int]:
        if bands is None:
            return list(range(len(self.contract.bands)))
        names = [self.contract.sensor.band(name).name for name in bands]
        unknown = [name for name in names if name not in self.contract.bands]
        if unknown or len(set(names)) < len(names):
            raise InputError(
                f"bands {', '.join(map(printable, bands))}: expected different ones of {', '.join(self.contract.bands)}"
            )
        return [self.contract.bands.index(name) for name in names]

    def _offset(self, scene: Scene) -> tuple[int, int]:
        """Rows and columns before the first whole coarse pixel."""
        height, width = (min(_SEEN, side) for side in scene.shape)
        top, left = ((side - seen) // 2 for side, seen in zip(scene.shape, (height, width), strict=True))
        values, _ = scene.read(top, left, height, width, self.contract.scale)
        ratio = self.sharpening.ratio
        row, column = coarse_offset(torch.from_numpy(values[list(self.sharpening.coarse)]), ratio)
        return (top + row) % ratio, (left + column) % ratio

    def _frame(self, scene: Scene, offset: tuple[int, int]) -> Frame:
        """A frame in which coarse pixels begin at multiples of the ratio, and tiles at multiples of their step."""
        ratio, step = self.sharpening.ratio, self._step
        before = [-place % ratio for place in offset]
        lengths = [start + side for start, side in zip(before, scene.shape, strict=True)]
        padded = [self.tile + -(-max(0, length - self.tile) // step) * step for length in lengths]
        return Frame(scene, before[0], before[1], (padded[0], padded[1]), self.tile)

    @property
    def _step(self) -> int:
        """From one tile to the next: a multiple of the ratio."""
        ratio = self.sharpening.ratio
        return max(ratio, (self.tile - self.sharpening.overlap) // ratio * ratio)

    def _strips(
        self, scene: Scene, offset: tuple[int, int], on_progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Finished rows of the scene: row, column, all bands `(C, h, w)` in the model's numbers, and valid pixels."""
        frame = self._frame(scene, offset)
        overlap = self.tile - self._step
        margin = max(0, (overlap - self.sharpening.ratio) // 2)  # a rim does not know what is beyond it
        rows, columns = (Axis.cover(length, self.tile, overlap, margin) for length in frame.shape)
        count, coarse = len(rows.starts) * len(columns.starts), list(self.sharpening.coarse)
        total = torch.zeros(len(coarse), self.tile, frame.shape[1])
        for i, row in enumerate(rows.starts):
            for j, column in enumerate(columns.starts):
                tile = self._tile(*frame.read(row, column, self.tile, self.tile, self.contract.scale))
                weight = torch.from_numpy(rows.weights[i][:, None] * columns.weights[j])
                total[:, :, column : column + self.tile] += tile * weight
                if on_progress is not None:
                    on_progress(i * len(columns.starts) + j + 1, count)
            done = rows.finished(i) - row
            top, left, height, width = frame.inside(row, 0, done, frame.shape[1])
            if height and width:
                values, valid = scene.read(top - frame.top, left - frame.left, height, width, self.contract.scale)
                values[coarse] = total[:, top - row : top - row + height, left : left + width].numpy()
                yield top - frame.top, left - frame.left, values, valid
            total = torch.cat([total[:, done:], torch.zeros(len(coarse), done, frame.shape[1])], 1)

    def _tile(self, values: np.ndarray, valid: np.ndarray) -> Tensor:
        """The coarse bands of a tile at the fine resolution, `(K, tile, tile)`, consistent with what was measured."""
        what, known = self.sharpening, torch.from_numpy(valid)[None]
        if not valid.any():
            return torch.zeros(len(what.coarse), self.tile, self.tile)
        images = filled(torch.from_numpy(values)[None], known)
        native, _ = what.native(images, torch.ones_like(known))
        output = self(what.input(images, native), torch.ones_like(known)).cpu()
        with torch.inference_mode():
            return consistent(to_numbers(output, self.contract, what.coarse), native, what.ratio, what.mtf)[0]

    def _compared(self, scene: Scene, made: Path, chosen: Sequence[int], offset: tuple[int, int]) -> list[Entries]:
        """How far the written bands, degraded again, are from what was measured; strip by strip."""
        from rasterio.windows import Window

        what, coarse = self.sharpening, [band for band in chosen if band in self.sharpening.coarse]
        if not coarse:
            return []
        ratio, places = what.ratio, [what.coarse.index(band) for band in coarse]
        halo = ratio * _HALO
        squares, worst, sums = (np.zeros(len(coarse)) for _ in range(3))
        pixels = 0
        left, width = offset[1], (scene.shape[1] - offset[1]) // ratio * ratio
        with open_raster(made) as source:
            for row in range(offset[0], scene.shape[0] - ratio + 1, _STRIP * ratio):
                height = min(_STRIP, (scene.shape[0] - row) // ratio) * ratio
                top = row - halo if row >= halo else row
                below = min(halo, (scene.shape[0] - row - height) // ratio * ratio)
                window = (top, left, row - top + height + below, width)
                values, valid = scene.read(*window, self.contract.scale)
                known = torch.from_numpy(valid)[None]
                native, _ = what.native(torch.from_numpy(values)[None], known)
                whole = wholly_seen(known, ratio, what.mtf)[0]
                read = source.read([list(chosen).index(band) + 1 for band in coarse], window=Window(
                    left, top, width, window[2]  # pyright: ignore[reportCallIssue]
                ))  # fmt: skip
                result = filled(torch.from_numpy(read / self.contract.scale)[None].nan_to_num(), known)
                missing = (native[:, places] - degrade(result, ratio, what.mtf))[0]
                first = (row - top) // ratio
                inner = slice(first, first + height // ratio)
                whole, missing, measured = whole[inner], missing[:, inner], native[0, places, inner]
                squares += missing[:, whole].double().square().sum(1).numpy()
                sums += measured[:, whole].double().sum(1).numpy()
                if whole.any():
                    worst = np.maximum(worst, missing[:, whole].abs().amax(1).numpy())
                pixels += int(whole.sum())
        mean = np.maximum(np.abs(sums) / max(pixels, 1), 1e-12)
        rms = np.sqrt(squares / max(pixels, 1)) / mean
        return [
            {
                "name": self.contract.bands[band],
                "rms": float(rms[i]),
                "worst": float(worst[i] / mean[i]),
                "consistent": bool(rms[i] <= RMS and worst[i] / mean[i] <= WORST),
            }
            for i, band in enumerate(coarse)
        ]
