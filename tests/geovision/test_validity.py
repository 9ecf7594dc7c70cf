"""Validity has one meaning: no nodata value, mask above 0 and alpha above 0, on the source's grid, before any warp."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from geovision.datasets.labels import IGNORED, LabelRaster
from geovision.scenes import open_scene
from tests.geovision.rasters import TRANSFORM, write_scene

DTYPES = ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
SIDE = 12  # of the coarse raster, whose pixels are two of the fine one's


def write(
    path: Path, values: np.ndarray, nodata: Any, mask: np.ndarray | None, alpha: np.ndarray | None, pixel: float
) -> None:
    planes = [values] if alpha is None else [values, np.where(alpha, np.array(200, values.dtype), 0)]
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=len(planes), height=SIDE, width=SIDE, dtype=values.dtype,
            crs="EPSG:32633", transform=from_origin(500_000, 5_100_000, pixel, pixel), nodata=nodata,
        ) as target,
    ):  # fmt: skip
        if alpha is not None:
            target.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        target.write(np.stack(planes))
        target.set_band_description(1, "B8A")
        if mask is not None:
            target.write_mask(mask)


def flags(draw: np.random.Generator) -> np.ndarray:
    return draw.random((SIDE, SIDE)) > 0.15


@settings(max_examples=120, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    nodata=st.booleans(),
    mask=st.booleans(),
    alpha=st.booleans(),
    resampled=st.booleans(),
    window=st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(2, 16), st.integers(2, 16)),
    seed=st.integers(0, 2**16),
)
def test_a_pixel_is_valid_where_all_that_it_was_made_of_is(
    tmp_path_factory, dtype: str, nodata: bool, mask: bool, alpha: bool, resampled: bool, window: tuple, seed: int
):
    folder = tmp_path_factory.mktemp("v")
    draw = np.random.default_rng(seed)
    values = draw.integers(40, 90, (SIDE, SIDE)).astype(dtype)
    missing = {"uint8": 0, "uint16": 0, "uint32": 4_294_967_295}.get(dtype, -9999)
    good = np.ones((SIDE, SIDE), bool)
    layers: dict[str, np.ndarray | None] = {"mask": None, "alpha": None}
    if nodata:
        gone = flags(draw)
        values[~gone] = missing
        good &= gone
    for name, wanted in (("mask", mask), ("alpha", alpha)):
        if wanted:
            layers[name] = flags(draw)
            good &= layers[name]
    write(folder / "x_B8A.tif", values, missing if nodata else None, layers["mask"], layers["alpha"], 20.0)
    if resampled:
        write_scene(folder / "x_B02.tif", np.full((1, 2 * SIDE, 2 * SIDE), 50, np.uint16), ["B2"])
    row, column, height, width = window
    side = 2 * SIDE if resampled else SIDE
    row, column = min(row, side - 1), min(column, side - 1)
    height, width = min(height, side - row), min(width, side - column)
    with open_scene(folder, scale=1.0, sensor="sentinel2_l2a") as scene:
        found, valid = scene.read(row, column, height, width)
    plane = found[scene.bands.index("B8A")]
    for i in range(height):
        for j in range(width):
            weights = kernel(row + i, column + j, resampled)
            assert valid[i, j] == all(good[place] for place in weights)
            wanted = sum(weight * float(values[place]) for place, weight in weights.items()) if valid[i, j] else 0.0
            assert plane[i, j] == pytest.approx(wanted, rel=1e-5)


def kernel(row: int, column: int, resampled: bool) -> dict[tuple[int, int], float]:
    """Coarse pixels that a fine one is made of, with their weights."""
    if not resampled:
        return {(row, column): 1.0}
    parts: dict[tuple[int, int], float] = {}
    for i, down in neighbours(row):
        for j, right in neighbours(column):
            parts[i, j] = parts.get((i, j), 0.0) + down * right
    return parts


def neighbours(place: int) -> list[tuple[int, float]]:
    where = (place + 0.5) / 2 - 0.5
    first = int(np.floor(where))
    return [(min(max(n, 0), SIDE - 1), 1 - abs(where - n)) for n in (first, first + 1)]


def test_nothing_bleeds_at_the_edge_of_a_swath(tmp_path: Path):
    values = np.full((1, 20, 25), 2000, np.uint16)
    values[:, :, :10] = 0
    write_scene(tmp_path / "x_B02.tif", np.full((1, 40, 50), 2000, np.uint16))
    write_scene(tmp_path / "x_B8A.tif", values, transform=from_origin(500_000, 5_100_000, 20, 20), nodata=0)
    with open_scene(tmp_path) as scene:
        found, valid = scene.read(0, 0, 40, 50)
    np.testing.assert_allclose(found[1][valid], 0.2, rtol=1e-6)
    assert not valid[:, :21].any() and valid[:, 21:].all()


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_what_a_band_does_not_cover_is_invalid(tmp_path: Path, dtype: str):
    write_scene(tmp_path / "x_B02.tif", np.full((1, 40, 50), 2000, np.uint16))
    write_scene(
        tmp_path / "x_B8A.tif", np.full((1, 10, 25), 2000, dtype), transform=from_origin(500_000, 5_100_000, 20, 20)
    )
    with open_scene(tmp_path) as scene:
        _, valid = scene.read(0, 0, 40, 50)
    assert valid[:20].all() and not valid[20:].any()


def test_a_reprojected_band_is_valid_where_its_source_is(tmp_path: Path):
    from rasterio.warp import transform

    write_scene(tmp_path / "x_B02.tif", np.full((1, 40, 50), 2000, np.uint16))
    (x,), (y,) = transform("EPSG:32633", "EPSG:32634", [500_000.0], [5_100_000.0])[:2]
    values = np.full((1, 300, 300), 2000, np.float32)
    values[:, 80:86, 80:86] = -9999
    corner = from_origin(x - 1500, y + 1500, 20, 20)
    write_scene(tmp_path / "x_B8A.tif", values, crs="EPSG:32634", transform=corner, nodata=-9999)
    with open_scene(tmp_path, reproject=True, sensor="sentinel2_l2a") as scene:
        found, valid = scene.read(0, 0, 40, 50)
        columns, rows = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
        east, north = transform(
            "EPSG:32633", "EPSG:32634", (500_000 + 10 * columns).ravel(), (5_100_000 - 10 * rows).ravel()
        )[:2]  # fmt: skip
    np.testing.assert_allclose(found[1][valid], 0.2, rtol=1e-6)
    across = (np.reshape(east, (40, 50)) - (x - 1500)) / 20 - 0.5
    down = ((y + 1500) - np.reshape(north, (40, 50))) / 20 - 0.5
    gone = (across > 79.01) & (across < 85.99) & (down > 79.01) & (down < 85.99)
    clear = (across < 78.99) | (across > 86.01) | (down < 78.99) | (down > 86.01)
    assert gone.any() and not valid[gone].any() and valid[clear].all()


@given(
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "int64"]), mask=st.booleans(), seed=st.integers(0, 999)
)
@settings(max_examples=30, deadline=None)
def test_labels_heed_nodata_and_mask_whatever_their_type(tmp_path_factory, dtype: str, mask: bool, seed: int):
    folder, draw = tmp_path_factory.mktemp("l"), np.random.default_rng(seed)
    scene = write_scene(folder / "s.tif", np.full((1, 16, 18), 900, np.uint16), ["B8A"])
    labels = draw.choice([0, 2, 3, 102], (16, 18)).astype(dtype)
    kept = draw.random((16, 18)) > 0.3
    with rasterio.open(
        folder / "l.tif", "w", driver="GTiff", count=1, height=16, width=18, dtype=dtype, nodata=0,
        crs="EPSG:32633", transform=TRANSFORM,
    ) as target:  # fmt: skip
        target.write(labels[None])
        if mask:
            target.write_mask(kept)
    wanted = np.full((16, 18), IGNORED)
    for number, value in enumerate((0, 2, 3)):
        wanted[(labels == value) & (labels != 0) & (kept | (not mask))] = number
    with open_scene(scene) as opened, LabelRaster(folder / "l.tif", opened, (0, 2, 3)) as raster:
        np.testing.assert_array_equal(raster.read(0, 0, 16, 18), wanted)
        np.testing.assert_array_equal(raster.sample((16, 18)), wanted)
        assert set(raster.foreign) <= {102}
