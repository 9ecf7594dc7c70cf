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

import numpy as np

from pipelines.tracking.runs import Run
from pipelines.tracking.stores import open_store, reaching, tracking_uri
from shared_backbones.card import CARD, read_card
from shared_backbones.classification.outliers import FILE as OUTLIERS
from shared_backbones.errors import InputError
from shared_backbones.weights import WEIGHTS


def register(run: Run, model: Path, name: str, alias: str, example: np.ndarray) -> int:
    """Register a trained-model folder under a name and an alias; returns the version.

    It is kept as MLflow's "model from code", whose code is `served_model.py`; the folder is its only artifact.
    All goes through the client, as MLflow's other ways note the user's name and end the run.

    Raises:
        InputError: the store does not take it.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    kinds = np.dtype(np.float32)
    inputs = TensorSpec(kinds, (-1, *example.shape[1:2], *[-1] * (example.ndim - 2)))
    signature = ModelSignature(Schema([inputs]), Schema([TensorSpec(kinds, (-1,) * example.ndim)]))
    client = run.client
    with tempfile.TemporaryDirectory() as folder, reaching(run.uri):
        bare, packed = Path(folder) / "model", Path(folder) / "packed"
        bare.mkdir()
        for part in (WEIGHTS, CARD, OUTLIERS):
            if part != OUTLIERS or (model / part).exists():
                shutil.copyfile(model / part, bare / part)
        logged = client.create_logged_model(
            client.get_run(run.run_id).info.experiment_id, "model", run.run_id, model_type="pyfunc"
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
        client.log_model_artifacts(logged.model_id, str(packed))
        client.finalize_logged_model(logged.model_id, "READY")
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        version = client.create_model_version(
            name, f"models:/{logged.model_id}", run.run_id, model_id=logged.model_id
        ).version
        client.set_registered_model_alias(name, alias, version)
    return int(version)


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
        reason = str(error).partition("\n")[0][:160]
        raise InputError(f"model {uri}: not found in {store} ({reason}); see the names there") from None
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
