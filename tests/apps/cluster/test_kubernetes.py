"""Manifests of Kubernetes against the schemas of Kubeflow Trainer and of Kubernetes itself, and the Dockerfile."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api import models

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from apps.cluster.kubernetes import PodSettings, manifest

ROOT = Path(__file__).resolve().parents[3]
ARGUMENTS = ["hippocampus_hbformer_cpu", "data.root=/data/Task 04", "card.description=$(HOME) 'x': {y}"]
VARIABLES = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}


def checked(document: dict[str, Any], model: str) -> dict[str, Any]:
    """A document that the schema's model holds whole: an unknown key would be lost on the way."""
    kind = getattr(models, model)
    assert kind.from_dict(document).to_dict() == document
    return document


def settings(**changes: Any) -> PodSettings:
    return PodSettings.model_validate({
        "image": "registry/domain-vision:cuda", "nodes": 2, "gpus_per_node": 8, "cpus_per_task": 4, "mem": "256Gi",
        "volumes": ["data:/data", "runs:/runs"], **changes,
    })  # fmt: skip


def test_a_trainjob_follows_its_schema_and_starts_torchrun():
    [job] = yaml.safe_load_all(manifest("Hippo_HBformer.cpu", ARGUMENTS, settings(), VARIABLES))
    checked(job, "TrainerV1alpha1TrainJob")
    assert job["metadata"]["generateName"] == "hippo-hbformer-cpu-"
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    # what Kubernetes leaves of $$( is what the user typed
    assert [part.replace("$$(", "$(") for part in trainer["command"]] == [
        "torchrun", "-m", "pipelines", "run", *ARGUMENTS
    ]  # fmt: skip
    assert "$(HOME)" not in trainer["command"][-1].replace("$$(HOME)", "")
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "8"}
    assert trainer["env"] == [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"}]
    [patch] = job["spec"]["runtimePatches"]
    pod = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
    }
    mounted = {claims[m["name"]]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] in claims}
    assert mounted == {"data": "/data", "runs": "/runs"}
    assert pod["terminationGracePeriodSeconds"] == 120


def test_an_indexed_job_follows_its_schema_and_its_pods_find_the_first():
    documents = list(yaml.safe_load_all(manifest("slices", ARGUMENTS, settings(form="job", nodes=3), VARIABLES)))
    service, job = documents
    checked(service, "IoK8sApiCoreV1Service")
    checked(job, "IoK8sApiBatchV1Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert service["spec"]["selector"] == spec["template"]["metadata"]["labels"]
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    given = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert given["PET_NNODES"] == "3" and given["PET_NPROC_PER_NODE"] == "8"
    assert given["PET_MASTER_ADDR"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    [rank] = [entry for entry in pod["containers"][0]["env"] if entry["name"] == "PET_NODE_RANK"]
    assert "job-completion-index" in rank["valueFrom"]["fieldRef"]["fieldPath"]


RUN = ["run", "pneumoniamnist_medvitv2_cpu", "data.root=/data/pneumoniamnist.npz"]
POD = ["--on=kubernetes", "--image=r/i:1", "--volume=data:/data", "--volume=runs:/runs"]


def test_the_program_prints_what_kubectl_takes(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert run(app, [*RUN, "output=/runs/a", *POD, "--nodes=2", "--gpus-per-node=4", "--form=job"]) == 0
    service, job = yaml.safe_load_all(capsys.readouterr().out)
    checked(service, "IoK8sApiCoreV1Service")
    [container] = checked(job, "IoK8sApiBatchV1Job")["spec"]["template"]["spec"]["containers"]
    assert container["command"][:4] == ["torchrun", "-m", "pipelines", "run"]
    assert container["command"][4:] == [*RUN[1:], "output=/runs/a"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container["env"]


@pytest.mark.parametrize(
    ("options", "uri", "message"),
    [
        (["output=/runs/a", "--on=kubernetes", "--volume=data:/data"], "http://m:5000", "settings of the job: image"),
        (["output=/elsewhere/a", *POD], "http://m:5000", "output=/elsewhere/a: in no volume of the pods"),
        (POD, "http://m:5000", "output is needed"),
        (["output=/runs/a", *POD], "sqlite:///x.db", "is no server, which pods need"),
        (["output=/runs/a", *POD], "http://127.0.0.1:5000", "means another machine on every node"),
        (["output=/runs/a", *POD, "--nodes=5"], "http://m:5000", "cannot be shared out to 5 processes"),
        (["output=/runs/a", *POD, "--partition=gpu"], "http://m:5000", "partition"),
        (["output=/runs/a", *POD, "--form=pod"], "http://m:5000", "form"),
        (["output=/runs/a", *POD, "--volume=data"], "http://m:5000", "volumes"),
    ],
)
def test_what_no_pod_can_run_is_one_line(
    options: list[str], uri: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run(app, [*RUN, *options]) == 2
    given = capsys.readouterr()
    assert message in given.err and given.err.count("\n") == 1 and not given.out


def test_torchrun_reads_where_it_is_from_the_variables_that_the_job_sets(tmp_path: Path):
    """With one pod of two processes: what Kubernetes would start, started here."""
    documents = list(yaml.safe_load_all(manifest("r", [], settings(form="job", nodes=1, gpus_per_node=2), {})))
    [container] = documents[1]["spec"]["template"]["spec"]["containers"]
    given = {entry["name"]: entry.get("value", "0") for entry in container["env"]}
    script = tmp_path / "print_ranks.py"
    script.write_text(
        'import os\nos.write(1, f\'rank {os.environ["RANK"]} of {os.environ["WORLD_SIZE"]}\\n\'.encode())\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", str(script)],
        env={**given, "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "0", "PATH": "/usr/bin:/bin",
             "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line) == ["rank 0 of 2", "rank 1 of 2"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"volumes": ["data"]}, "volumes"), ({"volumes": ["../x:/data"]}, "volumes"), ({"nodes": 0}, "nodes"),
     ({"image": "a b"}, "image"), ({"nods": 2}, "nods"), ({"runtime": "A_B"}, "runtime")],
)  # fmt: skip
def test_settings_that_make_no_manifest_are_refused(changes: dict[str, Any], where: str):
    with pytest.raises(ValueError, match=where):
        settings(**changes)


def test_the_dockerfile_is_clean_and_copies_what_the_package_is_built_from():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout
    text = (ROOT / "Dockerfile").read_text()
    copied = {word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    for name in copied:
        assert (ROOT / name).exists(), name
    assert {"pyproject.toml", "constraints.txt", "apps", "medvision", "pipelines"} <= copied
