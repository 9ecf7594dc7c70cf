"""Grids: where the pixels of a raster lie, and how large they are on the ground."""

import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from shared_backbones.errors import InputError

if TYPE_CHECKING:  # rasterio is imported where a file is opened
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader

Points = tuple[np.ndarray, np.ndarray]
_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257223563  # of WGS 84
_OF_THE_GLOBE = ("sinu", "moll", "robin", "eqearth", "natearth", "igh", "goode", "hammer", "aitoff", "wintri", "eck4")
_RADII = (6.3e6, 6.5e6)  # in metres, between which ellipsoids of the earth lie
_NODES = 17  # of the lattice on which slow functions of the place are computed


@dataclass(frozen=True)
class Grid:
    """Where pixels lie.

    Attributes:
        crs: a rasterio CRS; None where the file has none.
        transform: the file's `Affine` from (column, row) to coordinates, which takes arrays, too.
        height: in pixels.
        width: in pixels.
    """

    crs: Any
    transform: Any
    height: int
    width: int

    @property
    def pixel_size(self) -> float:
        """Side of a pixel in the units of the CRS: the geometric mean of both sides."""
        return math.sqrt(abs(self.transform.determinant))

    def divided(self, parts: int) -> "Grid":
        """The same place in pixels so many times as fine along each axis."""
        transform = self.transform * self.transform.scale(1 / parts)
        return Grid(self.crs, transform, self.height * parts, self.width * parts)

    @cached_property
    def on_earth(self) -> bool:
        """Whether the grid has a place: a CRS that is no local one, and a transform that places pixels in it."""
        return self.crs is not None and self._is_placed and not is_local(self.crs)

    @property
    def _is_placed(self) -> bool:
        """Whether the transform is more than what a file without one has."""
        return not self.transform.is_identity

    @cached_property
    def gsd_sides_m(self) -> tuple[float, float] | None:
        """Width and height of a pixel on the ground in metres, in the middle of the grid.

        They are measured on the ellipsoid, whatever the units of the CRS and the scale of its projection there. Of a
        local CRS they are its own metres; None where nothing tells them.
        """
        if self.crs is None or not self._is_placed:
            return None
        if not self.on_earth:
            factor = local_metres(self.crs)
            across, down = (math.hypot(*part) for part in self._steps())
            return None if factor is None else (across * factor, down * factor)
        column, row = self.width / 2, self.height / 2
        across, down = (side.item() for side in self._sides(np.array([column]), np.array([row])))
        if not (math.isfinite(across) and math.isfinite(down)):  # a window whose middle is off the earth
            sides = self._sides(*(part.ravel() for part in self._lattice(0, 0, self.height, self.width)))
            known = np.isfinite(sides).all(0)
            if not known.any():
                return None
            across, down = (float(np.median(side[known])) for side in sides)
        return across, down

    @property
    def aspect(self) -> float:
        """Height of a pixel on the ground over its width, in the middle of the grid; 1 where nothing tells it."""
        sides = self.gsd_sides_m
        return 1.0 if sides is None else sides[1] / sides[0]

    @property
    def gsd_m(self) -> float | None:
        """Side of a pixel on the ground in metres: the geometric mean of both sides; None where nothing tells it."""
        sides = self.gsd_sides_m
        return None if sides is None else math.sqrt(sides[0] * sides[1])

    def areas_m2(self, row: int, column: int, height: int, width: int) -> np.ndarray | None:
        """Area of each pixel of a window on the ground, `(height, width)` float32; None where nothing tells it.

        Pixels off the earth have none: 0.
        """
        if not self.on_earth:
            sides = self.gsd_sides_m
            return None if sides is None else np.full((height, width), sides[0] * sides[1], np.float32)
        x, y = self._lattice(row, column, height, width)
        area = self._areas(x.ravel(), y.ravel()).reshape(x.shape)
        return spread(np.nan_to_num(area, posinf=0.0, neginf=0.0), (height, width)).astype(np.float32)

    def same(self, other: "Grid") -> bool:
        """Whether pixels coincide, within a hundredth of one."""
        if (self.height, self.width) != (other.height, other.width) or self.crs != other.crs:
            return False
        corners = [(0, 0), (self.width, 0), (0, self.height)]
        moved = [np.subtract(self.transform @ corner, other.transform @ corner) for corner in corners]
        return bool(np.abs(moved).max() < 0.01 * self.pixel_size)

    @property
    def north_deg(self) -> float | None:
        """Where north lies in the middle of the grid, clockwise from up, on pictures whose pixels have their `aspect`.

        None off the earth.
        """
        if not self.on_earth:
            return None
        middle = np.array([self.width / 2]), np.array([self.height / 2])
        longitude, latitude = (math.radians(float(part[0])) for part in self.to_degrees(*middle))
        if not math.isfinite(latitude) or math.cos(latitude) < 1e-9:  # at a pole every way is north, or south
            return None
        east = (-math.sin(longitude), math.cos(longitude), 0.0)
        north = np.cross(
            (math.cos(longitude) * math.cos(latitude), math.sin(longitude) * math.cos(latitude), math.sin(latitude)),
            east,
        )
        steps = np.array([east, north]) @ np.column_stack([part[:, 0] for part in self._vectors(*middle)])
        if not np.isfinite(steps).all() or abs(np.linalg.det(steps)) < 1e-12:
            return None
        right, below = np.linalg.solve(steps, [0.0, 1.0])
        return math.degrees(math.atan2(right, -below * self.aspect))

    def to_degrees(self, columns: np.ndarray, rows: np.ndarray) -> Points:
        """Longitudes and latitudes (WGS 84) of places in pixels; infinite where a place is off the earth."""
        x, y = self.transform @ (columns, rows)
        longitude, latitude = transformed(self.crs, "OGC:CRS84", x, y)
        if self._is_of_the_globe:  # beside which the projection's inverse answers with places of the other side
            back = transformed("OGC:CRS84", self.crs, longitude, latitude)
            off = np.hypot(back[0] - x, back[1] - y) > 0.01 * self.pixel_size
            longitude, latitude = (np.where(off, np.inf, part) for part in (longitude, latitude))
        return longitude, latitude

    @cached_property
    def _is_of_the_globe(self) -> bool:
        """Whether the CRS is a map of the globe whose outline is no rectangle."""
        return self.crs.to_dict().get("proj") in _OF_THE_GLOBE

    def from_degrees(self, longitude: float, latitude: float) -> tuple[float, float]:
        """Column and row of a place; infinite where the CRS does not reach it."""
        x, y = transformed("OGC:CRS84", self.crs, np.array([longitude]), np.array([latitude]))
        if not (np.isfinite(x[0]) and np.isfinite(y[0])):
            return math.inf, math.inf
        column, row = ~self.transform @ (float(x[0]), float(y[0]))
        return column, row

    def _steps(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return (self.transform.a, self.transform.d), (self.transform.b, self.transform.e)

    def _lattice(self, row: int, column: int, height: int, width: int) -> Points:
        rows, columns = (lattice(*part) for part in ((row, height), (column, width)))
        x, y = np.meshgrid(columns, rows)
        return x, y

    def _vectors(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One pixel to the right, and one down, in metres along the axes of the earth (ECEF): `(3, N)` each."""
        count = len(columns)
        ends = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])
        where = [np.add.outer(ends[:, axis], part).ravel() for axis, part in enumerate((columns, rows))]
        longitude, latitude = (part.reshape(4, count) for part in self.to_degrees(where[0], where[1]))
        with np.errstate(invalid="ignore"):
            ends_m = _on_ellipsoid(longitude, latitude)
            chords = ends_m[:, 1] - ends_m[:, 0], ends_m[:, 3] - ends_m[:, 2]
            across, down = (chord * _arc(np.linalg.norm(chord, axis=0)) for chord in chords)
        return across, down

    def _sides(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.linalg.norm(vector, axis=0) for vector in self._vectors(columns, rows)])

    def _areas(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        across, down = self._vectors(columns, rows)
        return np.linalg.norm(np.cross(across, down, axis=0), axis=0)


def _on_ellipsoid(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Places on the ellipsoid in metres from the earth's centre, `(3, ...)`."""
    turn, height = np.radians(longitude), np.radians(latitude)
    squared = _FLATTENING * (2 - _FLATTENING)
    normal = _AXIS / np.sqrt(1 - squared * np.sin(height) ** 2)
    level = normal * np.cos(height)
    return np.stack([level * np.cos(turn), level * np.sin(turn), normal * (1 - squared) * np.sin(height)])


def _arc(chord: np.ndarray) -> np.ndarray:
    """What chords are multiplied by to be as long as their arcs."""
    half = np.clip(chord / (2 * _AXIS), 0, 1)
    return np.where(half > 1e-4, np.arcsin(half) / np.maximum(half, 1e-4), 1.0)


def grid_of(source: "DatasetReader", crs: str | None = None, georeference: str | None = None) -> Grid:
    """Grid of a file, in a CRS that the user gives where the file has none.

    Args:
        source: open raster.
        crs: what the user calls its CRS.
        georeference: `gcps` or `rpcs`: lay the grid by the file's ground control points or rational polynomials.

    Raises:
        InputError: there is no such CRS, or no place that it could belong to; or no such points.
    """
    if georeference is not None:
        return _laid(source, georeference)
    transform = source.transform.identity() if source.transform.is_degenerate else source.transform
    grid = Grid(source.crs, transform, source.height, source.width)
    if source.crs is not None or crs is None:
        return grid
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        known = CRS.from_user_input(crs)
    except CRSError as error:
        raise InputError(f"--crs {crs}: is none that is known ({error}); expected for example EPSG:32633") from None
    if transform.is_identity:
        others = " or ".join(f"--georeference {kind}" for kind in georeferences(source))
        raise InputError(
            f"--crs {crs}: the file says nowhere where its pixels lie, so a CRS makes no place of them; "
            + (f"give {others}" if others else "leave it out, or give the file a georeference (gdal_translate -a_ullr)")
        )
    return replace(grid, crs=known)


def georeferences(source: "DatasetReader") -> dict[str, str]:
    """Georeferences that a file has beside a transform, and what they are: `gcps` and `rpcs`."""
    places = {}
    points, crs = source.gcps
    if points:
        places["gcps"] = f"{len(points)} ground control points in {crs_name(crs)}"
    if source.rpcs is not None:
        places["rpcs"] = "rational polynomial coefficients"
    return places


def placing(source: "DatasetReader", georeference: str) -> Callable[[np.ndarray, np.ndarray], Points]:
    """A function from coordinates in a laid grid's CRS to columns and rows of a file."""
    from rasterio.transform import GCPTransformer, RPCTransformer

    transformer = GCPTransformer(source.gcps[0]) if georeference == "gcps" else RPCTransformer(source.rpcs)

    def place(x: np.ndarray, y: np.ndarray) -> Points:
        rows, columns = transformer.rowcol(x.ravel().tolist(), y.ravel().tolist(), op=float)
        return np.reshape(columns, x.shape).astype(float), np.reshape(rows, x.shape).astype(float)

    return place


def _laid(source: "DatasetReader", georeference: str) -> Grid:
    from rasterio.errors import RasterioError
    from rasterio.warp import calculate_default_transform

    known = georeferences(source)
    if georeference not in known:
        raise InputError(
            f"--georeference {georeference}: the file has {' and '.join(known.values()) or 'neither gcps nor rpcs'}; "
            "leave it out, or give what the file has"
        )
    points, crs = source.gcps
    crs = crs if georeference == "gcps" else "EPSG:4326"
    given = {"gcps": points} if georeference == "gcps" else {"rpcs": source.rpcs}
    if crs is None:
        raise InputError("--georeference gcps: the points of the file have no CRS; give the file one (gdal_translate)")
    try:
        transform, width, height = calculate_default_transform(crs, crs, source.width, source.height, **given)
    except (RasterioError, ValueError) as error:
        raise InputError(f"--georeference {georeference}: cannot be used ({error}); give another file") from None
    from rasterio.crs import CRS

    return Grid(CRS.from_user_input(crs), transform, int(height or 0), int(width or 0))


def transformed(source: "CRS | str", target: "CRS | str", x: np.ndarray, y: np.ndarray) -> Points:
    """Coordinates in another CRS; infinite where there are none."""
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    shape = np.shape(x)
    flat = [np.ravel(part).astype(float).tolist() for part in (x, y)]
    try:
        places = transform(source, target, *flat)[:2]
    except CRSError:
        raise
    except Exception as error:  # GDAL raises for all where one is outside: its classes of errors are private
        if "coordinate operation" in str(error):
            raise InputError("its CRS has no relation to places on the earth; give a scene that has") from None
        places = _one_by_one(source, target, flat)
    return np.reshape(places[0], shape).astype(float), np.reshape(places[1], shape).astype(float)


def _one_by_one(source: "CRS | str", target: "CRS | str", flat: list[list[float]]) -> tuple[list[float], list[float]]:
    from rasterio.warp import transform

    xs, ys = [math.inf] * len(flat[0]), [math.inf] * len(flat[0])
    for number, (x, y) in enumerate(zip(*flat, strict=True)):
        with contextlib.suppress(Exception):  # a place that the CRS does not reach
            (xs[number],), (ys[number],) = transform(source, target, [x], [y])[:2]
    return xs, ys


def lattice(start: float, length: int) -> np.ndarray:
    """Centres of pixels that span a window's side evenly, the first and the last among them."""
    return np.linspace(start + 0.5, start + length - 0.5, min(_NODES, max(length, 1)))


def spread(nodes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values at the nodes of `lattice`, linear in between: one for each pixel."""
    from scipy.ndimage import map_coordinates  # half of the start of a program that only looks at a scene

    if nodes.shape == shape:
        return nodes
    axes = [np.linspace(0, count - 1, length) for count, length in zip(nodes.shape, shape, strict=True)]
    return map_coordinates(nodes, np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")


def is_local(crs: "CRS") -> bool:
    """Whether a CRS has no relation to places on the earth's surface.

    It is that of an engineering site, of another body than the earth, or counts from the earth's centre.
    """
    text = crs.to_wkt().upper()
    if text.startswith(("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS", "GEOCCS", "GEODCRS")) and not crs.is_geographic:
        return True
    radius = re.search(r"(?:SPHEROID|ELLIPSOID)\[\"[^\"]*\",\s*([\d.E+]+)", text)
    return radius is not None and not _RADII[0] < float(radius[1]) < _RADII[1]


def local_metres(crs: "CRS") -> float | None:
    """Metres in a unit of a local CRS; None where it does not say, or counts degrees."""
    if crs.is_geographic:
        return None
    units = re.findall(r"(?:LENGTH)?UNIT\[\"[^\"]*\",\s*([\d.eE+-]+)", crs.to_wkt())
    return float(units[-1]) if units else None


def crs_name(crs: "CRS | None") -> str:
    """Name of a CRS for a message."""
    if crs is None:
        return "none"
    code = None if is_local(crs) else crs.to_epsg()
    return f"EPSG:{code}" if code else "local" if is_local(crs) else "without a code"


def crs_text(crs: "CRS | None") -> str | None:
    """A CRS for a file: its code, or its definition."""
    if crs is None:
        return None
    code = None if is_local(crs) else crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt()
