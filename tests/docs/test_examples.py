"""The examples of the documentation run, and what they print is so."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geovision.spectra.drawing import SceneDrawer
from geovision.spectra.responses import HALF_POWER
from shared_backbones import weights
from tests.geovision.rasters import write_scene
from tests.medvision.phantoms import make_affine, make_labels, write_scan

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


def test_every_example_is_short_and_has_a_test():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    tested = {name.removeprefix("test_").removesuffix("_example") for name in globals() if name.endswith("_example")}
    assert names == tested | {"serve_a_model"}  # which asks for the model of train_on_your_folder
    assert all(len(path.read_text().splitlines()) <= 60 for path in EXAMPLES.glob("*.py"))


def test_segment_a_scan_example(tmp_path: Path):
    scan = write_scan(tmp_path / "scan.nii.gz", make_labels(), make_affine())
    volumes = load("segment_a_scan").main(str(scan))
    assert volumes and all(float(value) >= 0 for value in volumes.values()) and (tmp_path / "labels.nii.gz").exists()


def test_map_a_scene_example(tmp_path: Path):
    scenes = SceneDrawer("test").landscape("sentinel2_l2a", 96, np.random.default_rng(3))
    bands = list(HALF_POWER["sentinel2_l2a"])
    numbers = np.clip(np.rint(scenes.images[0] * 10_000), 0, 65_535).astype(np.uint16)
    hectares = load("map_a_scene").main(str(write_scene(tmp_path / "scene.tif", numbers, bands)))
    assert hectares.sum() == pytest.approx(96 * 96 / 100, rel=0.01)  # pixels of 10 m


def test_classify_galaxies_example(tmp_path: Path):
    from tests.astrovision import small_models

    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = random.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    table = load("classify_galaxies").main(str(small_models.classifier(tmp_path / "model")), str(tmp_path / "images"))
    assert len(table) == 3 and (tmp_path / "confidence.png").stat().st_size > 1000


def test_backbone_in_smp_example():
    assert tuple(load("backbone_in_smp").main().shape) == (1, 4, 64, 96)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_satmae_in_torchgeo_example(tmp_path: Path):
    from geovision.models.satmae_pp import GroupMaskedAutoencoder

    example = load("satmae_in_torchgeo")
    decoder: dict[str, Any] = {
        "decoder_embed_dim": 16,
        "decoder_channel_embed": 8,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    }
    encoder = GroupMaskedAutoencoder(**example.TRUNK, **decoder)
    weights.save(tmp_path / "encoder", encoder, {"name": "encoder", "version": "1.0.0", "license": "Apache-2.0"})
    losses = example.main(str(tmp_path / "encoder"))
    assert len(losses) == 2 and np.isfinite(losses).all()
    for kind in (example.SatMAEClassification, example.SatMAESegmentation):
        network = kind(weights=str(tmp_path / "encoder"), in_channels=10, num_classes=3).model
        trunk = getattr(network, "encoder", network).trunk
        for name, value in encoder.trunk.state_dict().items():
            assert torch.equal(trunk.state_dict()[name], value), name


SHORT = [
    "train.epochs=null", "train.steps=2", "train.batch_size=4", "train.threads=1", "evaluate.resamples=10",
    "tracking.system_metrics=false", "data.corruption_images=0", "output=out",
]  # fmt: skip


def folders_of_images(root: Path) -> None:
    """Images of two classes, in a folder each."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 100, (28, 28)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")


def test_train_on_your_folder_example(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folders_of_images(tmp_path / "data")
    job = load("train_on_your_folder").main(str(tmp_path / "data"), *SHORT)
    assert job.summary is not None and "accuracy" in job.summary["figures"]
    answer = load("serve_a_model").main("my_classes", str(tmp_path / "data" / "dark" / "0.png"))
    assert np.asarray(answer).size >= 2


def test_sweep_example(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folders_of_images(tmp_path / "data")
    classes = "card.classes=[{id: 0, name: dark, color: [0, 0, 0]}, {id: 1, name: light, color: [9, 9, 9]}]"
    changes = [f"data.root={tmp_path / 'data'}", "data.layout=folders", classes, "model.arguments.num_classes=2"]
    rows = load("sweep").main("pneumoniamnist_medvitv2_cpu", *changes, *SHORT)
    assert [(row["train.learning_rate"], row["runs"]) for row in rows] == [("1e-3", "2"), ("3e-4", "2")]
    assert all(0 <= float(row["lowest"]) <= float(row["mean"]) <= float(row["highest"]) <= 1 for row in rows)
