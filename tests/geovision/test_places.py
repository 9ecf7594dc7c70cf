"""Places: sizes on the ground, outlines over borders and poles, and scenes that have no place."""

import re
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from geovision.embedding import Embedder, write_embeddings
from geovision.footprints import bounds, check_place, footprint
from geovision.grids import Grid
from geovision.scenes import open_for_model, open_scene
from shared_backbones.errors import InputError
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene
from tests.geovision.test_scenes import S2, contract

GEOD = pyproj.Geod(ellps="WGS84")
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'


def grid_at(crs: str, longitude: float, latitude: float, pixel: float, side: int = 20, turn: float = 0.0) -> Grid:
    """A grid around a place."""
    (x,), (y,) = transform("OGC:CRS84", crs, [longitude], [latitude])[:2]
    middle = Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(pixel, -pixel)
    return Grid(CRS.from_user_input(crs), middle @ Affine.translation(-side / 2, -side / 2), side, side)


@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from([("EPSG:3857", 10.0), ("EPSG:4326", 1e-4), ("EPSG:32633", 10.0), ("EPSG:3035", 30.0)]),
    longitude=st.floats(9, 21),
    latitude=st.floats(35, 70),
    turn=st.floats(-180, 180),
)
def test_sizes_are_those_on_the_ground(case: tuple[str, float], longitude: float, latitude: float, turn: float):
    crs, pixel = case
    grid = grid_at(crs, longitude, latitude, pixel, turn=turn)
    x, y = grid.transform @ (np.array([10.0, 11, 11, 10]), np.array([10.0, 10, 11, 11]))
    lon, lat = (np.array(part) for part in transform(crs, "OGC:CRS84", x.tolist(), y.tolist())[:2])
    wanted = [GEOD.inv(lon[0], lat[0], lon[i], lat[i])[2] for i in (1, 3)]
    assert grid.gsd_sides_m == pytest.approx(wanted, rel=1e-4)
    area = abs(GEOD.polygon_area_perimeter(lon, lat)[0])
    areas = grid.areas_m2(0, 0, 20, 20)
    assert areas is not None and areas[10, 10] == pytest.approx(area, rel=1e-4)


def test_web_mercator_at_60_degrees_is_half_as_large_as_it_says(tmp_path: Path):
    grid = grid_at("EPSG:3857", 15, 60, 20, side=64)
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 64), S2, crs="EPSG:3857", transform=grid.transform)
    with open_for_model(path, contract(gsd_m=10), sensor="sentinel2_l1c") as scene:
        assert scene.grid.gsd_m == pytest.approx(10, rel=0.01)
        scene.check(contract(gsd_m=10))
        with pytest.raises(InputError, match=r"pixels of 10\.\d+ m"):
            scene.check(contract(gsd_m=20))


def test_areas_follow_the_latitude_over_a_whole_grid():
    grid = Grid(CRS.from_epsg(4326), from_origin(0, 80, 0.1, 0.1), 800, 10)
    areas = grid.areas_m2(0, 0, 800, 10)
    assert areas is not None
    for row in (5, 300, 790):
        top, bottom = 80 - row / 10, 79.9 - row / 10
        lon, lat = [0, 0.1, 0.1, 0], [bottom, bottom, top, top]
        assert areas[row, 3] == pytest.approx(abs(GEOD.polygon_area_perimeter(lon, lat)[0]), rel=0.005)


def test_a_window_across_the_antimeridian_is_two_polygons():
    grid = grid_at("EPSG:32601", 180, 65, 1000, side=40)
    outline = footprint(grid, 0, 0, 40, 40, "s")
    assert isinstance(outline, shapely.MultiPolygon) and len(outline.geoms) == 2 and outline.is_valid
    west, south, east, north = bounds([outline])
    assert west > 179 and east < -179 and south < 65 < north
    assert shapely.covers(outline, shapely.Point(179.99, 65)) and shapely.covers(outline, shapely.Point(-179.99, 65))
    assert not shapely.covers(outline, shapely.Point(0, 65))


