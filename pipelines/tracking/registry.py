"""Trained models in MLflow's registry: registered with a run, and brought back without any code."""

import contextlib
import errno
import importlib.metadata
import io
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.tracking.answers import files_of
from pipelines.tracking.runs import Run, key_of
from pipelines.tracking.stores import open_store, reaching, reason, shown_uri, tracking_uri
from shared_backbones.card import CARD, read_card
from shared_backbones.classification.outliers import FILE as OUTLIERS
from shared_backbones.documents import LARGEST
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, files_of_at_most, printable
from shared_backbones.json_values import Document
from shared_backbones.user_cache import cache_folder
from shared_backbones.weights import WEIGHTS
from shared_backbones.work_folders import work_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_DIGEST, _MONITOR = "domain_vision.digest", "domain_vision."
"""Tags of a version: the digest of its folder, and before the name of a figure, the figure."""
WEIGHTS_TAG = "domain_vision.weights"
"""Tag of a version: the sha256 of its weights."""
_TAG_LENGTH = 500
_AT_ONCE = 100  # figures in a message
_BEST = "best"
_ARTIFACT = re.compile(r"(?:[\w.-]+/)*artifacts/(?:[\w.-]+/)*[\w.-]+")


def find_version(run: Run, name: str, digest: str) -> int | None:
    """The version of a registered model that holds a trained-model folder; None where the store has none.

    Raises:
        InputError: the store cannot be asked.
    """
    with reaching(run.uri):
        versions = run.client.search_model_versions(f"name = '{name}'")
        numbers = [int(entry.version) for entry in versions if entry.tags.get(_DIGEST) == digest]
    return max(numbers, default=None)


def register(
    run: Run, model: Path, name: str, alias: str, example: np.ndarray, *, digest: str | None = None, monitor: str = ""
) -> int:
    """Register a trained-model folder under a name and an alias, unless the store has it; returns the version.

    It is kept as MLflow's "model from code", whose code is `served_model.py`; the folder is its only artifact.
    All goes through the client, as MLflow's other ways note the user's name and end the run.

    Args:
        run: Run that the version belongs to.
        model: Trained-model folder.
        name: Name of the registered model.
        alias: Alias that moves to the version.
        example: Input of the network.
        digest: Digest of the whole folder, by which a version that is there is found again.
        monitor: Validation figure, noted in the model's card, by which the alias `best` moves; higher is better.

    Raises:
        InputError: the store does not take it.
    """
    client, card = run.client, read_card(model)
    value = card.get("training", {}).get(monitor)
    with reaching(run.uri):
        version = None if digest is None else find_version(run, name, digest)
        if version is None:
            tags = _tags(run, card)
            logged = _log_model(run, model, example, tags, digest)
            _make_registered_model(client, name, card.get("description"))
            noted = {**tags, _DIGEST: digest, WEIGHTS_TAG: card["weights_sha256"], f"{_MONITOR}{monitor}": value}
            made = client.create_model_version(
                name,
                f"models:/{logged}",
                run.run_id,
                tags={key: str(what) for key, what in noted.items() if what is not None},
                description=_description(card, tags, run, monitor),
                model_id=logged,
            )
            version = int(made.version)
        client.set_registered_model_alias(name, alias, str(version))
        if value is not None and _is_best(client, name, f"{_MONITOR}{monitor}", float(value)):
            client.set_registered_model_alias(name, _BEST, str(version))
    return version


