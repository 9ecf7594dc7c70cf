"""A scene that is open: its bands on one grid, read window by window."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.clouds import cloudy
from geovision.contract import InputContract
from geovision.files import archive_of
from geovision.grids import Grid, crs_name, georeferences, grid_of, placing
from geovision.products import Layer
from geovision.rasters import ALONE, CACHE_BYTES, check_real, open_raster, read_values, reading
from geovision.sensors import CLASS, RANGES, REFLECTANCE, Sensor
from geovision.side_files import side_files, vrt_sources
from geovision.warping import Laid
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.io import DatasetReader

_SAMPLE = 512  # side in pixels of what is looked at before work begins
_ODD_SHARE = 0.02  # of the sampled values that may lie outside the unit's range


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How files are laid on one grid.

    Attributes:
        crs: CRS of files that have none.
        georeference: `gcps` or `rpcs`, to lay files by their ground control points or rational polynomials.
        reproject: whether files in another CRS are laid on the finest one's grid, in place of refusing them.
        nearest: whether values of coarser files are repeated, in place of interpolated.
        finer: pixels along each axis that the finest file's pixel is divided into.
    """

    crs: str | None = None
    georeference: str | None = None
    reproject: bool = False
    nearest: bool = False
    finer: int = 1


class Scene:
    """A scene that is open for reading; a context manager that closes it.

    Attributes:
        label: its path, fit to be shown on a terminal.
        sensor: whose bands it has.
        layers: the bands, in the order in which they are read.
        grid: grid of the finest of them; the others are resampled to it (bilinear, or nearest where asked for).
        reprojected: CRS of the bands that were in another one, by their names.
        clouds: name of the raster by which clouds are made invalid; None where they are not.
        warnings: what a user should know of it.
    """

    def __init__(
        self,
        label: str,
        sensor: Sensor,
        layers: Sequence[Layer],
        placing: Placing,
        clouds: Layer | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        self.label, self.sensor, self.layers = label, sensor, list(layers)
        self.warnings: list[str] = list(warnings)
        self.reprojected: dict[str, str] = {}
        self._nearest = placing.nearest
        self.clouds = None if clouds is None else clouds.band
        self._cloud_layer = clouds
        rasterio = require("rasterio", "geo")
        self._stack = contextlib.ExitStack()
        self._sources: dict[Path, DatasetReader] = {}
        self._laid: dict[Path, Laid] = {}
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **ALONE))
        try:
            self._open(placing)
        except BaseException:
            self.close()
            raise

    def _open(self, how: Placing) -> None:
        every = [*self.layers, *([self._cloud_layer] if self._cloud_layer else [])]
        for path in dict.fromkeys(layer.path for layer in every):
            self._sources[path] = self._stack.enter_context(open_raster(path))
            check_real(self._sources[path], path)
        grids = {}
        for path, source in self._sources.items():
            try:
                grids[path] = grid_of(source, how.crs, how.georeference)
            except InputError as error:
                raise InputError(f"{printable(path)}: {error}") from None
        own = {layer.path for layer in self.layers}
        self.grid: Grid = min((grid for path, grid in grids.items() if path in own), key=lambda grid: grid.pixel_size)
        if how.finer > 1:
            self.grid = self.grid.divided(how.finer)
        for path, grid in grids.items():
            self._check_crs(path, grid, how)
            source = self._sources[path]
            if how.georeference is not None:
                plain = Grid(None, source.transform.identity(), source.height, source.width)
                self._laid[path] = Laid(source, plain, self.grid, placing(source, how.georeference))
            elif not grid.same(self.grid):
                self._laid[path] = Laid(source, grid, self.grid)
        self._tell_georeferences(how)

    def _check_crs(self, path: Path, grid: Grid, how: Placing) -> None:
        if grid.crs == self.grid.crs:
            return
        if how.reproject and grid.on_earth and self.grid.on_earth:
            self.reprojected |= {layer.band: crs_name(grid.crs) for layer in self.layers if layer.path == path}
            return
        raise InputError(
            f"{printable(path)}: has CRS {crs_name(grid.crs)}, another file of the scene "
            f"{crs_name(self.grid.crs)}; expected one for all: reproject it, for example with gdalwarp -t_srs"
        )

    def _tell_georeferences(self, how: Placing) -> None:
        source = self._sources[self.layers[0].path]
        if how.georeference is None and self.grid.crs is None:
            self.warnings += [
                f"has {what}, which were not used; --georeference {kind} lays it by them"
                for kind, what in georeferences(source).items()
            ]

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    @property
    def bands(self) -> list[str]:
        """Names of the bands."""
        return [layer.band for layer in self.layers]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.grid.height, self.grid.width

    def sha256(self) -> str:
        """SHA-256 of the contents of all files that are read, side files and sources of VRTs too, sorted by name."""
        files: set[Path] = set()
        for path, source in self._sources.items():
            parts = [path, *(vrt_sources(path) if source.driver == "VRT" else ())]
            files |= {archive_of(part) or part for own in parts for part in (own, *side_files(own))}
        digest = hashlib.sha256()
        for path in sorted(files):
            with reading(path), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def read(
        self,
        row: int,
        column: int,
        height: int,
        width: int,
        scale: float = 1.0,
        bands: Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values of a window.

        Args:
            row: first row of the window, which lies inside the scene.
            column: first column of the window.
            height: number of rows of the window.
            width: number of columns of the window.
            scale: values are divided by it: with 0.0001, reflectance becomes reflectance x 10000.
            bands: names of the bands to read; by default all.

        Returns:
            `(C, height, width)` float32, 0 where invalid, and `(height, width)` bool: True where, in every band, all
            that a value was made of is valid. A stored number is valid where it is finite and no nodata value, and the
            file's mask bands and alpha bands are above 0. Clouds are invalid where they are to be masked.

        Raises:
            InputError: the file is damaged there.
        """
        return self._read((row, column, height, width), (height, width), scale, bands)

    def sample(self, longest: int = _SAMPLE, bands: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The whole scene in at most so many pixels a side (nearest), as `read` gives it, in the bands' units."""
        reduction = max(1.0, max(self.shape) / longest)
        height, width = (max(1, round(side / reduction)) for side in self.shape)
        return self._read((0, 0, *self.shape), (height, width), 1.0, bands)

    def cloud_fraction(self) -> float | None:
        """How much of a sample of the scene are clouds that are masked; None where none are."""
        if self._cloud_layer is None:
            return None
        reduction = max(1.0, max(self.shape) / _SAMPLE)
        height, width = (max(1, round(side / reduction)) for side in self.shape)
        flags, known = self._numbers([self._cloud_layer], (0, 0, *self.shape), (height, width), nearest=True)
        return float(cloudy(self._cloud_layer.band, flags[0])[known[0]].mean()) if known.any() else None

    def _read(
        self,
        window: tuple[int, int, int, int],
        shape: tuple[int, int],
        scale: float,
        bands: Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        layers = self.layers if bands is None else [self.layers[self.bands.index(band)] for band in bands]
        values = np.empty((len(layers), *shape), np.float32)
        valid = np.ones(shape, bool)
        for path in dict.fromkeys(layer.path for layer in layers):
            for classes in (False, True):
                places = [
                    place
                    for place, layer in enumerate(layers)
                    if layer.path == path and (layer.unit == CLASS) == classes
                ]
                if not places:
                    continue
                nearest = classes or self._nearest
                raw, known = self._numbers([layers[place] for place in places], window, shape, nearest=nearest)
                valid &= known.all(0)
                for place, plane in zip(places, raw, strict=True):
                    layer = layers[place]
                    factor = 1.0 if classes else layer.scale / scale
                    np.multiply(plane, np.float32(factor), out=values[place], casting="unsafe")
                    if layer.offset:
                        values[place] += np.float32(layer.offset / scale)
        if self._cloud_layer is not None:
            flags, known = self._numbers([self._cloud_layer], window, shape, nearest=True)
            valid &= ~(cloudy(self._cloud_layer.band, flags[0]) & known[0])
        valid &= np.isfinite(values).all(0)
        values[:, ~valid] = 0
        return values, valid

    def _numbers(
        self, layers: Sequence[Layer], window: tuple[int, int, int, int], shape: tuple[int, int], nearest: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stored numbers of layers of one file and where they are valid, `(C, H, W)` each."""
        path = layers[0].path
        numbers, nodata = [layer.index for layer in layers], [layer.nodata for layer in layers]
        with reading(path):
            if path in self._laid:
                return self._laid[path].read(numbers, nodata, window, shape, nearest)
            from rasterio.windows import Window

            row, column, height, width = window
            part = Window(column, row, width, height)  # pyright: ignore
            return read_values(self._sources[path], numbers, nodata, part, None if shape == (height, width) else shape)

    def check_range(self) -> None:
        """Look at a sample of the values.

        Raises:
            InputError: too many lie where no value of their unit can, or reflectances are all next to nothing.
        """
        values, valid = self.sample()
        if not valid.any():
            self.warnings.append("no valid pixel in a sample of the scene")
            return
        brightest: float | None = None
        for layer, plane in zip(self.layers, values, strict=True):
            if layer.unit == CLASS:
                continue
            low, high = RANGES[layer.unit]
            measured = plane[valid]
            if np.mean((measured < low) | (measured > high)) > _ODD_SHARE:
                raise InputError(
                    f"{self.label}: {layer.band} has values from {measured.min():.4g} to {measured.max():.4g}; "
                    f"expected {low:g} to {high:g} ({layer.unit}); give the --scale (and --offset) by which stored "
                    "numbers become values"
                )
            if layer.unit == REFLECTANCE:
                peak = float(np.percentile(measured, 99.9))
                brightest = peak if brightest is None else max(brightest, peak)
        if brightest and brightest < 0.002:
            raise InputError(
                f"{self.label}: all reflectances are below {brightest:.2g}; the stored numbers seem to be reflectances "
                "already: give --scale 1 --offset 0"
            )

    def check(self, contract: InputContract, *, any_resolution: bool = False) -> None:
        """Whether a model can be used on this scene, which was opened with the model's bands.

        Raises:
            InputError: the unit, the resolution or the CRS does not suit, or the values are not of their unit.
        """
        for layer in self.layers:
            if layer.unit != contract.unit:
                raise InputError(
                    f"{self.label}: {layer.band} is in {layer.unit}, the model expects {contract.unit}; give the "
                    "--scale (and --offset) that makes it so, or a product that states them"
                )
        if contract.gsd_m is not None and not any_resolution:
            sides = self.grid.gsd_sides_m
            if sides is None:
                raise InputError(
                    f"{self.label}: CRS {crs_name(self.grid.crs)} has no metres, and the model was trained at "
                    f"{contract.gsd_m:g} m; give it with --crs EPSG:CODE (or --georeference), or "
                    "pass --any-resolution"
                )
            if not all(0.9 < side / contract.gsd_m < 1.1 for side in sides):
                raise InputError(
                    f"{self.label}: pixels of {metres(sides)}, the model was trained at {contract.gsd_m:g} m on the "
                    "ground; resample the scene (gdalwarp -t_srs, -tr), or pass --any-resolution"
                )
        self.check_range()


def metres(sides: tuple[float, float]) -> str:
    """Width and height of a pixel, as one number where they are alike."""
    across, down = sides
    return f"{across:.4g} m" if abs(across / down - 1) < 0.01 else f"{across:.4g} x {down:.4g} m"
