"""A recipe from raw volumes to a registered model, on phantoms in the layout of the Medical Segmentation Decathlon."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from apps.cli.medvision.program import app
from apps.cli.shared import program
from medvision.segmentation import Segmenter
from pipelines.recipe.loading import load_recipe
from pipelines.stages import run_stages
from pipelines.tracking import registry
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.pipelines.balls import MARKER, write_raw, write_recipe
from tests.pipelines.report.pages import verdict_of


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp(f"Task_{MARKER}"))


@pytest.fixture
def recipe(raw: Path, tmp_path: Path) -> str:
    return write_recipe(tmp_path / "ball.yaml", raw, tmp_path / "run")


def test_a_recipe_runs_from_raw_files_to_a_registered_model(
    recipe: str, raw: Path, store: str, tmp_path: Path, capsys, monkeypatch
):
    job = run_stages(load_recipe(recipe))
    assert list(job.made) == ["prepare", "train", "evaluate", "report", "register"]
    said = capsys.readouterr().out
    assert "prepare: 6 cases" in said and "registered: models:/ball@newest (version 1)" in said

    summary = json.loads((job.made["evaluate"] / "summary.json").read_text())
    assert summary["cases"] == 2 and [row["name"] for row in summary["classes"]] == ["back", "front"]
    table = (job.made["evaluate"] / "cases.csv").read_text().splitlines()
    assert table[0].startswith("case,id,name,state,dice") and len(table) == 1 + 2 * 2
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(job.made["evaluate"] / "cases.parquet").num_rows == 4
    page = (job.made["report"] / "report.html").read_text()
    assert "Training report" in page and "front" in page
    twin = json.loads((job.made["report"] / "report.json").read_text())
    assert verdict_of(page) == twin["report"] and twin["report"]["id"].startswith(twin["case"])
    weights = job.made["train"] / "model/model.safetensors"
    assert twin["model"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert twin["case"] == f"model-{twin['model']['sha256'][:8]}" and twin["summary"] == summary
    assert {"loss", "validation_dice"} <= set(twin["history"])

    from mlflow import MlflowClient

    client = MlflowClient(store)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED" and run.data.params["train.epochs"] == "2"
    assert "data.root" not in run.data.params
    assert {"loss", "validation_dice", "test_dice", "test_dice_front"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "validation_dice")) == 2
    assert run.inputs is not None
    assert {entry.tags[0].value for entry in run.inputs.dataset_inputs} == {"train", "validation", "test"}
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"evaluation", "report.html"}
    assert client.get_model_version_by_alias("ball", "newest").version in {1, "1"}

    folder = registry.resolve_model("models:/ball@newest", tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == (job.made["train"] / "model/model.safetensors").read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scan = raw / "imagesTr" / f"{MARKER}_005.nii.gz"
    options = ["--model", "models:/ball@newest", "--device", "cpu"]
    assert program.run(app, ["segment", "-i", str(scan), "-o", str(tmp_path / "out"), *options]) == 0
    labels: Any = nib.load(tmp_path / "out" / f"{MARKER}_005_seg.nii.gz")
    expected = Segmenter(job.made["train"] / "model", device="cpu").segment(scan).labels
    assert np.array_equal(np.asarray(labels.dataobj), expected)
    with pytest.raises(InputError, match="models:/other@newest: not found"):
        registry.resolve_model("models:/other@newest", tmp_path / "cache")

    capsys.readouterr()
    made = [path for path in [*(tmp_path / "run").rglob("*"), *(tmp_path / "mlruns").rglob("*")] if path.is_file()]
    assert not [path for path in made if path.suffix in {".pkl", ".pth", ".pt", ".ckpt"}]
    assert [path for path in made if MARKER.encode() in path.read_bytes() or MARKER in path.name] == []

    again = run_stages(load_recipe(recipe))
    assert again.made == job.made and "train: hbformer" not in capsys.readouterr().out
    assert len(client.search_runs([run.info.experiment_id])) == 1
    restarted = run_stages(load_recipe(recipe), restart=["evaluate"])
    assert restarted.made == job.made and restarted.summary == job.summary
    said = capsys.readouterr().out
    assert "evaluate: 2 cases" in said and "train: hbformer" not in said
    model = (job.made["train"] / "model/model.safetensors").read_bytes()
    copying = load_recipe(recipe, [f"train.local_copy={tmp_path}"])
    assert run_stages(copying, ["train"]).made["train"] == job.made["train"]
    assert "copy: " not in capsys.readouterr().out  # what is trained needs no data
    assert run_stages(copying, ["train"], restart=["train"]).made["train"] == job.made["train"]
    assert "copy: " in capsys.readouterr().out
    assert (job.made["train"] / "model/model.safetensors").read_bytes() == model
    other = f"sqlite:///{tmp_path}/other.db"
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", other)  # what another store has registered is not in this one
        assert run_stages(load_recipe(recipe)).made["register"] != job.made["register"]
    assert "registered: models:/ball@newest (version 1)" in capsys.readouterr().out
    card = job.made["train"] / "model/model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "license": "CC0-1.0"}))
    relicensed = run_stages(load_recipe(recipe))
    assert relicensed.made["train"] == job.made["train"]
    assert all(relicensed.made[stage] != job.made[stage] for stage in ("evaluate", "report", "register"))
    assert "(version 2)" in capsys.readouterr().out
    changed = run_stages(load_recipe(recipe, ["train.epochs=1"]), ["prepare", "train"])
    assert changed.made["prepare"] == job.made["prepare"] and changed.made["train"] != job.made["train"]


def refuse(recipe: str, *overrides: str, stages: list[str] | None = None, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        run_stages(load_recipe(recipe, overrides), stages, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_wrong_is_one_line(recipe: str, raw: Path, store: str, tmp_path: Path, monkeypatch):
    assert "stage 'predict' is unknown; expected some of: prepare, train" in refuse(recipe, stages=["predict"])
    assert "stage prepare was not finished before" in refuse(recipe, stages=["train"])
    assert "data.layout 'bids3' is unknown; expected one of: msd" in refuse(recipe, "data.layout=bids3")
    assert "no case of layout lits found; expected volume-0.nii" in refuse(recipe, "data.layout=lits")
    assert "no test case" in refuse(recipe, "data.options={test_ids_above: 9}")
    assert "protocol 'x' is unknown" in refuse(recipe, "evaluate.protocol=x")
    two = "card.classes=[{id: 0, name: a, color: [0,0,0]}, {id: 1, name: b, color: [0,0,9]}]"
    assert "gives an output of shape (2, 3, 32, 32)" in refuse(recipe, two)
    assert "labels hold 2, expected some of 0, 1" in refuse(recipe, two, "model.arguments.num_classes=2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    line = refuse(recipe)
    assert "contains a password" in line and "secret" not in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9: cannot be used" in refuse(recipe)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "plain"))
    assert "plain folders are no longer supported" in refuse(recipe)


def test_what_cannot_be_read_shows_before_training_and_can_be_left_out(
    recipe: str, raw: Path, store: str, tmp_path: Path, capsys
):
    root = tmp_path / "data"
    shutil.copytree(raw, root)
    where = f"data.root={root}"
    for number in (2, 6):  # one to learn from, one of the test
        path = root / "imagesTr" / f"{MARKER}_{number:03}.nii.gz"
        path.write_bytes(path.read_bytes()[:200])
    line = refuse(recipe, where)
    assert line.startswith("2 of 6 cases cannot be used") and "--skip-unreadable" in line
    said = capsys.readouterr()
    assert [part.count("_00") for part in said.err.splitlines()] == [1, 1] and "train:" not in said.out
    length = ["train.epochs=1", "train.steps_per_epoch=1"]
    options = ["--stages", "prepare,train,evaluate", "--skip-unreadable"]
    assert program.run(app, ["run", recipe, where, *length, *options]) == 0
    assert "warning: 2 of 6 cases were left out" in capsys.readouterr().out
    (summary,) = (tmp_path / "run/evaluate").rglob("summary.json")
    assert json.loads(summary.read_text())["cases"] == json.loads(summary.read_text())["skipped"] == 1


def test_mlflow_runs_the_project(recipe: str, store: str, tmp_path: Path):
    from mlflow import MlflowClient

    def mlflow_run(entry_point: str, overrides: str) -> subprocess.CompletedProcess[str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = ["-P", f"recipe={recipe}", "-P", f"overrides={overrides}"]
        return subprocess.run(
            [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local", *given],
            env={**os.environ, "PATH": programs, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True,
        )  # fmt: skip

    done = mlflow_run("main", "train.epochs=1 tracking.system_metrics=false")
    assert done.returncode == 0, done.stderr
    assert "registered: models:/ball@newest (version 1)" in done.stdout
    client = MlflowClient(store)

    def runs() -> list[Any]:
        return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])

    (run,) = runs()  # that of `mlflow run`, and no second one
    assert run.info.status == "FINISHED" and run.data.params["train.epochs"] == "1"
    assert "test_dice" in run.data.metrics
    done = mlflow_run("evaluate", "train.epochs=1 tracking.system_metrics=false evaluate.protocol=monai")
    assert done.returncode == 0, done.stderr
    assert "protocol monai" in done.stdout and "train: hbformer" not in done.stdout and len(runs()) == 2
    done = mlflow_run("evaluate", "train.epochs=9")
    assert done.returncode != 0 and "stage train was not finished before" in done.stderr
