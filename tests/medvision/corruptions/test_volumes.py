import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvision.corruptions.volumes import CORRUPTIONS, SCALES, corrupt_volume
from shared_backbones.errors import InputError

CELLS = [(modality, name) for modality, names in SCALES.items() for name in names]
SPACING = (1.2, 1.0, 1.5)


def phantom(modality: str = "mr", shape: tuple[int, ...] = (40, 44, 36), seed: int = 0) -> np.ndarray:
    """A head of two tissues with fluid inside and fine texture, on an even background, float32."""
    grid = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    radius = np.sqrt(sum(np.square(axis) for axis in grid))
    texture = 0.1 * np.sin(14 * grid[0]) * np.sin(17 * grid[1]) + np.random.default_rng(seed).normal(0, 0.01, shape)
    signal = np.select([radius < 0.25, radius < 0.6, radius < 0.85], [0.3, 1.0, 0.7], 0) + texture * (radius < 0.85)
    if modality == "mr":
        return (800 * signal).astype(np.float32)
    return np.where(radius < 0.85, 200 * signal - 50, -1024).astype(np.float32)


def damaged(name: str, modality: str, severity: int, key: Any = 0, volume: np.ndarray | None = None) -> np.ndarray:
    volume = phantom(modality) if volume is None else volume
    return corrupt_volume(name, volume, severity, spacing_mm=SPACING, modality=modality, seed_key=[key])


@pytest.mark.parametrize(("modality", "name"), CELLS)
def test_a_volume_keeps_grid_background_and_its_own_voxels(modality: str, name: str):
    volume = phantom(modality)
    volume.setflags(write=False)
    background = volume == volume.min()
    for severity in range(1, 6):
        found = damaged(name, modality, severity, volume=volume)
        assert found.shape == volume.shape and found.dtype == np.float32 and np.isfinite(found).all()
        assert (found[background] == volume.min()).all() and (found[~background] != volume[~background]).any()
        assert not np.shares_memory(found, volume)
    np.testing.assert_array_equal(volume, phantom(modality))
    assert 0.3 < background.mean() < 0.8


@pytest.mark.parametrize(("modality", "name"), CELLS)
def test_a_higher_severity_changes_more(modality: str, name: str):
    volume, draws = phantom(modality), 12 if name in ("motion", "ghosting") else 4
    changes = [
        np.mean([np.sqrt(np.square(damaged(name, modality, one, key, volume) - volume).mean()) for key in range(draws)])
        for one in range(1, 6)
    ]
    assert (np.diff(changes) > 0).all(), changes


@pytest.mark.parametrize(("modality", "name"), CELLS)
def test_every_cell_can_be_made_alone(modality: str, name: str):
    alone = damaged(name, modality, 3, "case")
    for other in SCALES[modality]:
        damaged(other, modality, 3, "other")
    np.testing.assert_array_equal(damaged(name, modality, 3, "case"), alone)


def test_the_generator_is_that_of_the_key():
    digest = hashlib.sha256(json.dumps(["ct", "noise", 3, "case", 7]).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    volume = phantom("ct")
    found = corrupt_volume("noise", volume, 3, spacing_mm=SPACING, modality="ct", seed_key=("case", 7))
    expected = volume + 40 * random.standard_normal(volume.shape, np.float32)
    inside = volume > -1024
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01)
    assert len({damaged("spike", "mr", 3, key).tobytes() for key in (1, "1", 2)}) == 3


@pytest.mark.parametrize(("modality", "name"), CELLS)
def test_constant_empty_and_thin_volumes_are_taken(modality: str, name: str):
    for shape in ((6, 5, 4), (0, 3, 3)):
        for value in (0, -1024, 7.5):
            volume = np.full(shape, value, np.float32)
            np.testing.assert_array_equal(damaged(name, modality, 5, volume=volume), volume)
    for shape in ((1, 1, 2), (1, 20, 1), (3, 2, 2), (2, 31, 5)):
        volume = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
        for key in range(4):
            found = damaged(name, modality, 5, key, volume=volume)
            assert found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all()


@given(
    st.sampled_from(CELLS),
    st.integers(1, 5),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.floats(0.2, 12)] * 3),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]),
    st.integers(0, 9),
)
def test_volumes_of_any_shape_spacing_and_unit_are_taken(cell, severity, shape, spacing, unit, seed):
    volume = (unit * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)
    found = corrupt_volume(cell[1], volume, severity, spacing_mm=spacing, modality=cell[0], seed_key=[seed])
    assert found.shape == shape and np.isfinite(found).all()


def test_what_a_user_can_get_wrong_is_said_in_one_line():
    volume, good = phantom(), {"spacing_mm": SPACING, "modality": "mr", "seed_key": []}
    with pytest.raises(InputError, match="modality is 'pet', expected one of: mr, ct"):
        corrupt_volume("noise", volume, 1, **{**good, "modality": "pet"})
    with pytest.raises(
        InputError, match="'spike' is unknown for ct; expected one of: noise, blur, anisotropy, contrast"
    ):
        corrupt_volume("spike", volume, 1, **{**good, "modality": "ct"})
    for severity in (0, 6, -1):
        with pytest.raises(InputError, match=f"severity of noise is {severity}, expected 1 to 5"):
            corrupt_volume("noise", volume, severity, **good)
    for spacing in ((1, 1), (1, 0, 1), (1, 1, np.nan), 1):
        with pytest.raises(InputError, match="expected three positive lengths"):
            corrupt_volume("noise", volume, 1, **{**good, "spacing_mm": spacing})
    with pytest.raises(InputError, match=r"volume has shape \(3, 3\), expected finite values of shape"):
        corrupt_volume("noise", np.zeros((3, 3)), 1, **good)
    volume[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="volume has NaN or infinity"):
        corrupt_volume("noise", volume, 1, **good)


