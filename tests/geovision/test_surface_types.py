"""The bundled model of surfaces: any bands in any order, real pixels, and what it refuses."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.datasets.labels import IGNORED
from geovision.spectra.drawing import CLASSES, DrawnScenes, SceneDrawer
from geovision.spectra.responses import HALF_POWER
from shared_backbones import weights
from shared_backbones.catalogue import Catalogue
from tests.geovision.rasters import write_scene

NAME = "surface-types"


@pytest.fixture(scope="module")
def network():
    return weights.load(Catalogue("geovision").find_model(NAME)).module.eval()


def probabilities(network, images: np.ndarray, wavelengths: Sequence[float]) -> np.ndarray:
    network.see(wavelengths)
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(images, np.float32))).softmax(1).numpy()


def landscape(sensor: str) -> DrawnScenes:
    return SceneDrawer("test").landscape(sensor, 128, np.random.default_rng(3))


def write_drawn(path: Path, scenes: DrawnScenes, bands: Sequence[str]) -> Path:
    numbers = np.clip(np.rint(scenes.images[0] * 10_000), 0, 65_535).astype(np.uint16)
    return write_scene(path, numbers, bands, scales=[1e-4] * len(bands), offsets=[0.0] * len(bands))


def start(*arguments: str | Path) -> int:
    return run(app, ["map", *map(str, arguments)])


def test_its_card_says_what_it_is_and_it_is_small():
    folder = Catalogue("geovision").find_model(NAME)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2e6
    card = weights.read_card(folder)
    assert card["limits"][0].startswith("Not a land-cover product") and len(card["classes"]) == len(CLASSES)


def test_the_order_of_the_bands_does_not_matter(network):
    scenes = landscape("sentinel2_l2a")
    order = np.random.default_rng(0).permutation(len(scenes.wavelengths))
    plain = probabilities(network, scenes.images, scenes.wavelengths)
    shuffled = probabilities(network, scenes.images[:, order], [scenes.wavelengths[n] for n in order])
    np.testing.assert_allclose(shuffled, plain, atol=1e-5)


@pytest.mark.parametrize("sensor", ["landsat5", "landsat7", "landsat8", "sentinel2_l2a"])
@pytest.mark.parametrize("few", [False, True])
def test_drawn_scenes_of_spectra_that_it_has_not_seen_are_mapped(network, sensor: str, few: bool):
    scenes, bands = landscape(sensor), list(HALF_POWER[sensor])
    kept = [bands.index(band) for band in _needed(sensor)] if few else list(range(len(bands)))
    answer = probabilities(network, scenes.images[:, kept], [scenes.wavelengths[n] for n in kept]).argmax(1)
    known = scenes.labels != IGNORED
    assert (answer[known] == scenes.labels[known]).mean() > (0.6 if few else 0.7)
    assert (answer[scenes.labels == CLASSES.index("water")] == CLASSES.index("water")).mean() > 0.9


def _needed(sensor: str) -> list[str]:
    if sensor.startswith("sentinel2"):
        return ["B3", "B4", "B8", "B11"]
    return ["B3", "B4", "B5", "B6"] if sensor == "landsat8" else ["B2", "B3", "B4", "B5"]


def test_a_scene_is_mapped_without_naming_a_model(tmp_path: Path, capsys):
    scenes = landscape("landsat8")
    scene = write_drawn(tmp_path / "s.tif", scenes, list(HALF_POWER["landsat8"]))
    assert start("-i", scene, "-o", tmp_path / "m.tif", "--sensor", "landsat8") == 0
    side = json.loads((tmp_path / "m.json").read_text())
    assert side["model"]["name"] == NAME and side["input"]["bands"] == list(HALF_POWER["landsat8"])
    assert not any("no surface" in warning for warning in side["warnings"])
    with rasterio.open(tmp_path / "m.tif") as source:
        labels = source.read(1)
    known = scenes.labels[0] != IGNORED
    assert (labels[known] == scenes.labels[0][known]).mean() > 0.8
    assert "built_up" in capsys.readouterr().out


def test_a_folder_may_hold_scenes_of_several_sensors(tmp_path: Path, capsys):
    for sensor in ("sentinel2_l1c", "sentinel2_l2a"):  # told apart by their bands' names
        bands = list(HALF_POWER[sensor])
        write_drawn(tmp_path / "in" / f"{sensor}.tif", landscape(sensor), bands)
    drawn = SceneDrawer("test").landscape("sentinel2_l2a", 64, np.random.default_rng(0))
    few = [list(HALF_POWER["sentinel2_l2a"]).index(band) for band in ("B3", "B4", "B8A", "B12")]
    part = DrawnScenes(drawn.images[:, few], drawn.labels, tuple(drawn.wavelengths[n] for n in few))
    write_drawn(tmp_path / "in" / "few.tif", part, ["B3", "B4", "B8A", "B12"])
    assert start("-i", tmp_path / "in", "-o", tmp_path / "out") == 0
    seen = {path.stem: json.loads(path.read_text())["input"]["bands"] for path in (tmp_path / "out").glob("*_map.json")}
    assert seen["few_map"] == ["B3", "B4", "B8A", "B12"] and len(seen["sentinel2_l2a_map"]) == 11
    capsys.readouterr()


def test_speckle_is_flagged(tmp_path: Path, capsys):
    values = 0.2 * np.random.default_rng(0).gamma(1, 1, (6, 96, 96))
    numbers = (values * 10_000).clip(0, 25_000).astype(np.uint16)
    scene = write_scene(tmp_path / "s.tif", numbers, ["blue", "green", "red", "nir", "swir16", "swir22"])
    assert start("-i", scene, "-o", tmp_path / "m.tif", "--sensor", "reflectance", "--scale", "1e-4") == 0
    assert "look like no surface that the model knows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sensor", "bands", "message"),
    [
        ("planetscope", ["blue", "green", "red", "nir"], "lacks swir"),
        ("landsat7", ["B1", "B2", "B3", "B4", "B5", "B7"], "give the --scale (and --offset)"),  # counts
        ("landsat8", ["B10", "B11"], "lacks green, red, nir, swir"),
    ],
)
def test_what_it_cannot_judge_is_refused_in_one_line(
    tmp_path: Path, capsys, sensor: str, bands: list[str], message: str
):
    numbers = np.random.default_rng(0).integers(20, 200, (len(bands), 64, 64)).astype(np.uint16)
    scene = write_scene(tmp_path / "s.tif", numbers, bands)
    assert start("-i", scene, "-o", tmp_path / "m.tif", "--sensor", sensor) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1 and not (tmp_path / "m.tif").exists()


def test_a_height_model_is_refused(tmp_path: Path, capsys):
    scene = write_scene(tmp_path / "dem.tif", np.full((1, 40, 40), 812, np.int16))
    assert start("-i", scene, "-o", tmp_path / "m.tif") == 2
    assert capsys.readouterr().err.count("\n") == 1


def balanced(answers: dict[str, np.ndarray]) -> float:
    """Mean over the classes of how many of each are right; `answers` are of each class whether it was told."""
    return float(np.mean([right.mean() for right in answers.values()]))


def test_real_surface_reflectances_of_landsat_8(network, data_root: Path):
    table = json.loads((data_root / "geo" / "spyndex_landsat8_3class_samples.json").read_text())
    columns = {name: np.array(list(v.values()) if isinstance(v, dict) else v) for name, v in table.items()}
    images = np.stack([columns[f"SR_B{n}"] for n in range(1, 8)], 1).astype(np.float32)[..., None, None]
    scores = probabilities(network, images, (443, 482, 561, 655, 865, 1609, 2201))[..., 0, 0]
    built, water = scores[:, CLASSES.index("built_up")], scores[:, CLASSES.index("water")]
    told = np.stack([built, scores[:, :2].sum(1), water]).argmax(0)  # the likeliest of the three that are labelled
    right = {name: told[columns["class"] == name] == n for n, name in enumerate(("Urban", "Vegetation", "Water"))}
    assert balanced(right) >= 0.95


def test_real_villages_of_sentinel_2(network, data_root: Path):
    folder = data_root / "geo" / "sentinel2_slovenia"
    with rasterio.open(folder / "LULC.tif") as source:
        cover = source.read(1)
    vegetation, built = np.isin(cover, (2, 3, 4)), cover == 8
    reached = []
    for path in sorted(folder.glob("S2_L1C_*.tif")):
        with rasterio.open(path) as source:
            images = source.read([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13])[None].astype(np.float32) / 10_000
        centres = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 1613.7, 2202.4)
        scores = probabilities(network, images, centres)[0]
        sealed = scores[CLASSES.index("built_up")] > scores[:2].sum(0)  # built-up, or either vegetation
        reached.append(balanced({"vegetation": ~sealed[vegetation], "built": sealed[built]}))
    assert np.mean(reached) >= 0.65