def test_degrees_beyond_180_and_a_whole_world(tmp_path: Path):
    pacific = Grid(CRS.from_epsg(4326), from_origin(170, 10, 1, 1), 20, 20)
    outline = footprint(pacific, 0, 0, 20, 20, "s")
    assert bounds([outline]) == [170, -10, -170, 10] and outline.is_valid
    world = Grid(CRS.from_epsg(4326), from_origin(-180, 90, 1, 1), 180, 360)
    assert footprint(world, 0, 0, 180, 360, "s").equals(shapely.box(-180, -90, 180, 90))
    for corner, rows, columns in ((0, 180, 360), (-180.5, 181, 361)):  # from Greenwich, and by centres of pixels
        grid = Grid(CRS.from_epsg(4326), from_origin(corner, 90.5 if rows > 180 else 90, 1, 1), rows, columns)
        outline = footprint(grid, 0, 0, rows, columns, "s")
        assert outline.is_valid and outline.area == pytest.approx(360 * 180)
        assert bounds([outline]) == [-180, -90, 180, 90]
    beyond = footprint(Grid(CRS.from_epsg(4326), from_origin(5, 95, 1, 1), 20, 20), 0, 0, 20, 20, "s")
    assert beyond.bounds == (5, 75, 25, 90)


def test_maps_of_the_globe_end_at_their_outline():
    """Beside it, the inverse of a projection answers with places of the other side."""
    radius = 6_371_007.181  # of MODIS's sphere
    crs, side = CRS.from_string(f"+proj=sinu +R={radius}"), np.pi * radius / 18
    tile = Grid(crs, from_origin(-9 * side, 7 * side, side / 20, side / 20), 20, 20)  # between 60 and 70 degrees
    outline = footprint(tile, 0, 0, 20, 20, "s")
    assert outline.is_valid and outline.bounds[0] == pytest.approx(-180, abs=0.5) and outline.bounds[2] < -159
    nowhere = Grid(crs, from_origin(-18 * side, 9 * side, side / 20, side / 20), 20, 20)
    with pytest.raises(InputError, match="a window lies off the earth"):
        footprint(nowhere, 0, 0, 20, 20, "s")
    whole = Grid(CRS.from_string("+proj=moll"), from_origin(-18_040_096, 9_020_048, 281_877, 281_877), 64, 128)
    west, south, east, north = bounds([footprint(whole, 0, 0, 64, 128, "s")])
    assert max(west, -east) < -179 and max(south, -north) < -85


@pytest.mark.parametrize(
    ("crs", "sides"),
    [
        ("+proj=eqc +R=3396190", (100, 100)),
        ("+proj=longlat +R=1737400", None),
        ("EPSG:4978", (100, 100)),
        (LOCAL, (100, 100)),
    ],
)
def test_other_bodies_and_sites_have_no_place(crs: str, sides: tuple[float, float] | None):
    grid = Grid(CRS.from_user_input(crs), from_origin(0, 0, 100, 100), 8, 8)
    assert not grid.on_earth and grid.gsd_sides_m == sides and grid.north_deg is None


