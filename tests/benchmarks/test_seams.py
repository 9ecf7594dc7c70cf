"""Whether trained mapping recipes leave seams: the same ground, mapped where tiles lie otherwise.

Each recipe is trained as its page says (minutes), then maps scenes that are made of the chip it was trained on.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from geovision.mapping import Mapper
from geovision.scenes import open_for_model
from tests.geovision.rasters import TRANSFORM, write_scene

SHIFTS = [(4, 0), (20, 36), (100, 132)]
CUTS = [(0, 0), (52, 36), (100, 100)]


@pytest.fixture(scope="module", params=["scenes", "scenes_fpn", "scenes_vitcomer"])
def mapper(request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapper:
    """A recipe's model, trained on the three dates of the chip."""
    folder, chip = tmp_path_factory.mktemp(request.param), data_root / "geo" / "sentinel2_slovenia"
    for scene in sorted(chip.glob("S2_*.tif")):
        for part, source in (("images", scene), ("labels", chip / "LULC.tif")):
            (folder / part).mkdir(exist_ok=True)
            shutil.copy(source, folder / part / scene.name)
    start = ["model.init=satmae-mini"] if request.param != "scenes" else []
    program = Path(sys.executable).with_name("geovision")
    command = [program, "run", request.param, f"data.root={folder}", f"output={folder / 'run'}", *start]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return Mapper(next((folder / "run" / "train").glob("*/model")))


@pytest.fixture(scope="module")
def chip(data_root: Path) -> tuple[np.ndarray, list[str]]:
    with rasterio.open(data_root / "geo" / "sentinel2_slovenia" / "S2_L1C_13band_2015-07-31.tif") as source:
        return source.read(), list(source.descriptions)


def probabilities(
    mapper: Mapper, folder: Path, values: np.ndarray, bands: list[str], at: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Probabilities `(K, H, W)` of a scene whose first pixel lies some rows and columns further."""
    row, column = at
    path = write_scene(folder / "scene.tif", values, bands, transform=TRANSFORM * Affine.translation(column, row))
    with open_for_model(path, mapper.contract, sensor="sentinel2_l1c") as scene:
        mapper.map(scene, folder / "map.tif", probabilities=folder / "probabilities.tif")
    with rasterio.open(folder / "probabilities.tif") as source:
        return source.read()


def shares(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=4) / labels.size


def test_seams(mapper: Mapper, chip: tuple[np.ndarray, list[str]], tmp_path: Path) -> None:
    values, bands = chip
    print(f"\n{mapper.card['name']}: tiles of {mapper.tile} pixels, margin {mapper.margin}")
    side, rim = (800, 256) if mapper.any_size else (160, 48)  # several tiles either way
    for row, column in [(20, 20), (50, 50), (80, 30)]:
        constant = np.broadcast_to(values[:, row, column, None, None], (len(values), side, side))
        inside = probabilities(mapper, tmp_path, constant, bands)[:, rim:-rim, rim:-rim]
        spread, counted = np.ptp(inside, axis=(1, 2)).max(), shares(inside.argmax(0)).max()
        print(f"a scene of pixel {row}, {column}: a probability differs by {spread:.3f}, one class has {counted:.1%}")
    mosaic = np.tile(values, (1, 4, 4))
    mapped = probabilities(mapper, tmp_path, mosaic, bands).argmax(0)
    for row, column in CUTS:
        part = mosaic[:, row : row + 300, column : column + 300]
        cut = probabilities(mapper, tmp_path, part, bands, (row, column)).argmax(0)
        inner = slice(mapper.margin, 300 - mapper.margin)
        same = (cut == mapped[row : row + 300, column : column + 300])[inner, inner].mean()
        print(f"cut out at {row}, {column}: {same:.2%} of the labels inside the margin are the map's")
    for shift in SHIFTS:
        moved = probabilities(mapper, tmp_path, mosaic, bands, shift).argmax(0)
        change = np.abs(shares(moved) - shares(mapped)).max()
        print(f"moved by {shift[0]}, {shift[1]} pixels: a class's share changes by {change:.4f}")
