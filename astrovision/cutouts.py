"""Cut-outs: FITS mosaics opened with their WCS, and many windows of one size cut from them, fast."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astrovision.grids import described, pixel_scale, same_grid, taps, weigh
from astrovision.planes import Plane, open_planes, reading
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

PARTIAL, OFF_IMAGE, HAS_INVALID = 1, 2, 4
FLAGS = {PARTIAL: "partial", OFF_IMAGE: "off_image", HAS_INVALID: "has_invalid"}
"""What a cut-out's flags say: part of it lies outside, all of it does, or pixels of it have no value."""
LARGEST = 8192
"""Side in pixels of the largest cut-out."""
_CHUNK = 2**18  # values that are looked at while they are in the processor's cache
_SAME_SCALE = 1e-3  # scales that differ by less are one


@dataclass(frozen=True)
class Cutouts:
    """Cut-outs of one size.

    Attributes:
        values: `(N, C, size, size)` float32 in the mosaic's unit, 0 where not valid.
        valid: `(N, size, size)` bool: inside the mosaic, and finite in all bands.
        flags: `(N,)` uint8, sums of `PARTIAL`, `OFF_IMAGE` and `HAS_INVALID`.
    """

    values: np.ndarray
    valid: np.ndarray
    flags: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


def flag_names(value: int) -> list[str]:
    """Names of the flags whose sum a value is."""
    return [name for flag, name in FLAGS.items() if int(value) & flag]


