"""Estimates of the memory that scenes take, against what was taken, from needles to slabs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geovision.embedding import Embedder, write_embeddings
from geovision.enhancing import Enhancer
from geovision.mapping import Mapper
from geovision.scene import Scene
from geovision.scenes import open_for_model
from shared_backbones.errors import InputError
from shared_backbones.memory import set_budget
from tests.geovision import small_models
from tests.geovision.rasters import write_scene
from tests.geovision.test_sharpening import BANDS
from tests.geovision.test_sharpening import model as small_enhancer
from tests.hostile.confined import GIB, confined


def _mapped(mapper: Mapper, scene: Scene, out: Path) -> None:
    mapper.map(scene, out / "m.tif")


def _embedded(embedder: Embedder, scene: Scene, out: Path) -> None:
    write_embeddings(out / "e.npz", [("scene", "0" * 64, embedder.embed(scene))], "0" * 64)


def _enhanced(enhancer: Enhancer, scene: Scene, out: Path) -> None:
    enhancer.enhance(scene, out / "e.tif")


VERBS: dict[str, tuple[Callable[[Path], Any], list[str], Callable[[Any, Scene, Path], None]]] = {
    "map": (lambda path: Mapper(small_models.mapper(path)), small_models.BANDS, _mapped),
    "embed": (lambda path: Embedder(small_models.encoder(path), batch_size=4096), small_models.BANDS, _embedded),
    "enhance": (lambda path: Enhancer(small_enhancer(path)), BANDS, _enhanced),
}
SHAPES = {"square": (400, 400), "needle": (6000, 24), "slab": (24, 6000)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", VERBS)
def test_estimates_are_within_a_factor_of_two(verb: str, shape: str, tmp_path: Path):
    load, bands, work = VERBS[verb]
    model = load(tmp_path / "model")
    height, width = SHAPES[shape]
    values = np.random.default_rng(0).integers(1, 9000, (len(bands), height, width), np.uint16)
    path = write_scene(tmp_path / "scene.tif", values, bands, tiled=min(height, width) > 256)
    (tmp_path / "out").mkdir()
    with open_for_model(path, model.contract, sensor="sentinel2_l1c", nearest=verb == "enhance") as scene:
        estimate = model.memory(scene)
        ended = confined(functools.partial(work, model, scene, tmp_path / "out"), tmp_path, memory=8 * GIB, seconds=600)
        assert ended.code == 0, ended.err
        print(verb, shape, f"{estimate / 2**20:.0f} MiB estimated, {ended.peak / 2**20:.0f} taken")
        assert estimate / 2 <= ended.peak <= 2 * estimate


@pytest.mark.parametrize("verb", VERBS)
def test_what_takes_more_than_the_budget_is_refused_before_it_is_taken(verb: str, tmp_path: Path):
    load, bands, work = VERBS[verb]
    model = load(tmp_path / "model")
    values = np.full((len(bands), 32, 40), 900, np.uint16)
    path = write_scene(tmp_path / "scene.tif", values, bands)
    (tmp_path / "out").mkdir()
    with open_for_model(path, model.contract, sensor="sentinel2_l1c", nearest=verb == "enhance") as scene:
        set_budget(0.9 * model.memory(scene) / GIB)
        with pytest.raises(InputError, match=r"scene\.tif: .*ing it would take .* raise it with --max-gigabytes"):
            work(model, scene, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_vectors_of_other_scenes_count(tmp_path: Path):
    embedder = Embedder(small_models.encoder(tmp_path / "model"))
    path = write_scene(tmp_path / "scene.tif", np.full((3, 32, 40), 900, np.uint16), small_models.BANDS)
    with open_for_model(path, embedder.contract, sensor="sentinel2_l1c") as scene:
        set_budget(2 * embedder.memory(scene) / GIB)
        embedder.embed(scene)
        with pytest.raises(InputError, match="embedding it would take"):
            embedder.embed(scene, beside=10**6)
