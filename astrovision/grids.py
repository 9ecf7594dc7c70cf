"""Grids of mosaics: where positions lie, parity, pixel scales, whether two are the same, and resampling of windows."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from astrovision.astropy_types import Frame, Sky
from astrovision.planes import Plane, reading
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from astropy.wcs import WCS

Compass: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""Unit vectors `(x, y)` east and north."""
PARITY = -1
"""Parity of cut-outs for which nothing else is asked: that of nearly all images, with east left of north."""

_SAME_PLACE = 0.01  # pixels
_CYLINDRICAL = ("CAR", "CEA", "MER")  # projections whose rows all have one length
_OF_AXES = {"GLON": "galactic", "SLON": "supergalactic", "ELON": "barycentricmeanecliptic"}  # frames by longitude
_WRAPPING = (*_CYLINDRICAL, "SFL")  # those whose rows are proportional to longitude


def same_grid(first: Plane, other: Plane) -> bool:
    """Whether pixels coincide, within a hundredth of one."""
    if first.shape != other.shape or (first.wcs is None) != (other.wcs is None):
        return False
    if first.wcs is other.wcs:
        return True
    height, width = first.shape
    x, y = np.array([0, width - 1, 0, width - 1, width / 2]), np.array([0, 0, height - 1, height - 1, height / 2])
    moved = np.abs(_on_other(first, other, x, y) - (x, y))
    on_sky = np.isfinite(moved)  # the corners of a map of the whole sky are nowhere
    return bool(on_sky.any() and moved[on_sky].max() < _SAME_PLACE)


def difference(first: Plane, other: Plane) -> str:
    """How another grid with a WCS lies on the first one, in numbers: parity, rotation, pixel size and shift."""
    if first.wcs is None or other.wcs is None:
        return ""
    height, width = other.shape
    x, y = (width - 1) / 2 + np.array([0, 1, 0]), (height - 1) / 2 + np.array([0, 0, 1])
    places = _on_other(other, first, x, y)
    if not np.isfinite(places).all():
        return "on another part of the sky"
    matrix = np.stack([places[:, 1] - places[:, 0], places[:, 2] - places[:, 0]], 1)
    determinant = float(np.linalg.det(matrix))
    parts, turns = [], [_turn(matrix)]
    if determinant < 0:
        parts.append(f"mirrored (parity {parity(other.wcs):+d}, not {parity(first.wcs):+d})")
        turns = [_turn(matrix * np.array(flip)) for flip in ((-1, 1), (1, -1))]
    turn = min(turns, key=abs)
    if abs(turn) >= 0.005:
        parts.append(f"turned by {turn:.2f} degrees")
    size = math.sqrt(abs(determinant))
    if abs(size - 1) >= 1e-4:
        parts.append(f"with pixels {size:.4f} times as large")
    shift = places[:, 0] - (np.array(first.shape[::-1]) - 1) / 2
    parts.append(f"its centre shifted by {shift[0]:.2f}, {shift[1]:.2f} pixels")
    return ", ".join(parts)