def test_scales_rise_and_belong_to_the_corruptions():
    assert {modality: list(names) for modality, names in SCALES.items()} == {k: list(v) for k, v in CORRUPTIONS.items()}
    for names in SCALES.values():
        assert all(sorted(set(values)) == list(values) and len(values) == 5 for values in names.values())


# ---- what the scales say


def apply(name: str, signal: np.ndarray, scale: float, modality: str = "mr", seed: int = 0, spacing=(1.0, 1.0, 1.0)):
    random = np.random.default_rng(seed)
    return CORRUPTIONS[modality][name](signal.astype(np.float32), scale, np.array(spacing), random)


def test_coils_differ_by_the_ratio():
    gain = apply("bias_field", np.ones((60, 50, 40)), 2.8)
    assert gain.max() / gain.min() == pytest.approx(2.8, rel=1e-4)
    assert max(np.abs(np.diff(gain, axis=axis)).max() for axis in range(3)) < 0.1  # smooth


def test_noise_has_its_standard_deviation():
    bright = apply("noise", np.full((40, 40, 40), 10.0), 0.16)
    assert bright.std() == pytest.approx(0.16, rel=0.02) and bright.mean() == pytest.approx(10, abs=0.01)
    dark = apply("noise", np.zeros((40, 40, 40)), 0.16)  # Rayleigh
    assert dark.mean() == pytest.approx(0.16 * np.sqrt(np.pi / 2), rel=0.02) and dark.min() >= 0
    hu = corrupt_volume("noise", phantom("ct"), 5, spacing_mm=SPACING, modality="ct", seed_key=[]) - phantom("ct")
    assert hu[phantom("ct") > -1024].std() == pytest.approx(110, rel=0.02)


def test_blur_has_its_width_in_mm():
    point = np.zeros((61, 41, 31))
    point[30, 20, 15] = 1
    spacing = np.array((0.5, 1.0, 2.0))
    found = apply("blur", point, 7.0, spacing=spacing)
    assert found.sum() == pytest.approx(1, abs=1e-3)
    for axis, length in enumerate(point.shape):
        along = found.sum(tuple(other for other in range(3) if other != axis))
        variance = (along * ((np.arange(length) - length // 2) * spacing[axis]) ** 2).sum()
        assert 2.355 * np.sqrt(variance) == pytest.approx(7.0, rel=0.03)


def test_slices_are_thick_across_one_axis_of_thin_voxels():
    random = np.random.default_rng(0).random((32, 32, 32))
    for seed in range(6):
        found = apply("anisotropy", random, 4.0, seed=seed, spacing=(1.0, 1.0, 5.0))
        rough = [
            np.abs(np.diff(found, axis=axis)).mean() / np.abs(np.diff(random, axis=axis)).mean() for axis in range(3)
        ]
        assert np.argmin(rough) in (0, 1) and min(rough) < 0.25
        assert found.mean() == pytest.approx(random.mean(), abs=0.02)
    np.testing.assert_array_equal(apply("anisotropy", random, 4.0, spacing=(4, 5, 6)), random.astype(np.float32))
    np.testing.assert_allclose(apply("anisotropy", np.ones((9, 10, 11)), 4.0), 1, atol=1e-6)


def test_a_spike_is_one_point_of_k_space():
    found = apply("spike", np.full((32, 32, 32), 5.0), 0.25)
    assert found.max() - 5 == pytest.approx(0.25, abs=0.01) and 5 - found.min() == pytest.approx(0.25, abs=0.01)
    power = np.sort(np.square(np.abs(np.fft.fftn(found - 5))).ravel())
    assert power[-60:].sum() > 0.7 * power.sum()  # a real wave is two points, and leaks where it fits no whole times


def test_ghosts_are_copies_along_one_axis():
    image = np.zeros((60, 60, 60))
    image[28:32, 28:32, 28:32] = 1
    for seed in range(6):
        found = apply("ghosting", image, 0.7, seed=seed)
        outside = found.copy()
        outside[26:34, 26:34, 26:34] = 0
        spread = [np.ptp(places) for places in np.nonzero(outside > 0.05)]
        assert sorted(spread)[1] < 8 and max(spread) > 15
        assert found[28:32, 28:32, 28:32].mean() > 0.5


def test_a_moving_head_stays_where_it_was():
    volume = phantom(shape=(40, 40, 40)) / 800
    for seed in range(4):
        found = apply("motion", volume, 4.0, seed=seed)
        centre, before = (
            np.array([(values * places).sum() / values.sum() for places in np.indices(values.shape)])
            for values in (found, volume)
        )
        np.testing.assert_allclose(centre, before, atol=1)  # voxels of 1 mm
        assert np.corrcoef(found.ravel(), volume.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(apply("motion", volume, 1e-9), volume, atol=1e-4)


def test_contrast_follows_a_power_or_a_factor():
    signal = np.linspace(0, 2, 27).reshape(3, 3, 3)
    found = {
        round(float(np.log(apply("contrast", signal, 2.2, seed=seed)[2, 2, 2]) / np.log(2)), 3) for seed in range(8)
    }
    assert found == {2.2, round(1 / 2.2, 3)}
    water = np.array([-1024.0, -1000, 0, 1000]).reshape(1, 2, 2)
    factors = set()
    for key in range(8):
        one = corrupt_volume("contrast", water, 5, spacing_mm=SPACING, modality="ct", seed_key=[key]).ravel()
        assert one[0] == -1024 and one[1] == pytest.approx(-1000, abs=1e-3)
        factors.add(round(float(one[2] + 1000) / 1000, 3))
        assert one[3] + 1000 == pytest.approx(2 * (one[2] + 1000), abs=1e-2)
    assert factors == {1.16, 0.84}
