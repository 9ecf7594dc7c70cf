"""Addresses of tracking stores: what is shown of them, and what is said where one cannot be used."""

import os
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tracking import figures, runs, stores
from shared_backbones.errors import InputError
from tests.conftest import ROOT
from tests.pipelines.balls import write_raw, write_recipe

WORDS = st.text(string.ascii_letters + string.digits, min_size=6)
PASSWORDS = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=6)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("postgresql://jane:s3cret@host:5432/mlflow", "postgresql://host:5432/mlflow"),
        ("postgresql+psycopg2://jane@host/mlflow", "postgresql+psycopg2://host/mlflow"),
        ("mysql+pymysql://jane:p@ss@w/rd@host/mlflow", "mysql+pymysql://host/mlflow"),
        ("mysql://jane:a?b#c@host/mlflow", "mysql://host/mlflow"),
        ("postgresql://host/mlflow?user=jane&password=s3cret", "postgresql://host/mlflow"),
        ("postgresql://host/mlflow?password=s3cret@x", "postgresql://x"),
        ("https://host:5000/team", "https://host:5000/team"),
    ],
)
def test_an_address_is_shown_without_user_and_password(uri: str, shown: str):
    assert stores.shown_uri(uri) == shown


@given(
    user=WORDS,
    password=PASSWORDS,
    message=st.sampled_from(["{0}", "[{1}]", "({2})", "[{1}]: ({2})\nmore {0}"]),
    quoted=st.booleans(),
)
def test_no_message_has_the_user_or_the_password(user: str, password: str, message: str, quoted: bool):
    given = urllib.parse.quote(password, safe="") if quoted else password
    uri = f"postgresql://{user}:{given}@host:5432/mlflow"
    said = stores.reason(OSError(message.format(uri, user, password)), uri)
    for text in (said, stores.shown_uri(uri)):
        assert user not in text and password not in text and "\n" not in text


@pytest.fixture
def silent() -> Iterator[int]:
    """Port of a server that takes every connection, and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


def test_a_database_that_does_not_answer_is_one_line_within_seconds(monkeypatch: pytest.MonkeyPatch):
    """Drivers of database servers are not among what the suite needs: one that hangs stands for all."""
    import sqlalchemy

    monkeypatch.setattr(stores, "_SECONDS_TO_CONNECT", 0.5)
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda *_, **__: threading.Event().wait(30))
    before = time.monotonic()
    with pytest.raises(InputError, match=r"postgresql://host/mlflow: cannot be used \(no answer within 0 seconds\)"):
        stores.open_store("postgresql://jane:s3cret@host/mlflow")
    assert time.monotonic() - before < 25


@pytest.mark.parametrize(
    "uri",
    [
        "mysql+pymysql://jane_doe:s3cret-word@127.0.0.1:9/mlflow",
        "https://jane_doe:s3cret-word@127.0.0.1:9",
        "nonsense://jane_doe:s3cret-word@127.0.0.1:9/x",
        "postgresql://127.0.0.1:9/mlflow?user=jane_doe&password=s3cret-word",
    ],
)
def test_no_store_that_cannot_be_used_shows_its_password(uri: str):
    with pytest.raises(InputError) as caught:
        stores.open_store(uri)
    assert "jane_doe" not in str(caught.value) and "s3cret-word" not in str(caught.value)


def test_a_run_whose_store_cannot_be_used_is_one_line_without_its_password(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    recipe = write_recipe(tmp_path / "ball.yaml", write_raw(tmp_path / "raw"), tmp_path / "run")
    uri = "postgresql://jane_doe:s3cret-word@127.0.0.1:9/mlflow"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", recipe, "--stages=prepare"],
        cwd=ROOT, env={**os.environ, "MLFLOW_TRACKING_URI": uri}, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    made = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *made):
        assert "jane_doe" not in text and "s3cret-word" not in text


def test_a_server_that_is_stuck_does_not_hold_up_training(
    store: str, silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Once the run is made, its server takes connections and does not answer."""
    monkeypatch.setattr(figures, "_SECONDS", 0.1)
    monkeypatch.setattr(figures, "_SECONDS_TO_END", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    given = {"parameters": {}, "tags": {}, "datasets": [], "system_metrics": False}
    with runs.start_run("medvision", "run", uri=store, spool=tmp_path / "spool", **given) as run:
        stuck = stores.client_of(f"http://127.0.0.1:{silent}")
        run._figures.client = stuck
        slowest = 0.0
        for step in range(100):
            before = time.monotonic()
            run.log_metrics({"loss": 1 / (step + 1)}, step)
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
        assert any(thread.name == "figures" for thread in threading.enumerate())
    assert slowest < 1
    said = capsys.readouterr().out
    assert "100 figures could not be sent; the next start of this run sends them" in said
    with runs.start_run("medvision", "run", uri=store, spool=tmp_path / "spool", run_id=run.run_id, **given):
        pass
    history = stores.client_of(store).get_metric_history(run.run_id, "loss")
    assert [entry.step for entry in history] == list(range(100))