def show_figures(run: Run, name: str, version: int, figures: Mapping[str, float], step: int) -> None:
    """Show figures of a run with a registered version's model, each with its data set, so that models can be ranked.

    The run has logged them, and keeps each once; what it has not sent is left out.

    Args:
        run: Run that has trained or evaluated the model.
        name: Name of the registered model.
        version: Its version.
        figures: Figures; the name's beginning, `test_` or `validation_`, says of which split.
        step: Step at which the run has logged them.

    Raises:
        InputError: the store does not take them.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric

    run.flush()
    client, data = run.client, {record.context: record for record in run.datasets}
    with reaching(run.uri):
        source = client.get_model_version(name, str(version)).source  # no server tells the id by itself
        model_id = str(source).removeprefix("models:/")
        if not model_id.startswith("m-"):
            return  # a copy of a version of another name
        model, there = client.get_logged_model(model_id), client.get_run(run.run_id)
        inputs, outputs = there.inputs, there.outputs
        kept = [*(inputs.model_inputs if inputs else ()), *(outputs.model_outputs if outputs else ())]
        if model_id not in {entry.model_id for entry in kept}:
            if model.source_run_id == run.run_id:
                client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])
            else:
                client.log_inputs(run.run_id, models=[LoggedModelInput(model_id)])
        shown = {(metric.key, metric.value) for metric in model.metrics or () if metric.run_id == run.run_id}
        metrics = []
        for key, value in ((key_of(name), value) for name, value in figures.items()):
            record = data.get(key.partition("_")[0])
            sent = [at for at in client.get_metric_history(run.run_id, key) if (at.step, at.value) == (step, value)]
            if sent and record is not None and (key, value) not in shown:
                about = {"model_id": model_id, "dataset_name": record.name, "dataset_digest": record.digest}
                metrics.append(Metric(key, value, sent[0].timestamp, step, **about))
        for start in range(0, len(metrics), _AT_ONCE):
            client.log_batch(run.run_id, metrics=metrics[start : start + _AT_ONCE])


def _tags(run: Run, card: Document) -> dict[str, str]:
    """What tells models apart: classes, licence, and the digest of the training data."""
    names = [str(entry["name"]) for entry in card.get("classes", ())]
    digests = [record.digest for record in run.datasets if record.context == "train"]
    tags = {"classes": ", ".join(names), "license": str(card.get("license") or ""), "data_digest": "".join(digests)}
    return {key: text if len(text) <= _TAG_LENGTH else f"{text[:_TAG_LENGTH]}…" for key, text in tags.items() if text}


def _description(card: Document, tags: Mapping[str, str], run: Run, monitor: str) -> str:
    """A version's description, in Markdown."""
    training = card.get("training", {})
    value = training.get(monitor)
    facts = {
        "Recipe": run.parameters.get("name"),
        "Architecture": card.get("architecture"),
        "Classes": tags.get("classes"),
        "Steps": training.get("steps"),
        monitor.replace("_", " ").capitalize(): None if value is None else f"{value:.4g}",
        "Licence": tags.get("license"),
    }
    lines = [f"- {key}: {fact}" for key, fact in facts.items() if fact is not None]
    return "\n".join([*([str(card["description"]), ""] if card.get("description") else []), *lines])


def _log_model(run: Run, model: Path, example: np.ndarray, tags: Mapping[str, str], digest: str | None) -> str:
    """Keep a trained-model folder as a model of MLflow, with the run's parameters; returns its id.

    What a killed process began to keep is completed under its id, or taken as it is.
    """
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    kinds = np.dtype(np.float32)
    inputs = TensorSpec(kinds, (-1, *example.shape[1:2], *[-1] * (example.ndim - 2)))
    signature = ModelSignature(Schema([inputs]), Schema([TensorSpec(kinds, (-1,) * example.ndim)]))
    client = run.client
    begun = None if digest is None else _begun(run, digest)
    if begun is not None and begun.status == LoggedModelStatus.READY:
        return begun.model_id
    with work_folder() as folder:
        bare, packed = folder / "model", folder / "packed"
        bare.mkdir()
        for part in (WEIGHTS, CARD, OUTLIERS):
            if part != OUTLIERS or (model / part).exists():
                shutil.copyfile(model / part, bare / part)
        noted = dict(tags) if digest is None else {**tags, _DIGEST: digest}
        logged = begun or client.create_logged_model(
            run.experiment_id, "model", run.run_id, tags=noted, params=run.parameters, model_type="pyfunc"
        )
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of type hints, which a model from code has no use for
            from mlflow import pyfunc

            pyfunc.save_model(
                str(packed),
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"model": str(bare)},
                signature=signature,
                input_example=example,
                pip_requirements=[f"domain-vision=={importlib.metadata.version('domain-vision')}"],
                mlflow_model=Model(run_id=run.run_id, model_id=logged.model_id),
            )
        described = Model.load(str(packed))
        flavor = described.flavors["python_function"]
        flavor["model_code_path"] = Path(flavor["model_code_path"]).name  # without the folders of this machine
        for artifact in flavor["artifacts"].values():
            artifact["uri"] = artifact["path"]
        described.save(str(packed / "MLmodel"))
        with files_of(run.uri):
            client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


def _begun(run: Run, digest: str) -> "LoggedModel | None":
    """The model of MLflow that this run has kept, or begun to keep, of a folder with this digest."""
    there = run.client.search_logged_models([run.experiment_id], filter_string=f"tags.`{_DIGEST}` = '{digest}'")
    return next((model for model in there if model.source_run_id == run.run_id), None)


