"""What maps of whole scenes cost, how fast stored patches are read, and land cover beside a random forest."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window

from geovision.datasets.patches import Patches
from geovision.mapping import Mapper
from geovision.metrics import confusion, map_figures
from geovision.scenes import open_for_model
from pipelines.data.store import Sample, write_store
from tests.geovision import small_models

BANDS = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]


def large_scene(path: Path, side: int) -> Path:
    """Tiled and compressed, three bands uint16."""
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": from_origin(5e5, 5e6, 10, 10), "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "deflate", "predictor": 2,
    }  # fmt: skip
    random = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as target:
        for number, name in enumerate(small_models.BANDS, 1):
            target.set_band_description(number, name)
        for row in range(0, side, 256):
            strip = np.add.outer(np.arange(row, row + 256) % 997, np.arange(side) % 1009) + 300
            window = Window(0, row, side, 256)  # pyright: ignore[reportCallIssue]
            target.write((strip + random.integers(0, 50, (3, 1, side))).astype("uint16"), window=window)
    return path


def map_once(folder: Path, side: int, kind: str) -> None:
    """In a process of its own: map a scene, and print seconds and the peak of memory."""
    mapper = Mapper(folder / "model")
    if kind == "convolution":
        mapper.network = torch.nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
    path = folder / f"{side}.tif"
    with open_for_model(path, mapper.contract, sensor="sentinel2_l1c") as scene:
        found = mapper.map(scene, folder / f"{side}-{kind}.tif")
    outside = (found["read"] + found["write"]) / found["all"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{side} x {side}, {kind}: {found['all']:.1f} s, {outside:.1%} outside the network, peak {peak:.0f} MB")


@pytest.mark.parametrize(("side", "kind"), [(2048, "convolution"), (16384, "convolution"), (4096, "network")])
def test_maps_of_whole_scenes(side: int, kind: str, tmp_path: Path) -> None:
    small_models.mapper(tmp_path / "model", 256)
    large_scene(tmp_path / f"{side}.tif", side)
    code = f"from tests.benchmarks.test_scenes import *; map_once(Path({str(tmp_path)!r}), {side}, {kind!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_stored_patches_a_second(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def convert(number: int) -> Sample:
        images = random.integers(0, 9999, (256, 13, 64, 64)).astype(np.uint16)
        return Sample(f"case-{number}", str(number), "train", {"image": images}, {})

    store = write_store(tmp_path, range(12), convert, settings={})
    patches = Patches([{"image": store.array(case, "image")} for case in store.cases()])
    order = random.permutation(len(patches)).tolist()
    for lap in range(2):  # the second time from the page cache
        start = time.perf_counter()
        for first in range(0, len(order), 64):
            patches.__getitems__(order[first : first + 64])
        rate = len(order) / (time.perf_counter() - start)
        print(f"13 x 64 x 64 uint16 in random order, lap {lap + 1}: {rate:,.0f} patches a second")


def test_land_cover_by_a_random_forest(data_root: Path) -> None:
    """The baseline of the recipes `scenes` and `scenes_fpn`: pixels of the north learnt, of the south tested."""
    from sklearn.ensemble import RandomForestClassifier

    folder = data_root / "geo" / "sentinel2_slovenia"
    with rasterio.open(folder / "LULC.tif") as source:
        raw = source.read(1)
    labels = np.full(raw.shape, 255, np.uint8)
    for number, value in enumerate((2, 3, 4, 8)):
        labels[raw == value] = number
    scenes = []
    for path in sorted(folder.glob("S2_*.tif")):
        with rasterio.open(path) as source:
            names = [f"B{int(name[1:])}" if name[1:].isdigit() else name for name in source.descriptions]
            scenes.append(source.read([names.index(name) + 1 for name in BANDS]))
    middle = raw.shape[0] // 2
    north, south = labels[:middle] < 4, labels[middle:] < 4
    known = np.concatenate([scene[:, :middle][:, north].T for scene in scenes])
    asked = np.concatenate([scene[:, middle:][:, south].T for scene in scenes])
    truth = np.concatenate([labels[middle:][south]] * len(scenes))
    for seed in range(1, 6):
        forest = RandomForestClassifier(500, random_state=seed, n_jobs=2)
        forest.fit(known, np.concatenate([labels[:middle][north]] * len(scenes)))
        found = map_figures(confusion(forest.predict(asked), truth, 4), ["forest", "grass", "shrub", "artificial"])
        print(", ".join(f"{name} {found[name]:.3f}" for name in ("accuracy", "majority", "mean_iou", "macro_f1")))
