"""Figures while training are those of all validation images, however few or many processes share them out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.kinds.kind import KINDS, find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.training.tasks.scores import ClassScores
from shared_backbones.classification.figures import class_figures
from tests.conftest import ROOT
from tests.golden import miniatures
from tests.golden.trainings import TRAININGS, Training
from tests.pipelines.kinds.test_image_segmentation import pairs as masked_images
from tests.pipelines.kinds.test_scene_instances import make_scenes
from tests.pipelines.training import validation_processes

PROCESSES = 3
SPLIT = {"split": {"test": 0.0, "validation": 0.4}}
PATCHES = Training(
    miniatures.pairs,
    {
        "kind": "volume_patches", "layout": "pairs", "options": {"images": "scans", "labels": "regions"},
        "patch": [16, 16, 8], "spacing_mm": [1.5, 1.5, None],
    },
    {"architecture": "skip_unet", "arguments": {"num_classes": 3, "in_chans": 1, "widths": [4, 8]}},
    [{"name": name, "color": [0, 0, 0]} for name in ("background", "organ 1", "organ 2")],
    "medvision",
)  # fmt: skip
MASKS = Training(
    masked_images,
    {"kind": "image_segmentation", "layout": "pairs", "size": 32},
    {"architecture": "smp_unet", "arguments": {"num_classes": 2, "encoder": "resnet18", "decoder_channels": [8] * 5}},
    ["background", "disc"], "medvision",
)  # fmt: skip
OBJECTS = Training(
    make_scenes,
    {"kind": "scene_instances", "sensor": "sentinel2_l1c", "bands": ["B2", "B3", "B4", "B8"], "patch": 32},
    {"architecture": "pem", "arguments": {"num_classes": 1, "in_chans": 4, "base": 8, "layers": [1, 1, 1],
     "conv_dim": 16, "mask_dim": 16, "hidden_dim": 16, "num_queries": 6, "nheads": 2, "dim_feedforward": 16,
     "dec_layers": 2}},
    ["field"], "geovision",
)  # fmt: skip
ALL = TRAININGS | {
    "images_several": TRAININGS["images_bigearthnet"],
    "volume_patches": PATCHES,
    "masked_images": MASKS,
    "objects": OBJECTS,
}
KINDS_OF = {
    "volume_patches": {"validation": 0.5},
    "volumes_pairs": {"validation": 0.5},
    "scenes": {"split": {"by": "blocks", "block": 16, "test": 0.0, "validation": 0.3}},
    "labelled_scenes": {"split": {"by": "blocks", "block": 16, "test": 0.0, "validation": 0.5}},
    "images_eurosat": SPLIT,
    "images_several": {"split": {"test": 0.0, "validation": 0.9}},
    "galaxies_galaxy10": SPLIT,
    "medical_medmnist": {},
    "objects": {"split": {"by": "blocks", "block": 32, "test": 0.0, "validation": 0.5}},
    "masked_images": {"split": {"test": 0.0, "validation": 0.6}},
    "medical_medmnist_several": {},
}
"""A small training of each kind that validates, with what makes its validation split large enough."""


def test_every_kind_that_validates_is_here():
    kinds = {load(name, Path("data"), Path("out"))["data"]["kind"] for name in KINDS_OF}
    former = {"scenes": "scene_pretraining", "labelled_scenes": "scene_mapping", "labelled_images": "satellite_images"}
    elsewhere = {"synthetic_volumes", "synthetic_scenes"}  # without an end
    elsewhere |= {"restoration", "thick_slices"}  # with a test of their own
    assert {former.get(kind, kind) for kind in kinds} == set(KINDS) - elsewhere


def load(name: str, data: Path, output: Path) -> dict[str, Any]:
    recipe = ALL[name].recipe(name, data, output)
    recipe["data"] |= KINDS_OF[name]
    recipe["model"].pop("init", None)
    return recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for each kind, each with its prepared data beside it."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in KINDS_OF:
        data, path = folder / "data" / name, folder / f"{name}.yaml"
        data.mkdir(parents=True)
        ALL[name].make(data)
        if name == "images_several":
            for table in data.glob("*.csv"):  # splits of its own
                table.unlink()
        path.write_text(json.dumps(load(name, data, folder / "out")))
        kind = find_kind(load_recipe(str(path)))
        path.with_suffix("").mkdir()
        kind.prepare(kind.find_sources(), path.with_suffix(""))
    return folder


@pytest.fixture(scope="module")
def logged(folder: Path) -> list[dict[str, dict[str, float]]]:
    """What each of three processes logged."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command += ["-m", "tests.pipelines.training.validation_processes", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"figures-{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", KINDS_OF)
def test_three_processes_log_the_figures_of_all_ten_images(name: str, folder: Path, logged, monkeypatch):
    """What one process counts that takes the batches of all three, one process's after another's."""
    task, batches = validation_processes.validated(folder / f"{name}.yaml")
    task.eval()
    counted: dict[str, float] = {}
    monkeypatch.setattr(task, "log", lambda figure, value, **_: counted.update({figure: float(value)}))
    seen = 0
    with torch.inference_mode():
        task.on_validation_epoch_start()
        for rank in range(PROCESSES):
            batches.trainer = SimpleNamespace(global_rank=rank, world_size=PROCESSES)  # pyright: ignore
            for number, batch in enumerate(batches.val_dataloader()):
                seen += len(batch[0] if isinstance(batch, list | tuple) else batch["image"])
                task.validation_step(batch, number)
        task.on_validation_epoch_end()
    assert seen == validation_processes.IMAGES and counted
    for process in logged:
        assert process[name] == pytest.approx(counted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_figures_are_those_that_an_evaluation_counts(multi_label: bool):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=random)
    targets = torch.nn.functional.one_hot(torch.randint(0, 4, (40,), generator=random), 5)  # the last never occurs
    if multi_label:
        targets[:, :4] |= torch.rand(40, 4, generator=random) < 0.3
    scores = ClassScores(5, multi_label)
    for part in range(0, 40, 16):
        scores.update(logits[part : part + 16], targets[part : part + 16])
    found = {name: float(value) for name, value in scores.compute().items()}
    probabilities = logits.sigmoid() if multi_label else logits.softmax(1)
    expected = class_figures(probabilities.numpy(), targets.numpy(), multi_label=multi_label)
    assert found["accuracy"] == pytest.approx(expected["accuracy"])
    assert found["log_likelihood"] == pytest.approx(-(expected["nll"] or 0), rel=1e-5)
    if multi_label:
        assert found["map_macro"] == pytest.approx(expected["map_macro"], rel=1e-5)
    else:
        assert found["balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"])
    scores.reset()
    scores.update(logits[:1], targets[:1])
    assert float(scores.compute()["accuracy"]) in {0.0, 1.0} or multi_label
