"""Parts of Sentinel-2 products: folders, files in archives, VRTs and stacks have their product's offsets."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geovision.products import is_product
from geovision.scenes import find_scenes, open_for_model, open_scene
from shared_backbones.errors import InputError
from tests.geovision.rasters import ramp, write_scene
from tests.geovision.test_products import write_safe
from tests.geovision.test_scenes import contract


@pytest.mark.parametrize("level", ["1C", "2A"])
@pytest.mark.parametrize("part", ["MTD", "GRANULE", "granule", "IMG_DATA"])
@pytest.mark.parametrize("packed", [False, True])
def test_any_part_of_a_product_is_the_product(tmp_path: Path, level: str, part: str, packed: bool):
    product = write_safe(tmp_path, level=level)
    images = next(product.rglob("IMG_DATA"))
    path = {"MTD": next(product.glob("MTD*")), "IMG_DATA": images, "granule": images.parent}.get(part, product / part)
    if packed:
        with zipfile.ZipFile(tmp_path / "p.SAFE.zip", "w") as archive:
            for file in product.rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
        path = Path(f"/vsizip/{tmp_path}/p.SAFE.zip") / path.relative_to(tmp_path)
        shutil.rmtree(product)
    with open_scene(path) as scene:
        values, valid = scene.read(0, 0, 2, 2)
        assert [(layer.band, layer.offset) for layer in scene.layers] == [("B2", -0.1), ("B8A", -0.11)]
        assert scene.sensor.name == f"sentinel2_l{level.lower()}" and not scene.warnings and not valid[0, 0]
    assert values[0, 1, 1] == pytest.approx(1e-4 * 11, abs=1e-6)
    assert find_scenes(path) == [path] and (part == "MTD" or is_product(path))


def test_a_file_in_an_archive_has_its_products_offset(tmp_path: Path):
    product = write_safe(tmp_path)
    fine = next(product.rglob("*_B02*.jp2"))
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in product.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    with open_scene(f"/vsizip/{tmp_path}/p.zip/{fine.relative_to(tmp_path)}") as scene:
        assert scene.layers[0].offset == pytest.approx(-0.1) and not scene.read(0, 0, 1, 1)[1].any()


def test_metadata_without_images_is_one_line(tmp_path: Path):
    product = write_safe(tmp_path)
    shutil.rmtree(product / "GRANULE")
    with pytest.raises(InputError, match=r"MTD_MSIL2A\.xml: no images in folders beside it"):
        open_scene(product / "MTD_MSIL2A.xml")


def test_a_vrt_of_parts_has_their_offset(tmp_path: Path):
    images = [next(write_safe(tmp_path / name, name).rglob("*_B02*.jp2")) for name in ("N0509", "N0301")]
    (old := images[1].parents[4] / "MTD_MSIL2A.xml").write_text(old.read_text().replace("_ADD_OFFSET", "_NOTHING"))
    for image, offset in zip(images, (-0.1, 0.0), strict=True):
        vrt = image.parents[5] / "s.vrt"
        rasterio.shutil.copy(image, vrt, driver="VRT")
        with open_scene(vrt, bands=["B2"]) as scene:
            assert scene.layers[0].offset == pytest.approx(offset) and scene.sensor.name == "sentinel2_l2a"
    both = (tmp_path / "N0509" / "s.vrt").read_text()
    parts = both.partition("<SimpleSource>")[2].partition("</SimpleSource>")[0]
    names = [image.relative_to(tmp_path).as_posix() for image in images]
    sources = [f"<SimpleSource>{parts.replace(images[0].relative_to(tmp_path / 'N0509').as_posix(), n)}" for n in names]
    start, end = both.split("<SimpleSource>")[0], both.split("</SimpleSource>")[1]
    (tmp_path / "both.vrt").write_text(start + "</SimpleSource>".join([*sources, end]))
    with pytest.raises(InputError, match=r"both\.vrt: its parts are of Sentinel-2 products with different offsets"):
        open_scene(tmp_path / "both.vrt", bands=["B2"])


def test_what_gdal_notes_of_a_product_is_heeded(tmp_path: Path):
    names = ["B4, central wavelength 665 nm", "B8, central wavelength 842 nm"]
    values = ramp(2)
    values[:, 0, 0] = 0
    path = write_scene(tmp_path / "s.tif", values, names)
    with rasterio.open(path, "r+") as target:
        target.update_tags(PROCESSING_BASELINE="05.09", PROCESSING_LEVEL="Level-1C")
    with open_scene(path) as scene:
        assert scene.sensor.name == "sentinel2_l1c" and "processing baseline 05.09 stores" in scene.warnings[0]
        assert scene.bands == ["B4", "B8"] and not scene.read(0, 0, 1, 1)[1].any()


def test_0_is_no_data_though_a_stack_states_its_scale(tmp_path: Path):
    product = write_safe(tmp_path)
    values = np.array([[[0, 2000]]] * 2, np.uint16)
    path = write_scene(product / "s.tif", values, ["B2", "B8A"], scales=[1e-4] * 2, offsets=[-0.1] * 2)
    with open_scene(path) as scene:
        found, valid = scene.read(0, 0, 1, 2)
    assert valid.tolist() == [[False, True]] and found[0, 0, 1] == pytest.approx(0.1)


def test_reflectances_in_a_products_folder_are_not_scaled_twice(tmp_path: Path):
    path = write_scene(write_safe(tmp_path) / "s.tif", ramp(2).astype("float32") / 10_000, ["B2", "B8A"])
    with open_scene(path) as scene, pytest.raises(InputError, match="seem to be reflectances already: give --scale 1"):
        scene.check_range()
    with open_scene(path, scale=1, offset=0) as scene:
        scene.check_range()


EXTRA = {"T33TWM_20230101T101401_{}_10m.tif": ("TCI", "AOT"), "HLS.S30.T33TWM.2023001T101401.v2.0.{}.tif": ("SAA",),
         "LC08_L2SP_195025_20130707_20200912_02_T1_{}.TIF": ("QA_RADSAT", "SR_QA_AEROSOL")}  # fmt: skip


@pytest.mark.parametrize("name", EXTRA)
def test_what_lies_beside_bands_leaves_them_one_scene(tmp_path: Path, name: str):
    for band in ("B02", "B03", *EXTRA[name]):
        write_scene(tmp_path / name.format(band), ramp(1).astype(np.int16))
    assert find_scenes(tmp_path) == [tmp_path]
    write_scene(tmp_path / "another.tif", ramp(1))
    assert len(find_scenes(tmp_path)) == 3 + len(EXTRA[name])


def test_bands_beside_the_sensors_are_left_out(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(5), ["B2", "B3", "B8A", "AOT", "QA60"])
    with open_scene(path) as scene:
        assert scene.bands == ["B2", "B3", "B8A"] and scene.sensor.name == "sentinel2_l2a"
        assert scene.warnings == ["AOT, QA60: no band of sentinel2_l2a; left out"]
    with open_for_model(path, contract(), sensor="sentinel2_l1c") as scene:
        assert not scene.warnings


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        (["HLS.S30.B02", "HLS.S30.B8A"], "hls_s30"),
        (["HLS.L30.T33TWM.2023001T101401.v2.0.B02", "HLS.L30.T33TWM.2023001T101401.v2.0.B05"], "hls_l30"),
        (["Coastal Blue", "Blue", "Green I", "Green", "Yellow", "Red", "Red Edge", "NIR"], "planetscope"),
    ],
)
def test_names_of_bands_tell_their_product(tmp_path: Path, names: list[str], sensor: str):
    with open_scene(write_scene(tmp_path / "s.tif", ramp(len(names)), names)) as scene:
        assert scene.sensor.name == sensor
