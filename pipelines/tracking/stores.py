"""Stores of MLflow: their addresses, and clients that are sure to reach them.

By default the store is a database `mlruns/mlflow.db` with plain artifact files beside it, in the current folder;
`MLFLOW_TRACKING_URI` names another. Nothing is pickled, nothing is logged by itself, and no usage data is sent.
"""

import contextlib
import fcntl
import logging
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shared_backbones.errors import InputError, require

if TYPE_CHECKING:  # mlflow reads the variables below when it is imported
    from mlflow import MlflowClient

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else a lock file of the current folder is kept beside a model
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
for name, value in (("TIMEOUT", "10"), ("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the database in the current folder; never what mlflow itself would choose."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}"


def open_store(uri: str) -> None:
    """Make sure that a store can be used; a database that does not exist yet is made.

    Several processes may call this at once: the first makes the tables, the others wait.

    Raises:
        InputError: the store cannot be reached or made, or its address contains a password.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme in {"http", "https"} and (parts.username or parts.password):
        raise InputError(
            f"MLFLOW_TRACKING_URI={parts.scheme}://...@{parts.hostname}: contains a password, which would be noted "
            "with the run; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    if parts.scheme in {"", "file"}:
        raise InputError(f"tracking store {uri}: plain folders are no longer supported; use sqlite:///PATH/mlflow.db")
    require("mlflow", "train")
    with reaching(uri):
        if parts.scheme == "sqlite":
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                client_of(uri).search_experiments(max_results=1)
        else:
            client_of(uri).search_experiments(max_results=1)


def check_seen_from_nodes(uri: str) -> None:
    """Make sure that an address means the same store on other machines.

    Raises:
        InputError: it is the address of a server on this machine alone.
    """
    parts = urllib.parse.urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme in {"http", "https"} and (host in {"localhost", "::1"} or host.startswith("127.")):
        raise InputError(
            f"MLFLOW_TRACKING_URI={uri}: means another machine on every node of a cluster; give the name or address "
            "under which nodes reach the server"
        )


def client_of(uri: str) -> "MlflowClient":
    """The client of a store."""
    require("mlflow", "train")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it speaks of every step
    mlflow.set_tracking_uri(uri)  # some of what a client does asks the store of the whole process
    return mlflow.MlflowClient(uri)


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """What mlflow, its HTTP client and its database raise, each of their own kinds, as one line."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise InputError(
            f"tracking store {uri}: cannot be used ({reason(error)}); start the server, or set MLFLOW_TRACKING_URI "
            "to another"
        ) from None


def reason(problem: Exception) -> str:
    """The first line of what an error says, for a message."""
    return str(problem).partition("\n")[0][:200]
