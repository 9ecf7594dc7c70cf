"""Manifests of Kubernetes against the schemas of Kubeflow Trainer and of Kubernetes itself, and the Dockerfile."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api import models

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from apps.cluster.kubernetes import PodSettings, manifest
from apps.cluster.manifest_rules import check_manifest
from pipelines.recipe.loading import find_recipe
from shared_backbones.errors import InputError

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
    assert trainer["env"] == [
        {"name": "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "value": "120"},  # as long as the pod has
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
    ]
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
        (
            ["output=/runs/a", *POD],
            "http://jane:s3cret@m:5000",
            "MLFLOW_TRACKING_URI=http://m:5000: contains a password",
        ),
        (["output=/data/../b", *POD], "http://m:5000", "output=/data/../b: in no volume of the pods"),
        (["output=/ro/a", *POD, "--volume=c:/ro:ro"], "http://m:5000", "output=/ro/a: in a volume that is only read"),
        (["output=/runs/a", "model.init=/models/a", *POD], "http://m:5000", "model.init=/models/a: in no volume"),
        (["output=/runs/a", "model.init=../a", *POD], "http://m:5000", "model.init=../a: in no volume"),
        (["output=/runs/a", "data.options={table: /x.csv}", *POD], "http://m:5000", "data.options.table=/x.csv: in no"),
        (["output=/runs/a", *POD, "--volume=other:/data"], "http://m:5000", "mount /data: is there twice"),
        (["output=/runs/a", *POD, "--env=MLFLOW_TRACKING_PASSWORD=x"], "http://m:5000", "keep it in a secret"),
        (["output=/runs/a", *POD, "--env=A"], "http://m:5000", "settings of the job: env"),
        (["output=/runs/a", *POD, "--env=A=1", "--env=A=2"], "http://m:5000", "variable A: is there twice"),
        (["output=/runs/a", *POD, "--secret=A_B"], "http://m:5000", "settings of the job: secrets"),
        (["output=/runs/a", *POD, "--node-selector=a"], "http://m:5000", "settings of the job: node_selector"),
        (["output=/runs/a", *POD, "--toleration=a:Later"], "http://m:5000", "effect Later, expected one of"),
    ],
)
def test_what_no_pod_can_run_is_one_line(
    options: list[str], uri: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert run(app, [*RUN, *options]) == 2
    given = capsys.readouterr()
    assert message in given.err and given.err.count("\n") == 1 and not given.out


OPTIONS = {
    "volumes": ["data:/data:ro", "runs:/runs"],
    "secrets": ["mlflow", "s3:AWS_PROFILE"],
    "env": ["NCCL_DEBUG=INFO $(X)"],
    "node_selector": ["gpu.vendor/model=H200", "zone="],
    "tolerations": ["gpu", "team=a", "spot:NoExecute", "k=v:NoSchedule"],
}


@pytest.mark.parametrize("form", ["trainjob", "job"])
def test_every_option_follows_the_schemas(form: str):
    text = "name: mine\n# é\n"
    documents = list(yaml.safe_load_all(manifest("3d_unet", ["a.yaml"], settings(form=form, **OPTIONS), {}, text)))
    schemas = {
        "ConfigMap": "IoK8sApiCoreV1ConfigMap", "Service": "IoK8sApiCoreV1Service", "Job": "IoK8sApiBatchV1Job",
        "TrainJob": "TrainerV1alpha1TrainJob",
    }  # fmt: skip
    for document in documents:
        checked(document, schemas[document["kind"]])
    assert documents[0]["data"] == {"recipe.yaml": text}
    spec = documents[-1]["spec"]
    if form == "job":
        pod = spec["template"]["spec"]
        env = pod["containers"][0]["env"]
    else:
        patch = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
        pod, env = patch["template"]["spec"]["template"]["spec"], spec["trainer"]["env"]
    assert pod["nodeSelector"] == {"gpu.vendor/model": "H200", "zone": ""}
    assert pod["tolerations"] == [
        {"key": "gpu", "operator": "Exists"}, {"key": "team", "operator": "Equal", "value": "a"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
        {"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"},
    ]  # fmt: skip
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/data"]["readOnly"] and "readOnly" not in mounts["/runs"]
    assert volumes[mounts["/data"]["name"]]["persistentVolumeClaim"] == {"claimName": "data", "readOnly": True}
    own = volumes[mounts["/etc/domain-vision"]["name"]]["configMap"]["name"]
    assert own == documents[0]["metadata"]["name"] and own.startswith("run-3d-unet-")
    variables = {variable["name"]: variable for variable in env}
    assert variables["NCCL_DEBUG"]["value"] == "INFO $$(X)"
    password = {"name": "mlflow", "key": "MLFLOW_TRACKING_PASSWORD", "optional": True}
    assert variables["MLFLOW_TRACKING_PASSWORD"]["valueFrom"]["secretKeyRef"] == password
    assert variables["AWS_PROFILE"]["valueFrom"]["secretKeyRef"] == {"name": "s3", "key": "AWS_PROFILE"}


@given(name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True))
def test_any_recipes_name_becomes_one_that_a_server_takes_and_no_run_has_that_of_another(name: str):
    for form in ("job", "trainjob"):
        first, second = (
            list(yaml.safe_load_all(manifest(name, [], settings(form=form), {}, "name: x"))) for _ in range(2)
        )
        for document in first:
            check_manifest(first)
            found = document["metadata"].get("name") or document["metadata"]["generateName"]
            assert re.fullmatch(r"[a-z][a-z0-9-]{0,60}", found)
        names = [{entry["metadata"].get("name") for entry in documents} - {None} for documents in (first, second)]
        assert not names[0] & names[1]


def broken(form: str, change: Callable[[list[Any]], Any]) -> str:
    """What the check says of a manifest that was good before the change."""
    documents = list(yaml.safe_load_all(manifest("r", [], settings(form=form, **OPTIONS), {}, "name: x")))
    check_manifest(documents)
    change(documents)
    with pytest.raises(InputError) as caught:
        check_manifest(documents)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pod_of(documents: list[Any]) -> dict[str, Any]:
    return documents[-1]["spec"]["template"]["spec"]


def mounts_of(documents: list[Any]) -> list[dict[str, Any]]:
    return pod_of(documents)["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[-1]["metadata"].update(name="3d-unet"), "Job 3d-unet: expected small letters"),
        (lambda d: d[-1]["metadata"].update(name="a" * 62), "at most 61 characters"),
        (lambda d: d[0]["metadata"].update(name="A_b"), "ConfigMap A_b: expected small letters"),
        (lambda d: d[0]["data"].update({"a/b": ""}), "key 'a/b', expected letters"),
        (lambda d: d[0]["data"].update(more="x" * 2**20), "at most 1048576 fit"),
        (lambda d: d[1]["spec"].update(selector={"app": "other"}), "its selector is that of no pod"),
        (lambda d: d[-1]["spec"].pop("completions"), "without a number of completions"),
        (lambda d: pod_of(d).update(restartPolicy="Always"), "restartPolicy is Always"),
        (lambda d: pod_of(d).update(restartPolicy="OnFailure"), "needs restartPolicy Never"),
        (lambda d: pod_of(d).update(subdomain="nowhere"), "subdomain nowhere is no service"),
        (lambda d: mounts_of(d)[1].update(name="nowhere"), "there is no volume nowhere"),
        (lambda d: mounts_of(d)[1].update(mountPath="/runs/"), "mount /runs: is there twice"),
        (lambda d: mounts_of(d)[1].update(mountPath="data"), "expected an absolute path"),
        (lambda d: mounts_of(d)[1].update(mountPath="/a/../b"), "expected an absolute path"),
        (lambda d: mounts_of(d)[1].update(mountPath="/"), "expected an absolute path below /"),
        (lambda d: pod_of(d)["volumes"].append(pod_of(d)["volumes"][0]), "is there twice"),
        (
            lambda d: pod_of(d)["volumes"][1]["persistentVolumeClaim"].update(claimName="A b"),
            "is no name of a volume claim",
        ),
        (lambda d: pod_of(d)["volumes"][-1]["configMap"].update(name="gone"), "there is no ConfigMap gone"),
        (lambda d: pod_of(d).update(nodeSelector={"a b": "c"}), "label a b: is no key"),
        (lambda d: pod_of(d).update(nodeSelector={"a": "-c"}), "label a=-c: expected"),
        (lambda d: pod_of(d)["tolerations"][0].update(operator="Like"), "expected operator Exists"),
        (lambda d: pod_of(d)["tolerations"][0].update(effect="Never"), "effect Never, expected one of"),
        (lambda d: pod_of(d)["tolerations"][1].update(value="a b"), "is no value of a taint"),
        (lambda d: pod_of(d)["containers"][0]["env"].append({"name": "PET_NNODES"}), "PET_NNODES: is there twice"),
        (lambda d: pod_of(d)["containers"][0]["env"].append({"name": "1 a"}), "1 a: is no name of a variable"),
        (lambda d: d[1]["metadata"].update(labels={"a": "x" * 64}), "at most 63 letters"),
    ],
)
def test_each_rule_of_a_server_is_looked_at(change: Callable[[list[Any]], Any], message: str):
    assert message in broken("job", change)


def test_the_pods_of_a_trainjob_are_looked_at_too():
    def change(documents: list[Any]) -> None:
        patch = documents[-1]["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][
            0
        ]
        patch["template"]["spec"]["template"]["spec"]["volumes"].pop()

    assert "there is no volume domain-vision-recipe" in broken("trainjob", change)


def test_a_recipe_of_ones_own_travels_with_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    text = find_recipe("pneumoniamnist_medvitv2_cpu").read_text()
    (tmp_path / "mine.yaml").write_text(text)
    command = ["run", str(tmp_path / "mine.yaml"), "data.root=/data/x.npz", "output=/runs/a", *POD, "--form=job"]
    assert run(app, command) == 0
    printed = capsys.readouterr().out
    config, _, job = yaml.safe_load_all(printed)
    assert config["data"]["recipe.yaml"] == text and str(tmp_path) not in printed
    assert pod_of([job])["containers"][0]["command"][4] == "/etc/domain-vision/recipe.yaml"


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