def test_a_crs_without_a_transform_is_no_place(tmp_path: Path):
    for name, transform_ in (("i", Affine.identity()), ("z", Affine(0, 0, 0, 0, 0, 0))):
        vrt = tmp_path / f"{name}.vrt"
        write_scene(tmp_path / "s.tif", ramp(3), S2)
        rasterio.shutil.copy(tmp_path / "s.tif", vrt, driver="VRT")
        text = re.sub(r"<GeoTransform>.*</GeoTransform>", "<GeoTransform>%s</GeoTransform>", vrt.read_text())
        vrt.write_text(text % ", ".join(map(str, transform_.to_gdal())))
        with open_scene(vrt) as scene:
            assert not scene.grid.on_earth and scene.grid.gsd_m is None and scene.read(0, 0, 2, 2)[1].all()
            with pytest.raises(InputError, match="says nowhere where its pixels lie, so its footprint is unknown"):
                check_place(scene.grid, "s")


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90), ("EPSG:32661", 90)])
@pytest.mark.parametrize("shift", [0, 3, -6])
def test_a_window_over_a_pole_holds_it(crs: str, pole: float, shift: int):
    grid = grid_at(crs, 0, pole, 10_000, side=20)
    outline = footprint(grid, shift, 0, 20, 20, "s")
    assert outline.is_valid and shapely.covers(outline, shapely.Point(33, pole))
    for longitude in (-179, -90, 0, 90, 179):
        assert shapely.covers(outline, shapely.Point(longitude, pole - np.sign(pole) * 0.2))
        assert not shapely.covers(outline, shapely.Point(longitude, pole - np.sign(pole) * 3))
    beside = footprint(grid, 30, 0, 20, 20, "s")
    assert not shapely.covers(beside, shapely.Point(33, pole)) and beside.is_valid


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:3413", 90), ("EPSG:3031", -90), ("EPSG:32661", 90)])
@pytest.mark.parametrize("shift", [0, 0.5, 3, 200])
def test_sizes_at_a_pole_are_those_on_the_ground(crs: str, pole: float, shift: float):
    plain = grid_at(crs, 0, pole, 1000)
    grid = Grid(plain.crs, plain.transform @ Affine.translation(shift, shift), 20, 20)
    ends = np.array([9.5, 10.5, 10, 10]), np.array([10, 10, 9.5, 10.5])
    x, y = grid.transform @ ends
    lon, lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    wanted = [GEOD.inv(lon[i], lat[i], lon[i + 1], lat[i + 1])[2] for i in (0, 2)]
    assert grid.gsd_sides_m == pytest.approx(wanted, rel=1e-4)
    areas = grid.areas_m2(0, 0, 20, 20)
    assert areas is not None and areas == pytest.approx(np.prod(wanted), rel=1e-2)


@settings(max_examples=100, deadline=None)
@given(longitude=st.floats(-180, 180), latitude=st.floats(-89.9, 89.9), turn=st.floats(0, 360))
def test_an_outline_anywhere_is_valid_and_holds_its_middle(longitude: float, latitude: float, turn: float):
    crs = f"+proj=laea +lat_0={round(latitude)} +lon_0={round(longitude)} +datum=WGS84"
    grid = grid_at(crs, longitude, latitude, 1000, side=30, turn=turn)
    outline = footprint(grid, 0, 0, 30, 30, "s")
    assert outline.is_valid and shapely.distance(outline, shapely.Point(longitude, latitude)) < 1e-6
    assert abs(GEOD.geometry_area_perimeter(outline)[0]) == pytest.approx(30_000**2, rel=0.05)


def test_a_disc_of_the_earth_is_outlined_where_it_is_on_it(tmp_path: Path):
    crs = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +datum=WGS84"
    side = 5_500_000
    grid = Grid(CRS.from_user_input(crs), from_origin(-side, side, 110_000, 110_000), 100, 100)
    outline = footprint(grid, 0, 0, 100, 100, "s")
    assert outline.is_valid and shapely.covers(outline, shapely.Point(0, 0)) and outline.bounds[2] < 82
    with pytest.raises(InputError, match="s: a window lies off the earth"):
        footprint(grid, 0, 0, 5, 5, "s")
    assert grid.gsd_m == pytest.approx(110_000, rel=0.01)
    path = write_scene(tmp_path / "s.tif", ramp(3, 100, 100), S2, crs=crs, transform=grid.transform)
    with open_scene(path, sensor="sentinel2_l1c") as scene:
        assert scene.read(0, 0, 100, 100)[1].all()


def test_embeddings_across_the_antimeridian_are_read_by_others(tmp_path: Path):
    grid = grid_at("EPSG:32601", 180, 65, 10, side=64)
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 64), S2, crs="EPSG:32601", transform=grid.transform)
    embedder = Embedder(small_models.classifier(tmp_path / "m"))
    with open_for_model(path, embedder.contract, sensor="sentinel2_l1c") as scene:
        found = embedder.embed(scene)
    write_embeddings(tmp_path / "e.parquet", [("s", "0" * 64, found)], embedder.sha256)
    table = geopandas.read_parquet(tmp_path / "e.parquet")
    assert table.geometry.is_valid.all() and (table.geometry.bounds.maxx - table.geometry.bounds.minx < 1).any()
    areas = [abs(GEOD.geometry_area_perimeter(shape)[0]) for shape in table.geometry]
    np.testing.assert_allclose(areas, 160 * 160, rtol=0.01)

    import json

    import pyarrow.parquet

    geo = json.loads(pyarrow.parquet.read_schema(tmp_path / "e.parquet").metadata[b"geo"])
    west, _, east, _ = geo["columns"]["geometry"]["bbox"]
    assert west > 179 and east < -179


