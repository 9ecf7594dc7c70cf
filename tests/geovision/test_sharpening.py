"""Sharpening: degrading as a sensor does, pairs one scale below, consistency, and whole scenes."""

import cmath
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geovision.contract import input_section
from geovision.enhancing import Enhancer
from geovision.scenes import open_for_model
from geovision.sharpening import Sharpening, coarse_offset
from shared_backbones import weights
from shared_backbones.degrading import RMS, WORST, consistent, degrade, enlarge, point_spread
from shared_backbones.errors import InputError
from shared_backbones.networks.drsformer import DRSformer
from tests.geovision.rasters import TRANSFORM, write_scene

BANDS = ["B2", "B3", "B4", "B5", "B11"]
COARSE = (3, 4)
WHAT = Sharpening(COARSE, 2, 0.25, 16)


@given(ratio=st.integers(2, 6), mtf=st.floats(0.1, 0.5))
def test_the_point_spread_has_the_mtf_at_the_coarse_nyquist_frequency(ratio: int, mtf: float) -> None:
    spread = point_spread(ratio, mtf)
    assert sum(spread) == pytest.approx(1) and spread == spread[::-1] and len(spread) % 2 == ratio % 2
    wave = sum(weight * cmath.exp(-1j * cmath.pi * place / ratio) for place, weight in enumerate(spread))
    assert abs(wave) == pytest.approx(mtf, rel=0.05)


@given(ratio=st.integers(2, 4), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_degrading_keeps_a_constant_and_weighs_fine_pixels_around_a_coarse_centre(ratio: int, seed: int) -> None:
    torch.manual_seed(seed)
    assert torch.allclose(degrade(torch.full((1, 2, 4 * ratio, 5 * ratio), 3.0), ratio, 0.25), torch.tensor(3.0))
    images = torch.rand(1, 1, 8 * ratio, 8 * ratio, dtype=torch.float64)
    spread = np.array(point_spread(ratio, 0.25))
    first = 4 * ratio - (len(spread) - ratio) // 2
    part = images[0, 0, first : first + len(spread), first : first + len(spread)].numpy()
    assert degrade(images, ratio, 0.25)[0, 0, 4, 4].item() == pytest.approx(spread @ part @ spread)


@given(
    ratio=st.integers(2, 4),
    row=st.integers(0, 3),
    column=st.integers(0, 3),
    seed=st.integers(0, 99),
    flat=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_coarse_pixels_are_found_where_values_repeat(ratio: int, row: int, column: int, seed: int, flat: bool) -> None:
    row, column = row % ratio, column % ratio
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 5000, (2, 12, 12)).astype(np.float32))
    repeated = values.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    cut = repeated[:, (ratio - row) % ratio :, (ratio - column) % ratio :]
    assert coarse_offset(cut, ratio) == (row, column)
    assert coarse_offset(torch.rand(2, 20, 20), ratio) == (0, 0)


def test_a_pair_holds_what_was_measured_and_what_it_degrades_to() -> None:
    torch.manual_seed(0)
    native = torch.rand(1, 2, 8, 8)
    images = torch.rand(1, 5, 16, 16)
    images[:, list(COARSE)] = native.repeat_interleave(2, 2).repeat_interleave(2, 3)
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    valid[0, 5, 7] = False
    pair = WHAT.wald(images, valid)
    known = torch.ones(8, 8, dtype=torch.bool)
    known[2, 3] = False
    assert torch.equal(pair.valid[0], known)
    torch.testing.assert_close(pair.wanted, native)
    torch.testing.assert_close(pair.images[:, list(COARSE)], enlarge(degrade(native, 2, 0.25), 2))
    torch.testing.assert_close(pair.images[:, :3], degrade(images[:, :3], 2, 0.25))


@pytest.mark.parametrize("ratio", [2, 3, 6])
def test_what_is_made_consistent_degrades_to_what_was_measured(ratio: int) -> None:
    torch.manual_seed(0)
    truth = 1000 + 300 * torch.rand(1, 2, 12 * ratio, 12 * ratio)
    native = degrade(truth, ratio, 0.25)
    found = consistent(truth.flip(2), native, ratio, 0.25)
    share = (degrade(found, ratio, 0.25) - native).abs() / native.mean((2, 3), keepdim=True)
    assert share.square().mean().sqrt() <= RMS and share.max() <= WORST
    assert torch.equal(consistent(truth, native, ratio, 0.25), truth)  # nothing is changed that is right


def model(folder: Path, **card: Any) -> Path:
    """A network that adds nothing to its input: coarse bands enlarged, then made consistent."""
    torch.manual_seed(0)
    network = DRSformer(len(BANDS), dim=8, num_blocks=[1, 1, 1, 1], heads=[1, 1, 1, 1], mixture=False)
    torch.nn.init.zeros_(network.last.weight)
    statistics = {"mean": [1500.0] * len(BANDS), "std": [600.0] * len(BANDS)}
    section = input_section("sentinel2_l1c", BANDS, 64, statistics=statistics, scale=0.0001)
    sharpening = {"coarse": ["B5", "B11"], "ratio": 2, "mtf": 0.25, "overlap": 16}
    weights.save(folder, network, {"name": "sharp", "input": {**section, "tile": 64}, "sharpening": sharpening, **card})
    return folder


