"""`geovision map` and its files: nothing of the user's is replaced, and what lies beside a map is read by others."""

import json
import os
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.polygons import write_polygons
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene
from tests.geovision.test_mapping import scene_values


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small_models.mapper(tmp_path_factory.mktemp("model"))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", scene_values(64, 80), small_models.BANDS)


def start(*arguments: str | Path) -> int:
    return run(app, ["map", *map(str, arguments), "--sensor", "sentinel2_l1c"])


@pytest.mark.parametrize("option", ["-o", "--probabilities"])
@pytest.mark.parametrize("link", [None, "hard", "symbolic"])
def test_no_output_replaces_an_input(scene: Path, model: Path, tmp_path: Path, capsys, option: str, link: str | None):
    before, target = scene.read_bytes(), scene
    if link:
        target = tmp_path / "linked.tif"
        (os.link if link == "hard" else os.symlink)(scene, target)
    outputs = ["-o", target] if option == "-o" else ["-o", tmp_path / "m.tif", "--probabilities", target]
    for further in ([], ["--overwrite"]):
        assert start("-i", scene, *outputs, "--model", model, *further) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert scene.read_bytes() == before and not (tmp_path / "m.tif").exists()


def test_no_output_replaces_a_band_of_a_folder_or_a_model(model: Path, tmp_path: Path, capsys):
    folder = tmp_path / "scene"
    for number, name in enumerate(("B02", "B03", "B8A")):
        write_scene(folder / f"x_{name}.tif", scene_values()[number : number + 1])
    before = (folder / "x_B03.tif").read_bytes()
    outputs = (folder / "x_B03.tif", model / "model.tif")
    assert start("-i", folder, "-o", outputs[0], "--model", model, "--overwrite") == 2
    assert "and it is an input" in capsys.readouterr().err
    assert (folder / "x_B03.tif").read_bytes() == before
    assert start("-i", folder, "-o", outputs[1], "--model", model, "--overwrite") == 2  # its side-car is the card
    assert "and it is an input" in capsys.readouterr().err


def test_a_foreign_json_of_the_scene_s_name_is_kept(scene: Path, model: Path, tmp_path: Path, capsys):
    item = tmp_path / "scene.json"
    item.write_text('{"type": "Feature", "stac_version": "1.0.0"}')
    assert start("-i", scene, "-o", tmp_path / "scene.tif", "--model", model) == 2
    assert "scene.json: is there and was not written by this program" in capsys.readouterr().err
    assert start("-i", scene, "-o", tmp_path / "scene.tif", "--model", model, "--overwrite") == 0
    assert (tmp_path / "scene.json.bak").read_text() == '{"type": "Feature", "stac_version": "1.0.0"}'


def test_maps_in_the_folder_of_their_scenes_are_no_scenes(model: Path, tmp_path: Path, capsys):
    folder = tmp_path / "f"
    for name in ("a", "b"):
        write_scene(folder / f"{name}.tif", scene_values(40, 40), small_models.BANDS)
    for _ in range(2):
        assert start("-i", folder, "-o", folder, "--model", model) == 0
        assert capsys.readouterr().out.count("done") == 2
    assert sorted(path.name for path in folder.glob("*.tif")) == ["a.tif", "a_map.tif", "b.tif", "b_map.tif"]


