"""MLflow's own programs, started as a user starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def serving(*command: str, ping: str, port: int) -> Iterator[subprocess.Popen]:
    """A program of MLflow that answers on a port, with all that it starts."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by name
    environment = {**os.environ, "PATH": programs, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # nothing of ours needs its jobs
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
        env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{ping}", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.5)
        else:
            pytest.fail("the server did not answer")
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
