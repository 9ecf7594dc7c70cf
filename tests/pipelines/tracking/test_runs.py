"""What reaches the tracking store, and what happens when it is away."""

import getpass
import json
import os
import platform
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvision.models.hbformer import HBFormer
from pipelines.tracking import registry, runs, stores
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.pipelines.tracking.servers import free_port, serving

HERE = Path(__file__).parents[3]


def start(uri: str, spool: Path, **changes: Any) -> runs.Run:
    given: dict[str, Any] = {"parameters": {}, "tags": {}, "datasets": [], "system_metrics": False}
    return runs.start_run("medvision", "run", uri=uri, spool=spool, **(given | changes))


def history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return [(entry.step, entry.value) for entry in MlflowClient(uri).get_metric_history(run_id, name)]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    network = HBFormer.compact(
        num_classes=2, in_chans=3, feature_size=4, depths=(1, 1, 1, 1), head_dim=4, window_size=4, img_size=32
    )
    weights.save(tmp_path / "trained", network, {"name": "small"})
    return tmp_path / "trained"


def test_a_store_notes_what_is_asked_for(store: str, tmp_path: Path):
    from mlflow import MlflowClient

    many = {f"option {number}[x]": number for number in range(130)}
    record = runs.DatasetRecord("cases", "0123", "train")
    run = start(store, tmp_path, parameters={"train": {"steps": 3, "none": None}, **many}, datasets=[record])
    with run:
        run.log_metrics({"Dice (left) [%]": 0.5, "loss": float("nan")}, 1)
        run.log_metrics({"loss": 2.0}, 2)
    noted = MlflowClient(store).get_run(run.run_id)
    assert len(noted.data.params) == 131 and noted.data.params["train.steps"] == "3"
    assert noted.data.metrics == {"Dice _left_ ___": 0.5, "loss": 2.0}
    assert noted.info.status == "FINISHED"
    assert {"version.torch", "version.python", "mlflow.source.git.commit"} <= set(noted.data.tags)
    with start(store, tmp_path, parameters={"train": {"steps": 4}}, datasets=[record], run_id=run.run_id) as again:
        assert again.run_id == run.run_id
    noted = MlflowClient(store).get_run(run.run_id)
    assert noted.data.params["train.steps"] == "3"  # what the run began with
    assert noted.inputs is not None and len(noted.inputs.dataset_inputs) == 1


