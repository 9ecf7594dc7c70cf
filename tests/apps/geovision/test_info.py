"""`geovision info`: every raster is described, and what a model would lack is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from tests.geovision import landsat, small_models
from tests.geovision.rasters import ramp, write_scene


def described(capsys, *arguments: str | Path) -> dict:
    assert run(app, ["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_raster_without_names_is_described_with_what_it_lacks(tmp_path: Path, capsys):
    values = ramp(2).astype(np.float32)
    values[0, 0, 0] = -9999
    path = write_scene(tmp_path / "s.tif", values, nodata=-9999)
    found = described(capsys, path)
    assert found["scene"] is None and "2 bands have no names" in found["lacks"] and "--bands" in found["lacks"]
    band = found["rasters"][0]["bands"][0]
    assert (band["nodata"], band["min"], band["max"], band["dtype"]) == (-9999, 1001, 1439, "float32")
    assert found["rasters"][0]["crs"] == "EPSG:32633" and found["height"] == 40
    assert run(app, ["info", str(path)]) == 0
    assert "a model would lack: its 2 bands have no names" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dtype", "driver"),
    [
        ("uint8", "PNG"),
        ("int16", "ENVI"),
        ("float64", "AAIGrid"),
        ("complex64", "GTiff"),
        ("int8", "GTiff"),
        ("uint8", "GPKG"),
        ("uint8", "VICAR"),
        ("uint8", "PNM"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_formats_and_types_are_described(tmp_path: Path, capsys, dtype: str, driver: str):
    import rasterio.shutil

    values = (np.arange(30).reshape(1, 5, 6) % 7).astype(dtype)
    path = write_scene(tmp_path / "s.tif", values)
    target = tmp_path / {"PNG": "s.png", "ENVI": "s.img", "AAIGrid": "s.asc"}.get(
        driver, f"s.{driver.lower()}".replace("pnm", "pgm")
    )
    if driver == "GTiff":
        target = path
    else:
        rasterio.shutil.copy(path, target, driver=driver)
    found = described(capsys, target)
    raster = found["rasters"][0]
    assert raster["format"] == driver and (raster["height"], raster["width"]) == (5, 6)
    assert dtype.startswith("complex") or raster["bands"][0]["max"] == 6
    assert not dtype.startswith("complex") or "has complex values" in found["lacks"]


def test_ranges_are_judged_as_map_judges_them(tmp_path: Path, capsys):
    path = write_scene(tmp_path / "s.tif", (ramp() * 1e-4).astype(np.float32), small_models.BANDS)
    found = described(capsys, path)
    assert found["sensor"] == "sentinel2_l2a" and "give --scale 1" in found["lacks"]


def test_models_say_what_they_lack(tmp_path: Path, capsys):
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 64), small_models.BANDS)
    model = small_models.mapper(tmp_path / "m")
    found = described(capsys, path, "--model", model)
    lacks = {entry["model"]: entry["lacks"] for entry in found["models"]}
    assert "pass --sensor sentinel2_l1c" in lacks[str(model)] and "lacks red, swir" in lacks["surface-types"]
    found = described(capsys, path, "--model", model, "--sensor", "sentinel2_l1c")
    assert found["models"][-1] == {"model": str(model), "lacks": ""}


def test_a_product_says_which_band_tells_its_clouds(tmp_path: Path, capsys):
    landsat.write_product(tmp_path)
    found = described(capsys, tmp_path)
    assert found["cloud_band"] == "QA_PIXEL" and found["clouds"] == "not masked"
    assert {band["unit"] for band in found["bands"]} == {"reflectance", "kelvin"}
    assert run(app, ["info", str(tmp_path), "--mask-clouds"]) == 0
    assert "clouds: QA_PIXEL (masked by QA_PIXEL)" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["site",UNIT["metre",1]]', "+proj=geos +h=35785831 +lon_0=0 +sweep=y"])
def test_scenes_without_a_place_or_off_the_earth_are_described(tmp_path: Path, capsys, crs: str | None):
    corner = from_origin(-5_500_000, 5_500_000, 110_000, 110_000)
    path = write_scene(tmp_path / "s.tif", ramp(3, 100, 100), small_models.BANDS, crs=crs, transform=corner)
    found = described(capsys, path)
    assert found["height"] == 100 and (found["gsd_m"] is None) == (crs is None)
    assert (found["bbox"] is not None) == (crs is not None and "geos" in crs)


def test_what_is_no_raster_is_one_line(tmp_path: Path, capsys):
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path / "notes.txt", tmp_path / "absent.tif", tmp_path):
        assert run(app, ["info", str(path)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    hostile = tmp_path / "s.tif"
    hostile.write_text("<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>")
    assert run(app, ["info", str(hostile)]) == 2


def test_every_sample_raster_is_described(data_root: Path, capsys):
    files = [path for path in sorted((data_root / "geo").rglob("*")) if path.suffix in {".tif", ".nc"}]
    assert len(files) >= 19
    for path in files:
        found = described(capsys, path)
        assert found["rasters"][0]["height"] > 0 and (found["scene"] or found["lacks"])