def _make_registered_model(client: "MlflowClient", name: str, description: str | None) -> None:
    """Make a registered model, unless the store has it: another process may make it at the same time."""
    from mlflow.exceptions import MlflowException

    if client.search_registered_models(f"name = '{name}'"):
        return
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _is_best(client: "MlflowClient", name: str, tag: str, value: float) -> bool:
    """Whether no version that is the best so far, by the same figure, is better."""
    from mlflow.exceptions import MlflowException

    try:
        best = client.get_model_version_by_alias(name, _BEST)
    except MlflowException:
        return True  # no version has the alias
    return tag in best.tags and value > float(best.tags[tag])


def _folder_of(card: str, uri: str) -> str:
    """The folder of a store in which a card lies, from `artifacts` on; a hostile server may name any file.

    Raises:
        InputError: it lies elsewhere.
    """
    if not _ARTIFACT.fullmatch(card) or ".." in card.split("/"):
        raise InputError(f"model {uri}: the store names a file {printable(card)[:200]!r}, expected one of artifacts/")
    folder = Path(card).parent.as_posix()
    return folder[folder.index("artifacts") :]


def resolve_model(uri: str, cache: Path | None = None) -> Path:
    """Bring a registered or noted model here: only its weights, card and what tells outliers, and no code.

    Args:
        uri: `models:/name@alias`, `models:/name/3` or `runs:/id/model`.
        cache: folder in which the model gets a folder named by the sha256 of its weights, if it is not there yet; by
            default `domain-vision` in the user's own.

    Returns:
        The trained-model folder.

    Raises:
        InputError: there is no such model, or it is none of ours.
    """
    store = tracking_uri()
    open_store(store)
    from mlflow.artifacts import list_artifacts

    cache = cache or cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{printable(cache)}: models cannot be kept there ({error.strerror}); name a folder that you may write to "
            "in XDG_CACHE_HOME"
        ) from None
    try:
        with files_of(store):
            card = next(
                (
                    item.path
                    for folder in ("artifacts/model", "artifacts")
                    for item in list_artifacts(artifact_uri=f"{uri}/{folder}")
                    if item.path.endswith(CARD)
                ),
                None,
            )
    except InputError as error:
        raise InputError(f"model {uri}: {error}") from None
    except Exception as error:
        why = reason(error, store)
        raise InputError(f"model {uri}: not found in {shown_uri(store)} ({why}); see the names there") from None
    if card is None:
        raise InputError(f"model {uri}: contains no {CARD}; expected one that this suite registered")
    with work_folder(cache) as temporary, reaching(store), files_of(store):
        return _bring(uri, _folder_of(card, uri), cache, temporary, is_server=store.startswith("http"))


def _bring(uri: str, folder: str, cache: Path, temporary: Path, *, is_server: bool) -> Path:
    """Fetch a model's files, each no longer than it may be, and put them into the cache once all are there.

    Args:
        uri: The model.
        folder: Its folder among the artifacts.
        cache: Where its folder is made.
        temporary: Where its files wait until then.
        is_server: Whether they come from a server, which may send more than it says.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts

    sizes = {Path(item.path).name: item.file_size or 0 for item in list_artifacts(artifact_uri=f"{uri}/{folder}")}

    def fetch(name: str, largest: int) -> Path:
        with files_of_at_most(largest) if is_server else contextlib.nullcontext():
            return Path(download_artifacts(artifact_uri=f"{uri}/{folder}/{name}", dst_path=str(temporary)))

    def claimed(name: str) -> int:
        size, room = sizes.get(name, 0), shutil.disk_usage(temporary).free
        if not 0 <= size < room:
            raise InputError(f"model {uri}: {name} is said to have {size:,} bytes, and {room:,} are free; make room")
        return size

    fetched = fetch(CARD, LARGEST).parent
    sha256 = read_card(fetched)["weights_sha256"]
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):  # it names a folder of ours
        raise InputError(f"model {uri}: its {CARD} contains no sha256 of the weights; register it again")
    target = cache / sha256[:16]
    if not (target / WEIGHTS).exists() and file_sha256(fetch(WEIGHTS, claimed(WEIGHTS))) != sha256:
        raise InputError(f"model {uri}: its weights are not those of its {CARD}; register it again")
    if OUTLIERS in sizes:
        fetch(OUTLIERS, claimed(OUTLIERS))
    target.mkdir(exist_ok=True)
    for part in (CARD, WEIGHTS, OUTLIERS):
        if (fetched / part).exists():
            os.replace(fetched / part, target / part)
    return target
