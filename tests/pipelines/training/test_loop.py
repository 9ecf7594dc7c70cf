"""Training from label maps to a trained-model folder, with a network of a few thousand weights."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from pipelines import __main__ as program
from pipelines.recipe.loading import load_recipe
from pipelines.stages import run_stages
from pipelines.training.checkpoints import SafetensorsCheckpoints, steps_in
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.networks.unet import Unet
from tests.conftest import ROOT
from tests.medvision.heads import make_head_labels, write_heads
from tests.pipelines import small_training


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    return write_heads(tmp_path_factory.mktemp("maps"), make_head_labels(32))


def overrides(maps: Path, output: Path, *changes: str) -> list[str]:
    small = "feature_size=4 head_dim=4 window_size=4 depths=[1,1,1,1] img_size=[32,32] in_chans=3 stem_channels=3"
    return [
        *(f"model.arguments.{argument}" for argument in small.split()),
        *("data.slices=[-1,0,1]", "data.size=32", "data.workers=0", "data.slices_per_volume=8", "data.buffer=16"),
        *("train.steps=6", "train.batch_size=4", "train.warmup_steps=2", "train.checkpoint_every=4"),
        *("card.input.smallest_slice=32", f"data.root={maps}", f"output={output}"),
        *changes,
    ]


@pytest.fixture(autouse=True)
def tracked(store: str) -> str:
    return store


def run(maps: Path, output: Path, *changes: str) -> Path:
    job = run_stages(load_recipe("brain_structures", overrides(maps, output, *changes)), ["prepare", "train"])
    return job.made["train"] / "model"


def trained_in(output: Path) -> Path:
    (folder,) = (output / "train").iterdir()
    return folder


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
    assert folder == trained_in(tmp_path) / "model"
    assert [step for step, _ in losses] == list(range(6))
    card = weights.load(folder).card
    # the end is kept although it is no multiple of `checkpoint_every`
    assert card["training"]["steps"] == 6
    assert card["training"]["batch_size"] == 4 and card["training"]["recipe"] == "brain_structures"
    assert card["training"]["synthesis"]["spacing_mm"] == card["input"]["spacing_mm"] == 1.5
    names = sorted(path.name for path in folder.parent.iterdir())
    assert names == ["done.json", "history.jsonl", "last.safetensors", "model"]
    data = (make_head_labels(24) % 50).astype(np.float32)
    found = Segmenter(folder, device="cpu").segment(Volume(data, Grid.from_affine((24, 24, 24), np.eye(4)), "0" * 64))
    assert found.labels.shape == data.shape and found.settings["views"] == ["axial", "coronal", "sagittal"]


def test_a_run_that_was_interrupted_goes_on(maps, tmp_path, losses, monkeypatch, capsys):
    noting = SegmentationTask.training_step

    def interrupted(self, batch, batch_index):
        if self.global_step == 5:
            raise KeyboardInterrupt
        return noting(self, batch, batch_index)

    arguments = ["run", "brain_structures", *overrides(maps, tmp_path), "--stages", "prepare,train"]
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(SegmentationTask, "training_step", interrupted)
        try:
            assert program.main(arguments) == 130
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    assert weights.read_card(trained_in(tmp_path) / "model")["training"]["steps"] == 4
    losses.clear()
    # another rhythm of checkpoints must not lead to another training
    assert program.main([*arguments, "--set", "train.checkpoint_every=5"]) == 0
    assert [step for step, _ in losses] == [4, 5]
    assert weights.read_card(trained_in(tmp_path) / "model")["training"]["steps"] == 6
    losses.clear()
    program.main(arguments)
    assert losses == []  # nothing is left to do


def test_training_starts_from_given_weights_alone(maps, tmp_path):
    source = run(maps, tmp_path / "first")
    first = weights.load(source).module.state_dict()
    standstill = ("train.steps=1", "train.warmup_steps=0", "train.learning_rate=1e-12", "seed=2")
    again = run(maps, tmp_path / "second", f"model.init={source}", *standstill)
    assert weights.read_card(again)["training"]["init"] == f"sha256:{weights.read_card(source)['weights_sha256']}"
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
        ("data.root=null", "data.root is needed"),
        ("train.steps=null", "give either steps or epochs"),
        ("data.synthesis.nose=1", "data.synthesis.nose: unknown key; expected one of: spacing_mm"),
        ("card.input.views=[lateral]", "card cannot be used.*'lateral'"),
        ("model.architecture=unet", "'unet' is unknown"),
        ("model.arguments.depth=3", "arguments do not suit"),
        ("model.init=brain-structures-1", "model.init=brain-structures-1"),
        ("data.root=nowhere", "not a folder"),
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
    with pytest.raises(SystemExit) as caught:
        program.main([])
    assert caught.value.code == 2 and "usage: python -m pipelines" in capsys.readouterr().err
    assert program.main(["run", "no_such_recipe"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_processes_train_together(maps, tmp_path, store):
    command = [sys.executable, "-m", "pipelines", "run", "brain_structures"]
    command += overrides(maps, tmp_path, "train.devices=2", "train.threads=1", "train.steps=3", "data.workers=1")
    command += ["--stages", "prepare,train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    card = weights.load(trained_in(tmp_path) / "model").card
    assert card["training"]["steps"] == 3 and card["training"]["batch_size"] == 4
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 1  # however many processes


def start(folder: Path, seconds: float | None = None, stop: signal.Signals = signal.SIGKILL) -> int:
    """Run the small training as a program; after so many seconds of training it gets a signal. Returns how it ended."""
    command = [sys.executable, "-m", "tests.pipelines.small_training", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if seconds is None:
        assert process.wait(timeout=900) == 0
        return 0
    # not before its first steps are over, nor while a slow machine still imports
    deadline = time.monotonic() + 300
    last = folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.exists() else 0
    while (
        (last.stat().st_mtime_ns if last.exists() else 0) == before
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    time.sleep(seconds)
    process.send_signal(stop)
    return process.wait(timeout=60)


def test_a_training_killed_at_any_point_ends_with_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start(whole)
    start(broken, 0.0)
    first = steps_in(broken / "last.safetensors")
    assert 0 < first < small_training.STEPS
    start(broken, 0.1)
    assert first < steps_in(broken / "last.safetensors") < small_training.STEPS
    kept = steps_in(broken / "last.safetensors")
    for number in (signal.SIGUSR1, signal.SIGTERM):  # told to leave
        assert start(broken, 0.0, number) == 143
        assert kept < (kept := steps_in(broken / "last.safetensors")) < small_training.STEPS
    start(broken)
    assert steps_in(broken / "last.safetensors") == small_training.STEPS
    for name in ("model/model.safetensors", "model/model.json", "last.safetensors"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    start(tmp_path / "run", 0.0)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; from tests.pipelines import small_training\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2}, resource.RLIM_INFINITY))\n"
        "small_training.train(Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True)
    assert "InputError" in done.stderr and "last.safetensors: cannot be written" in done.stderr, done.stderr
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob(".domain-vision-*"))


def test_a_checkpoint_of_another_recipe_is_refused(maps, tmp_path, capsys):
    run(maps, tmp_path)
    last = trained_in(tmp_path) / "last.safetensors"
    arguments = ["run", "brain_structures", *overrides(maps, tmp_path, "seed=5"), "--stages", "prepare,train"]
    assert program.main(arguments) == 0
    (other,) = (folder for folder in (tmp_path / "train").iterdir() if folder != last.parent)
    shutil.copyfile(last, other / "last.safetensors")
    (other / "done.json").unlink()
    capsys.readouterr()
    assert program.main(arguments) == 2
    assert "is a checkpoint of another recipe or of other data" in capsys.readouterr().err
    assert (other / "last.safetensors").read_bytes() == last.read_bytes()


@pytest.mark.parametrize("launched", [{"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "none"}, {}])
def test_a_batch_that_cannot_be_shared_out_is_one_line(maps, tmp_path, monkeypatch, launched):
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"train.batch_size=4: cannot be shared out to 3 processes"):
        run(maps, tmp_path, *([] if launched else ["train.devices=3"]))


def test_training_ends_when_validations_get_no_better(tmp_path, monkeypatch):
    def constant(self):
        self.log("validation_dice", 0.5)

    monkeypatch.setattr(SegmentationTask, "on_validation_epoch_end", constant)
    small_training.train(tmp_path / "run", patience=1)
    assert steps_in(tmp_path / "run" / "last.safetensors") == 16  # the second validation is no better than the first
    assert weights.read_card(tmp_path / "run" / "model")["training"]["steps"] == 8
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    small_training.train(tmp_path / "run", patience=1)  # and has then ended
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": "poly", "loss": "dice_focal", "ema_decay": 0.0},
        {"accumulate": 2, "loss": "ce", "precision": "bf16-mixed", "schedule": "constant"},
    ],
)
def test_every_setting_trains(tmp_path, changes):
    folder = small_training.train(tmp_path, **changes)
    card = weights.load(folder).card
    assert card["training"]["steps"] in {8, 16, 24} and 0 <= card["training"]["validation_dice"] <= 1


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tmp_path = tmp_path / "checkpoints"
    shared = torch.arange(6.0)
    content = {
        "state_dict": {"a": shared.view(2, 3).T, "b": shared},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}],
        "global_step": 7,
        "none": None,
        "text": "é",
    }
    SafetensorsCheckpoints().save_checkpoint(content, tmp_path / "last.safetensors")
    found = SafetensorsCheckpoints().load_checkpoint(tmp_path / "last.safetensors")
    assert steps_in(tmp_path / "last.safetensors") == 7 and [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
    assert torch.equal(found["state_dict"]["a"], shared.view(2, 3).T)
    assert found["optimizer_states"][0]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert found["optimizer_states"][0]["state"][0]["step"] == 3 and found["text"] == "é" and found["none"] is None
    with pytest.raises(TypeError, match="cannot contain a set"):
        SafetensorsCheckpoints().save_checkpoint({"x": {1}}, tmp_path / "other.safetensors")
    (tmp_path / "last.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="not a training checkpoint of ours"):
        SafetensorsCheckpoints().load_checkpoint(tmp_path / "last.safetensors")


@pytest.mark.filterwarnings("ignore")  # of dynamo, about itself
def test_a_compiled_network_learns_the_same(tmp_path, monkeypatch):
    original, graphs = torch.nn.Module.compile, []

    def traced(self):  # all but the C++ compiler, which takes minutes
        original(self, backend=lambda graph, _: graphs.append(graph) or graph)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    models = []
    for compile in (False, True):
        torch.manual_seed(0)
        network = Unet(2, encoder="tu-test_resnet", decoder_channels=(8, 8, 8, 8, 8))
        folder = small_training.train(tmp_path / str(compile), network, compile=compile)
        models.append(weights.load(folder).module.state_dict())
        assert bool(graphs) == compile
    assert list(models[0]) == list(models[1])
    torch.testing.assert_close(models[1], models[0], rtol=1e-3, atol=1e-4)


def test_compiling_without_a_compiler_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"train.compile=true: needs a C\+\+ compiler"):
        small_training.train(tmp_path / "run", compile=True)
