"""What a tracking server may answer: so much and no more, and places of its own alone for files."""

import contextlib
import functools
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    import requests

_LARGEST = 64 * 2**20  # bytes of an answer that is no file
_SECONDS = 120.0  # for such an answer
_CHUNK = 2**16
_BUCKETS = {"s3", "gs", "wasbs", "abfss", "r2", "b2"}  # read with the user's own keys, which open few


def bound_answers() -> None:
    """Let no answer to this process's questions to tracking servers be larger, or take longer, than one can be.

    Files are streamed: whoever writes them bounds them.
    """
    from mlflow.utils import request_utils

    session_of = request_utils._get_request_session
    if getattr(session_of, "is_bounded", False):
        return

    @functools.wraps(session_of)
    def bounded(*arguments: object, **options: object) -> "requests.Session":
        session = session_of(*arguments, **options)
        if _read_bounded not in session.hooks["response"]:
            session.hooks["response"].append(_read_bounded)
        return session

    setattr(bounded, "is_bounded", True)  # noqa: B010 - a function has no such attribute of its own
    request_utils._get_request_session = bounded


def _read_bounded(response: "requests.Response", *, stream: bool = False, **_: object) -> None:
    """Read what was answered, unless it is to be streamed.

    Raises:
        OSError: it does not end.
    """
    if stream:
        return
    parts, size, end = [], 0, time.monotonic() + _SECONDS
    for part in response.iter_content(_CHUNK):
        size += len(part)
        if size > _LARGEST or time.monotonic() > end:
            response.close()
            raise OSError(f"its answer does not end: {size:,} bytes so far")
        parts.append(part)
    response._content = b"".join(parts)


@contextlib.contextmanager
def files_of(server: str) -> Iterator[None]:
    """Let MLflow read and write files at a server itself, or in its bucket, while the block runs.

    Args:
        server: Address of the tracking store; of one that is no server, files are where it says.

    Raises:
        InputError: it says that they are in a folder of this machine, or at another host.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

    if not server.startswith(("http://", "https://")):
        yield
        return
    known = cast("dict[str, Callable[..., object]]", get_registered_artifact_repositories())
    before, host = dict(known), urllib.parse.urlsplit(server).netloc.rpartition("@")[2]
    own = {"mlflow-artifacts": ("", host), "http": (host,), "https": (host,)}

    def checked(make: Callable[..., object]) -> Callable[..., object]:
        def repository(artifact_uri: str, **options: str | None) -> object:
            place = urllib.parse.urlsplit(artifact_uri)
            is_own = place.scheme in _BUCKETS or place.netloc in own.get(place.scheme, ())
            if not is_own or ".." in urllib.parse.unquote(place.path).split("/"):
                raise InputError(
                    f"the server keeps the files elsewhere ({printable(artifact_uri)[:200]}), where they are neither "
                    "read nor written; start it with --serve-artifacts, or copy them by hand"
                )
            return make(artifact_uri, **options)

        return repository

    known.update({scheme: checked(make) for scheme, make in before.items() if scheme not in ("models", "runs")})
    try:
        yield
    finally:
        known.update(before)
