"""Labels of scenes: rasters of classes on the scene's grid, or polygons with a column of classes."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.grids import crs_text, grid_of
from geovision.rasters import open_raster, read_values, reading
from geovision.vectors import VECTORS, read_polygons
from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, printable

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from geovision.scene import Scene

    Shape = tuple[BaseGeometry, int]

IGNORED = 255
"""Label of pixels that have none."""
_COLUMNS = ("class", "label", "class_id", "label_id", "value")
_SHOWN = 8  # values that a message lists
_WHOLE = re.compile(r"-?[0-9]{1,18}")


class LabelRaster:
    """The labels of a scene, read as class numbers; a context manager that closes them.

    Args:
        path: raster on the scene's grid, or a file of polygons in any CRS; None where there are no labels.
        scene: open scene.
        values: value of each class in the raster, or in the column of classes.
        names: names of the classes, by which polygons may call them, too.
        column: column of the polygons' classes; by default `class`, `label`, or the only one.

    Attributes:
        foreign: values that were read and are no class, with the number of their pixels.
        nothing: label of pixels that have none.
        dtype: NumPy's name of the type of labels.
    """

    nothing = IGNORED
    dtype = "uint8"

    def __init__(
        self,
        path: Path | None,
        scene: "Scene",
        values: Sequence[int],
        names: Sequence[str] = (),
        column: str | None = None,
    ) -> None:
        self.path, self.scene, self.values = path, scene, tuple(values)
        self.names, self.column = tuple(names), column
        self.foreign: dict[int, int] = {}
        self._shapes: list[Shape] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "LabelRaster":
        if self.path is None:
            return self
        if self.path.suffix.lower() in VECTORS:
            self._shapes = self._read_shapes(self.path)
            return self
        self.source = self._stack.enter_context(open_raster(self.path))
        try:
            self._check()
        except InputError:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _read_shapes(self, path: Path) -> "list[Shape]":
        """Polygons in the scene's CRS, each with its label."""
        return read_shapes(path, self.scene, self.values, self.names, self.column)

    def _check(self) -> None:
        grid, dtype = grid_of(self.source), np.dtype(self.source.dtypes[0])
        if not grid.same(self.scene.grid):
            raise InputError(
                f"{printable(str(self.path))}: {grid.height} x {grid.width} pixels, on another grid than its scene of "
                f"{self.scene.grid.height} x {self.scene.grid.width}; resample it onto the scene's (gdalwarp "
                "-r near -te -ts -t_srs)"
            )
        if dtype.kind not in "iu":
            raise InputError(
                f"{printable(str(self.path))}: holds {dtype}, expected labels as whole numbers, such as uint8"
            )

    def read(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Class numbers `(height, width)` uint8, 255 where there is none."""
        return self._read((row, column, height, width), (height, width))

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        """All labels in `shape` (nearest), as `read` gives them."""
        return self._read((0, 0, *self.scene.shape), (shape[0], shape[1]))

    def _read(self, window: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
        if self._shapes is not None:
            return self._burnt(window, shape)
        from rasterio.windows import Window

        row, column, height, width = window
        part = Window(column, row, width, height)  # pyright: ignore[reportCallIssue]
        with reading(Path(str(self.path))):
            numbers, valid = read_values(self.source, [1], [None], part, shape)
        return self._labelled(numbers[0], valid[0])

    def _labelled(self, numbers: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Labels of a raster's numbers."""
        labels = np.full(numbers.shape, IGNORED, np.uint8)
        for place, value in enumerate(self.values):
            labels[(numbers == value) & valid] = place
        entries, counts = np.unique(numbers[valid & (labels == IGNORED)], return_counts=True)
        for value, count in zip(entries.tolist(), counts.tolist(), strict=True):
            self.foreign[value] = self.foreign.get(value, 0) + count
        return labels

    def _burnt(self, window: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
        from rasterio.features import rasterize

        row, column, height, width = window
        transform = self.scene.grid.transform
        transform = (
            transform @ transform.translation(column, row) @ transform.scale(width / shape[1], height / shape[0])
        )
        if not self._shapes:
            return np.full(shape, self.nothing, self.dtype)
        return rasterize(self._shapes, out_shape=shape, transform=transform, fill=self.nothing, dtype=self.dtype)


def foreign_labels(entries: Iterable[int], values: Sequence[int]) -> str:
    """Values that are no class, for a message; empty where there are none."""
    strange = sorted(set(entries))
    return f"labels: found {_listed(strange)}; the recipe has {', '.join(map(str, values))}" if strange else ""


def _listed(entries: Sequence[object]) -> str:
    """Values or names from a file as a message has them, not all of many, nor all of long ones."""
    shown = ", ".join(printable(str(entry)[:60]) for entry in entries[:_SHOWN])
    return f"{shown}, ..." if len(entries) > _SHOWN else shown


def read_shapes(
    path: Path,
    scene: "Scene",
    values: Sequence[int],
    names: Sequence[str],
    column: str | None,
    *,
    one_class: bool = False,
) -> "list[Shape]":
    """Polygons in the scene's CRS with their class numbers.

    Args:
        path: file of polygons.
        scene: open scene.
        values: value of each class in the column of classes.
        names: names of the classes.
        column: column of the classes; None where it can be told.
        one_class: whether no column is asked for where none is named, as all polygons are of the only class.

    Raises:
        InputError: the file cannot be read, has no such column or no CRS, or holds values that are no class.
    """
    polygons = read_polygons(path)
    shapes, crs = polygons.shapes, polygons.crs
    if one_class and column is None:
        numbers = [0] * len(shapes)
    else:
        chosen = _column(path, polygons.columns, column)
        numbers = _numbers(path, polygons.columns[chosen], values, names)
    if crs is None and scene.grid.crs is not None:
        raise InputError(f"{printable(path)}: has no CRS; expected one, as the scene has one: give it (ogr2ogr -a_srs)")
    moved = _moved(path, [s for s in shapes if s is not None], crs, scene)
    kept = [number for shape, number in zip(shapes, numbers, strict=True) if shape is not None]
    return [(shape, number) for shape, number in zip(moved, kept, strict=True) if not shape.is_empty]


def _column(path: Path, columns: Mapping[str, Sequence[object]], wanted: str | None) -> str:
    if wanted is not None:
        entries = [wanted] if wanted in columns else []
    else:
        lower = {name.lower(): name for name in columns}
        entries = [lower[name] for name in _COLUMNS if name in lower][:1] or (
            list(columns) if len(columns) == 1 else []
        )
    if not entries:
        raise InputError(
            f"{printable(path)}: has the columns {_listed(list(columns)) or 'none'}; name that of the "
            "classes with data.label_column"
        )
    return entries[0]


def _numbers(path: Path, column: Sequence[object], values: Sequence[int], names: Sequence[str]) -> list[int]:
    known: dict[object, int] = {value: place for place, value in enumerate(values)}
    known |= {name: place for place, name in enumerate(names)}
    entries = [_plain(value) for value in column]
    strange = sorted({str(value) for value in entries if value not in known})
    if strange:
        raise InputError(
            f"{printable(path)}: found {_listed(strange)}; the recipe has {', '.join(map(str, values))}"
            f"{' (' + ', '.join(names) + ')' if names else ''}; give data.label_values, or take those polygons out"
        )
    return [known[value] for value in entries]


def _plain(value: object) -> object:
    """A class as a recipe may name it: whole numbers are such, however they were written."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    return value if isinstance(value, str | int | float) else str(value)


def _moved(path: Path, shapes: "list[BaseGeometry]", crs: str | None, scene: "Scene") -> "Sequence[BaseGeometry]":
    """Shapes in the scene's CRS."""
    from rasterio.crs import CRS
    from rasterio.warp import transform

    shapely = require("shapely", "geo")

    def move(points: np.ndarray) -> np.ndarray:
        return np.stack(transform(crs, crs_text(scene.grid.crs), points[:, 0], points[:, 1]), axis=1)

    try:
        if crs is not None and shapes and CRS.from_user_input(crs) != scene.grid.crs:
            if not scene.grid.on_earth:
                raise InputError(
                    f"{scene.label}: has no place on the earth for polygons in {printable(crs)[:100]}; give it a CRS"
                )
            shapes = shapely.transform(shapes, move)
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise ValueError("vertices that are no numbers")
    except InputError:
        raise
    except Exception as error:  # rasterio's errors and those of PROJ have no class in common
        raise InputError(
            f"{printable(path)}: cannot be placed on the scene ({brief(error)}); correct its CRS, or its vertices"
        ) from None
    return shapes
