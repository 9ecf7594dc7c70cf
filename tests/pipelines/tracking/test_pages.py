"""What MLflow's pages show of two runs, asked of a real server by the addresses that the pages ask."""

import getpass
import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared import program
from tests.pipelines.balls import write_raw, write_recipe
from tests.pipelines.tracking.servers import free_port, serving

QUICK = ["tracking.system_metrics=false", "train.epochs=1", "train.log_every=2", "evaluate.resamples=10"]


class Server:
    """What the pages ask a server for."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def ask(self, name: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        address, kind = f"{self.uri}/api/2.0/mlflow/{name}", {"Content-Type": "application/json"}
        request = urllib.request.Request(address, data, kind)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
            return json.load(answer)

    def experiment(self) -> Any:
        return self.ask("experiments/get-by-name?experiment_name=medvision")["experiment"]

    def runs(self) -> list[Any]:
        """Runs, the first first."""
        there = self.ask("runs/search", {"experiment_ids": [self.experiment()["experiment_id"]]})["runs"]
        return sorted(there, key=lambda run: run["info"]["start_time"])

    def ranked(self, figure: str, dataset: Any) -> list[Any]:
        """Logged models, the best first."""
        about = {"dataset_name": dataset["name"], "dataset_digest": dataset["digest"]}
        order = [{"field_name": f"metrics.{figure}", "ascending": False, **about}]
        body = {"experiment_ids": [self.experiment()["experiment_id"]], "order_by": order}
        return self.ask("logged-models/search", body)["models"]

    def steps(self, run: Any, figure: str) -> list[int]:
        asked = f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={figure}"
        return [entry["step"] for entry in self.ask(asked)["metrics"]]


def pairs(entries: list[Any]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


def test_pages_of_two_runs(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "raw").mkdir()
    recipe = write_recipe(tmp_path / "ball.yaml", write_raw(tmp_path / "raw"), tmp_path / "run")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    kept = ("--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1")
    card = ["card.license=CC0-1.0", "card.description=Two halves of a ball."]
    with serving("server", "--backend-store-uri", store, *kept, ping="health", port=port):
        assert program.run(app, ["run", recipe, *QUICK, *card]) == 0
        assert program.run(app, ["run", recipe, *QUICK, *card, "train.learning_rate=1e-3", "seed=2"]) == 0
        assert program.run(app, ["run", recipe, *QUICK, *card, "evaluate.protocol=monai"]) == 0  # of the first model
        assert "where others do not find them" not in capsys.readouterr().out  # files are the server's
        server = Server(uri)
        assert pairs(server.experiment()["tags"])["mlflow.experimentKind"] == "custom_model_development"
        runs = server.runs()
        first, second, again = runs
        names = [run["info"]["run_name"] for run in runs]
        assert len(set(names)) == 3 and all(name.startswith("ball ") and "epochs=1" in name for name in names)
        assert "learning_rate=0.001" in names[1] and "seed=2" in names[1] and "protocol=monai" in names[2]

        tags = pairs(first["data"]["tags"])
        assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("medvision run ball", "LOCAL")
        assert len(tags["mlflow.source.git.commit"]) == 40
        told = json.dumps(runs)
        for private in (f'"{getpass.getuser()}"', socket.gethostname(), str(tmp_path), str(Path.home())):
            assert private not in told, private

        for figure, steps in {"loss": [2, 3], "gradient_norm": [2, 3], "learning_rate": [2, 3]}.items():
            assert server.steps(first, figure) == steps, figure
        assert server.steps(first, "validation_loss") == [3] == server.steps(first, "test_dice")

        data = {entry["tags"][0]["value"]: entry["dataset"] for entry in first["inputs"]["dataset_inputs"]}
        profiles = {split: json.loads(dataset["profile"]) for split, dataset in data.items()}
        assert {split: profile["num_rows"] for split, profile in profiles.items()} == {
            "train": 3, "validation": 1, "test": 2,
        }  # fmt: skip
        assert all(profile["labels"].keys() == {"background", "back", "front"} for profile in profiles.values())
        columns = json.loads(data["train"]["schema"])["mlflow_colspec"]
        assert {column["name"]: column["type"] for column in columns} == {
            "image": "float16 (24, 28, 20)", "labels": "uint8 (24, 28, 20)",
        }  # fmt: skip
        assert data["train"]["digest"] != data["test"]["digest"]

        ranked = server.ranked("test_dice", data["test"])
        assert len(ranked) == 2
        figures = [
            {entry["run_id"]: entry["value"] for entry in model["data"]["metrics"] if entry["key"] == "test_dice"}
            for model in ranked
        ]
        assert max(figures[0].values()) >= max(figures[1].values())
        by_run = {model["info"]["source_run_id"]: model for model in ranked}
        assert set(by_run) == {run["info"]["run_id"] for run in (first, second)}
        model = by_run[first["info"]["run_id"]]
        assert pairs(model["data"]["params"])["train.learning_rate"] == "0.002"
        shown = {(entry["key"], entry["dataset_name"], entry["run_id"]) for entry in model["data"]["metrics"]}
        for run in (first, again):  # each run that has evaluated the model
            assert {("validation_dice", "ball-validation"), ("test_dice", "ball-test")} <= {
                (key, dataset) for key, dataset, run_id in shown if run_id == run["info"]["run_id"]
            }
        model_id = model["info"]["model_id"]
        assert [entry["model_id"] for entry in first["outputs"]["model_outputs"]] == [model_id]
        again = server.ask(f"runs/get?run_id={again['info']['run_id']}")["run"]  # a search leaves out models
        assert [entry["model_id"] for entry in again["inputs"]["model_inputs"]] == [model_id]

        version = server.ask("registered-models/alias?name=ball&alias=newest")["model_version"]
        assert version["version"] == "2" and version["description"].startswith("Two halves of a ball.")
        noted = pairs(version["tags"])
        assert (noted["classes"], noted["license"]) == ("background, back, front", "CC0-1.0")
        assert noted["data_digest"] == data["train"]["digest"]
        files = server.ask(f"artifacts/list?run_id={first['info']['run_id']}")["files"]
        assert "report.html" in {file["path"] for file in files}

        assert program.run(app, ["run", recipe, *QUICK, *card]) == 0  # once more: nothing is there twice
        assert server.steps(first, "test_dice") == [3]
        (first, *_) = server.runs()
        assert len(first["outputs"]["model_outputs"]) == 1
        ranked = server.ranked("test_dice", data["test"])
        (model,) = (model for model in ranked if model["info"]["model_id"] == model_id)
        assert len(model["data"]["metrics"]) == len(shown)
