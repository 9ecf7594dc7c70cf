"""Rules that a Kubernetes server has for manifests and that its schemas do not hold."""

import re
from collections.abc import Iterator, Sequence

from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_EFFECTS = {"NoSchedule", "PreferNoSchedule", "NoExecute"}
_CONFIG_MAP_BYTES = 2**20
_GENERATED = 5  # characters that a server puts behind `generateName`


def check_manifest(documents: Sequence[Document]) -> None:
    """Look for what a server would refuse, or take and never run.

    Raises:
        InputError: one of the documents breaks a rule.
    """
    problem = next((problem for document in documents for problem in _problems(document, documents)), None)
    if problem is not None:
        raise InputError(f"manifest: {problem}")


def _problems(document: Document, documents: Sequence[Document]) -> Iterator[str]:
    kind, metadata = document["kind"], document["metadata"]
    name = metadata.get("name") or f"{metadata['generateName']}{'x' * _GENERATED}"
    if not _LABEL_1035.fullmatch(name) or len(name) > 63 - len("-0"):
        yield f"{kind} {name}: expected small letters, digits and -, a letter first, and at most 61 characters"
    yield from _label_problems(metadata.get("labels", {}))
    if kind == "ConfigMap":
        yield from _config_map_problems(document)
    elif kind == "Service":
        yield from _service_problems(document, documents)
    elif kind == "Job":
        yield from _job_problems(document, documents)
    elif kind == "TrainJob":
        trainer = document["spec"]["trainer"]
        yield from _variable_problems(trainer.get("env", []), documents)
        for patch in document["spec"].get("runtimePatches", []):
            for replicated in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
                yield from _pod_problems(replicated["template"]["spec"]["template"]["spec"], documents)


def _config_map_problems(document: Document) -> Iterator[str]:
    for key in document["data"]:
        if not _KEY.fullmatch(key) or len(key) > 253:
            yield f"ConfigMap: key {key!r}, expected letters, digits, -, _ and . only"
    size = sum(len(key) + len(value.encode()) for key, value in document["data"].items())
    if size > _CONFIG_MAP_BYTES:
        yield f"ConfigMap: holds {size} bytes, at most {_CONFIG_MAP_BYTES} fit; put the recipe in a volume"


def _service_problems(document: Document, documents: Sequence[Document]) -> Iterator[str]:
    selector = document["spec"]["selector"]
    yield from _label_problems(selector)
    jobs = [other["spec"]["template"]["metadata"]["labels"] for other in documents if other["kind"] == "Job"]
    if not selector or not any(selector.items() <= labels.items() for labels in jobs):
        yield f"Service {document['metadata']['name']}: its selector is that of no pod"


def _job_problems(document: Document, documents: Sequence[Document]) -> Iterator[str]:
    spec = document["spec"]
    pod = spec["template"]["spec"]
    yield from _label_problems(spec["template"]["metadata"].get("labels", {}))
    if spec.get("completionMode") == "Indexed" and not spec.get("completions"):
        yield "Job: is indexed, without a number of completions"
    if pod.get("restartPolicy") not in {"Never", "OnFailure"}:
        yield f"Job: restartPolicy is {pod.get('restartPolicy')}, expected Never or OnFailure"
    elif spec.get("podFailurePolicy") and pod["restartPolicy"] != "Never":
        yield "Job: a podFailurePolicy needs restartPolicy Never"
    if "backoffLimitPerIndex" in spec and (spec.get("completionMode") != "Indexed" or pod["restartPolicy"] != "Never"):
        yield "Job: backoffLimitPerIndex needs an indexed Job, and restartPolicy Never"
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        yield from _failure_rule_problems(rule, spec)
    services = {other["metadata"]["name"] for other in documents if other["kind"] == "Service"}
    if "subdomain" in pod and pod["subdomain"] not in services:
        yield f"Job: subdomain {pod['subdomain']} is no service"
    for container in pod["containers"]:
        yield from _variable_problems(container.get("env", []), documents)
    yield from _pod_problems(pod, documents)


