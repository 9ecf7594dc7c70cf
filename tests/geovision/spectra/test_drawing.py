"""Scenes drawn from spectra: what is in them, whence, and that nothing of the test is in the training."""

import numpy as np
import pytest

from geovision.datasets.labels import IGNORED
from geovision.sensors import find_sensor
from geovision.spectra.drawing import CLASSES, SceneDrawer
from geovision.spectra.library import SURFACES, spectra
from geovision.spectra.responses import HALF_POWER, band_responses

PARTS = ("train", "validation", "test")


def test_no_spectrum_is_in_two_parts_and_each_part_has_all_surfaces():
    rows = {
        part: {surface: {row.tobytes() for row in spectra(part)[surface]} for surface in SURFACES} for part in PARTS
    }
    for surface in SURFACES:
        sizes = [len(rows[part][surface]) for part in PARTS]
        assert min(sizes) >= 1 and sizes[0] > sizes[2] > 0
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert rows[PARTS[one]][surface].isdisjoint(rows[PARTS[other]][surface])
    for values in spectra("train").values():
        assert values.min() >= 0 and values.max() <= 1.05


def test_surfaces_look_as_their_names_say():
    red, nir = band_responses("landsat8", ["B4", "B5"])
    index = {name: (v @ nir - v @ red) / (v @ nir + v @ red) for name, v in spectra("train").items()}
    assert np.median(index["green"]) > 0.7 > 0.5 > np.median(index["dry"]) > np.median(index["built"])
    assert np.median(index["built"]) < 0.2


def test_scenes_are_drawn_again_from_the_same_generator_and_others_from_another():
    drawer = SceneDrawer("train", 24)
    one, again, other = (drawer(3, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.images, again.images) and np.array_equal(one.labels, again.labels)
    assert one.wavelengths == again.wavelengths
    assert one.images.shape != other.images.shape or not np.array_equal(one.images, other.images)


def test_every_scene_has_the_needed_bands_and_reflectances_of_the_right_size():
    drawer, seen = SceneDrawer("train", 16), set()
    for seed in range(40):
        scenes = drawer(2, np.random.default_rng(seed))
        assert scenes.images.dtype == np.float32 and scenes.images.shape == (2, len(scenes.wavelengths), 16, 16)
        assert np.isfinite(scenes.images).all() and scenes.images.min() > -0.2 and scenes.images.max() < 4
        for low, high in ((525, 600), (630, 690), (760, 900), (1550, 2350)):
            assert any(low <= wavelength <= high for wavelength in scenes.wavelengths)
        assert list(scenes.wavelengths) == sorted(scenes.wavelengths)
        seen |= set(np.unique(scenes.labels))
    assert seen - {IGNORED} == set(range(len(CLASSES)))


@pytest.mark.parametrize("sensor", ["landsat5", "landsat8", "sentinel2_l1c"])
def test_labels_agree_with_what_indices_know(sensor: str):
    drawer = SceneDrawer("test", 32, [sensor], whole=True)
    bands = list(HALF_POWER[sensor])
    colours = [find_sensor(sensor).band(band).color for band in bands]
    green, red, short = (colours.index(colour) for colour in ("green", "red", "swir16"))
    nir = colours.index("nir" if "nir" in colours else "nir08")
    pixels: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    for seed in range(30):
        scenes = drawer(2, np.random.default_rng(seed))
        for number, name in enumerate(CLASSES):
            pixels[name].append(scenes.images.transpose(0, 2, 3, 1)[scenes.labels == number])
    of = {name: np.concatenate(parts) for name, parts in pixels.items()}

    def index(name: str, a: int, b: int) -> float:
        values = of[name].astype(np.float64)
        return float(np.median((values[:, a] - values[:, b]) / (values[:, a] + values[:, b] + 1e-3)))

    assert index("green_vegetation", nir, red) > 0.4 > index("dry_vegetation", nir, red) > 0
    assert index("water", green, short) > 0.1 > index("soil_sand", green, short)
    assert index("snow", green, short) > 0.4
    assert np.median(of["cloud"][:, green]) > 0.2 > np.median(of["shadow"][:, nir])
