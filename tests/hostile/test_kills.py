"""Programs that are killed wherever they are: nothing half-written stays, and the next run is complete and equal."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.cli.astrovision.program import app as astrovision
from apps.cli.geovision.program import app as geovision
from apps.cli.medvision.program import app as medvision
from apps.cli.shared.program import run
from pipelines.runtime.stopping import stopping
from pipelines.tracking import registry
from shared_backbones.files import file_sha256
from shared_backbones.work_folders import is_work
from tests.apps.conftest import write_model
from tests.astrovision import small_models as small_galaxies
from tests.geovision import small_models as small_scenes
from tests.geovision.rasters import write_scene
from tests.geovision.test_mapping import scene_values
from tests.geovision.test_sharpening import BANDS as ENHANCED
from tests.geovision.test_sharpening import model as small_enhancer
from tests.geovision.test_sharpening import values_of
from tests.hostile.killed import SIGNALS, killed
from tests.hostile.sound_files import card
from tests.medvision import small_models as small_images
from tests.medvision.models.test_hbformer import SMALL, randomised, small_official_state
from tests.medvision.phantoms import make_image, write_scan
from tests.pipelines.conftest import migrated, store  # noqa: F401 - fixtures
from tests.pipelines.tracking.test_runs import start

SAME = (".csv", ".tif", ".npz", ".safetensors", ".nii.gz", ".png")
"""Endings of files that are the same bytes in each run; the others note when they were made."""


def _pictures(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def _classify(home: Path) -> list[object]:
    model = small_images.classifier(home / "model", outliers=True)
    images = _pictures(home / "images", small_images.radiographs(12, 50))
    return ["classify", "-i", images, "-o", "OUT/t.csv", "--grad-cam", "OUT/maps", "--batch-size", 4, "--model", model]


def _galaxies(home: Path) -> list[object]:
    model = small_galaxies.classifier(home / "model")
    images = _pictures(home / "images", small_galaxies.galaxies(12).transpose(0, 2, 3, 1))
    return ["classify", "-i", images, "-o", "OUT/t.csv", "--grad-cam", "OUT/maps", "--batch-size", 4, "--model", model]


def _segment(home: Path) -> list[object]:
    scan = write_scan(home / "scan.nii.gz", make_image((24, 28, 20)))
    return ["segment", "-i", scan, "-o", "OUT", "--model", write_model(home / "model", 0)]


def _import(home: Path) -> list[object]:
    torch.save({"state_dict": small_official_state(randomised())}, home / "best.pth")
    arguments = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
    return ["import", "--architecture", "hbformer", "--checkpoint", home / "best.pth", "-o", "OUT/m", *arguments]


def _scene(home: Path) -> list[object]:
    return ["-i", write_scene(home / "s.tif", scene_values(64, 80), small_scenes.BANDS), "--sensor", "sentinel2_l1c"]


def _map(home: Path) -> list[object]:
    model = small_scenes.mapper(home / "model")
    outputs = ["-o", "OUT/m.tif", "--probabilities", "OUT/p.tif", "--polygons", "OUT/m.gpkg"]
    return ["map", *_scene(home), *outputs, "--model", model]


def _embed(home: Path) -> list[object]:
    return ["embed", *_scene(home), "-o", "OUT/e.npz", "--model", small_scenes.encoder(home / "model")]


def _enhance(home: Path) -> list[object]:
    scene = write_scene(home / "scene.tif", values_of(70, 80), ENHANCED)
    model = small_enhancer(home / "model")
    return ["enhance", "-i", scene, "-o", "OUT/e.tif", "--model", model, "--sensor", "sentinel2_l1c"]


PROGRAMS = {
    "medvision classify": (medvision, _classify), "astrovision classify": (astrovision, _galaxies),
    "medvision segment": (medvision, _segment), "medvision import": (medvision, _import),
    "geovision map": (geovision, _map), "geovision embed": (geovision, _embed),
    "geovision enhance": (geovision, _enhance),
}  # fmt: skip


def whole_files(out: Path) -> dict[str, str]:
    """Digests of the files of a result by name; nothing of those that note when they were made."""
    return {
        path.relative_to(out).as_posix(): file_sha256(path) if path.name.endswith(SAME) else ""
        for path in sorted(out.rglob("*"))
        if path.is_file() and not is_work(path.relative_to(out))
    }


def left(out: Path) -> set[Path]:
    """What processes that work there have left, or work with."""
    return {path for path in out.rglob("*") if is_work(path.relative_to(out))}


@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_programs_leave_nothing_half_written(name: str, tmp_path: Path):
    app, prepare = PROGRAMS[name]
    out, arguments = tmp_path / "out", [str(word) for word in prepare(tmp_path)]

    def once(number: int | None = None, after: float = 0.0) -> tuple[int, str, float]:
        out.mkdir(exist_ok=True)
        words = [word.replace("OUT", str(out)) for word in arguments]
        ended = killed(lambda: run(app, words), number, after)
        return ended.code, ended.err, ended.seconds

    code, err, seconds = once()
    assert code == 0, err
    expected = whole_files(out)
    chance = random.Random()  # noqa: S311 - no secret
    for number in SIGNALS:
        shutil.rmtree(out / "maps", ignore_errors=True)  # those of a run that was faster than its signal
        shutil.rmtree(out / "m", ignore_errors=True)
        before, after = left(out) if out.exists() else set(), chance.uniform(0, seconds)
        code, err, _ = once(number, after)
        ended = f"{number!r} after {after:.3f} of {seconds:.3f} s: {code} {err}"
        assert code in (0, -number, 128 + number), ended
        assert "Traceback" not in err and len([line for line in err.splitlines() if "error: " in line]) <= 1, ended
        assert code < 0 or left(out) <= before, ended
        files = whole_files(out)
        assert files.items() <= expected.items(), ended
        assert all(name in files for name in expected if "/" in name and (out / name).parent.exists()), ended
    shutil.rmtree(out / "maps", ignore_errors=True)
    shutil.rmtree(out / "m", ignore_errors=True)
    code, err, _ = once()
    assert code == 0 and whole_files(out) == expected and not left(out), err


def test_a_killed_registration_is_completed(store: str, tmp_path: Path):  # noqa: F811
    from mlflow import MlflowClient

    model, example = card(tmp_path).parent, np.zeros((2, 3, 32, 32), np.float32)
    run_id = start(store, tmp_path / "spool").run_id

    def register(digest: str) -> int:
        with stopping(), start(store, tmp_path / "spool", run_id=run_id) as run:
            registry.register(run, model, digest, "newest", example, digest=digest)
        return 0

    seconds = killed(lambda: register("other")).seconds
    chance = random.Random()  # noqa: S311 - no secret
    for number in SIGNALS:
        killed(lambda: register("tiny"), number, chance.uniform(0, seconds))
    ended = killed(lambda: register("tiny"))
    assert ended.code == 0, ended.err
    client = MlflowClient(store)
    (version,) = client.search_model_versions("name = 'tiny'")
    assert client.get_model_version_by_alias("tiny", "newest").version == version.version
    kept = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert [model.status for model in kept] == ["READY"] * 2
    assert version.source in {f"models:/{model.model_id}" for model in kept}
    folder = registry.resolve_model("models:/tiny@newest", tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_killed_fetch_leaves_no_half_model(store: str, tmp_path: Path):  # noqa: F811
    model, cache = card(tmp_path).parent, tmp_path / "cache"
    with start(store, tmp_path / "spool") as run:
        registry.register(run, model, "tiny", "newest", np.zeros((2, 3, 32, 32), np.float32))

    def fetch() -> int:
        with stopping():
            registry.resolve_model("models:/tiny@newest", cache)
        return 0

    seconds = killed(fetch).seconds
    (expected,) = (file_sha256(path) for path in cache.glob("*/model.safetensors"))
    chance = random.Random()  # noqa: S311 - no secret
    for number in SIGNALS:
        shutil.rmtree(cache, ignore_errors=True)
        killed(fetch, number, chance.uniform(0, seconds))
        assert [file_sha256(path) for path in cache.glob("[!.]*/model.safetensors")] in ([], [expected])
    assert killed(fetch).code == 0 and not left(cache)
    assert [file_sha256(path) for path in cache.glob("*/model.safetensors")] == [expected]