@pytest.mark.parametrize("crs", [None, LOCAL])
def test_a_scene_without_a_place_has_no_footprint(tmp_path: Path, crs: str | None):
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 64), S2, crs=crs)
    embedder = Embedder(small_models.classifier(tmp_path / "m"))
    with open_for_model(path, embedder.contract, sensor="sentinel2_l1c") as scene:
        assert scene.grid.gsd_m == (None if crs is None else pytest.approx(10))
        with pytest.raises(InputError, match="so its footprint is unknown"):
            embedder.embed(scene)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # that is the case
def test_a_crs_makes_no_place_out_of_an_identity_transform(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2, crs=None, transform=None)
    with pytest.raises(InputError, match=r"s\.tif: --crs EPSG:32633: the file says nowhere where its pixels lie"):
        open_scene(path, crs="EPSG:32633")
    with open_scene(path) as scene:
        assert scene.grid.crs is None


def test_ground_control_points_are_named_and_used_on_request(tmp_path: Path):
    corner, pixel = (500_000.0, 5_100_000.0), 10.0
    points = [
        GroundControlPoint(row, column, corner[0] + pixel * column, corner[1] - pixel * row)
        for row in (0, 20, 40)
        for column in (0, 25, 50)
    ]
    path = tmp_path / "s.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=40, width=50, dtype="uint16", gcps=points, crs=CRS.from_epsg(32633)
    ) as target:
        target.write(ramp())
        for number, name in enumerate(S2, 1):
            target.set_band_description(number, name)
    with open_scene(path) as scene:
        assert "has 9 ground control points in EPSG:32633, which were not used" in scene.warnings[0]
    with open_scene(path, georeference="gcps") as scene:
        assert scene.grid.crs.to_epsg() == 32633 and scene.grid.gsd_m == pytest.approx(10, rel=0.02)
        values, valid = scene.read(0, 0, *scene.shape, scale=1e-4)
        assert valid.mean() > 0.95
        x, y = scene.grid.transform @ (25.5, 20.5)
        wanted = 1000 + 10 * ((corner[1] - y) / pixel - 0.5) + ((x - corner[0]) / pixel - 0.5)
        assert values[0, 20, 25] == pytest.approx(wanted, abs=0.5)
    with pytest.raises(InputError, match="--georeference rpcs: the file has 9 ground control points"):
        open_scene(path, georeference="rpcs")
    with pytest.raises(InputError, match="give --georeference gcps"):
        open_scene(path, crs="EPSG:32633")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # that is the case
def test_rational_polynomials_are_used_on_request(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2, crs=None, transform=None)
    ones = ["1"] + ["0"] * 19
    rpcs = {
        "LINE_OFF": "20", "SAMP_OFF": "25", "LAT_OFF": "46", "LONG_OFF": "15", "HEIGHT_OFF": "0",
        "LINE_SCALE": "20", "SAMP_SCALE": "25", "LAT_SCALE": "0.002", "LONG_SCALE": "0.0025", "HEIGHT_SCALE": "500",
        "LINE_NUM_COEFF": " ".join(["0", "0", "-1", *["0"] * 17]), "LINE_DEN_COEFF": " ".join(ones),
        "SAMP_NUM_COEFF": " ".join(["0", "1", *["0"] * 18]), "SAMP_DEN_COEFF": " ".join(ones),
    }  # fmt: skip
    with rasterio.open(path, "r+") as target:
        target.update_tags(ns="RPC", **rpcs)
    with open_scene(path) as scene:
        assert "rational polynomial coefficients, which were not used; --georeference rpcs" in scene.warnings[0]
    with open_scene(path, georeference="rpcs") as scene:
        assert scene.grid.crs.to_epsg() == 4326
        longitude, latitude = scene.grid.transform @ (scene.shape[1] / 2, scene.shape[0] / 2)
        assert (longitude, latitude) == pytest.approx((15, 46), abs=0.0005)
        assert scene.read(0, 0, *scene.shape)[1].mean() > 0.9
