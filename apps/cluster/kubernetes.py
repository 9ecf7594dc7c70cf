"""Recipes as jobs of Kubernetes: a TrainJob of Kubeflow Trainer, or a plain indexed Job, from the same settings."""

import posixpath
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from apps.cluster.manifest_rules import check_manifest
from apps.cluster.settings import JobSettings, Word
from pipelines.recipe.recipe import Recipe
from pipelines.runtime import processes
from pipelines.tracking import stores
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries, Json

_PORT = 29500
_MEMORY, _RECIPE_VOLUME = "domain-vision-shm", "domain-vision-recipe"
_SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torchrun would kill its workers after 30 seconds
LABELS = {"app.kubernetes.io/name": "domain-vision"}
EVICTED: Document = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
"""A rule: pods that were evicted do not count as failed."""
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"

_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
_Mount = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?:/[^\s:]*(:ro)?$", max_length=300)]
_RECIPE_FOLDER, _RECIPE_FILE = "/etc/domain-vision", "recipe.yaml"
_MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_Secret = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[-._a-zA-Z0-9]+)?$", max_length=300)]
_Variable = Annotated[str, Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*=[^\x00-\x1f]*$", max_length=4000)]
_Label = Annotated[str, Field(pattern=r"^[^\s=]+=[^\s=]*$", max_length=400)]


@dataclass(frozen=True)
class Mount:
    """A volume claim in a pod.

    Attributes:
        claim: Name of the claim.
        path: Folder where it is mounted.
        read_only: Whether it is only read.
    """

    claim: str
    path: str
    read_only: bool


class PodSettings(JobSettings):
    """What a job asks for."""

    image: Word = Field(default="", min_length=1, validate_default=True)
    """Image of the containers; the Dockerfile builds one."""
    cpus_per_task: PositiveInt | None = None
    """CPUs of each process."""
    volumes: list[_Mount] = Field(default_factory=list)
    """Persistent volume claims and where they are mounted, as `CLAIM:/PATH`, or `CLAIM:/PATH:ro` for one that is only
    read: the data, and the recipe's `output`."""
    secrets: list[_Secret] = Field(default_factory=list)
    """Secrets whose keys become variables: `NAME` gives MLflow's user, password and token where it has them, `NAME:KEY`
    any key."""
    env: list[_Variable] = Field(default_factory=list)
    """Variables, as `NAME=VALUE`; passwords belong in a secret."""
    node_selector: list[_Label] = Field(default_factory=list)
    """Labels that nodes must have, as `KEY=VALUE`."""
    tolerations: list[Word] = Field(default_factory=list)
    """Taints that pods tolerate, as `KEY`, `KEY=VALUE`, `KEY:EFFECT` or `KEY=VALUE:EFFECT`."""
    form: Literal["trainjob", "job"] = "trainjob"
    runtime: _Name = "torch-distributed"
    """The ClusterTrainingRuntime of a TrainJob."""
    grace_seconds: PositiveInt = 120
    """Seconds that a preempted pod has for a checkpoint."""
    retries: NonNegativeInt = 10
    """How often pods of an indexed Job may fail; pods that were evicted do not count."""

    @field_validator("env")
    @classmethod
    def _without_passwords(cls, options: list[str]) -> list[str]:
        for option in options:
            name = option.partition("=")[0]
            if re.search(r"PASSWORD|PASSWD|TOKEN|SECRET|ACCESS_KEY|CREDENTIAL", name.upper()):
                raise ValueError(f"{name} would stand in the manifest; keep it in a secret, and give that as --secret")
        return options

    @property
    def mounts(self) -> list[Mount]:
        """The volumes."""
        parts = [volume.split(":") for volume in self.volumes]
        return [Mount(claim, path, bool(more)) for claim, path, *more in parts]

    def mount_of(self, path: str) -> Mount | None:
        """The volume that a path lies in, if any: the innermost."""
        whole = posixpath.normpath(path)
        around = [mount for mount in self.mounts if f"{whole}/".startswith(f"{mount.path.rstrip('/')}/")]
        return max(around, key=lambda mount: len(mount.path), default=None)


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
    _check_paths(recipe, settings)
    uri = stores.tracking_uri()
    if not uri.startswith(("http://", "https://")):
        raise InputError("MLFLOW_TRACKING_URI: is no server, which pods need; export that of one, http://HOST:PORT")
    stores.check_address(uri)
    stores.check_seen_from_nodes(uri)
    text, arguments = None, list(arguments)
    if arguments[0].endswith((".yaml", ".yml")):  # a recipe of the user's own, which no image has
        text = Path(arguments[0]).read_text(encoding="utf-8")
        arguments[0] = f"{_RECIPE_FOLDER}/{_RECIPE_FILE}"
    print(manifest(recipe.name, arguments, settings, {"MLFLOW_TRACKING_URI": uri}, text), end="")


def _check_paths(recipe: Recipe, settings: PodSettings) -> None:
    """Make sure that pods see every path that a recipe names, and can write its output."""
    if recipe.output is None:
        raise InputError("output is needed: what pods write elsewhere is lost with them; pass output=/PATH in a volume")
    model = recipe.model
    named = {"output": recipe.output, "data.root": recipe.data.root, "model.backbone_weights": model.backbone_weights}
    if model.init and ("/" in model.init and not model.init.startswith(("models:/", "runs:/"))):
        named["model.init"] = model.init
    sections = {"data": recipe.data.model_dump(exclude={"root"}), "model.arguments": model.arguments}
    named |= {key: text for key, text in _texts(sections) if text.startswith("/")}
    for key, path in named.items():
        mount = None if path is None else settings.mount_of(path)
        if path is not None and mount is None:
            raise InputError(f"{key}={path}: in no volume of the pods; mount one there with --volume CLAIM:/PATH")
        if key == "output" and mount is not None and mount.read_only:
            raise InputError(f"output={path}: in a volume that is only read; mount it without :ro, or name another")


def _texts(value: Json, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a document, with their dotted keys."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}" if key else name)
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part, key)