def test_a_registered_model_holds_neither_names_nor_locks_and_the_run_goes_on(
    store: str, trained: Path, tmp_path: Path, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.setenv("USER", "jane_operator")
    monkeypatch.setenv("LOGNAME", "jane_operator")
    here = tmp_path / "private_project"
    here.mkdir()
    (here / "uv.lock").write_text('version = 1\n[[package]]\nname = "private_project"\n')
    (here / "pyproject.toml").write_text('[project]\nname = "private_project"\n')
    monkeypatch.chdir(here)
    for module, name in ((platform, "node"), (socket, "gethostname")):
        monkeypatch.setattr(module, name, lambda: "jane_workstation")
    assert getpass.getuser() == "jane_operator"
    client = MlflowClient(store)
    example = np.zeros((2, 3, 32, 32), np.float32)
    with start(store, tmp_path / "spool") as run:
        assert registry.register(run, trained, "small", "newest", example) == 1
        assert client.get_run(run.run_id).info.status == "RUNNING"
        assert registry.register(run, trained, "small", "newest", example) == 2
    assert int(client.get_model_version_by_alias("small", "newest").version) == 2
    written = [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert {"MLmodel", "model.safetensors", "model.json", "served_model.py"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        for private in ("jane_operator", "private_project", "jane_workstation", str(Path.home())):
            assert private.encode() not in content, (path.name, private)
    descriptions = [path.read_text() for path in written if path.name == "MLmodel"]
    assert len(descriptions) == 2 and not re.search(r": (file:)?/", "".join(descriptions))  # no path of this machine
    (requirements, _) = (path for path in written if path.name == "requirements.txt")
    asked = [line.partition("==")[0] for line in requirements.read_text().splitlines()]
    assert asked == ["mlflow", "domain-vision"]  # not what an import of everything would find
    folder = registry.resolve_model("models:/small/1", tmp_path / "cache")
    assert registry.resolve_model("models:/small@newest", tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    assert weights.load(folder).card["name"] == "small"


def test_figures_of_a_killed_process_are_sent_by_the_next_and_none_twice(store: str, tmp_path: Path):
    run = start(store, tmp_path)
    run.log_metrics({"loss": 1.0}, 1)
    run.flush()
    run.log_metrics({"loss": 0.5}, 2)  # and killed before it is sent
    with (tmp_path / f"{run.run_id}.jsonl").open("a") as file:
        file.write('["loss", 0.')
    with start(store, tmp_path, run_id=run.run_id) as again:
        again.log_metrics({"loss": 1.0}, 1)  # from a checkpoint before it
        again.log_metrics({"loss": 0.5}, 2)
        again.log_metrics({"loss": 0.25}, 3)
    assert history(store, run.run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_the_run_to_go_on_with(store: str, tmp_path: Path, monkeypatch):
    from mlflow import MlflowClient

    with start(store, tmp_path) as run:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", run.run_id)
    with start(store, tmp_path) as again:
        assert again.run_id == run.run_id
    with pytest.raises(ZeroDivisionError), start(store, tmp_path):
        print(1 / 0)
    assert MlflowClient(store).get_run(run.run_id).info.status == "FAILED"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(InputError, match=r"MLFLOW_RUN_ID=0+: the tracking store has no such run; unset it"):
        start(store, tmp_path)
    monkeypatch.delenv("MLFLOW_RUN_ID")
    with start(store, tmp_path, run_id="0" * 32) as new:  # noted in a folder whose store is gone
        assert new.run_id != "0" * 32
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("medvision")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match="experiment medvision: was deleted"):
        start(store, tmp_path)


def test_a_run_of_other_settings_is_not_gone_on_with(store: str, tmp_path: Path, monkeypatch):
    with start(store, tmp_path, parameters={"train": {"steps": 3}, "seed": 1}) as run:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", run.run_id)
    with pytest.raises(InputError, match=r"is a run with train.steps=3, found train.steps=4 now; unset it"):
        start(store, tmp_path, parameters={"train": {"steps": 4}, "seed": 1})
    with start(store, tmp_path, parameters={"train": {"steps": 3, "epochs": 2}, "seed": 1}) as again:
        assert again.run_id == run.run_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    with pytest.raises(InputError, match="is a run of another experiment than MLFLOW_EXPERIMENT_NAME"):
        start(store, tmp_path)


def test_the_experiment_that_mlflows_variables_name(store: str, tmp_path: Path, monkeypatch):
    client = stores.client_of(store)

    def experiment(**changes: Any) -> str:
        with start(store, tmp_path, **changes) as run:
            return client.get_experiment(run.experiment_id).name

    assert experiment() == "medvision"
    with start(store, tmp_path) as before:
        pass
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert experiment() == "mine"
    with start(store, tmp_path, run_id=before.run_id) as moved:  # noted in a folder, but of another experiment
        assert moved.run_id != before.run_id
    with pytest.raises(InputError, match=r"tracking.experiment says medvision, MLFLOW_EXPERIMENT_NAME says mine"):
        start(store, tmp_path, asked=True)
    number = client.create_experiment("by number")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    with pytest.raises(InputError, match="MLFLOW_EXPERIMENT_NAME says mine, MLFLOW_EXPERIMENT_ID says by number"):
        start(store, tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert experiment() == "by number"
    assert runs.schedule_run(store, "medvision", "job")
    assert len(client.search_runs([number])) == 2
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "999")
    with pytest.raises(InputError, match="MLFLOW_EXPERIMENT_ID=999: the tracking store has no such experiment"):
        start(store, tmp_path)


def test_what_mlflow_would_do_by_itself_is_switched_off(tmp_path: Path, monkeypatch):
    # an old store in the current folder would be taken for the one to use
    (tmp_path / "mlruns/0").mkdir(parents=True)
    (tmp_path / "mlruns/0/meta.yaml").write_text("experiment_id: '0'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert stores.tracking_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_figures_are_sent_together(store: str, tmp_path: Path, monkeypatch):
    with start(store, tmp_path) as run:
        sent: list[int] = []
        real = run.client.log_batch
        monkeypatch.setattr(
            run.client, "log_batch", lambda *given, metrics: (sent.append(len(metrics)), real(*given, metrics=metrics))
        )
        for step in range(600):
            run.log_metrics({"loss": step / 7, "rate": step / 3}, step)
    assert sent == [500, 500, 200]
    assert history(store, run.run_id, "loss") == [(step, step / 7) for step in range(600)]


def test_the_load_of_the_machine_is_noted_where_it_can_be_read(store: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    with start(store, tmp_path, system_metrics=True) as run:
        for _ in range(100):
            time.sleep(0.1)
            if history(store, run.run_id, "system/cpu_utilization_percentage"):
                break
    assert history(store, run.run_id, "system/cpu_utilization_percentage")
    first = history(store, run.run_id, "system/cpu_utilization_percentage")
    with start(store, tmp_path, system_metrics=True, run_id=run.run_id):  # goes on, and does not begin at 0 again
        for _ in range(100):
            time.sleep(0.1)
            if len(history(store, run.run_id, "system/cpu_utilization_percentage")) > len(first):
                break
    steps = [step for step, _ in history(store, run.run_id, "system/cpu_utilization_percentage")]
    assert len(steps) > len(first) and steps == sorted(set(steps))
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(InputError, match="psutil is not installed; run: pip install"):
        start(store, tmp_path, system_metrics=True)


def test_processes_that_open_a_fresh_store_at_once(tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    code = (
        "import sys; from pathlib import Path; from pipelines.tracking import runs, stores\n"
        "stores.open_store(sys.argv[1])\n"
        "run = runs.start_run('e', 'r', uri=sys.argv[1], parameters={}, tags={}, datasets=[], "
        "spool=Path(sys.argv[2]), system_metrics=False)\n"
        "with run: run.log_metrics({'loss': 1.0}, 1)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, uri, str(tmp_path / "spool")]
    processes = [subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 3


def test_processes_that_register_a_model_at_once(store: str, trained: Path, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; import numpy as np; from pipelines.tracking import registry, runs\n"
        "run = runs.start_run('new', 'r', uri=sys.argv[1], parameters={}, tags={}, datasets=[], "
        "spool=Path(sys.argv[2]), system_metrics=False)\n"
        "with run: registry.register(run, Path(sys.argv[3]), 'small', 'newest', np.zeros((2, 3, 32, 32), np.float32))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, store, str(tmp_path / "spool"), str(trained)]
    processes = [subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    client = stores.client_of(store)
    assert [model.name for model in client.search_registered_models()] == ["small"]
    assert len(client.search_model_versions("name = 'small'")) == 3
    assert [entry.name for entry in client.search_experiments()].count("new") == 1


def test_a_server_that_dies_in_the_middle_loses_no_figure(store: str, tmp_path: Path, capsys, monkeypatch):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    artifacts = tmp_path / "artifacts"
    command = ("server", "--backend-store-uri", store, "--artifacts-destination", str(artifacts), "--workers", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with serving(*command, ping="health", port=port):
        stores.open_store(uri)
        run = start(uri, tmp_path / "spool")
        run.log_metrics({"loss": 1.0}, 1)
        run.flush()
    with run:
        run.log_metrics({"loss": 0.5}, 2)
        run.flush()
        run.log_artifact(Path(__file__))
    said = capsys.readouterr().out
    assert "does not take figures; they are kept in a file" in said and "did not take test_runs.py" in said
    assert "1 figures could not be sent; the next start of this run sends them" in said
    with serving(*command, ping="health", port=port):
        with start(uri, tmp_path / "spool", run_id=run.run_id) as again:
            again.log_metrics({"loss": 0.25}, 3)
        assert history(uri, run.run_id, "loss") == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_registered_model_is_served(store: str, trained: Path, tmp_path: Path):
    import torch

    with start(store, tmp_path / "spool") as run:
        registry.register(run, trained, "small", "newest", np.zeros((2, 3, 32, 32), np.float32))
    port = free_port()
    images = np.random.default_rng(0).random((1, 3, 32, 40), np.float32)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"inputs": images.tolist()}).encode(),
        {"Content-Type": "application/json"},
    )
    with (
        serving("models", "serve", "-m", "models:/small@newest", "--env-manager", "local", ping="ping", port=port),
        urllib.request.urlopen(request, timeout=60) as answer,  # noqa: S310 - our own server
    ):
        found = np.array(json.load(answer)["predictions"])
    with torch.inference_mode():
        expected = weights.load(trained).module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