def values_of(height: int, width: int, seed: int = 0, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    random = np.random.default_rng(seed)
    smooth = 1500 + 400 * np.sin(np.add.outer(np.arange(height + 2) / 9, np.arange(width + 2) / 7))
    values = smooth + random.integers(0, 200, (len(BANDS), height + 2, width + 2))
    for band in COARSE:
        blocks = values[band, : (height + 2) // 2 * 2 : 2, : (width + 2) // 2 * 2 : 2]
        values[band, : (height + 2) // 2 * 2, : (width + 2) // 2 * 2] = blocks.repeat(2, 0).repeat(2, 1)
    row, column = ((2 - place) % 2 for place in offset)
    return values[:, row : row + height, column : column + width].astype(np.uint16)


def enhanced(folder: Path, scene: Path, output: Path, **options: Any) -> tuple[np.ndarray, list]:
    enhancer = Enhancer(folder, threads=1)
    with open_for_model(scene, enhancer.contract, sensor="sentinel2_l1c", nearest=True) as opened:
        figures = enhancer.enhance(opened, output, **options)
    with rasterio.open(output) as found:
        return found.read(), figures


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (1, 1)])
def test_a_scene_keeps_its_grid_its_fine_bands_and_what_was_measured(tmp_path: Path, offset: tuple[int, int]) -> None:
    folder, values = model(tmp_path / "model"), values_of(90, 130, offset=offset)
    scene = write_scene(tmp_path / "scene.tif", values, BANDS)
    found, figures = enhanced(folder, scene, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as written, rasterio.open(scene) as given:
        assert written.transform == given.transform and written.crs == given.crs and written.shape == given.shape
        assert written.descriptions == tuple(BANDS) and written.dtypes[0] == "float32" and np.isnan(written.nodata)
        assert written.tags()["enhanced"] == "yes"
    np.testing.assert_allclose(found[:3], values[:3] * 1e-4, rtol=1e-6)
    assert [row["name"] for row in figures] == ["B5", "B11"]
    assert all(row["consistent"] for row in figures), figures
    # not the coarse value repeated
    assert np.abs(np.diff(found[3], axis=1)).min() >= 0 and (np.diff(found[3], axis=1) == 0).mean() < 0.1
    some, _ = enhanced(folder, scene, tmp_path / "some.tif", bands=["B11", "B2"])
    np.testing.assert_array_equal(some, found[[4, 0]])


def test_what_is_unknown_stays_so_and_a_cut_out_at_a_tile_gives_the_same(tmp_path: Path) -> None:
    folder, values = model(tmp_path / "model"), values_of(160, 160)
    values[:, 20:24, 30:36] = 0
    scene = write_scene(tmp_path / "scene.tif", values, BANDS, nodata=0)
    found, _ = enhanced(folder, scene, tmp_path / "out.tif")
    assert np.isnan(found[:, 20:24, 30:36]).all() and np.isfinite(found).sum() == found.size - 5 * 24
    step = 48  # of tiles of 64 that share 16
    transform = TRANSFORM * rasterio.Affine.translation(step, step)
    part = write_scene(tmp_path / "part.tif", values[:, step:, step:], BANDS, nodata=0, transform=transform)
    cut, _ = enhanced(folder, part, tmp_path / "cut.tif")
    inner = slice(16, -16)  # beyond what the cut-out's first tile blends with one that it has not
    np.testing.assert_allclose(cut[:, inner, inner], found[:, step:, step:][:, inner, inner], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"sharpening": {"coarse": ["B5"], "ratio": 1, "mtf": 0.25, "overlap": 16}}, "ratio, mtf and overlap"),
        ({"sharpening": {"coarse": ["B8"], "ratio": 2, "mtf": 0.25, "overlap": 16}}, "no model that sharpens"),
        ({"sharpening": {"coarse": ["B5"], "ratio": 2, "mtf": 0.25, "overlap": 64}}, "above the overlap"),
        ({"sharpening": 3}, "no model that sharpens"),
    ],
)
def test_a_card_that_says_nothing_usable_is_refused(tmp_path: Path, card: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Enhancer(model(tmp_path / "model", **card))


def test_a_band_that_the_model_has_not_is_named(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", values_of(64, 64), BANDS)
    with pytest.raises(InputError, match="B8A: expected different ones of B2"):
        enhanced(model(tmp_path / "model"), scene, tmp_path / "out.tif", bands=["B8A"])
    assert not (tmp_path / "out.tif").exists()