def manifest(
    name: str,
    arguments: Sequence[str],
    settings: PodSettings,
    variables: Mapping[str, str],
    recipe: str | None = None,
) -> str:
    """The YAML documents that `kubectl apply -f -` takes.

    In both forms torchrun starts the processes: it reads where it is from variables (`PET_...`), which Kubeflow sets in
    a TrainJob and we in an indexed Job. A preempted pod writes a checkpoint, and its successor goes on.

    Args:
        name: Name of the recipe.
        arguments: Arguments of `python -m pipelines run`.
        settings: Settings of the job.
        variables: Environment variables, such as MLFLOW_TRACKING_URI.
        recipe: Text of a recipe that the image lacks: it travels in a ConfigMap.

    Raises:
        InputError: a server would refuse it, or its pods would never run.
    """
    label = label_of(name)
    # Kubernetes itself reads $(NAME) in arguments
    command = ["torchrun", "-m", "pipelines", "run", *(part.replace("$(", "$$(") for part in arguments)]
    own = f"{label}-{secrets.token_hex(3)}"  # no run takes the place of another
    given = [option.partition("=")[::2] for option in settings.env]
    variables = {_SHUTDOWN: str(settings.grace_seconds), **variables}
    env = [
        *({"name": key, "value": value.replace("$(", "$$(")} for key, value in [*variables.items(), *given]),
        *secret_variables(settings),
    ]
    if settings.form == "trainjob":
        documents = _train_job(label, command, settings, env, pod_spec(settings, own if recipe is not None else None))
    else:
        documents = _indexed_job(own, command, settings, env, pod_spec(settings, own if recipe is not None else None))
    if recipe is not None:
        documents.insert(0, _config_map(own, recipe))
    return dump(documents)


