"""Trained models in MLflow's registry: registered with a run, and brought back without any code."""

import contextlib
import importlib.metadata
import io
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.tracking.runs import Run
from pipelines.tracking.stores import open_store, reaching, reason, shown_uri, tracking_uri
from shared_backbones.card import CARD, read_card
from shared_backbones.classification.outliers import FILE as OUTLIERS
from shared_backbones.errors import InputError
from shared_backbones.weights import WEIGHTS

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIGEST, _MONITOR = "domain_vision.digest", "domain_vision."
"""Tags of a version: the digest of its folder, and before the name of a figure, the figure."""
_BEST = "best"


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
    client = run.client
    value = read_card(model).get("training", {}).get(monitor)
    with reaching(run.uri):
        version = None if digest is None else find_version(run, name, digest)
        if version is None:
            logged = _log_model(run, model, example)
            _make_registered_model(client, name)
            noted = {_DIGEST: digest, f"{_MONITOR}{monitor}": value}
            tags = {key: str(what) for key, what in noted.items() if what is not None}
            made = client.create_model_version(name, f"models:/{logged}", run.run_id, tags=tags, model_id=logged)
            version = int(made.version)
        client.set_registered_model_alias(name, alias, str(version))
        if value is not None and _is_best(client, name, f"{_MONITOR}{monitor}", float(value)):
            client.set_registered_model_alias(name, _BEST, str(version))
    return version


def _log_model(run: Run, model: Path, example: np.ndarray) -> str:
    """Keep a trained-model folder as a model of MLflow; returns its id."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    kinds = np.dtype(np.float32)
    inputs = TensorSpec(kinds, (-1, *example.shape[1:2], *[-1] * (example.ndim - 2)))
    signature = ModelSignature(Schema([inputs]), Schema([TensorSpec(kinds, (-1,) * example.ndim)]))
    client = run.client
    with tempfile.TemporaryDirectory() as folder:
        bare, packed = Path(folder) / "model", Path(folder) / "packed"
        bare.mkdir()
        for part in (WEIGHTS, CARD, OUTLIERS):
            if part != OUTLIERS or (model / part).exists():
                shutil.copyfile(model / part, bare / part)
        logged = client.create_logged_model(run.experiment_id, "model", run.run_id, model_type="pyfunc")
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
        client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id


def _make_registered_model(client: "MlflowClient", name: str) -> None:
    """Make a registered model, unless the store has it: another process may make it at the same time."""
    from mlflow.exceptions import MlflowException

    if client.search_registered_models(f"name = '{name}'"):
        return
    try:
        client.create_registered_model(name)
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
    from mlflow.artifacts import download_artifacts, list_artifacts

    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "domain-vision"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        card = next(
            (
                item.path
                for folder in ("artifacts/model", "artifacts")
                for item in list_artifacts(artifact_uri=f"{uri}/{folder}")
                if item.path.endswith(CARD)
            ),
            None,
        )
    except Exception as error:
        why = reason(error, store)
        raise InputError(f"model {uri}: not found in {shown_uri(store)} ({why}); see the names there") from None
    if card is None:
        raise InputError(f"model {uri}: contains no {CARD}; expected one that this suite registered")
    folder = Path(card).parent.as_posix()
    folder = folder[folder.index("artifacts") :]
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetched-") as temporary, reaching(store):
        fetched = Path(download_artifacts(artifact_uri=f"{uri}/{folder}/{CARD}", dst_path=temporary)).parent
        sha256 = read_card(fetched)["weights_sha256"]
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):  # it names a folder of ours
            raise InputError(f"model {uri}: its {CARD} contains no sha256 of the weights; register it again")
        target = cache / sha256[:16]
        if not (target / WEIGHTS).exists():
            download_artifacts(artifact_uri=f"{uri}/{folder}/{WEIGHTS}", dst_path=temporary)
            target.mkdir(exist_ok=True)
        if any(Path(item.path).name == OUTLIERS for item in list_artifacts(artifact_uri=f"{uri}/{folder}")):
            download_artifacts(artifact_uri=f"{uri}/{folder}/{OUTLIERS}", dst_path=temporary)
        for part in (CARD, WEIGHTS, OUTLIERS):
            if (fetched / part).exists():
                os.replace(fetched / part, target / part)
    return target
