"""Scenes: GeoTIFFs and per-band products, read window by window, their bands known by name and their values by unit."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from geovision.contract import InputContract
from geovision.grids import Grid, crs_name, grid_of
from geovision.products import ENDINGS, Layer, find_layers, is_product
from geovision.rasters import CACHE_BYTES, open_raster, reading
from geovision.sensors import DIGITAL_NUMBER, RANGES, REFLECTANCE, Sensor, find_sensor, recognise
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader
    from rasterio.vrt import WarpedVRT
    from rasterio.windows import Window

    Source = DatasetReader | WarpedVRT

_SAMPLE = 512  # side in pixels of what is looked at before work begins
_ODD_SHARE = 0.02  # of the sampled values that may lie outside the unit's range


class Scene:
    """A scene that is open for reading; a context manager that closes it.

    Attributes:
        label: its path, fit to be shown on a terminal.
        sensor: whose bands it has.
        layers: the bands, in the order in which they are read.
        grid: grid of the finest of them; the others are resampled to it (bilinear).
        reprojected: CRS of the bands that were in another one, by their names.
        warnings: what a user should know of it.
    """

    def __init__(
        self, label: str, sensor: Sensor, layers: Sequence[Layer], crs: str | None = None, reproject: bool = False
    ) -> None:
        self.label, self.sensor, self.layers = label, sensor, list(layers)
        self.warnings: list[str] = []
        self.reprojected: dict[str, str] = {}
        rasterio = require("rasterio", "geo")
        self._stack = contextlib.ExitStack()
        self._sources: dict[Path, Source] = {}
        # Other files beside a scene, such as georeferences of other programs, are read: GDAL's own way.
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        try:
            self._open(crs, reproject)
        except BaseException:
            self.close()
            raise

    def _open(self, crs: str | None, reproject: bool) -> None:
        for path in dict.fromkeys(layer.path for layer in self.layers):
            self._sources[path] = self._stack.enter_context(open_raster(path))
        grids = {path: grid_of(source, crs) for path, source in self._sources.items()}
        self.grid: Grid = min(grids.values(), key=lambda grid: grid.pixel_size)
        for path, grid in grids.items():
            if grid.crs != self.grid.crs and reproject and grid.crs is not None and self.grid.crs is not None:
                self.reprojected |= {layer.band: crs_name(grid.crs) for layer in self.layers if layer.path == path}
            elif grid.crs != self.grid.crs:
                raise InputError(
                    f"{printable(path)}: has CRS {crs_name(grid.crs)}, another file of the scene "
                    f"{crs_name(self.grid.crs)}; expected one for all: reproject it, for example with gdalwarp -t_srs"
                )
            if not grid.same(self.grid):
                self._sources[path] = self._resampled(self._sources[path], grid.crs)

    def _resampled(self, source: "Source", crs: "CRS | None") -> "WarpedVRT":
        from rasterio.enums import Resampling
        from rasterio.vrt import WarpedVRT

        grid = self.grid
        options = {"nodata": source.nodata} if source.nodata is not None else {"add_alpha": True}
        return self._stack.enter_context(
            WarpedVRT(
                source, src_crs=crs, crs=grid.crs, transform=grid.transform, height=grid.height, width=grid.width,
                resampling=Resampling.bilinear, tolerance=0.001, **options,
            )
        )  # fmt: skip

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
        """SHA-256 of the files' contents, in the order of their names."""
        digest = hashlib.sha256()
        for path in sorted(self._sources):
            with reading(path), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def read(self, row: int, column: int, height: int, width: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Values of a window.

        Args:
            row: first row of the window, which lies inside the scene.
            column: first column of the window.
            height: number of rows of the window.
            width: number of columns of the window.
            scale: values are divided by it: with 0.0001, reflectance becomes reflectance x 10000.

        Returns:
            `(C, height, width)` float32, 0 where invalid, and `(height, width)` bool: True where no band has its
            nodata value, a mask or a number that is not finite.

        Raises:
            InputError: the file is damaged there.
        """
        from rasterio.windows import Window

        return self._read(Window(column, row, width, height), (height, width), scale)  # pyright: ignore

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """The whole scene in at most 512 pixels a side (nearest), as `read` gives it, in the bands' units."""
        reduction = max(1.0, max(self.shape) / _SAMPLE)
        shape = tuple(max(1, round(side / reduction)) for side in self.shape)
        return self._read(None, shape, 1.0)

    def _read(self, window: "Window | None", shape: tuple[int, ...], scale: float) -> tuple[np.ndarray, np.ndarray]:
        values = np.empty((len(self.layers), *shape), np.float32)
        valid = np.ones(shape, bool)
        for path, source in self._sources.items():
            places = [place for place, layer in enumerate(self.layers) if layer.path == path]
            numbers = [self.layers[place].index for place in places]
            with reading(path):
                raw = source.read(numbers, out_shape=(len(numbers), *shape), window=window)
                for number in numbers:
                    if not _all_valid(source, number):
                        valid &= source.read_masks(number, out_shape=shape, window=window) > 0
            for place, plane in zip(places, raw, strict=True):
                layer = self.layers[place]
                if layer.nodata is not None:
                    valid &= plane != layer.nodata
                np.multiply(plane, np.float32(layer.scale / scale), out=values[place], casting="unsafe")
                if layer.offset:
                    values[place] += np.float32(layer.offset / scale)
        valid &= np.isfinite(values).all(0)
        values[:, ~valid] = 0
        return values, valid

    def check_range(self) -> None:
        """Look at a sample of the values.

        Raises:
            InputError: too many lie where no value of their unit can, or reflectances are all next to nothing.
        """
        values, valid = self.sample()
        if not valid.any():
            self.warnings.append("no valid pixel in a sample of the scene")
            return
        brightest = 0.0
        for layer, plane in zip(self.layers, values, strict=True):
            low, high = RANGES[layer.unit]
            measured = plane[valid]
            if np.mean((measured < low) | (measured > high)) > _ODD_SHARE:
                raise InputError(
                    f"{self.label}: {layer.band} has values from {measured.min():.4g} to {measured.max():.4g}; "
                    f"expected {low:g} to {high:g} ({layer.unit}); give the --scale (and --offset) by which stored "
                    "numbers become values"
                )
            if layer.unit == REFLECTANCE:
                brightest = max(brightest, float(np.percentile(measured, 99.9)))
        if 0 < brightest < 0.002 and any(layer.unit == REFLECTANCE for layer in self.layers):
            raise InputError(
                f"{self.label}: all reflectances are below {brightest:.2g}; the stored numbers seem to be reflectances "
                "already: give --scale 1"
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
            gsd_m = self.grid.gsd_m
            if gsd_m is None:
                raise InputError(
                    f"{self.label}: CRS {crs_name(self.grid.crs)} has no metres, and the model was trained at "
                    f"{contract.gsd_m:g} m; reproject the scene (gdalwarp -t_srs, -tr), or pass --any-resolution"
                )
            if not 0.9 < gsd_m / contract.gsd_m < 1.1:
                raise InputError(
                    f"{self.label}: pixels of {gsd_m:.4g} m, the model was trained at {contract.gsd_m:g} m; resample "
                    "the scene (gdalwarp -tr), or pass --any-resolution"
                )
        self.check_range()


def open_scene(
    path: str | Path,
    *,
    sensor: str | None = None,
    bands: Sequence[str] | None = None,
    wanted: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    crs: str | None = None,
    reproject: bool = False,
) -> Scene:
    """Open a scene.

    Args:
        path: a GeoTIFF (COG) or JPEG 2000 file, or a folder: a Landsat product (with its MTL file), a Sentinel-2
            product, or one file for each band.
        sensor: its name; needed where the names of the bands leave several.
        bands: names of the file's bands, in order, where the file does not say them.
        wanted: names of the bands to read, in order; by default all that have a name.
        scale: value = stored number * scale + offset, for all bands; by default what the file, the product's metadata
            or the sensor says, in this order.
        offset: number added after `scale`.
        crs: coordinate reference system for a file that has none, such as `EPSG:32633`.
        reproject: lay files that are in another CRS on the finest one's grid, in place of refusing them.

    Raises:
        InputError: the file cannot be read, bands have no or the same name, or a wanted one is not there.
    """
    path = Path(path)
    label = printable(path)
    require("rasterio", "geo")
    known = find_sensor(sensor) if sensor else None
    product = find_layers(path, known, bands)
    names = [layer.band for layer in product.layers]
    known = known or product.sensor or recognise(names)
    if known is None:
        raise InputError(
            f"{label}: bands {', '.join(map(printable, names))} could be of several sensors; give --sensor"
        )
    layers = []
    for layer in product.layers:
        member = known.find(layer.band)
        if member is not None:
            layers.append(replace(layer, band=member.name, unit=layer.unit or _unit(known, layer, member.unit, scale)))
        elif wanted is None:
            raise InputError(
                f"{label}: band {printable(layer.band)} is none of sensor {known.name}, which has "
                f"{', '.join(known.names())}; give --sensor or --bands"
            )
    repeated = [name for name, count in Counter(layer.band for layer in layers).items() if count > 1]
    if repeated:
        raise InputError(f"{label}: has band {repeated[0]} more than once; expected each once: remove one of them")
    if wanted is not None:
        by_name = {layer.band: layer for layer in layers}
        missing = [name for name in wanted if name not in by_name]
        if missing:
            raise InputError(
                f"{label}: lacks {', '.join(missing)} of {known.name}; found {', '.join(by_name) or 'none'}; give a "
                "scene that has them, or --bands if they are there under other names"
            )
        layers = [by_name[name] for name in wanted]
    factors = [_scaled(layer, known, scale, offset) for layer in layers]
    return Scene(label, known, factors, crs, reproject)


class Opening(TypedDict, total=False):
    """Options of `open_scene` that a user may give for a model's scene, too."""

    bands: Sequence[str] | None
    scale: float | None
    offset: float | None
    crs: str | None
    reproject: bool


def open_for_model(
    path: str | Path, contract: InputContract, *, sensor: str | None = None, **options: Unpack[Opening]
) -> Scene:
    """Open a scene with a model's bands, in the model's order.

    Args:
        path: a file or product, as for `open_scene`.
        contract: input contract of the model.
        sensor: name of the scene's sensor; a model of another one is refused.
        options: Options of `open_scene`: `bands`, `scale`, `offset`, `crs` and `reproject`.

    Raises:
        InputError: as `open_scene`; or the scene is of another sensor than the model's.
    """
    scene = open_scene(path, sensor=sensor, wanted=None, **options) if sensor is None else None
    known = scene.sensor if scene is not None else find_sensor(str(sensor))
    if scene is not None:
        scene.close()
    if known.name != contract.sensor.name:
        raise InputError(
            f"{printable(path)}: is of sensor {known.name}, the model of {contract.sensor.name}; use a model of that "
            f"sensor, or pass --sensor {contract.sensor.name} if the scene really is of it"
        )
    return open_scene(path, sensor=known.name, wanted=contract.bands, **options)


def find_scenes(path: Path) -> list[Path]:
    """Scenes at a path: itself, the product that a folder is, or the raster files and products in it, by name.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir() or is_product(path):
        return [path]
    scenes = [
        entry
        for entry in sorted(path.iterdir())
        if not entry.name.startswith(".")
        and (entry.suffix.lower() in ENDINGS if entry.is_file() else is_product(entry))
    ]
    if not scenes:
        raise InputError(
            f"{printable(path)}: contains no scene; expected products, or files ending in {', '.join(ENDINGS)}"
        )
    return scenes


def _scaled(layer: Layer, sensor: Sensor, scale: float | None, offset: float | None) -> Layer:
    """A layer with the scale that holds: the user's, the file's, the product's, or the sensor's."""
    if scale is not None or offset is not None:
        return replace(layer, scale=scale if scale is not None else 1.0, offset=offset or 0.0)
    if layer.stated or sensor.scale is None or layer.unit == DIGITAL_NUMBER:
        return layer
    return replace(layer, scale=sensor.scale, offset=sensor.offset)


def _unit(sensor: Sensor, layer: Layer, unit: str, scale: float | None) -> str:
    """A band's unit; numbers of which nobody says how they become values are digital numbers."""
    return unit if scale is not None or layer.stated or sensor.scale is not None else DIGITAL_NUMBER


def _all_valid(source: "Source", number: int) -> bool:
    from rasterio.enums import MaskFlags

    return source.mask_flag_enums[number - 1] == [MaskFlags.all_valid]
