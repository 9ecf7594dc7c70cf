"""Cut-outs a second from a mosaic, beside astropy's Cutout2D in the same process."""

import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astrovision.cutouts import open_mosaic

SIDE, SIZE = 6000, 128


def mosaic(path: Path, dtype: str) -> Path:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [150, 2], [SIDE / 2, SIDE / 2], [-7e-5, 7e-5]
    values = np.random.default_rng(0).normal(100, 10, (SIDE, SIDE)).astype(dtype)
    fits.PrimaryHDU(values, wcs.to_header()).writeto(path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_cutouts_a_second(dtype: str, tmp_path: Path) -> None:
    path = mosaic(tmp_path / "mosaic.fits", dtype)
    positions = np.random.default_rng(1).uniform(100, SIDE - 100, (20_000, 2))
    with open_mosaic(path) as source:
        for _ in source.batches(positions, SIZE, 1000):  # pages are in memory after the first lap
            pass
        start = time.perf_counter()
        count = sum(len(found) for _, found in source.batches(positions, SIZE, 1000))
        ours = count / (time.perf_counter() - start)
        start = time.perf_counter()
        source.cut(positions[:4000], SIZE)
        unsorted = 4000 / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in source.batches(positions[:2000], SIZE, 1000, pixel_scale_arcsec=0.396):
            pass
        resampled = 2000 / (time.perf_counter() - start)
    with fits.open(path, memmap=True) as hdus:
        data, wcs = hdus[0].data, WCS(hdus[0].header)  # pyright: ignore[reportAttributeAccessIssue]
        start = time.perf_counter()
        for x, y in positions[:1000]:
            np.asarray(Cutout2D(data, (x, y), SIZE, wcs=wcs, mode="partial", fill_value=0, copy=True).data, "float32")
        theirs = 1000 / (time.perf_counter() - start)
    print(
        f"\n{SIZE} x {SIZE} of {SIDE} x {SIDE} {dtype}: {ours:,.0f} cut-outs a second by batches, {unsorted:,.0f} in "
        f"one array, {resampled:,.0f} resampled; Cutout2D with WCS {theirs:,.0f}: ratio {ours / theirs:.1f}"
    )
