"""Training from label maps to a trained-model folder, with a network of a few thousand weights."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medvision.geometry import Grid
from medvision.segmentation import Segmenter
from medvision.volumes import Volume
from pipelines import __main__ as program
from pipelines.recipe import load_recipe
from pipelines.stages import train
from pipelines.tasks import SegmentationTask
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.medvision.heads import make_head_labels, write_heads


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    return write_heads(tmp_path_factory.mktemp("maps"), make_head_labels(32))


def overrides(maps: Path, output: Path, *changes: str) -> list[str]:
    small = "feature_size=4 head_dim=4 window_size=4 depths=[1,1,1,1] img_size=[32,32] in_channels=3 stem_channels=3"
    return [
        *(f"model.arguments.{argument}" for argument in small.split()),
        *("data.slices=[-1,0,1]", "data.size=32", "data.workers=0", "data.slices_per_volume=8", "data.buffer=16"),
        *("train.steps=6", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=4"),
        *("card.input.smallest_slice=32", f"data.root={maps}", f"output={output}"),
        *changes,
    ]


def run(maps: Path, output: Path, *changes: str) -> Path:
    return train(load_recipe("brain_structures", overrides(maps, output, *changes)))


@pytest.fixture
def losses(monkeypatch):
    """Losses by step, of all runs of the test."""
    noted: list[tuple[int, float]] = []
    original = SegmentationTask.training_step

    def noting(self, batch, batch_index):
        loss = original(self, batch, batch_index)
        noted.append((self.global_step, loss.item()))
        return loss

    monkeypatch.setattr(SegmentationTask, "training_step", noting)
    return noted


def test_training_writes_a_model_that_segments(maps, tmp_path, losses):
    folder = run(maps, tmp_path)
    assert folder == tmp_path / "model"
    assert [step for step, _ in losses] == list(range(6))
    card = weights.load(folder).card
    # the end is kept although it is no multiple of `checkpoint_every`
    assert card["training"]["steps"] == 6
    assert card["training"]["batch_size"] == 4 and card["training"]["recipe"] == "brain_structures"
    assert card["training"]["synthesis"]["spacing_mm"] == card["input"]["spacing_mm"] == 1.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "model"]
    data = (make_head_labels(24) % 50).astype(np.float32)
    found = Segmenter(folder, device="cpu").segment(Volume(data, Grid.from_affine((24, 24, 24), np.eye(4)), "0" * 64))
    assert found.labels.shape == data.shape and found.settings["views"] == ["axial", "coronal", "sagittal"]


def test_a_run_that_was_interrupted_goes_on(maps, tmp_path, losses, monkeypatch, capsys):
    noting = SegmentationTask.training_step

    def interrupted(self, batch, batch_index):
        if self.global_step == 5:
            raise KeyboardInterrupt
        return noting(self, batch, batch_index)

    arguments = ["run", "brain_structures", *overrides(maps, tmp_path)]
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(SegmentationTask, "training_step", interrupted)
        try:
            assert program.main(arguments) == 130
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    assert weights.read_card(tmp_path / "model")["training"]["steps"] == 4
    losses.clear()
    # another rhythm of checkpoints must not lead to another file
    assert program.main([*arguments, "train.checkpoint_every=5"]) == 0
    assert [step for step, _ in losses] == [4, 5]
    assert weights.read_card(tmp_path / "model")["training"]["steps"] == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "model"]
    losses.clear()
    program.main(arguments)
    assert losses == []  # nothing is left to do


def test_training_starts_from_given_weights_alone(maps, tmp_path):
    first = weights.load(run(maps, tmp_path / "first")).module.state_dict()
    standstill = ("train.steps=1", "train.warmup_steps=0", "train.learning_rate=1e-12", "seed=2")
    again = run(maps, tmp_path / "second", f"model.init={tmp_path / 'first' / 'model'}", *standstill)
    assert weights.read_card(again)["training"]["init"] == str(tmp_path / "first" / "model")
    fresh = run(maps, tmp_path / "third", *standstill)
    again, fresh = (weights.load(folder).module.state_dict() for folder in (again, fresh))
    name = "encoder.patch_embedding.projection.weight"
    torch.testing.assert_close(again[name], first[name], atol=1e-6, rtol=0)
    assert (fresh[name] - first[name]).abs().max() > 1e-2


def test_the_loss_falls(maps, tmp_path, losses):
    still = [f"data.synthesis.{name}=0" for name in ("rotation_degrees", "scaling", "shear", "displacement")]
    clean = [f"data.synthesis.{name}=0" for name in ("bias_field", "noise", "thick_slices_share", "stripped_share")]
    run(maps, tmp_path, *still, *clean, "data.synthesis.t1_share=1", "train.steps=40", "train.learning_rate=5e-3")
    values = [loss for _, loss in losses]
    assert len(values) == 40
    assert np.mean(values[-5:]) < 0.87 * np.mean(values[:5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.root=null", "data.root and output are needed"),
        ("data.synthesis.nose=1", "data.synthesis.nose: unknown key; expected one of: spacing_mm"),
        ("card.input.views=[lateral]", "card cannot be used.*'lateral'"),
        ("model.architecture=unet", "'unet' is unknown"),
        ("model.arguments.depth=3", "arguments do not suit"),
        ("model.init=brain-structures", "model.init=brain-structures"),
        ("data.root=nowhere", "found no label map"),
    ],
)
def test_what_cannot_be_trained_is_one_line(maps, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        run(maps, tmp_path / "out", change)
    assert "\n" not in str(caught.value)


def test_an_output_that_cannot_be_made_is_one_line(maps, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output .*cannot be made"):
        run(maps, tmp_path / "file" / "out")


def test_usage_and_errors_of_the_program(capsys):
    assert program.main([]) == 2
    assert "usage: python -m pipelines run RECIPE" in capsys.readouterr().err
    assert program.main(["run", "no_such_recipe"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_processes_train_together(maps, tmp_path):
    command = [sys.executable, "-m", "pipelines", "run", "brain_structures"]
    command += overrides(maps, tmp_path, "train.devices=2", "train.threads=1", "train.steps=3", "data.workers=1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    card = weights.load(tmp_path / "model").card
    assert card["training"]["steps"] == 3 and card["training"]["batch_size"] == 8
    assert f"{tmp_path / 'model'}" in done.stdout
