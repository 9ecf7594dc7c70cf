"""Stores of MLflow: their addresses, and clients that are sure to reach them.

By default the store is a database `mlruns/mlflow.db` with plain artifact files beside it, in the current folder;
`MLFLOW_TRACKING_URI` names another. Nothing is pickled, nothing is logged by itself, and no usage data is sent.
"""

import contextlib
import fcntl
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.answers import bound_answers
from shared_backbones.errors import InputError, require

if TYPE_CHECKING:  # mlflow reads the variables below when it is imported
    from mlflow import MlflowClient

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_UV_AUTO_DETECT"] = "false"  # else a lock file of the current folder is kept beside a model
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ALLOW_HTTP_REDIRECTS", "false")  # to whatever else a server can name
for name, value in (("TIMEOUT", "10"), ("MAX_RETRIES", "2"), ("BACKOFF_FACTOR", "1")):
    os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)


_SECONDS_TO_CONNECT = 20.0


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the database in the current folder; never what mlflow itself would choose."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """A store's address as it may be shown and kept: without user, password and options, which can hold both."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "sqlite":
        return uri  # a file, which takes neither
    place = re.split(r"[?#]", rest.rpartition("@")[2] if "@" in rest else rest)[0]
    return f"{scheme}://{place}"


def check_address(uri: str) -> None:
    """Refuse an address that no store of ours can have.

    Raises:
        InputError: it is a folder, or that of a server with a password.
    """
    scheme = uri.partition(":")[0] if ":" in uri else ""
    if scheme in {"http", "https"} and shown_uri(uri) != re.split(r"[?#]", uri)[0]:
        raise InputError(
            f"MLFLOW_TRACKING_URI={shown_uri(uri)}: contains a password, which would be noted with the run; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    if "://" not in uri or scheme == "file":
        raise InputError(f"tracking store {uri}: plain folders are no longer supported; use sqlite:///PATH/mlflow.db")


def open_store(uri: str) -> None:
    """Make sure that a store can be used; a database that does not exist yet is made.

    Several processes may call this at once: the first makes the tables, the others wait.

    Raises:
        InputError: the store cannot be reached or made, or its address contains a password.
    """
    check_address(uri)
    require("mlflow", "train")
    with reaching(uri):
        if uri.startswith("sqlite:"):
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                client_of(uri).search_experiments(max_results=1)
        else:
            if not uri.startswith(("http://", "https://")):
                _connect(uri)
            client_of(uri).search_experiments(max_results=1)


def _connect(uri: str) -> None:
    """Connect to a database once: mlflow itself would try for minutes, whatever the reason."""
    import sqlalchemy

    outcome: list[Exception] = []

    def connect() -> None:
        try:
            engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
            with engine.connect():
                pass
        except Exception as problem:
            outcome.append(problem)

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(_SECONDS_TO_CONNECT)
    if attempt.is_alive():
        raise OSError(f"no answer within {_SECONDS_TO_CONNECT:.0f} seconds")
    if outcome:
        raise outcome[0]


def check_seen_from_nodes(uri: str) -> None:
    """Make sure that an address means the same store on other machines.

    Raises:
        InputError: it is the address of a server on this machine alone.
    """
    parts = urllib.parse.urlsplit(uri)
    host = parts.hostname or ""
    if parts.scheme in {"http", "https"} and (host in {"localhost", "::1"} or host.startswith("127.")):
        raise InputError(
            f"MLFLOW_TRACKING_URI={shown_uri(uri)}: means another machine on every node of a cluster; give the "
            "name or address under which nodes reach the server"
        )


def client_of(uri: str) -> "MlflowClient":
    """The client of a store."""
    require("mlflow", "train")
    import mlflow

    bound_answers()
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it speaks of every step
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # of errors, which are raised as well
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
            f"tracking store {shown_uri(uri)}: cannot be used ({reason(error, uri)}); start the server, correct "
            "user and password, or set MLFLOW_TRACKING_URI to another"
        ) from None


def reason(problem: Exception, uri: str) -> str:
    """The first line of what an error of a store says, without the user and the password of its address."""
    text = str(problem).replace(uri, shown_uri(uri)).partition("\n")[0]
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    return text[:200]


def _secrets(uri: str) -> list[str]:
    """What may not be shown of an address, as it stands there and as it is meant; the longest first."""
    scheme, _, rest = uri.partition("://")
    if scheme == "sqlite":
        return []
    user, _, password = rest.rpartition("@")[0].partition(":")
    options = [value for _, value in urllib.parse.parse_qsl(rest.partition("?")[2])]
    forms = {form for part in (user, password, *options) for form in (part, urllib.parse.unquote(part))}
    return sorted((part for part in forms if len(part) > 2), key=len, reverse=True)
