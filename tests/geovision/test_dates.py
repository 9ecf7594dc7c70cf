"""The day on which a scene was taken."""

from pathlib import Path

import pytest
import rasterio

from geovision.dates import acquisition_date
from geovision.scenes import open_scene
from tests.geovision.rasters import ramp, write_scene


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("S2A_MSIL1C_20150731T100008_N0204_R122_T33TVL.tif", "2015-07-31"),
        ("LC08_L1TP_190028_20130707_20180425_01_T1.tif", "2013-07-07"),
        ("HLS.S30.T13TGF.2020245T173901.v2.0.tif", "2020-09-01"),
        ("S2_L1C_13band_2015-08-30.tif", "2015-08-30"),
        ("scene_2015_08_30.tif", "2015-08-30"),
        ("scene.tif", None),
        ("tile_20151399.tif", None),
        ("serial-1234201507311.tif", None),
    ],
)
def test_names_of_products_tell_it(tmp_path: Path, name: str, day: str | None):
    path = write_scene(tmp_path / name, ramp(), ["B2", "B3", "B4"])
    with open_scene(path, sensor="sentinel2_l1c") as scene:
        date = acquisition_date(scene)
    assert date is None if day is None else date is not None and (date[0].isoformat(), date[1]) == (day, "name")


def test_the_file_itself_comes_before_its_name_and_the_time_of_writing_is_none(tmp_path: Path):
    path = write_scene(tmp_path / "a_20100101.tif", ramp(), ["B2", "B3", "B4"])
    with rasterio.open(path, "r+") as target:
        target.update_tags(TIFFTAG_DATETIME="2024:01:01 00:00:00", SENSING_TIME="2019-06-05T10:00:31.024Z")
    with open_scene(path, sensor="sentinel2_l1c") as scene:
        date = acquisition_date(scene)
    assert date is not None and (date[0].isoformat(), date[1]) == ("2019-06-05", "file")