def _failure_rule_problems(rule: Document, spec: Document) -> Iterator[str]:
    if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
        yield "Job: a rule that fails an index needs backoffLimitPerIndex"
    codes = rule.get("onExitCodes", {}).get("values")
    if codes is not None and (codes != sorted(set(codes)) or not codes or 0 in codes):
        yield f"Job: exit codes {codes}, expected different ones in ascending order, without 0"


def _pod_problems(pod: Document, documents: Sequence[Document]) -> Iterator[str]:
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    yield from (f"volume {name}: is there twice" for name in _repeated(volumes))
    maps = {other["metadata"]["name"] for other in documents if other["kind"] == "ConfigMap"}
    for volume in pod.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and (not _SUBDOMAIN.fullmatch(claim) or len(claim) > 253):
            yield f"claim {claim}: is no name of a volume claim; expected small letters, digits, - and ."
        if "configMap" in volume and volume["configMap"]["name"] not in maps:
            yield f"volume {volume['name']}: there is no ConfigMap {volume['configMap']['name']}"
    for container in pod["containers"]:
        yield from _mount_problems(container.get("volumeMounts", []), volumes)
    yield from _label_problems(pod.get("nodeSelector", {}))
    for toleration in pod.get("tolerations", []):
        yield from _toleration_problems(toleration)


def _mount_problems(mounts: Sequence[Document], volumes: Sequence[str]) -> Iterator[str]:
    paths = [mount["mountPath"].rstrip("/") or "/" for mount in mounts]
    yield from (f"mount {path}: is there twice; give each volume a path of its own" for path in _repeated(paths))
    for mount in mounts:
        path = mount["mountPath"]
        if mount["name"] not in volumes:
            yield f"mount {path}: there is no volume {mount['name']}"
        if not path.startswith("/") or ":" in path or ".." in path.split("/") or path.strip("/") == "":
            yield f"mount {path}: expected an absolute path below /, without : and .."


def _variable_problems(variables: Sequence[Document], documents: Sequence[Document]) -> Iterator[str]:
    names = [variable["name"] for variable in variables]
    yield from (f"variable {name}: is there twice; give it once" for name in _repeated(names))
    yield from (f"variable {name}: is no name of a variable" for name in names if not _VARIABLE.fullmatch(name))
    for variable in variables:
        source = variable.get("valueFrom", {}).get("secretKeyRef")
        if source and not (_SUBDOMAIN.fullmatch(source["name"]) and _KEY.fullmatch(source["key"])):
            yield f"secret {source['name']}:{source['key']}: expected a name of small letters and digits, and a key"


def _label_problems(labels: Document) -> Iterator[str]:
    for key, value in labels.items():
        name = key.rpartition("/")[2]
        if not _LABEL_KEY.fullmatch(key) or len(name) > 63 or len(key) > 317:
            yield f"label {key}: is no key of a label"
        if not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
            yield f"label {key}={value}: expected at most 63 letters, digits, -, _ and ., with no sign at an end"


def _toleration_problems(toleration: Document) -> Iterator[str]:
    key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
    if operator not in {"Exists", "Equal"} or (operator == "Exists" and toleration.get("value")):
        yield f"toleration {key}: expected operator Exists without a value, or Equal"
    if key and not _LABEL_KEY.fullmatch(key):
        yield f"toleration {key}: is no key of a taint"
    if not _LABEL_VALUE.fullmatch(toleration.get("value", "")):
        yield f"toleration {key}={toleration['value']}: is no value of a taint"
    if not key and operator == "Equal":
        yield "toleration: expected a key"
    if toleration.get("effect", "NoExecute") not in _EFFECTS:
        yield f"toleration {key}: effect {toleration['effect']}, expected one of {', '.join(sorted(_EFFECTS))}"


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
