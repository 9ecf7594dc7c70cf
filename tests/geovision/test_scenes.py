"""Scenes: bands by name, values by unit, grids that match, and a line for everything that does not."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from geovision.contract import InputContract, input_section
from geovision.scenes import find_scenes, open_for_model, open_scene
from geovision.sensors import SENSORS, find_sensor, plain_name, recognise
from shared_backbones.errors import InputError
from tests.geovision.rasters import ramp, write_scene

S2 = ["B2", "B3", "B8A"]


def contract(bands=S2, sensor="sentinel2_l1c", **changes) -> InputContract:
    return InputContract.from_card({"input": {**input_section(sensor, bands, 32), **changes}}, "m")


@pytest.mark.parametrize(
    ("text", "name"),
    [("B02", "B2"), ("b2", "B2"), ("Band 2", "B2"), ("SR_B2", "B2"), ("B8A", "B8A"), ("b08a", "B8A"), ("B12", "B12")],
)
def test_a_band_has_one_name_however_it_is_written(text: str, name: str):
    assert plain_name(text) == name
    assert find_sensor("sentinel2_l1c").band(text).name == name


def test_colours_name_bands_where_one_band_has_them():
    assert find_sensor("landsat8").band("red").name == "B4"
    assert find_sensor("landsat7").band("red").name == "B3"


def test_names_that_several_sensors_have_are_not_guessed():
    assert recognise(["B2", "B3", "B4"]) is None
    found = recognise(["B2", "B8A", "B10"])
    assert found is not None and found.name == "sentinel2_l1c"
    found = recognise(["B2", "B8A"])
    assert found is not None and found.name == "sentinel2_l2a"


def test_every_sensor_has_bands_of_its_own():
    for sensor in SENSORS.values():
        assert len(set(sensor.names())) == len(sensor.bands)
        assert all(300 < band.wavelength_nm < 15_000 for band in sensor.bands)


def test_bands_are_read_in_the_order_asked_whatever_the_file_s(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), ["B8A", "B02", "B03"])
    with open_scene(path, wanted=S2) as scene:
        values, valid = scene.read(3, 4, 5, 6, scale=1e-4)
    assert scene.bands == S2 and valid.all()
    np.testing.assert_array_equal(values, ramp()[[1, 2, 0], 3:8, 4:10])


def test_values_are_reflectances(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2)
    with open_scene(path) as scene:
        np.testing.assert_allclose(scene.read(0, 0, 40, 50)[0], ramp() * 1e-4, rtol=1e-6)
        assert scene.grid.gsd_m == pytest.approx(10 / 0.9996, rel=1e-5)  # UTM's scale at its meridian


def test_the_file_s_own_scale_comes_before_the_sensor_s_and_the_user_s_before_both(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2, scales=[2e-4] * 3, offsets=[-0.1] * 3)
    with open_scene(path) as scene:
        np.testing.assert_allclose(scene.read(0, 0, 40, 50)[0], ramp() * 2e-4 - 0.1, atol=1e-6)
    with open_scene(path, scale=1e-3, offset=0.5) as scene:
        np.testing.assert_allclose(scene.read(0, 0, 40, 50)[0], ramp() * 1e-3 + 0.5, rtol=1e-6)


def test_nodata_masks_and_nan_make_pixels_invalid(tmp_path: Path):
    values = ramp().astype(np.float32) * 1e-4
    values[1, 2, 3] = np.nan
    values[0, 5, 6] = -9999
    values[2, 7, 8] = np.inf
    path = write_scene(tmp_path / "s.tif", values, S2, nodata=-9999)
    with open_scene(path, scale=1) as scene:
        found, valid = scene.read(0, 0, 40, 50)
    assert sorted(map(tuple, np.argwhere(~valid))) == [(2, 3), (5, 6), (7, 8)]
    assert not found[:, ~valid].any() and np.isfinite(found).all()


def test_an_alpha_band_is_a_mask_and_no_band(tmp_path: Path):
    values = np.full((4, 20, 30), 100, np.uint8)
    values[3, :5] = 0
    values[3, 5:] = 255
    path = write_scene(tmp_path / "s.tif", values, photometric="RGB", alpha="YES")
    with open_scene(path) as scene:
        assert scene.sensor.name == "rgb" and scene.bands == ["red", "green", "blue"]
        assert scene.read(0, 0, 20, 30)[1].sum() == 15 * 30


@given(row=st.integers(0, 39), column=st.integers(0, 49), height=st.integers(1, 40), width=st.integers(1, 50))
def test_any_window_is_a_part_of_the_whole(tmp_path_factory, row: int, column: int, height: int, width: int):
    folder = tmp_path_factory.getbasetemp() / "windows"
    fine = folder / "x_B02.tif"
    if not fine.exists():
        write_scene(fine, ramp(1))
        write_scene(folder / "x_B8A.tif", ramp(1, 20, 25), transform=from_origin(500_000, 5_100_000, 20, 20))
    height, width = min(height, 40 - row), min(width, 50 - column)
    with open_scene(folder) as scene:
        whole, part = scene.read(0, 0, 40, 50)[0], scene.read(row, column, height, width)[0]
    np.testing.assert_allclose(part, whole[:, row : row + height, column : column + width], rtol=1e-6)


def test_coarse_bands_are_laid_on_the_finest_one_s_grid(tmp_path: Path):
    write_scene(tmp_path / "x_B02.tif", np.full((1, 40, 50), 1000, np.uint16))
    coarse = np.tile(np.arange(25, dtype=np.uint16) * 20, (1, 20, 1))  # its centres lie at 0.5, 2.5, ... fine pixels
    write_scene(tmp_path / "x_B8A.tif", coarse, transform=from_origin(500_000, 5_100_000, 20, 20))
    with open_scene(tmp_path) as scene:
        assert scene.shape == (40, 50) and scene.grid.gsd_m == pytest.approx(10, rel=1e-3)
        found = scene.read(0, 0, 40, 50, scale=1e-4)[0][1]
    np.testing.assert_allclose(found[20, 4:46], (np.arange(4, 46) - 0.5) * 10, atol=1e-3)
    with open_scene(tmp_path, wanted=["B8A"]) as scene:
        assert scene.shape == (20, 25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bands": [None] * 3}, r"its 3 bands have no names; .*--bands B2,B3,B4"),
        ({"bands": ["B2", "B3", "B4"]}, "could be of several sensors; give --sensor"),
        ({"bands": ["B2", "B02", "B8A"]}, "has band B2 more than once"),
        ({"bands": ["B2", "B3", "ndvi"]}, "ndvi could be of several sensors"),
    ],
)
def test_bands_that_cannot_be_known_are_refused(tmp_path: Path, arguments: dict, message: str):
    path = write_scene(tmp_path / "s.tif", ramp(), **arguments)
    with pytest.raises(InputError, match=message):
        open_scene(path)


def test_what_a_user_says_of_the_bands_is_checked(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp())
    with pytest.raises(InputError, match="has 3 bands, but --bands names 2"):
        open_scene(path, sensor="sentinel2_l1c", bands=["B2", "B3"])
    with pytest.raises(InputError, match="band x1 is none of sensor sentinel2_l1c"):
        open_scene(path, sensor="sentinel2_l1c", bands=["B2", "B3", "x1"])
    with pytest.raises(InputError, match="sensor 'sentinel9' is unknown; expected one of: sentinel2_l1c"):
        open_scene(path, sensor="sentinel9")
    with open_scene(path, sensor="sentinel2_l1c", bands=["B8A", "B3", "B2"]) as scene:
        assert scene.bands == ["B8A", "B3", "B2"]


def test_a_model_gets_its_own_bands_or_none(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), ["B8A", "B2", "B3"])
    with open_for_model(path, contract(), sensor="sentinel2_l1c") as scene:
        assert scene.bands == S2
    with pytest.raises(InputError, match="lacks B12 of sentinel2_l1c; found B8A, B2, B3"):
        open_for_model(path, contract(["B2", "B12"]), sensor="sentinel2_l1c")
    with pytest.raises(InputError, match="is of sensor sentinel2_l2a, the model of sentinel2_l1c"):
        open_for_model(path, contract())


def test_values_of_another_unit_are_refused(tmp_path: Path):
    landsat = write_scene(tmp_path / "l.tif", ramp(), ["B2", "B3", "B4"])
    card = {"sensor": "landsat8", "bands": ["B2", "B3", "B4"], "unit": "reflectance", "scale": 1e-4, "size": 32}
    full = InputContract.from_card(
        {"input": {**card, "normalisation": "mean_std", "mean": [0] * 3, "std": [1] * 3}}, "m"
    )
    with (
        open_for_model(landsat, full, sensor="landsat8") as scene,
        pytest.raises(InputError, match=r"B2 is in digital_number, the model expects reflectance; give the --scale"),
    ):
        scene.check(full)
    with open_for_model(landsat, full, sensor="landsat8", scale=1e-4) as scene:
        scene.check(full)


def test_values_outside_the_range_are_refused(tmp_path: Path):
    bright = write_scene(tmp_path / "b.tif", ramp() * 10, S2)
    with open_scene(bright) as scene, pytest.raises(InputError, match=r"has values from 1 to|expected -0.3 to 2.5"):
        scene.check_range()
    scaled = write_scene(tmp_path / "f.tif", (ramp() * 1e-4).astype(np.float32), S2)
    with (
        open_scene(scaled) as scene,
        pytest.raises(InputError, match="reflectances already: give --scale 1"),
    ):
        scene.check_range()
    with open_scene(scaled, scale=1) as scene:
        scene.check_range()


def test_another_resolution_and_degrees_are_refused_unless_asked_for(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2)
    coarse = contract(gsd_m=30)
    with open_for_model(path, coarse, sensor="sentinel2_l1c") as scene:
        with pytest.raises(InputError, match="pixels of 10 m, the model was trained at 30 m"):
            scene.check(coarse)
        scene.check(coarse, any_resolution=True)
    degrees = write_scene(tmp_path / "d.tif", ramp(), S2, crs="EPSG:4326", transform=from_origin(14, 46, 1e-4, 1e-4))
    with (
        open_for_model(degrees, coarse, sensor="sentinel2_l1c") as scene,
        pytest.raises(InputError, match=r"pixels of 7.747 x 11.12 m, the model was trained at 30 m"),
    ):
        scene.check(coarse)


def test_files_of_a_scene_in_several_crs_are_refused(tmp_path: Path):
    write_scene(tmp_path / "x_B02.tif", ramp(1))
    write_scene(tmp_path / "x_B8A.tif", ramp(1), crs="EPSG:32634")
    with pytest.raises(InputError, match="another file of the scene EPSG:3263"):
        open_scene(tmp_path)


def test_files_in_several_crs_are_laid_on_one_grid_where_that_is_asked_for(tmp_path: Path):
    from rasterio.warp import transform

    write_scene(tmp_path / "x_B02.tif", ramp(1))
    (x,), (y,) = transform("EPSG:32633", "EPSG:32634", [500_000.0], [5_100_000.0])[:2]
    gradient = np.tile(np.arange(300, dtype=np.uint16) * 10, (1, 300, 1))
    write_scene(
        tmp_path / "x_B8A.tif", gradient, crs="EPSG:32634", transform=from_origin(x - 1500, y + 1500, 20, 20)
    )  # fmt: skip
    with open_scene(tmp_path, reproject=True) as scene:
        assert scene.reprojected == {"B8A": "EPSG:32634"} and scene.grid.crs.to_epsg() == 32633
        values, valid = scene.read(0, 0, 40, 50, scale=1e-4)
    assert valid.all()
    np.testing.assert_array_equal(values[0], ramp(1)[0])
    columns, rows = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    east, _ = transform(
        "EPSG:32633", "EPSG:32634", (500_000 + 10 * columns).ravel(), (5_100_000 - 10 * rows).ravel()
    )[:2]  # fmt: skip
    expected = (np.reshape(east, (40, 50)) - (x - 1500)) / 20 - 0.5
    np.testing.assert_allclose(values[1], expected * 10, atol=0.6)  # whole numbers


def test_damaged_and_foreign_files_are_one_line(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(3, 400, 500), S2)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(InputError, match=r"cut\.tif: cannot be read"):
        open_scene(cut)
    noise = np.random.default_rng(0).integers(0, 9999, (3, 400, 500)).astype(np.uint16)
    packed = bytearray(write_scene(tmp_path / "packed.tif", noise, S2, compress="deflate").read_bytes())
    packed[len(packed) // 2 : len(packed) // 2 + 2000] = b"\0" * 2000
    (tmp_path / "packed.tif").write_bytes(packed)
    with open_scene(tmp_path / "packed.tif") as scene, pytest.raises(InputError, match=r"packed\.tif: cannot be read"):
        scene.read(0, 0, 400, 500)
    vrt = tmp_path / "s.vrt"
    vrt.write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    with pytest.raises(InputError, match=r"s\.vrt: cannot be read"):
        open_scene(vrt)
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    with pytest.raises(InputError, match="no raster that is read here"):
        open_scene(text)
    for hostile in ("/vsicurl/http://127.0.0.1/x.tif", str(tmp_path / "absent.tif")):
        with pytest.raises(InputError, match="no such file or folder"):
            open_scene(hostile)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no scene in it"):
        open_scene(empty)
    with pytest.raises(InputError, match="contains no scene"):
        find_scenes(empty)


def test_a_crs_can_be_given_where_there_is_none(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), S2, crs=None)
    with open_scene(path) as scene:
        assert scene.grid.crs is None and scene.grid.gsd_m is None
    with open_scene(path, crs="EPSG:32633") as scene:
        assert scene.grid.crs.to_epsg() == 32633
    with pytest.raises(InputError, match="--crs EPSG:1: is none that is known"):
        open_scene(path, crs="EPSG:1")


MTL = """GROUP = L1_METADATA_FILE
    SPACECRAFT_ID = "LANDSAT_8"
    FILE_NAME_BAND_2 = "x_B2.TIF"
    FILE_NAME_BAND_10 = "../x_B10.TIF"
    SUN_ELEVATION = 30.0
    REFLECTANCE_MULT_BAND_2 = 2.0E-05
    REFLECTANCE_ADD_BAND_2 = -0.1
    RADIANCE_MULT_BAND_10 = 3.0E-04
    RADIANCE_ADD_BAND_10 = 0.1