def _on_other(plane: Plane, other: Plane, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where pixels of a plane with a WCS lie on another one, `(2, N)`; NaN where nowhere."""
    assert plane.wcs is not None and other.wcs is not None  # noqa: S101 - asked for by the callers
    with reading(Path(plane.label)):
        ra, dec = to_sky(plane.wcs, plane.label, np.stack([x, y], -1).astype(float)).T
    places, known = np.full((2, len(x)), np.nan), np.isfinite(ra) & np.isfinite(dec)
    with reading(Path(other.label)):
        places[:, known] = to_pixels(other.wcs, other.label, other.shape, ra[known], dec[known]).T
    return places


def described(plane: Plane) -> str:
    """A plane's grid in words: size, pixel scale and centre."""
    height, width = plane.shape
    if plane.wcs is None:
        return f"{height} x {width} pixels, no WCS"
    with reading(Path(plane.label)):
        ra, dec = to_sky(plane.wcs, plane.label, np.array([[(width - 1) / 2, (height - 1) / 2]]))[0]
    return (
        f"{height} x {width} pixels of {math.sqrt(math.prod(pixel_scales(plane.wcs))):.4g} arcsec around "
        f"{ra:.5f}, {dec:.5f}"
    )


def pixel_scales(wcs: "WCS") -> tuple[float, float]:
    """Width and height of a pixel in arcseconds, at the reference point."""
    across, down = 3600 * np.hypot(*_matrix(wcs))
    return float(across), float(down)


def shear(wcs: "WCS") -> float:
    """By how many degrees the angle between rows and columns differs from a right one."""
    across, down = _matrix(wcs).T
    return math.degrees(math.asin(min(1.0, abs(across @ down) / math.sqrt((across @ across) * (down @ down)))))


def parity(wcs: "WCS") -> int:
    """Sign of the determinant of the pixel scale matrix of longitude and latitude: -1 where east is left of north."""
    return -1 if np.linalg.det(_matrix(wcs)) < 0 else 1


def directions(wcs: "WCS") -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors `(x, y)` of the pixels' grid that point east and north, at the reference point."""
    east, north = np.linalg.inv(_matrix(wcs)).T
    return east / np.hypot(*east), north / np.hypot(*north)


def _turn(matrix: np.ndarray) -> float:
    """Degrees by which a matrix turns."""
    (a, b), (c, d) = matrix
    return math.degrees(math.atan2(c - b, a + d))


def period(wcs: "WCS", width: int) -> int | None:
    """Columns after which a map of the whole sky begins again; None where it does not, or not after whole pixels."""
    matrix, lng = _matrix(wcs), wcs.wcs.lng
    if wcs.wcs.ctype[lng][5:8] not in _CYLINDRICAL or np.abs([matrix[0, 1], matrix[1, 0]]).max() > 1e-9:
        return None
    columns = 360 / abs(matrix[0, 0])
    return round(columns) if abs(columns - round(columns)) < _SAME_PLACE and width >= round(columns) else None


def to_pixels(wcs: "WCS", label: str, shape: tuple[int, int], ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Pixels `(N, 2)` of positions in degrees (ICRS) that are on the sky; NaN where the projection has no place.

    In a cylindrical map, or a Sanson-Flamsteed one, a position that lies beside the image is looked for a turn further.

    Raises:
        InputError: the WCS is of a frame that ICRS cannot be turned into.
    """
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence

    frame = _frame(wcs, label)
    sky: Sky = SkyCoord(ra, dec, unit="deg", frame="icrs").transform_to(frame).spherical
    world = [sky.lon.deg, sky.lat.deg]
    if wcs.wcs.lng == 1:
        world.reverse()
    try:
        places = np.array(wcs.all_world2pix(*world, 0)).T
    except NoConvergence as error:
        places = np.array(error.best_solution)
        for failed in (error.divergent, error.slow_conv):
            if failed is not None:
                places[failed] = np.nan
    kind = wcs.wcs.ctype[wcs.wcs.lng][5:8]
    if kind in _WRAPPING and len(places):
        latitude = np.radians(wcs.wcs.s2p(np.stack(world, -1), 0)["theta"])
        turn = (
            360 * np.linalg.inv(_matrix(wcs))[:, 0] * (np.cos(latitude) if kind == "SFL" else 1 + 0 * latitude)[:, None]
        )
        for moved in (places - turn, places + turn):
            places = np.where((~_inside(places, shape) & _inside(moved, shape))[:, None], moved, places)
    # what is left of WCS arithmetic's rounding would decide whether a window begins at one pixel or the next
    return np.round(places, 7)


def to_sky(wcs: "WCS", label: str, positions: np.ndarray) -> np.ndarray:
    """Right ascension and declination `(N, 2)` in degrees (ICRS) of pixels; NaN where there is no sky.

    Raises:
        InputError: the WCS is of a frame that cannot be turned into ICRS.
    """
    from astropy.coordinates import SkyCoord

    frame, places = _frame(wcs, label), positions
    world = np.array(wcs.all_pix2world(*places.T, 0)).T
    if wcs.wcs.ctype[wcs.wcs.lng][5:8] in _CYLINDRICAL:  # wcslib knows no longitude beyond half a turn
        turn = 360 * np.linalg.inv(_matrix(wcs))[:, 0]
        for moved in (places - turn, places + turn):
            world = np.where(np.isfinite(world), world, np.array(wcs.all_pix2world(*moved.T, 0)).T)
    coordinates, known = np.full(world.shape, np.nan), np.isfinite(world).all(1)
    lon, lat = world[known].T if wcs.wcs.lng == 0 else world[known, ::-1].T
    sky: Sky = SkyCoord(lon, lat, unit="deg", frame=frame).icrs
    coordinates[known] = np.stack([sky.ra.deg, sky.dec.deg], -1)
    return coordinates


def _frame(wcs: "WCS", label: str) -> Frame:
    """The astropy frame of a WCS."""
    from astropy.coordinates import frame_transform_graph
    from astropy.time import Time
    from astropy.wcs.utils import wcs_to_celestial_frame

    axis, system = str(wcs.wcs.ctype[wcs.wcs.lng])[:4], str(wcs.wcs.radesys).strip()
    try:
        if axis == "RA--":
            return wcs_to_celestial_frame(wcs)
        # astropy takes RADESYS for the frame of any axes, and ICRS where ecliptic ones have none
        frame: Frame = frame_transform_graph.lookup_name(_OF_AXES[axis])
        if axis != "ELON":
            return frame()
        if system in ("", "ICRS", "FK5"):  # ICRS has no equinox, whatever a header says
            of_date = system == "FK5" and np.isfinite(wcs.wcs.equinox)
            return frame(equinox=Time(wcs.wcs.equinox if of_date else 2000, format="jyear"))
    except (KeyError, ValueError):
        pass
    axes = ", ".join(printable(str(name)) for name in wcs.wcs.ctype)
    raise InputError(
        f"{label}: its frame is not known (RADESYS {printable(system) or 'none'}, CTYPE {axes}); expected ICRS, FK5, "
        "FK4, FK4-NO-E, galactic or ecliptic coordinates: fix RADESYS in its header, or give pixel positions with --x "
        "and --y"
    )


def _matrix(wcs: "WCS") -> np.ndarray:
    """Degrees of longitude and latitude (rows) to a pixel of x and y (columns), on the projection's plane."""
    matrix = np.asarray(wcs.pixel_scale_matrix, float)
    return matrix[::-1] if wcs.wcs.lng == 1 else matrix


def _inside(positions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    limits = np.array(shape[::-1]) - 0.5
    with np.errstate(invalid="ignore"):
        return np.asarray(((positions >= -0.5) & (positions < limits)).all(1))


def taps(places: np.ndarray, reach: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a line of `side`, and their weights, under triangles of half a width `reach`: `(..., taps)` each."""
    numbers = np.floor(places - reach)[..., None] + np.arange(1, math.ceil(2 * reach) + 1)
    weights = np.maximum(1 - np.abs(numbers - places[..., None]) / reach, 0)
    return numbers.clip(0, side - 1), weights / weights.sum(-1, keepdims=True)


def weigh(layers: np.ndarray, numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of rows of `(C, h, w)` under `(size, taps)`, turned: `(C, w, size)`, so that columns are next."""
    rows, factors = numbers.astype(np.intp), weights.astype(np.float32)[..., None]
    total = layers.take(rows[:, 0], axis=1) * factors[:, 0]
    for tap in range(1, rows.shape[1]):
        total += layers.take(rows[:, tap], axis=1) * factors[:, tap]
    return np.ascontiguousarray(total.swapaxes(1, 2))
