"""Which experiment of a tracking store a run belongs to: the recipe's, or the one that MLflow's variables name."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shared_backbones.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KIND, _MODEL_TRAINING = "mlflow.experimentKind", "custom_model_development"  # by which MLflow chooses its pages
EXPERIMENT_NAME, EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"


def find_experiment(client: "MlflowClient", uri: str, name: str, asked: bool) -> str:
    """Id of the experiment that is asked for or that MLflow's variables name, else of the one of that name.

    Raises:
        InputError: a variable contradicts the recipe or the other one, or the experiment is not there or deleted.
    """
    wanted = {"tracking.experiment": name} if asked else {}
    if os.environ.get(EXPERIMENT_NAME):
        wanted[EXPERIMENT_NAME] = os.environ[EXPERIMENT_NAME]
    if os.environ.get(EXPERIMENT_ID):
        wanted[EXPERIMENT_ID] = _experiment_of_id(client, os.environ[EXPERIMENT_ID])
    if len(set(wanted.values())) > 1:
        said = ", ".join(f"{key} says {value}" for key, value in wanted.items())
        raise InputError(f"experiment: {said}; leave all but one out")
    return _experiment(client, uri, next(iter(wanted.values()), name))


def _experiment_of_id(client: "MlflowClient", number: str) -> str:
    """Name of an experiment."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(number).name
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"{EXPERIMENT_ID}={number}: the tracking store has no such experiment; unset it") from None


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, which is made where the store has none of that name."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if uri.startswith("sqlite:///"):
            location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags={_KIND: _MODEL_TRAINING})
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise InputError(f"experiment {name}: was deleted from the tracking store; restore it or name another")
    if _KIND not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, _KIND, _MODEL_TRAINING)
    return experiment.experiment_id