END_GROUP = L1_METADATA_FILE
"""


def test_a_landsat_product_is_reflectance_and_radiance(tmp_path: Path):
    values = ramp(1) + 5000
    values[0, 0, 0] = 0
    write_scene(tmp_path / "x_B2.TIF", values)
    write_scene(tmp_path / "x_B10.TIF", values)
    (tmp_path / "x_MTL.txt").write_text(MTL)
    with open_scene(tmp_path) as scene:
        found, valid = scene.read(0, 0, 40, 50)
        assert [layer.unit for layer in scene.layers] == ["reflectance", "radiance"]
    assert not valid[0, 0] and valid.sum() == 1999  # 0 is what Landsat calls no data
    np.testing.assert_allclose(found[0][valid], ((values[0] * 2e-5 - 0.1) / 0.5)[valid], rtol=1e-5)  # sin 30°
    np.testing.assert_allclose(found[1][valid], (values[0] * 3e-4 + 0.1)[valid], rtol=1e-5)
    (tmp_path / "x_B2.TIF").unlink()
    with pytest.raises(InputError, match=r"x_B2\.TIF: named in x_MTL\.txt, but not there"):
        open_scene(tmp_path)


def test_a_sentinel_2_product_has_its_offset(tmp_path: Path):
    product = tmp_path / "S2A_MSIL1C_x.SAFE"
    images = product / "GRANULE" / "L1C_x" / "IMG_DATA"
    images.mkdir(parents=True)
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    write_scene(images / "T33_x_B02.jp2", ramp(1), **lossless)
    write_scene(
        images / "T33_x_B8A.jp2", ramp(1, 20, 25), **lossless, transform=from_origin(500_000, 5_100_000, 20, 20)
    )
    (product / "MTD_MSIL1C.xml").write_text(
        "<a><QUANTIFICATION_VALUE unit='none'>10000</QUANTIFICATION_VALUE>"
        "<RADIO_ADD_OFFSET band_id='0'>-1000</RADIO_ADD_OFFSET></a>"
    )
    with open_scene(product) as scene:
        assert scene.sensor.name == "sentinel2_l1c" and scene.bands == ["B2", "B8A"] and scene.shape == (40, 50)
        np.testing.assert_allclose(scene.read(0, 0, 40, 50)[0][0], (ramp(1)[0] - 1000.0) * 1e-4, atol=1e-6)
    assert find_scenes(tmp_path) == [product]


def test_real_scenes_are_read_as_rasterio_reads_them(data_root: Path):
    path = data_root / "geo" / "sentinel2_slovenia" / "S2_L1C_13band_2015-07-31.tif"
    with open_scene(path) as scene, rasterio.open(path) as source:
        assert scene.sensor.name == "sentinel2_l1c" and len(scene.bands) == 13
        np.testing.assert_array_equal(scene.read(0, 0, 101, 100, scale=1e-4)[0], source.read())
        scene.check_range()
    with open_scene(data_root / "geo" / "landsat8_11band_GPL3", wanted=["B4", "B3", "B2"]) as scene:
        assert scene.sensor.name == "landsat8" and scene.grid.gsd_m == pytest.approx(30, rel=1e-3)
        values, valid = scene.read(0, 0, *scene.shape)
        assert 0.05 < values[:, valid].mean() < 0.2
    with open_scene(
        data_root / "geo" / "hls_10band_regression_input.tif", sensor="hls_s30",
        bands=["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"],
    ) as scene:  # fmt: skip
        assert scene.sample()[1].mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ["B2", "B2", "B3"]}, "expected one or more different ones"),
        ({"bands": ["B2", "B99", "B3"]}, "band 'B99': sensor sentinel2_l1c has"),
        ({"unit": "furlongs"}, "unit is 'furlongs'"),
        ({"std": [1, 0, 1]}, "deviations more than 0"),
        ({"mean": [1]}, "1 means and 3 deviations for 3 bands"),
        ({"normalisation": "whiten"}, "normalisation is 'whiten'"),
        ({"size": 0}, "size is 0"),
        ({"scale": float("nan")}, "scale is nan"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        InputContract.from_card({"input": {**input_section("sentinel2_l1c", S2, 32), **changes}}, "m")


def test_normalisation_is_the_published_one():
    model = contract(["B2"], normalisation="satmae")
    mean, std = 1184.3824625, 650.2842772
    low, high = mean - 2 * std, mean + 2 * std
    numbers = np.linspace(-500, 4000, 9001)
    expected = np.clip((numbers - low) / (high - low) * 255, 0, 255).astype(np.uint8) / 255
    found = model.normalise(torch.from_numpy(numbers)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(found, expected)
    plain = contract(["B2"]).normalise(torch.full((1, 1, 2), mean + std), torch.tensor([[True, False]]))
    torch.testing.assert_close(plain, torch.tensor([[[1.0, 0.0]]]), atol=1e-5, rtol=0)


def test_jpeg_files_are_decoded_as_pillow_decodes_them(tmp_path: Path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((120, 90)).save(tmp_path / "s.jpg", quality=70)
    with Image.open(tmp_path / "s.jpg") as picture:
        wanted = np.asarray(picture).transpose(2, 0, 1)
    with open_scene(tmp_path / "s.jpg") as scene:
        values, valid = scene.read(0, 0, 90, 120)
        part = scene.read(10, 20, 30, 40)[0]
    assert scene.sensor.name == "rgb" and valid.all()
    np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(part, wanted[:, 10:40, 20:60])
    (tmp_path / "s.jpg").write_bytes((tmp_path / "s.jpg").read_bytes()[:900])
    with pytest.raises(InputError, match=r"s\.jpg: cannot be read"), open_scene(tmp_path / "s.jpg") as scene:
        scene.read(0, 0, 90, 120)
