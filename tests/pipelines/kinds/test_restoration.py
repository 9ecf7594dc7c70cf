"""Restoration of scenes: recipes learn from the scenes alone, are judged beside bicubic, and their models enhance."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geovision.enhancing import Enhancer
from geovision.scenes import open_for_model, open_scene
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages
from shared_backbones.errors import InputError
from tests.geovision.rasters import TRANSFORM, write_scene

SMALL = [
    "train.steps=3", "train.batch_size=2", "train.threads=1", "train.warmup_steps=1", "tracking.system_metrics=false",
    "data.tile=32", "data.overlap=8",
]  # fmt: skip
ENLARGE = [
    "data.patch=48", "data.split={by: last, test: 0.5, validation: 0}", "data.sensor=sentinel2_l1c",
    "model.arguments={in_chans: 4, upscale: 1, window_size: 8, embed_dim: 8, depths: [1], num_heads: [2], "
    "squeeze_factor: 4, compress_ratio: 2, img_size: 32}",
]  # fmt: skip


def scenes(folder: Path, bands: list[str], side: int = 40) -> Path:
    """Two scenes of smooth fields, as integers."""
    folder.mkdir(exist_ok=True)
    for number in range(2):
        random = np.random.default_rng(number)
        places = np.add.outer(np.arange(side) / (4 + number), np.arange(side) / 5)
        values = [1200 + 300 * np.sin(places + band) + random.normal(0, 20, (side, side)) for band in range(len(bands))]
        write_scene(folder / f"{number}.tif", np.stack(values).astype(np.uint16), bands)
    return folder


def start(recipe: str, root: Path, output: Path, *overrides: str) -> Job:
    return run_stages(load_recipe(recipe, [f"data.root={root}", f"output={output}", *SMALL, *overrides]))


def test_scenes_are_enlarged_on_an_exact_grid(tmp_path: Path, store: str) -> None:
    root = scenes(tmp_path / "scenes", ["B2", "B3", "B4", "B8"])
    job = start("scenes_enlarge", root, tmp_path / "out", *ENLARGE)
    assert job.summary is not None
    figures = job.summary["figures"]
    for name in ("psnr", "ssim", "sam", "ergas"):
        assert np.isfinite(figures[name]) and np.isfinite(figures[f"{name}_bicubic"])
    enhancer = Enhancer(job.made["train"] / "model", threads=1)
    with open_for_model(root / "0.tif", enhancer.contract, sensor="sentinel2_l1c", **enhancer.opening) as scene:
        rows = enhancer.enhance(scene, tmp_path / "fine.tif")
    with rasterio.open(tmp_path / "fine.tif") as fine, rasterio.open(root / "0.tif") as given:
        assert fine.shape == (80, 80) and fine.bounds == given.bounds and fine.crs == given.crs
        assert fine.transform == TRANSFORM * TRANSFORM.scale(0.5)
        means = fine.read().reshape(4, 40, 2, 40, 2).mean((2, 4))
        np.testing.assert_allclose(means, given.read() * 1e-4, atol=0.03)
        assert (np.diff(fine.read(1), axis=1) == 0).mean() < 0.2  # not each value repeated
    assert [row["name"] for row in rows] == ["B2", "B3", "B4", "B8"] and all(row["consistent"] for row in rows)


def test_sharpening_learns_and_is_judged_beside_bicubic(tmp_path: Path, store: str) -> None:
    bands = ["B2", "B3", "B4", "B8", "B5", "B6", "B7", "B8A", "B11", "B12"]
    root = scenes(tmp_path / "scenes", bands, 49)
    job = start("scenes_sharpen", root, tmp_path / "out", "model.arguments.dim=8", "data.split.test=0.5")
    assert job.summary is not None
    assert {"psnr_B5", "psnr_bicubic_B12", "sam", "ergas_bicubic"} <= {*job.summary["figures"]}


@pytest.mark.parametrize("finer", [2, 3, 4])
def test_a_scene_on_a_finer_grid_repeats_its_values(tmp_path: Path, finer: int) -> None:
    root = scenes(tmp_path / "scenes", ["B2", "B3"], 12)
    with (
        open_scene(root / "0.tif", sensor="sentinel2_l1c") as plain,
        open_scene(root / "0.tif", sensor="sentinel2_l1c", nearest=True, finer=finer) as fine,
    ):
        values, _ = plain.read(0, 0, *plain.shape)
        again, valid = fine.read(0, 0, *fine.shape)
        assert valid.all() and fine.grid.gsd_m == pytest.approx(10 / finer, rel=1e-3)
        np.testing.assert_array_equal(again, values.repeat(finer, 1).repeat(finer, 2))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.coarse=[B2, B2]"], "expected different ones"),
        (["data.coarse=[B9]"], "expected different ones"),
        (["data.tile=33"], "expected a multiple of data.ratio"),
        (["data.patch=8"], "expected 33 pixels or more"),
        (["model.arguments.upscale=2"], "expected a network that keeps the size"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    root = scenes(tmp_path / "scenes", ["B2", "B3", "B4", "B8"])
    given = [f"data.root={root}", f"output={tmp_path / 'out'}", *SMALL, *ENLARGE, *overrides]
    with pytest.raises(InputError, match=message):
        find_kind(load_recipe("scenes_enlarge", given))
