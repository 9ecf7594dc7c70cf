"""Side files of scenes: those that decide a result are in its hash, and those that name other files are refused."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geovision.rasters import open_raster, read_values
from geovision.scenes import open_scene
from geovision.side_files import side_files
from shared_backbones.errors import InputError
from tests.geovision.rasters import TRANSFORM
from tests.hostile.sound_files import geotiff, vrt


def _masked(path: Path) -> Path:
    scene = geotiff(path)
    mask = np.full((1, 40, 50), 255, np.uint8)
    mask[:, :20] = 0
    about = {"driver": "GTiff", "height": 40, "width": 50, "count": 1, "dtype": "uint8", "transform": TRANSFORM}
    with rasterio.open(f"{scene}.msk", "w", **about) as target:
        target.write(mask)
        target.update_tags(INTERNAL_MASK_FLAGS_1="2", INTERNAL_MASK_FLAGS_2="2", INTERNAL_MASK_FLAGS_3="2")
    return scene


def test_a_mask_beside_a_scene_is_heeded_and_hashed(tmp_path: Path):
    scene = _masked(tmp_path)
    with open_raster(scene) as source:
        _, valid = read_values(source, [1], [None])
    assert not valid[0, :20].any() and valid[0, 20:].all()
    with open_scene(scene, sensor="sentinel2_l2a") as opened:
        masked = opened.sha256()
    Path(f"{scene}.msk").unlink()
    with open_scene(scene, sensor="sentinel2_l2a") as opened:
        assert opened.sha256() != masked


@pytest.mark.parametrize("name", ["scene.tfw", "scene.tif.aux.xml", "scene.tif.ovr", "scene.TFW"])
def test_whatever_is_read_beside_a_scene_is_hashed(name: str, tmp_path: Path):
    scene = geotiff(tmp_path)
    with open_scene(scene, sensor="sentinel2_l2a") as opened:
        alone = opened.sha256()
    beside = tmp_path / name
    beside.write_bytes(scene.read_bytes() if name.endswith("ovr") else b"<PAMDataset/>")
    assert side_files(scene) == [beside]
    with open_scene(scene, sensor="sentinel2_l2a") as opened:
        assert opened.sha256() != alone


def test_sources_of_a_vrt_have_side_files_too(tmp_path: Path):
    virtual = vrt(tmp_path)
    (tmp_path / "scene.tif.msk").write_text("text")
    with pytest.raises(InputError, match=r"scene\.tif\.msk: is no TIFF file"), open_raster(virtual):
        pass
