"""Recipes as jobs of Kubernetes: a TrainJob of Kubeflow Trainer, or a plain indexed Job, from the same settings."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt

from apps.cluster.settings import JobSettings, Word
from pipelines.recipe.recipe import Recipe
from pipelines.runtime import processes
from pipelines.tracking import stores
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

_PORT = 29500
_MEMORY = "domain-vision-shm"
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"

_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
_Mount = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?:/[^\s:]*$", max_length=300)]


class PodSettings(JobSettings):
    """What a job asks for."""

    image: Word = Field(default="", min_length=1, validate_default=True)
    """Image of the containers; the Dockerfile builds one."""
    cpus_per_task: PositiveInt | None = None
    """CPUs of each process."""
    volumes: list[_Mount] = Field(default_factory=list)
    """Persistent volume claims and where they are mounted, as `CLAIM:/PATH`: the data, and the recipe's `output`."""
    form: Literal["trainjob", "job"] = "trainjob"
    runtime: _Name = "torch-distributed"
    """The ClusterTrainingRuntime of a TrainJob."""
    grace_seconds: PositiveInt = 120
    """Seconds that a preempted pod has for a checkpoint."""
    retries: NonNegativeInt = 10
    """How often pods of an indexed Job may fail; pods that were evicted do not count."""


def print_recipe(recipe: Recipe, arguments: Sequence[str], settings: PodSettings) -> None:
    """Print the manifest of a recipe, for `kubectl apply -f -` or `kubectl create -f -`.

    Args:
        recipe: Recipe, which is checked here.
        arguments: Arguments of `python -m pipelines run`, from which the pods read it again.
        settings: Settings of the job.

    Raises:
        InputError: the recipe does not suit the number of processes, or pods cannot see where it writes or is tracked.
    """
    processes.share_of(recipe.train.batch_size, settings.processes)
    mounted = [mount.partition(":")[2].rstrip("/") + "/" for mount in settings.volumes]
    for key, path in (("output", recipe.output), ("data.root", recipe.data.root)):
        if path is not None and not any(f"{path}/".startswith(mount) for mount in mounted):
            raise InputError(f"{key}={path}: in no volume of the pods; mount one there with --volume CLAIM:/PATH")
    if recipe.output is None:
        raise InputError("output is needed: what pods write elsewhere is lost with them; pass output=/PATH in a volume")
    uri = stores.tracking_uri()
    if not uri.startswith(("http://", "https://")):
        raise InputError("MLFLOW_TRACKING_URI: is no server, which pods need; export that of one, http://HOST:PORT")
    stores.check_seen_from_nodes(uri)
    print(manifest(recipe.name, arguments, settings, {"MLFLOW_TRACKING_URI": uri}), end="")


def manifest(name: str, arguments: Sequence[str], settings: PodSettings, variables: Mapping[str, str]) -> str:
    """The YAML documents that `kubectl apply -f -` takes.

    In both forms torchrun starts the processes: it reads where it is from variables (`PET_...`), which Kubeflow sets in
    a TrainJob and we in an indexed Job. A preempted pod writes a checkpoint, and its successor goes on.

    Args:
        name: Name of the recipe.
        arguments: Arguments of `python -m pipelines run`.
        settings: Settings of the job.
        variables: Environment variables, such as MLFLOW_TRACKING_URI.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    # Kubernetes itself reads $(NAME) in arguments
    command = ["torchrun", "-m", "pipelines", "run", *(part.replace("$(", "$$(") for part in arguments)]
    documents = (_train_job if settings.form == "trainjob" else _indexed_job)(label, command, settings, variables)
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def _train_job(label: str, command: list[str], settings: PodSettings, variables: Mapping[str, str]) -> list[Document]:
    volumes, mounts = _volumes(settings)
    pod = {
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "volumes": volumes,
        "containers": [{"name": "node", "volumeMounts": mounts}],  # the runtime's own name of it
    }
    patch = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return [
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"generateName": f"{label}-", "labels": {"app.kubernetes.io/name": "domain-vision"}},
            "spec": {
                "runtimeRef": {"name": settings.runtime},
                "trainer": {
                    "image": settings.image,
                    "command": command,
                    "numNodes": settings.nodes,
                    "numProcPerNode": max(1, settings.gpus_per_node),
                    "env": _variables(variables),
                    **_resources("resourcesPerNode", settings),
                },
                "runtimePatches": [
                    {
                        "manager": "domain-vision/run",
                        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [patch]}}},
                    }
                ],
            },
        }
    ]


def _indexed_job(label: str, command: list[str], settings: PodSettings, variables: Mapping[str, str]) -> list[Document]:
    volumes, mounts = _volumes(settings)
    selector = {"domain-vision/job": label}
    rendezvous = {
        "PET_NNODES": str(settings.nodes),
        "PET_NPROC_PER_NODE": str(max(1, settings.gpus_per_node)),
        "PET_MASTER_ADDR": f"{label}-0.{label}",
        "PET_MASTER_PORT": str(_PORT),
    }
    container = {
        "name": "node",
        "image": settings.image,
        "command": command,
        "env": [
            *_variables({**variables, **rendezvous}),
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        ],
        **_resources("resources", settings),
        "volumeMounts": mounts,
    }
    pod = {
        "subdomain": label,  # with the service below: a name for each pod
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "containers": [container],
        "volumes": volumes,
    }
    evicted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": label},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": label, "labels": {"app.kubernetes.io/name": "domain-vision"}},
            "spec": {
                "completionMode": "Indexed",
                "completions": settings.nodes,
                "parallelism": settings.nodes,
                "backoffLimit": settings.retries,
                "podFailurePolicy": {"rules": [evicted]},
                "template": {"metadata": {"labels": selector}, "spec": pod},
            },
        },
    ]


def _volumes(settings: PodSettings) -> tuple[list[Document], list[Document]]:
    """Volumes of a pod and where they are mounted; the memory is for NCCL and for processes that load data."""
    volumes: list[Document] = [{"name": _MEMORY, "emptyDir": {"medium": "Memory"}}]
    mounts: list[Document] = [{"name": _MEMORY, "mountPath": "/dev/shm"}]  # noqa: S108 - that is where it is
    for number, mount in enumerate(settings.volumes):
        claim, _, path = mount.partition(":")
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": f"volume-{number}", "mountPath": path})
    return volumes, mounts


def _variables(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _resources(key: str, settings: PodSettings) -> Document:
    each = max(1, settings.gpus_per_node)
    cpus = None if settings.cpus_per_task is None else settings.cpus_per_task * each
    asked = {"cpu": cpus, "memory": settings.mem, "nvidia.com/gpu": settings.gpus_per_node or None}
    amounts = {name: str(amount) for name, amount in asked.items() if amount is not None}
    return {key: {"requests": dict(amounts), "limits": amounts}} if amounts else {}
