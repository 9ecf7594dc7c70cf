"""Products as their makers write them: Landsat, Sentinel-2 and parts of it, HLS, Planet, archives, VRT, STAC items."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import rasterio.shutil
from rasterio.transform import from_origin

from geovision.clouds import cloudy, quality_name
from geovision.scenes import find_scenes, open_for_model, open_scene
from geovision.sensors import ORDERS, recognise
from shared_backbones.errors import InputError
from tests.geovision import landsat
from tests.geovision.rasters import ramp, write_scene
from tests.geovision.test_scenes import contract

LOSSLESS = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}


@pytest.mark.parametrize("ending", [".txt", ".json", ".xml"])
@pytest.mark.parametrize("number", [4, 5, 7, 8, 9])
@pytest.mark.parametrize(("collection", "level"), [(1, 1), (2, 1), (2, 2)])
def test_landsat_products_of_every_kind(tmp_path: Path, number: int, collection: int, level: int, ending: str):
    landsat.write_product(tmp_path, number, collection, level, ending)
    with open_scene(tmp_path, wanted=["B3", "B4"]) as scene:
        values, valid = scene.read(0, 0, 8, 10)
        assert scene.sensor.name == f"landsat{number}" and {layer.unit for layer in scene.layers} == {"reflectance"}
    mult, add = landsat.SR if level == 2 else (factor / 0.5 for factor in landsat.TOA)
    np.testing.assert_allclose(values[:, valid], 20_000 * mult + add, rtol=1e-5)
    assert not valid[0, 0] and valid.sum() == 79
    with open_scene(tmp_path) as scene:
        units = {layer.band: layer.unit for layer in scene.layers}
        scales = {layer.band: (layer.scale, layer.offset) for layer in scene.layers}
    thermal = "B10" if number > 7 else "B6"
    if level == 2:
        assert units[thermal] == "kelvin" and scales[thermal] == landsat.ST
        assert set(units) == {*(f"B{n}" for n in (1, 2, 3, 4, 5, 7)), thermal} | ({"B6"} if number > 7 else set())
    elif number == 7:
        assert units["B6_VCID_1"] == units["B6_VCID_2"] == "radiance" and "B6" not in units
    else:
        assert units[thermal] == "radiance" and scales[thermal] == landsat.RADIANCE


def test_a_product_s_quality_band_masks_clouds(tmp_path: Path):
    name = landsat.write_product(tmp_path)
    flags = np.full((1, 8, 10), 21824, np.uint16)  # clear
    for column, bit in enumerate((1, 2, 3, 4)):
        flags[0, 5, column] |= 1 << bit
    write_scene(tmp_path / f"{name}_QA_PIXEL.TIF", flags, transform=landsat.write_transform(30))
    with open_scene(tmp_path) as scene:
        assert scene.read(0, 0, 8, 10)[1].sum() == 79 and scene.clouds is None
    with open_scene(tmp_path, mask_clouds=True) as scene:
        valid = scene.read(0, 0, 8, 10)[1]
        assert scene.clouds == "QA_PIXEL" and not valid[5, :4].any() and valid.sum() == 75
    with open_scene(tmp_path, wanted=["QA_PIXEL"]) as scene:
        assert scene.read(5, 0, 1, 2)[0][0].tolist() == [[21826, 21828]]


@pytest.mark.parametrize("ending", [".txt", ".xml"])
def test_names_in_small_letters_and_empty_elements(tmp_path: Path, ending: str):
    name = landsat.write_product(tmp_path, ending=ending)
    for file in tmp_path.glob("*.TIF"):
        file.rename(file.with_suffix(".tif"))
    metadata = tmp_path / f"{name}_MTL{ending}"
    metadata.write_text(metadata.read_text().replace("<PRODUCT_CONTENTS>", "<EMPTY/><PRODUCT_CONTENTS><EMPTY />"))
    with open_scene(tmp_path) as scene:
        assert len(scene.bands) == 8 and scene.layers[0].scale == landsat.SR[0]


def test_two_levels_in_a_folder_are_asked_about(tmp_path: Path):
    first = landsat.write_product(tmp_path, level=1)
    second = landsat.write_product(tmp_path, level=2)
    with pytest.raises(InputError, match=f"MTL files of 2 products; .* such as {first}_MTL.txt"):
        open_scene(tmp_path)
    with open_scene(tmp_path / f"{second}_MTL.txt", wanted=["B4"]) as scene:
        np.testing.assert_allclose(scene.read(3, 3, 1, 1)[0], 20_000 * 2.75e-5 - 0.2, rtol=1e-6)


def test_three_forms_of_one_mtl_are_one_product(tmp_path: Path):
    for ending in (".txt", ".json", ".xml"):
        landsat.write_product(tmp_path, ending=ending)
    with open_scene(tmp_path) as scene:
        assert len(scene.bands) == 8


def test_surface_reflectance_made_on_demand_from_collection_1(tmp_path: Path):
    name, groups, _ = landsat.groups_of(8, 1, 1)
    landsat.write_mtl(tmp_path / f"{name}_MTL.txt", groups)
    values = np.full((1, 8, 10), 1500, np.int16)
    values[0, 1, 1] = -9999
    for band in (2, 3, 4):
        write_scene(tmp_path / f"{name}_sr_band{band}.tif", values)
    write_scene(tmp_path / f"{name}_bt_band10.tif", values * 2)
    with open_scene(tmp_path) as scene:
        found, valid = scene.read(0, 0, 8, 10)
        assert scene.bands == ["B10", "B2", "B3", "B4"] and scene.layers[0].unit == "kelvin"
    np.testing.assert_allclose(found[[0, 1], 3, 3], [300.0, 0.15], rtol=1e-6)
    assert not valid[1, 1]


def test_other_landsats_and_scanners_are_refused(tmp_path: Path):
    name, groups, _ = landsat.groups_of(5, 1, 1)
    groups["PRODUCT_METADATA"]["SENSOR_ID"] = "MSS"
    landsat.write_mtl(tmp_path / f"{name}_MTL.txt", groups)
    with pytest.raises(InputError, match="SENSOR_ID is 'MSS'"):
        open_scene(tmp_path)
    groups["PRODUCT_METADATA"]["SPACECRAFT_ID"] = "LANDSAT_3"
    landsat.write_mtl(tmp_path / f"{name}_MTL.txt", groups)
    with pytest.raises(InputError, match="SPACECRAFT_ID is 'LANDSAT_3'; expected one of LANDSAT_4"):
        open_scene(tmp_path)
    (tmp_path / f"{name}_MTL.txt").write_bytes(b"\xff\0noise")
    with pytest.raises(InputError, match="is no MTL file"):
        open_scene(tmp_path)


def write_safe(root: Path, baseline: str = "N0509", level: str = "2A", offsets: bool = True) -> Path:
    """A Sentinel-2 product with B2 and B8A, and for level 2A a scene classification."""
    tag = "BOA" if level == "2A" else "RADIO"
    product = root / f"S2A_MSIL{level}_20230101T101401_{baseline}_R022_T33TWM_20230101T140000.SAFE"
    images = product / "GRANULE" / f"L{level}_T33TWM_A039_20230101T101400" / "IMG_DATA"
    fine, coarse = (images / "R10m", images / "R20m") if level == "2A" else (images, images)
    suffix = ("_10m", "_20m") if level == "2A" else ("", "")
    values = ramp(1)
    values[0, 0, 0] = 0
    write_scene_jp2(fine / f"T33TWM_20230101T101401_B02{suffix[0]}.jp2", values, 10)
    write_scene_jp2(coarse / f"T33TWM_20230101T101401_B8A{suffix[1]}.jp2", ramp(1, 20, 25), 20)
    if level == "2A":
        classes = np.full((1, 20, 25), 4, np.uint8)
        classes[0, 10:12, 10:12] = 9
        write_scene_jp2(coarse / "T33TWM_20230101T101401_SCL_20m.jp2", classes, 20)
    listed = {1: -1000, 8: -1100} if offsets else {}
    entries = "".join(
        f'<{tag}_ADD_OFFSET band_id="{band}">{value}</{tag}_ADD_OFFSET>' for band, value in listed.items()
    )
    quantum = "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE"
    (product / f"MTD_MSIL{level}.xml").write_text(f'<p><{quantum} unit="none">10000</{quantum}>{entries}</p>')
    return product


def write_scene_jp2(path: Path, values: np.ndarray, pixel: float) -> None:
    write_scene(path, values, transform=from_origin(500_000, 5_100_000, pixel, pixel), **LOSSLESS)


@pytest.mark.parametrize("level", ["1C", "2A"])
@pytest.mark.parametrize("part", ["product", "IMG_DATA", "file", "stack", "zip"])
def test_offsets_reach_every_part_of_a_safe(tmp_path: Path, level: str, part: str):
    product = write_safe(tmp_path, level=level)
    images = next(product.rglob("IMG_DATA"))
    fine = next(images.rglob("*_B02*.jp2"))
    if part == "stack":
        write_scene(product / "stack.tif", ramp(2), ["B2", "B8A"])
    if part == "zip":
        with zipfile.ZipFile(f"{product}.zip", "w") as packed:
            for file in product.rglob("*"):
                packed.write(file, file.relative_to(tmp_path))
        shutil.rmtree(product)
    folder = fine.parent if part == "IMG_DATA" else product
    path = {"file": fine, "stack": product / "stack.tif", "zip": Path(f"{product}.zip")}.get(part, folder)
    with open_scene(path) as scene:
        offsets = {layer.band: layer.offset for layer in scene.layers}
        values, valid = scene.read(0, 0, 2, 2)
        assert scene.sensor.name == f"sentinel2_l{level.lower()}" and not scene.warnings
    assert offsets["B2"] == pytest.approx(-0.1) and offsets.get("B8A", -0.11) == pytest.approx(-0.11)
    assert values[0, 1, 1] == pytest.approx((1011 - 1000) * 1e-4, abs=1e-6)
    assert part == "stack" or not valid[0, 0]  # 0 is no data


def test_before_baseline_04_00_there_is_no_offset(tmp_path: Path):
    product = write_safe(tmp_path, "N0301", "1C", offsets=False)
    with open_scene(product) as scene:
        assert {layer.offset for layer in scene.layers} == {0.0}


def test_a_part_without_metadata_warns_that_its_offset_is_unknown(tmp_path: Path):
    folder = tmp_path / "S2A_MSIL2A_20230101T101401_N0509_R022_T33TWM_20230101T140000"
    values = ramp(2)
    values[:, 0, 0] = 0
    path = write_scene(folder / "stack.tif", values, ["B2", "B8A"])
    with open_scene(path) as scene:
        assert "processing baseline 05.09 stores reflectance with an offset" in scene.warnings[0]
        assert not scene.read(0, 0, 1, 1)[1].any() and scene.sensor.name == "sentinel2_l2a"
    with open_scene(path, offset=-0.1) as scene:
        assert not scene.warnings
        np.testing.assert_allclose(scene.read(1, 1, 1, 1)[0][:, 0, 0], [1011e-4 - 0.1, 2011e-4 - 0.1], atol=1e-6)
    old = write_scene(tmp_path / "S2A_MSIL2A_20190101T101401_N0211_R022_T33TWM" / "s.tif", values, ["B2", "B8A"])
    with open_scene(old) as scene:
        assert not scene.warnings


def test_a_scene_classification_masks_clouds_by_the_nearest_pixel(tmp_path: Path):
    product = write_safe(tmp_path)
    with open_scene(product, mask_clouds=True) as scene:
        valid = scene.read(0, 0, 40, 50)[1]
    assert scene.clouds == "SCL" and not valid[20:24, 20:24].any() and valid.sum() == 40 * 50 - 16 - 1
    with pytest.raises(InputError, match="has no band that tells clouds"):
        open_scene(write_safe(tmp_path / "c", level="1C"), mask_clouds=True)


@pytest.mark.parametrize(
    ("kind", "flag", "cloud"),
    [
        ("SCL", 3, True), ("SCL", 8, True), ("SCL", 10, True), ("SCL", 4, False), ("SCL", 11, False), ("SCL", 0, False),
        ("QA_PIXEL", 21824, False), ("QA_PIXEL", 22280, True), ("QA_PIXEL", 23888, True), ("QA_PIXEL", 54596, True),
        ("BQA", 2720, False), ("BQA", 2800, True), ("BQA", 2976, True), ("BQA", 6816, True),
        ("PIXEL_QA", 322, False), ("PIXEL_QA", 328, True), ("PIXEL_QA", 352, True), ("PIXEL_QA", 834, True),
        ("FMASK", 64, False), ("FMASK", 66, True), ("FMASK", 72, True), ("FMASK", 32, False),
    ],
)  # fmt: skip
def test_flags_of_clouds(kind: str, flag: int, cloud: bool):
    assert bool(cloudy(kind, np.array([flag], np.uint16))[0]) is cloud and quality_name(kind.lower()) == kind


@pytest.mark.parametrize("kind", ["S30", "L30"])
def test_hls_tiles_are_known_by_their_names(tmp_path: Path, kind: str):
    names = {"S30": ["B02", "B8A"], "L30": ["B02", "B10"]}[kind]
    values = np.full((1, 20, 20), 2500, np.int16)
    values[0, 0, 0] = -9999
    for band in names:
        write_scene(tmp_path / f"HLS.{kind}.T33TWM.2023001T101401.v2.0.{band}.tif", values)
    write_scene(tmp_path / f"HLS.{kind}.T33TWM.2023001T101401.v2.0.Fmask.tif", np.full((1, 20, 20), 66, np.uint8))
    with open_scene(tmp_path) as scene:
        found, valid = scene.read(0, 0, 20, 20)
        assert scene.sensor.name == f"hls_{kind.lower()}" and not valid[0, 0] and valid.sum() == 399
    wanted = [0.25, 25 + 273.15] if kind == "L30" else [0.25, 0.25]
    np.testing.assert_allclose(found[:, 5, 5], wanted, rtol=1e-6)
    with open_scene(tmp_path, mask_clouds=True) as scene:
        assert not scene.read(0, 0, 20, 20)[1].any()


def test_planet_s_bands_are_taken_by_name_in_any_order(tmp_path: Path):
    eight = ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]
    path = write_scene(tmp_path / "20230101_100000_1001_3B_AnalyticMS_SR_8b.tif", ramp(8), eight)
    with open_scene(path, wanted=["red", "nir"]) as scene:
        np.testing.assert_allclose(scene.read(0, 0, 1, 1)[0][:, 0, 0], [0.6, 0.8], rtol=1e-6)
        assert scene.sensor.name == "planetscope"
    four = write_scene(tmp_path / "four.tif", ramp(4), ["blue", "green", "red", "nir"])
    with open_scene(four, wanted=["red", "nir"]) as scene:
        assert scene.sensor.name == "rgbn" and scene.read(0, 0, 1, 1)[0][:, 0, 0].tolist() == [3000, 4000]


def test_gdal_s_names_of_sentinel_2_bands(tmp_path: Path):
    names = ["B4, central wavelength 665 nm", "B3, central wavelength 560 nm", "B8A, central wavelength 865 nm"]
    with open_scene(write_scene(tmp_path / "s.tif", ramp(3), names)) as scene:
        assert scene.bands == ["B4", "B3", "B8A"] and scene.sensor.name == "sentinel2_l2a"


def test_no_order_is_guessed_from_the_number_of_bands(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(13))
    with pytest.raises(InputError, match=r"13 bands have no names; .*order:sentinel2_l1c, order:eurosat"):
        open_scene(path, sensor="sentinel2_l1c")
    with open_scene(path, sensor="sentinel2_l1c", bands=["order:eurosat"], wanted=["B8A", "B9"]) as scene:
        assert scene.read(0, 0, 1, 1, scale=1e-4)[0][:, 0, 0].tolist() == [13_000, 9000]
    with open_for_model(path, contract(["B8A"]), sensor="sentinel2_l1c", bands=["order:sentinel2_l1c"]) as scene:
        assert scene.read(0, 0, 1, 1, scale=1e-4)[0][0, 0, 0] == 9000
    with pytest.raises(InputError, match="--bands order:nobody: is unknown; expected one of: order:sentinel2_l1c"):
        open_scene(path, sensor="sentinel2_l1c", bands=["order:nobody"])


def test_orders_name_bands_of_one_sensor_once():
    for order in ORDERS.values():
        assert len(set(order)) == len(order)
    found = recognise(["nir", "red", "green", "blue"])
    assert found is not None and found.name == "rgbn"


def test_an_offset_alone_keeps_the_sensor_s_scale(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(3), ["B2", "B3", "B8A"])
    with open_scene(path, offset=-0.1) as scene:
        np.testing.assert_allclose(scene.read(0, 0, 40, 50)[0], ramp(3) * 1e-4 - 0.1, atol=1e-6)


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_a_landsat_archive_is_read_in_place(tmp_path: Path, kind: Literal["w", "w:gz"]):
    name = landsat.write_product(tmp_path / "p")
    archive = tmp_path / (f"{name}.tar" if kind == "w" else f"{name}.tar.gz")
    with tarfile.open(archive, kind) as packed:
        for file in sorted((tmp_path / "p").iterdir()):
            packed.add(file, file.name)
    with open_scene(archive, wanted=["B4"]) as scene, open_scene(tmp_path / "p", wanted=["B4"]) as plain:
        np.testing.assert_array_equal(scene.read(0, 0, 8, 10)[0], plain.read(0, 0, 8, 10)[0])
        assert len(scene.sha256()) == 64
    assert archive in find_scenes(tmp_path)
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"broken\.tar: cannot be read .*; expected a whole zip or tar archive$"):
        open_scene(tmp_path / "broken.tar")


def test_files_in_archives_and_virtual_rasters(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(), ["B2", "B3", "B8A"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(path, "inner/s.tif")
    with open_scene(Path(f"/vsizip/{tmp_path}/a.zip/inner/s.tif")) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 50, scale=1e-4)[0], ramp())
    with pytest.raises(InputError, match="no such file or folder"):
        open_scene("/vsizip/nowhere.zip/s.tif")
    vrt = tmp_path / "s.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    with open_scene(vrt) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 50, scale=1e-4)[0], ramp())
        before = scene.sha256()
    write_scene(path, ramp() + 1, ["B2", "B3", "B8A"])
    with open_scene(vrt) as scene:
        assert scene.sha256() != before
    text = vrt.read_text()
    for hostile in ("/vsicurl/http://127.0.0.1:9/x.tif", "http://127.0.0.1:9/x.tif", str(tmp_path / "absent.tif")):
        vrt.write_text(text.replace(">s.tif<", f">{hostile}<").replace(f">{path}<", f">{hostile}<"))
        with pytest.raises(InputError, match="expected a VRT of files that are there"):
            open_scene(vrt)
    vrt.write_text(
        text.replace("<VRTRasterBand", "<PixelFunctionLanguage>Python</PixelFunctionLanguage><VRTRasterBand", 1)
    )
    with pytest.raises(InputError, match="a VRT with PixelFunctionLanguage, which is not read"):
        open_scene(vrt)


def test_a_local_stac_item_gives_bands_and_offsets(tmp_path: Path):
    for name in ("b2", "b8a"):
        write_scene(tmp_path / f"{name}.tif", ramp(1))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "collection": "sentinel-2-l2a",
        "properties": {"platform": "sentinel-2a"},
        "assets": {
            "blue": {
                "href": "./b2.tif", "type": "image/tiff; application=geotiff", "eo:bands": [{"name": "B02"}],
                "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}],
            },
            "nir08": {"href": "b8a.tif", "type": "image/tiff", "bands": [{"name": "B8A", "raster:scale": 0.0001}]},
            "red": {"href": "https://127.0.0.1:9/b4.tif", "type": "image/tiff", "eo:bands": [{"name": "B04"}]},
            "thumbnail": {"href": "b2.tif", "type": "image/tiff", "roles": ["thumbnail"]},
        },
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    with open_scene(tmp_path / "item.json") as scene:
        assert scene.sensor.name == "sentinel2_l2a" and scene.bands == ["B2", "B8A"]
        np.testing.assert_allclose(scene.read(0, 0, 1, 2)[0][:, 0, 1], [1001e-4 - 0.1, 1001e-4], atol=1e-6)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="is no STAC item"):
        open_scene(tmp_path / "other.json")


def test_complex_values_are_refused(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", np.ones((1, 8, 8), np.complex64), ["B2"])
    with pytest.raises(InputError, match="has complex values"):
        open_scene(path, sensor="sentinel2_l1c")