def dump(documents: Sequence[Document]) -> str:
    """Documents as YAML.

    Raises:
        InputError: a server would refuse them, or their pods would never run.
    """
    check_manifest(documents)
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines, such as recipes, as they are."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def label_of(name: str) -> str:
    """A name as RFC 1035 has it: small letters, digits and -, a letter first."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"run-{label}")[:40].strip("-")


def _config_map(name: str, recipe: str) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": dict(LABELS)},
        "data": {_RECIPE_FILE: recipe},
    }


def _train_job(
    label: str, command: list[str], settings: PodSettings, env: list[Document], pod: Entries
) -> list[Document]:
    patch = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return [
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"generateName": f"{label}-", "labels": dict(LABELS)},
            "spec": {
                "runtimeRef": {"name": settings.runtime},
                "trainer": {
                    "image": settings.image,
                    "command": command,
                    "numNodes": settings.nodes,
                    "numProcPerNode": max(1, settings.gpus_per_node),
                    "env": env,
                    **resources("resourcesPerNode", settings),
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


def _indexed_job(
    name: str, command: list[str], settings: PodSettings, env: list[Document], pod: Entries
) -> list[Document]:
    selector = {"domain-vision/job": name}
    rendezvous = {
        "PET_NNODES": str(settings.nodes),
        "PET_NPROC_PER_NODE": str(max(1, settings.gpus_per_node)),
        "PET_MASTER_ADDR": f"{name}-0.{name}",
        "PET_MASTER_PORT": str(_PORT),
    }
    pod["containers"][0] |= {
        "image": settings.image,
        "command": command,
        "env": [
            *env,
            *({"name": key, "value": value} for key, value in rendezvous.items()),
            {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        ],
        **resources("resources", settings),
    }
    pod |= {"subdomain": name, "restartPolicy": "Never"}  # with the service below: a name for each pod
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": dict(LABELS)},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": dict(LABELS)},
            "spec": {
                "completionMode": "Indexed",
                "completions": settings.nodes,
                "parallelism": settings.nodes,
                "backoffLimit": settings.retries,
                "podFailurePolicy": {"rules": [dict(EVICTED)]},
                "template": {"metadata": {"labels": dict(selector)}, "spec": pod},
            },
        },
    ]


def pod_spec(settings: PodSettings, config_map: str | None) -> Entries:
    """What both forms say of a pod: its volumes, where it may run, and how long it has to leave.

    The memory is for NCCL and for processes that load data.
    """
    volumes: list[Document] = [{"name": _MEMORY, "emptyDir": {"medium": "Memory"}}]
    mounts: list[Document] = [{"name": _MEMORY, "mountPath": "/dev/shm"}]  # noqa: S108 - that is where it is
    for number, mount in enumerate(settings.mounts):
        name, only = f"volume-{number}", {"readOnly": True} if mount.read_only else {}
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": mount.claim, **only}})
        mounts.append({"name": name, "mountPath": mount.path, **only})
    if config_map is not None:
        volumes.append({"name": _RECIPE_VOLUME, "configMap": {"name": config_map}})
        mounts.append({"name": _RECIPE_VOLUME, "mountPath": _RECIPE_FOLDER, "readOnly": True})
    pod: Entries = {
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "containers": [{"name": "node", "volumeMounts": mounts}],  # the runtime's own name of it
        "volumes": volumes,
    }
    if settings.node_selector:
        pod["nodeSelector"] = dict(option.split("=", 1) for option in settings.node_selector)
    if settings.tolerations:
        pod["tolerations"] = [_toleration(option) for option in settings.tolerations]
    return pod


def _toleration(option: str) -> Document:
    taint, _, effect = option.partition(":")
    key, equals, value = taint.partition("=")
    toleration = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return {**toleration, "effect": effect} if effect else toleration


def secret_variables(settings: PodSettings) -> list[Document]:
    """Variables that secrets give; of MLflow's, those that are there."""
    variables: list[Document] = []
    for option in settings.secrets:
        name, _, key = option.partition(":")
        for variable in (key,) if key else _MLFLOW_KEYS:
            source = {"name": name, "key": variable, **({} if key else {"optional": True})}
            variables.append({"name": variable, "valueFrom": {"secretKeyRef": source}})
    return variables


def resources(key: str, settings: PodSettings) -> Document:
    """What a pod asks for and is limited to, under a key; nothing where nothing is asked for."""
    each = max(1, settings.gpus_per_node)
    cpus = None if settings.cpus_per_task is None else settings.cpus_per_task * each
    asked = {"cpu": cpus, "memory": settings.mem, "nvidia.com/gpu": settings.gpus_per_node or None}
    amounts = {name: str(amount) for name, amount in asked.items() if amount is not None}
    return {key: {"requests": dict(amounts), "limits": amounts}} if amounts else {}