class Mosaic:
    """An image of the sky that is open for reading; a context manager that closes it.

    Attributes:
        label: its path or paths, fit to be shown on a terminal.
        bands: names, in the order in which they are cut; `band1`, `band2`, ... where the files do not say them.
        shape: height and width in pixels.
        wcs: celestial astropy WCS; None where the files have none.
        pixel_scale_arcsec: side of a pixel at the reference point, the geometric mean of both sides; None without WCS.
        unit: BUNIT; "" where the files do not say, or differ.
    """

    def __init__(
        self, paths: Sequence[Path], planes: Sequence[Plane], bands: Sequence[str], stack: contextlib.ExitStack
    ) -> None:
        self.label = ", ".join(map(printable, paths))
        self.bands = tuple(bands)
        self.shape, self.wcs = planes[0].shape, planes[0].wcs
        self.pixel_scale_arcsec = pixel_scale(self.wcs)
        units = {plane.unit for plane in planes}
        self.unit = units.pop() if len(units) == 1 else ""
        self._paths, self._planes, self._stack = list(paths), list(planes), stack

    def __enter__(self) -> "Mosaic":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._planes.clear()
        self._stack.close()

    def sha256(self) -> str:
        """SHA-256 of the file's contents; for several files, of their digests in the order of the bands."""
        digests = []
        for path in self._paths:
            with reading(path), path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256"))
        if len(digests) == 1:
            return digests[0].hexdigest()
        return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()

    def pixels(self, ra_deg: ArrayLike | None, dec_deg: ArrayLike | None) -> np.ndarray:
        """Where positions on the sky lie.

        Args:
            ra_deg: `(N,)` right ascension, ICRS, in degrees.
            dec_deg: `(N,)` declination.

        Returns:
            `(N, 2)` float64 x and y; the centre of the first pixel is 0, 0. NaN where a position is missing, is none,
            or has no place in the projection.

        Raises:
            InputError: the mosaic has no WCS, or one of a frame that ICRS cannot be turned into.
        """
        if self.wcs is None:
            raise InputError(f"{self.label}: has no celestial WCS that can be used; give pixel positions x,y instead")
        from astropy.coordinates import SkyCoord
        from astropy.wcs import NoConvergence
        from astropy.wcs.utils import wcs_to_celestial_frame

        ra, dec = (np.array(part, np.float64, ndmin=1) for part in (ra_deg, dec_deg))
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
        positions = np.full((len(ra), 2), np.nan)
        with reading(self._paths[0]):
            frame = wcs_to_celestial_frame(self.wcs)
            sky: Any = SkyCoord(ra[known], dec[known], unit="deg", frame="icrs").transform_to(frame).spherical
            world = [sky.lon.deg, sky.lat.deg]
            if self.wcs.wcs.lng == 1:
                world.reverse()
            places: Any
            try:
                places = self.wcs.all_world2pix(*world, 0)
            except NoConvergence as error:
                places = np.array(error.best_solution).T
                for failed in (error.divergent, error.slow_conv):
                    if failed is not None:
                        places[:, failed] = np.nan
        positions[known] = np.stack(places, -1)
        positions[~np.isfinite(positions).all(1)] = np.nan
        return positions

    def touches(self, positions_xy: ArrayLike, size: int, *, pixel_scale_arcsec: float | None = None) -> np.ndarray:
        """Whether any of a window lies on the mosaic, `(N,)` bool: those that `cut` does not flag as off the image.

        Args:
            positions_xy: centres in pixels, as for `cut`.
            size: side in pixels, as for `cut`.
            pixel_scale_arcsec: pixel scale of the cut-outs, as for `cut`.

        Raises:
            InputError: the size or the scale is none that can be had.
        """
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        return self._touches(positions, size, self._check(size, pixel_scale_arcsec))

    def cut(self, positions_xy: ArrayLike, size: int, *, pixel_scale_arcsec: float | None = None) -> Cutouts:
        """Cut windows around positions.

        Without another scale a cut-out is a copy of pixels: its first column is ceil(x - size / 2), as that of
        `astropy.nddata.Cutout2D`, so that its centre is within half a pixel of x. With another one it is resampled,
        centred on x and y exactly: linearly where it is finer, and where it is coarser under a triangle that reaches
        one new pixel to either side, so that nothing finer is left. Values stay surface brightness: they are means and
        are not summed, so that the flux of a cut-out is its sum times (new scale / mosaic's scale)**2.

        Args:
            positions_xy: `(N, 2)` x and y in pixels, NaN where unknown.
            size: side of the cut-outs in pixels.
            pixel_scale_arcsec: pixel scale of the cut-outs; by default, and where within 0.1 % of it, the mosaic's own.

        Raises:
            InputError: the size or the scale is none that can be had, or the file is damaged.
        """
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        ratio = self._check(size, pixel_scale_arcsec)
        if ratio != 1:
            return self._resampled(positions, size, ratio)
        for plane in self._planes:
            plane.expect(len(positions) * size * size)
        return self._cut(positions, size)

    def batches(
        self, positions_xy: ArrayLike, size: int, batch_size: int, *, pixel_scale_arcsec: float | None = None
    ) -> Iterator[tuple[np.ndarray, Cutouts]]:
        """Cut windows around many positions, batch by batch from the first row to the last.

        Args:
            positions_xy: centres in pixels, as for `cut`.
            size: side in pixels, as for `cut`.
            batch_size: cut-outs in a batch.
            pixel_scale_arcsec: pixel scale of the cut-outs, as for `cut`.

        Yields:
            `(n,)` places in `positions_xy`, and the cut-outs there.

        Raises:
            InputError: as from `cut`.
        """
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        ratio = self._check(size, pixel_scale_arcsec)
        for plane in self._planes:
            plane.expect(len(positions) * math.ceil(size * ratio) ** 2)
        order = np.lexsort((positions[:, 0], np.floor(positions[:, 1] / (size * ratio))))
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            yield part, self.cut(positions[part], size, pixel_scale_arcsec=pixel_scale_arcsec)

    def nddata(self, x: float, y: float, size: int) -> Any:
        """One cut-out as an `astropy.nddata.NDData` with WCS, mask (True where not valid), unit and flags (in `meta`).

        Args:
            x: in pixels.
            y: in pixels.
            size: side in pixels.

        Returns:
            Data `(size, size)`, or `(C, size, size)` where there are several bands; the WCS is that of a plane.
        """
        from astropy.nddata import NDData
        from astropy.wcs import Sip

        cutout = self.cut([[x, y]], size)
        several = len(self.bands) > 1
        mask = np.broadcast_to(~cutout.valid[0], cutout.values[0].shape)
        wcs = None
        with reading(self._paths[0]):
            if self.wcs is not None and np.isfinite([x, y]).all():
                start = np.array([math.ceil(x - size / 2), math.ceil(y - size / 2)], float)
                wcs = self.wcs.deepcopy()
                wcs.wcs.crpix = wcs.wcs.crpix - start
                wcs.array_shape = (size, size)
                if wcs.sip is not None:
                    wcs.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix - start)
                for table in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2):
                    if table is not None:
                        table.crval = tuple(np.subtract(table.crval, start))
            unit = (
                require("astropy.units", "astro").Unit(self.unit, format="fits", parse_strict="silent")
                if self.unit
                else None
            )
        return NDData(
            cutout.values[0] if several else cutout.values[0, 0], mask=mask if several else mask[0], wcs=wcs, unit=unit,
            meta={"bands": self.bands, "flags": flag_names(cutout.flags[0])},
        )  # fmt: skip

    def _check(self, size: int, pixel_scale_arcsec: float | None) -> float:
        """Pixels of the mosaic to one of the cut-outs; 1 where those are copied."""
        if not 1 <= size <= LARGEST:
            raise InputError(f"size is {size}, expected 1 to {LARGEST} pixels")
        if pixel_scale_arcsec is None:
            return 1.0
        if self.pixel_scale_arcsec is None:
            raise InputError(
                f"{self.label}: has no WCS, so that its pixel scale is unknown; cut it without --pixel-scale"
            )
        if not 0 < pixel_scale_arcsec < math.inf:
            raise InputError(f"pixel scale is {pixel_scale_arcsec:g} arcsec, expected more than 0")
        ratio = pixel_scale_arcsec / self.pixel_scale_arcsec
        if size * ratio > LARGEST or ratio < 1e-3:
            raise InputError(
                f"{self.label}: has {self.pixel_scale_arcsec:.4g} arcsec to a pixel, so that {size} of "
                f"{pixel_scale_arcsec:.4g} arcsec are {size * ratio:.4g} of it; expected at most {LARGEST}, and a "
                "thousandth of a pixel or more for each: give another --pixel-scale or --size"
            )
        return 1.0 if abs(ratio - 1) < _SAME_SCALE else ratio

    def _touches(self, positions: np.ndarray, size: int, ratio: float) -> np.ndarray:
        start = positions - size * ratio / 2
        start = np.ceil(start) if ratio == 1 else start + 0.5  # whole pixels are copied
        with np.errstate(invalid="ignore"):
            overlap = np.isfinite(positions) & (start + size * ratio > 0) & (start < self.shape[::-1])
        return np.asarray(overlap.all(1))

    def _cut(self, positions: np.ndarray, size: int) -> Cutouts:
        height, width = self.shape
        known = np.asarray(np.isfinite(positions).all(1))
        # beyond the bounds all is off the image, and float64 has no place for it among the integers
        start = np.ceil(np.clip(np.where(known[:, None], positions, -1e9), -1e9, 1e9) - size / 2).astype(np.int64)
        low = np.maximum(start, 0)
        high = np.minimum(start + size, (width, height))
        extent = np.maximum(high - low, 0)
        area = extent.prod(1)
        flags = np.where(area == 0, OFF_IMAGE, np.where(area < size * size, PARTIAL, 0)).astype(np.uint8)
        count = len(self._planes)
        values = np.empty((len(positions), count, size, size), np.float32)
        valid = np.empty((len(positions), size, size), bool)
        windows = np.concatenate([low, high, start], 1).tolist()
        step = max(1, _CHUNK // (count * size * size))
        whole = flags == 0
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(positions), step):
                part = slice(first, first + step)
                for number, (left, top, right, bottom, x, y) in enumerate(windows[part], first):
                    target = values[number]
                    if not whole[number]:
                        target.fill(np.nan)
                        if not area[number]:
                            continue
                        target = target[:, top - y : bottom - y, left - x : right - x]
                    rows, columns = slice(top, bottom), slice(left, right)
                    for plane, out in zip(self._planes, target, strict=True):
                        plane.read(rows, columns, out)
                finite = np.isfinite(values[part, 0])
                for channel in range(1, count):
                    finite &= np.isfinite(values[part, channel])
                valid[part] = finite
                if not finite.all():
                    np.copyto(values[part], 0, where=~finite[:, None])
                    flags[part][finite.sum((1, 2)) < area[part]] |= HAS_INVALID
        return Cutouts(values, valid, flags)

    def _resampled(self, positions: np.ndarray, size: int, ratio: float) -> Cutouts:
        reach = max(ratio, 1.0)
        side = math.ceil((size - 1) * ratio + 2 * reach) + 1
        for plane in self._planes:
            plane.expect(len(positions) * side * side)
        values = np.empty((len(positions), len(self._planes), size, size), np.float32)
        valid = np.empty((len(positions), size, size), bool)
        invalid = np.empty(len(positions), bool)
        steps = (np.arange(size) - (size - 1) / 2) * ratio
        step = max(1, 8 * _CHUNK // (len(self._planes) * side * side))
        for first in range(0, len(positions), step):
            part = slice(first, first + step)
            native = self._cut(positions[part], side)
            centres = np.where(np.isfinite(positions[part]), positions[part], 0)
            centres = centres - np.ceil(centres - side / 2)
            across, down = np.moveaxis(np.stack(taps(centres[..., None] + steps, reach, side)), 2, 0)
            for number, patch in enumerate(native.values, first):
                seen, whole = native.valid[number - first], native.valid[number - first].all()
                layers = patch if whole else np.concatenate([patch, seen[None].astype(np.float32)])
                layers = weigh(weigh(layers, *down[:, number - first]), *across[:, number - first])
                if whole:
                    values[number], valid[number] = layers, True
                else:
                    valid[number] = covered = layers[-1] >= 0.5
                    values[number] = np.where(covered, layers[:-1] / np.maximum(layers[-1], 0.5), 0)
            invalid[part] = native.flags & HAS_INVALID > 0
        limits = np.array(self.shape[::-1]) - 0.5
        half = size * ratio / 2
        with np.errstate(invalid="ignore"):
            inside = ((positions - half > -0.5 - 1e-6) & (positions + half < limits + 1e-6)).all(1)
        touches = self._touches(positions, size, ratio)
        flags = np.where(touches, np.where(inside, 0, PARTIAL) | (HAS_INVALID * invalid), OFF_IMAGE).astype(np.uint8)
        values[~touches], valid[~touches] = 0, False
        return Cutouts(values, valid, flags)


def open_mosaic(
    paths: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[str] | None = None,
    hdu: int | str | Sequence[int | str] | None = None,
) -> Mosaic:
    """Open a mosaic.

    Args:
        paths: a FITS file (`.fits`, `.fits.fz`, `.fits.gz`) with a 2-D image or a cube of bands, rows and columns; or
            several files on one grid, such as one for each band.
        bands: names, in order; by default those that the headers give.
        hdu: number or EXTNAME of the image in each file, or several, one for each band; needed where there are several.

    Raises:
        InputError: a file cannot be read, has no image or several, or lies on another grid than the first.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise InputError("no file is given; expected FITS files")
    keys = None if hdu is None else [hdu] if isinstance(hdu, int | str) else list(hdu)
    with contextlib.ExitStack() as stack:
        planes = [plane for path in files for plane in open_planes(path, keys, stack)]
        for plane in planes[1:]:
            if not same_grid(planes[0], plane):
                raise InputError(
                    f"{plane.label}: lies on another grid ({described(plane)}) than {planes[0].label} "
                    f"({described(planes[0])}); expected one for all bands: reproject it, for example with the package "
                    "reproject"
                )
        return Mosaic(files, planes, _names(files, planes, bands), stack.pop_all())


def _names(files: Sequence[Path], planes: Sequence[Plane], given: Sequence[str] | None) -> list[str]:
    label = ", ".join(map(printable, files))
    if given is None:
        names = [plane.band for plane in planes]
        if all(names) and len(set(names)) == len(names):
            return names
        return [f"band{number}" for number in range(1, len(planes) + 1)]
    if len(given) != len(planes):
        raise InputError(f"{label}: has {len(planes)} bands, but --bands names {len(given)}; name each once, in order")
    if len(set(given)) < len(given):
        raise InputError(f"{label}: --bands {','.join(map(printable, given))}: expected different names")
    return list(given)