def test_polygons_and_a_picture_lie_beside_a_map(scene: Path, model: Path, tmp_path: Path, capsys):
    output, polygons = tmp_path / "m.tif", tmp_path / "p.gpkg"
    assert start("-i", scene, "-o", output, "--model", model, "--polygons", polygons, "--tile", "64") == 0
    side = json.loads((tmp_path / "m.json").read_text())
    assert side["tile"]["size"] == 64 and side["settings"]["tile"] == 64 and side["input"]["clouds"] == "not masked"
    table = geopandas.read_file(polygons)
    assert table.crs is not None and table.crs.to_epsg() == 32633 and len(table) == side["polygons"]
    assert table.geometry.is_valid.all() and table.confidence.between(1 / 3 - 1e-6, 1).all()
    with rasterio.open(output) as source:
        labels = source.read(1)
    for row in side["classes"]:
        mine = table[table["class"] == row["name"]]
        assert mine.pixels.sum() == row["pixels"] == (labels == row["id"]).sum()
        assert mine.area_m2.sum() == pytest.approx(row["hectares"] * 1e4, rel=1e-5)
        assert mine.geometry.area.sum() == pytest.approx(100 * row["pixels"])
    degrees, large = tmp_path / "p.geojson", tmp_path / "large.tif"
    smallest = ["--polygons", degrees, "--min-area", "0.1"]
    assert start("-i", scene, "-o", large, "--model", model, *smallest, "--tile", "64") == 0
    kept = geopandas.read_file(degrees)
    assert (
        kept.crs is not None
        and kept.crs.to_epsg() == 4326
        and len(kept) == (table.area_m2 >= 1000).sum()
        and (kept.area_m2 >= 1000).all()
    )
    with Image.open(tmp_path / "m.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert picture.size[0] > 1000
    for entry in small_models.CLASSES:
        assert (pixels == entry["color"]).all(1).any()


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_a_scene_without_a_place_is_mapped_on_its_own_grid(model: Path, tmp_path: Path, capsys, crs: str | None):
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 80), small_models.BANDS, crs=crs)
    given = ["-i", path, "-o", tmp_path / "m.tif", "--model", model, "--polygons", tmp_path / "p.gpkg"]
    assert start(*given, "--any-resolution") == 0
    said = capsys.readouterr()
    assert "warning: has " in said.err and ("ha\n" in said.out) == (crs is not None)
    with rasterio.open(tmp_path / "m.tif") as found, rasterio.open(path) as source:
        assert found.transform == source.transform and found.crs == source.crs
    assert len(geopandas.read_file(tmp_path / "p.gpkg")) >= 1
    refused = ["-i", path, "-o", tmp_path / "n.tif", "--model", model, "--polygons", tmp_path / "p.geojson"]
    assert start(*refused, "--any-resolution") == 2
    said = capsys.readouterr()
    assert "GeoJSON needs a place on the earth" in said.err and "map:" not in said.out  # before the network runs


@pytest.mark.parametrize(
    ("crs", "corner", "pixel"),
    [("EPSG:4326", (179.9, 10), 0.02), ("EPSG:32660", (833_000, 500_000), 100), ("EPSG:3413", (-450, 450), 100)],
)
def test_polygons_in_degrees_end_at_the_antimeridian(
    tmp_path: Path, crs: str, corner: tuple[float, float], pixel: float
):
    transform = from_origin(corner[0], corner[1], pixel, pixel)
    classes = np.zeros((1, 9, 9), np.uint8)
    classes[0, 2:4, 3:5] = 1
    write_scene(tmp_path / "m.tif", classes, crs=crs, transform=transform)
    write_scene(tmp_path / "c.tif", np.ones((1, 9, 9), np.float32), crs=crs, transform=transform)
    path = tmp_path / "p.geojson"
    entries: Any = small_models.CLASSES
    count = write_polygons(path, tmp_path / "m.tif", tmp_path / "c.tif", entries, smallest_m2=0)
    table = geopandas.read_file(path)
    assert len(table) == count == 2 and table.geometry.is_valid.all() and table.pixels.sum() == 81
    west, south, east, north = table.total_bounds
    assert west >= -180 and east <= 180 and south >= -90 and north <= 90


def test_hectares_are_those_on_the_ground(model: Path, tmp_path: Path, capsys):
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [15.0], [60.0])[:2]
    path = write_scene(
        tmp_path / "s.tif", ramp(3, 64, 64), small_models.BANDS, crs="EPSG:3857", transform=from_origin(x, y, 20, 20)
    )
    assert start("-i", path, "-o", tmp_path / "m.tif", "--model", model) == 0
    side = json.loads((tmp_path / "m.json").read_text())
    assert sum(row["hectares"] for row in side["classes"]) == pytest.approx(64 * 64 * 100 / 1e4, rel=0.01)
    assert side["input"]["gsd_m"] == pytest.approx(10, rel=0.01)


def test_tiles_and_polygons_that_make_no_sense_are_one_line(scene: Path, model: Path, tmp_path: Path, capsys):
    assert start("-i", scene, "-o", tmp_path / "m.tif", "--model", model, "--polygons", tmp_path / "p.txt") == 2
    assert "p.txt: ends in .txt, expected .gpkg or .geojson" in capsys.readouterr().err
    assert start("-i", tmp_path, "-o", tmp_path / "maps", "--model", model, "--polygons", tmp_path / "p.gpkg") == 2
    assert "--polygons: means nothing for a folder" in capsys.readouterr().err
