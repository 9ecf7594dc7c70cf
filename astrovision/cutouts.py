"""Cut-outs: FITS mosaics opened with their WCS, and many windows of one size cut from them, fast."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from astrovision import grids
from astrovision.fluxes import same_unit
from astrovision.grids import Compass
from astrovision.planes import Plane, open_planes, reading
from astrovision.windows import FLAGS, HAS_INVALID, OFF_IMAGE, PARTIAL, Cutouts, Orientation, Sampling
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

__all__ = ["FLAGS", "HAS_INVALID", "OFF_IMAGE", "PARTIAL", "Cutouts", "Mosaic", "flag_names", "open_mosaic"]

LARGEST = 8192
"""Side in pixels of the largest cut-out."""
_NAMED = 8  # files that messages name
_SAME_SCALE = 1e-3  # scales that differ by less are one
_SQUARE = 0.01  # pixels whose sides differ by less are taken for square ones
_SHEARED = 2.0  # degrees, beyond which rows and columns are not taken for perpendicular


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
        parity: sign of the determinant of the pixel scale matrix, -1 where east is left of north when the first row is
            at the bottom, as on nearly all images; None where it is not known.
        unit: BUNIT; "" where the files do not say.
        zero_points: magnitude of a flux of one in each band; None where a header does not say.
        notices: what a user should know of the headers, without the files' names.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        planes: Sequence[Plane],
        bands: Sequence[str],
        stack: contextlib.ExitStack,
        parity: int | None = None,
    ) -> None:
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        self.label = ", ".join(map(printable, paths[:_NAMED])) + more
        self.bands = tuple(bands)
        self.shape, self.wcs = planes[0].shape, planes[0].wcs
        self.pixel_scale_arcsec = None if self.wcs is None else math.sqrt(math.prod(grids.pixel_scales(self.wcs)))
        self.parity = parity if parity is not None or self.wcs is None else grids.parity(self.wcs)
        self.unit = next((plane.unit for plane in planes if plane.unit), "")
        self.zero_points = tuple(plane.zero_point for plane in planes)
        self.notices = tuple(dict.fromkeys(notice for plane in planes for notice in plane.notices))
        self._period = None if self.wcs is None else grids.period(self.wcs, self.shape[1])
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
        ra, dec = (np.array(part, np.float64, ndmin=1) for part in (ra_deg, dec_deg))
        known = np.isfinite(ra) & (np.abs(dec) <= 90)
        positions = np.full((len(ra), 2), np.nan)
        with reading(self._paths[0]):
            positions[known] = grids.to_pixels(self.wcs, self.label, self.shape, ra[known], dec[known])
        positions[~np.isfinite(positions).all(1)] = np.nan
        return positions

    def sky(self, positions_xy: ArrayLike) -> np.ndarray:
        """Right ascension and declination `(N, 2)` in degrees (ICRS) of pixels `(N, 2)`; NaN where there is no sky.

        Raises:
            InputError: the mosaic has no WCS, or one of a frame that cannot be turned into ICRS.
        """
        if self.wcs is None:
            raise InputError(f"{self.label}: has no celestial WCS that can be used")
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        known = np.isfinite(positions).all(1)
        coordinates = np.full(positions.shape, np.nan)
        with reading(self._paths[0]):
            coordinates[known] = grids.to_sky(self.wcs, self.label, positions[known])
        return coordinates

    def compass(self, x: float, y: float, parity: int | None = None) -> Compass | None:
        """Unit vectors east and north on a cut-out of a parity around a pixel, y along its rows; None without a sky."""
        if self.wcs is None:
            return None
        (ra, dec), right, up = self.sky([[x, y], [x + 0.5, y], [x, y + 0.5]])
        steps = np.array([right, up]).T - np.array([[ra], [dec]])
        steps[0] = ((steps[0] + 180) % 360 - 180) * math.cos(math.radians(dec))
        if not np.isfinite(steps).all() or abs(np.linalg.det(steps)) < 1e-30:
            return None
        vectors = np.linalg.inv(steps)
        backwards = self._orientation(parity).backwards
        if backwards is not None:
            vectors[backwards] *= -1
        (east_x, north_x), (east_y, north_y) = (vectors / np.hypot(*vectors)).tolist()
        return (east_x, east_y), (north_x, north_y)

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
        return self._sampling(size, pixel_scale_arcsec, None).touches(positions)

    def cut(
        self,
        positions_xy: ArrayLike,
        size: int,
        *,
        pixel_scale_arcsec: float | None = None,
        parity: int | None = None,
    ) -> Cutouts:
        """Cut windows around positions.

        Without another scale a cut-out is a copy of pixels: its first column is ceil(x - size / 2), as that of
        `astropy.nddata.Cutout2D`, so that its centre is within half a pixel of x. With another one it is resampled,
        centred on x and y exactly: linearly where it is finer, and where it is coarser under a triangle that reaches
        one new pixel to either side, so that nothing finer is left. Values stay surface brightness: they are means and
        are not summed, so that the flux of a cut-out is its sum times (new scale / mosaic's scale)**2. Pixels whose
        sides differ by more than a hundredth are resampled to square ones. Around the border of a cylindrical map of
        the whole sky, a cut-out goes on at the other border.

        Args:
            positions_xy: `(N, 2)` x and y in pixels, NaN where unknown.
            size: side of the cut-outs in pixels.
            pixel_scale_arcsec: pixel scale of the cut-outs; by default, and where within 0.1 % of it, the mosaic's own.
            parity: that of the cut-outs, -1 or 1; those of a mosaic of another one are mirrored. By default that of
                the mosaic.

        Raises:
            InputError: the size or the scale is none that can be had, the mosaic's parity is unknown where one is asked
                for, or the file is damaged.
        """
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        sampling = self._sampling(size, pixel_scale_arcsec, parity)
        for plane in self._planes:
            plane.expect(len(positions) * sampling.reach() ** 2)
        return sampling.take(self._planes, positions)

    def batches(
        self,
        positions_xy: ArrayLike,
        size: int,
        batch_size: int,
        *,
        pixel_scale_arcsec: float | None = None,
        parity: int | None = None,
    ) -> Iterator[tuple[np.ndarray, Cutouts]]:
        """Cut windows around many positions, batch by batch from the first row to the last.

        Args:
            positions_xy: centres in pixels, as for `cut`.
            size: side in pixels, as for `cut`.
            batch_size: cut-outs in a batch.
            pixel_scale_arcsec: pixel scale of the cut-outs, as for `cut`.
            parity: that of the cut-outs, as for `cut`.

        Yields:
            `(n,)` places in `positions_xy`, and the cut-outs there.

        Raises:
            InputError: as from `cut`.
        """
        positions = np.asarray(positions_xy, np.float64).reshape(-1, 2)
        extent = self._sampling(size, pixel_scale_arcsec, parity).extent
        for plane in self._planes:
            plane.expect(len(positions) * math.ceil(extent.max()) ** 2)
        order = np.lexsort((positions[:, 0], np.floor(positions[:, 1] / extent[1])))
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            yield part, self.cut(positions[part], size, pixel_scale_arcsec=pixel_scale_arcsec, parity=parity)

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

        plain = replace(self._sampling(size, None, None), ratios=None, period=None)
        cutout = plain.take(self._planes, np.array([[x, y]], float))
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

    def _sampling(self, size: int, pixel_scale_arcsec: float | None, parity: int | None) -> Sampling:
        """How windows are taken."""
        if not 1 <= size <= LARGEST:
            raise InputError(f"size is {size}, expected 1 to {LARGEST} pixels")
        ratios = self._ratios(size, pixel_scale_arcsec)
        return Sampling(size, ratios, self._orientation(parity), self.shape, self._period)

    def _ratios(self, size: int, pixel_scale_arcsec: float | None) -> tuple[float, float] | None:
        """Pixels of the mosaic along x and y to one of the cut-outs; None where those are copied."""
        if self.wcs is None or self.pixel_scale_arcsec is None:
            if pixel_scale_arcsec is None:
                return None
            raise InputError(
                f"{self.label}: has no WCS, so that its pixel scale is unknown; cut it without --pixel-scale"
            )
        if pixel_scale_arcsec is not None and not 0 < pixel_scale_arcsec < math.inf:
            raise InputError(f"pixel scale is {pixel_scale_arcsec:g} arcsec, expected more than 0")
        shear = grids.shear(self.wcs)
        if shear > _SHEARED:
            raise InputError(
                f"{self.label}: its rows and columns are {90 - shear:.1f} degrees apart on the sky, expected 90; "
                "reproject it, for example with the package reproject"
            )
        scale = pixel_scale_arcsec or self.pixel_scale_arcsec
        across, down = grids.pixel_scales(self.wcs)
        if abs(across / down - 1) < _SQUARE:
            across = down = self.pixel_scale_arcsec
        ratios = scale / across, scale / down
        if size * max(ratios) > LARGEST or min(ratios) < 1e-3:
            raise InputError(
                f"{self.label}: has {self.pixel_scale_arcsec:.4g} arcsec to a pixel, so that {size} of "
                f"{scale:.4g} arcsec are {size * max(ratios):.4g} of it; expected at most {LARGEST}, and a "
                "thousandth of a pixel or more for each: give another --pixel-scale or --size"
            )
        return None if all(abs(ratio - 1) < _SAME_SCALE for ratio in ratios) else ratios

    def _orientation(self, parity: int | None) -> Orientation:
        """How the mosaic is read, so that cut-outs have a parity."""
        if parity is None:
            return Orientation()
        if self.parity is None:
            raise InputError(
                f"{self.label}: has no WCS, so that its parity is unknown; expected {parity:+d}: give the parity that "
                "it has with --parity, -1 where east is left of north when the first row is at the bottom, else 1"
            )
        east, north = (np.array([self.parity, 0]), np.array([0, 1]))
        if self.wcs is not None:
            east, north = grids.directions(self.wcs)
        upright = abs(north[1]) >= abs(north[0])
        along_x, along_y = (-east[0], north[1]) if upright else (north[0], -east[1])
        backwards = None
        if parity != self.parity:
            # so that north, where it was up or down, is up
            backwards = int(north[1] < 0) if upright else int(north[0] >= 0)
        return Orientation(backwards, (bool(along_x < 0), bool(along_y < 0)))


def open_mosaic(
    paths: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[str] | None = None,
    hdu: int | str | Sequence[int | str] | None = None,
    parity: int | None = None,
) -> Mosaic:
    """Open a mosaic.

    Args:
        paths: a FITS file (`.fits`, `.fits.fz`, or packed: `.gz`, `.bz2`, `.xz`) with a 2-D image or a cube of bands,
            rows and columns; or several files on one grid, such as one for each band.
        bands: names, in order; by default those that the headers give.
        hdu: number or EXTNAME of the image in each file, or several, one for each band; needed where there are several.
        parity: the images' own, -1 or 1, where it is known better than by their WCS.

    Raises:
        InputError: a file cannot be read, has no image or several, lies on another grid than the first, or has another
            unit.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise InputError("no file is given; expected FITS files")
    keys = None if hdu is None else [hdu] if isinstance(hdu, int | str) else list(hdu)
    with contextlib.ExitStack() as stack:
        planes = [plane for path in files for plane in open_planes(path, keys, stack)]
        for plane in planes[1:]:
            if not grids.same_grid(planes[0], plane):
                how = grids.difference(planes[0], plane)
                raise InputError(
                    f"{plane.label}: lies on another grid ({grids.described(plane)}) than {planes[0].label} "
                    f"({grids.described(planes[0])}){how and f': {how}'}; expected one for all bands: "
                    "reproject it, for example with the package reproject"
                )
        _expect_one_unit(planes)
        return Mosaic(files, planes, _names(files, planes, bands), stack.pop_all(), parity)


def _expect_one_unit(planes: Sequence[Plane]) -> None:
    said = [plane for plane in planes if plane.unit]
    first, second = said[0] if said else None, next((p for p in said if not same_unit(p.unit, said[0].unit)), None)
    if first is not None and second is not None:
        raise InputError(
            f"{second.label}: has BUNIT {second.unit}, {first.label} has {first.unit}; expected one unit for all "
            "bands: convert one of them"
        )


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
