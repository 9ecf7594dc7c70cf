"""A tracking server that lies: fetching a model ends in a line, and it chooses no folder of this machine."""

import json
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from pipelines.tracking.registry import resolve_model
from pipelines.tracking.runs import close_run, log_to_run
from shared_backbones.errors import InputError
from tests.hostile.sound_files import card

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_VERSION = {"name": "tiny", "version": "1", "source": "mlflow-artifacts:/1/models/m-1/artifacts", "run_id": "r"}
_ENDLESS = {"endless card": "model.json", "endless weights": "model.safetensors"}

ELSEWHERE = {
    "a folder of this machine": "file://MODEL", "a plain path": "MODEL", "above a bucket": "s3://bucket/../model",
    "another host": "http://127.0.0.2:9/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts",
    "files of another host": "mlflow-artifacts://127.0.0.2:9/1/models/m-1/artifacts",
    "above its files": "mlflow-artifacts:/1/../../../../api/2.0/mlflow/experiments",
    "above its files, encoded": "mlflow-artifacts:/1/%2e%2e/%2e%2e", "a host that is logged in to": "sftp://127.0.0.2:9/m",
    "a database": "dbfs:/model", "itself": "models:/tiny/1",
}  # fmt: skip
"""By name: where a server says that the files of its model are."""


@contextmanager
def lying(model: Path, lie: str) -> Iterator[tuple[str, list[str]]]:
    """Address of a server with one model that lies in one way, and the paths that it is asked for."""
    asked: list[str] = []
    places = ELSEWHERE | {"a bucket": "s3://bucket/model"}
    elsewhere = {name: place.replace("MODEL", str(model)) for name, place in places.items()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urllib.parse.urlsplit(self.path)
            asked.append(parts.path)
            if parts.path.startswith("/elsewhere"):
                self._send(b"{}")
            elif parts.path.startswith(f"{ARTIFACTS}/"):
                self._file(parts.path.rpartition("/")[2])
            elif parts.path == ARTIFACTS:
                self._json({"files": self._listed(urllib.parse.parse_qs(parts.query)["path"][0])})
            elif lie == "no JSON":
                self._send(b"<html>")
            elif lie == "an endless answer":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(b'{"experiments": [')
                    while True:
                        self.wfile.write(b"{}," * 2**18)
            elif "get-download-uri" in parts.path:
                self._json({"artifact_uri": elsewhere.get(lie, _VERSION["source"])})
            else:
                info = {
                    "run_id": "r", "run_uuid": "r", "run_name": "a", "experiment_id": "1", "user_id": "",
                    "status": "RUNNING",
                    "lifecycle_stage": "active", "artifact_uri": elsewhere.get(lie, "mlflow-artifacts:/1/r/artifacts"),
                }  # fmt: skip
                answer = {"experiments": [], "model_version": _VERSION, "registered_model": {"name": "tiny"}}
                self._json({**answer, "run": {"info": info, "data": {}}})

        def do_PUT(self) -> None:
            asked.append(urllib.parse.urlsplit(self.path).path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._send(b"{}")

        def _listed(self, folder: str) -> list[dict[str, object]]:
            if not folder.endswith("artifacts/model"):
                return []
            names = {"above": "../../model.json", "root": "/etc/model.json", "encoded": "%2e%2e/%2e%2e/model.json"}
            sizes = {path.name: path.stat().st_size for path in model.iterdir()}
            files: list[dict[str, object]] = [
                {"path": name, "is_dir": False, "file_size": size} for name, size in sizes.items()
            ]
            if lie in names:
                files[0]["path"] = names[lie]
                files = files[:1]
            if lie == "a size without end":
                files = [{**entry, "file_size": 2**62} for entry in files]
            return files

        def _file(self, name: str) -> None:
            if lie == "redirect":
                self.send_response(302)
                self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
                self.end_headers()
            elif name == _ENDLESS.get(lie):
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    while True:
                        self.wfile.write(bytes(2**20))
            else:
                content = (model / name).read_bytes()
                self._send(content[: len(content) // 2] if lie == "cut short" else content, len(content))

        def _json(self, content: object) -> None:
            self._send(json.dumps(content).encode())

        def _send(self, content: bytes, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _fetched(model: Path, lie: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path | str, list[str]]:
    """The model's folder, or the line; and what the server was asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    with lying(model, lie) as (address, asked):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        try:
            return resolve_model("models:/tiny@best"), asked
        except InputError as error:
            return str(error), asked


def test_a_bucket_is_read_with_the_client_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "botocore", None)  # as where it is not installed
    line, _ = _fetched(card(tmp_path).parent, "a bucket", tmp_path / "home", monkeypatch)
    assert isinstance(line, str) and "botocore" in line and "\n" not in line


def test_an_honest_server_gives_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = card(tmp_path).parent
    folder, _ = _fetched(model, "none", tmp_path / "home", monkeypatch)
    assert isinstance(folder, Path), folder
    for name in ("model.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # mlflow closes no answer that it leaves
@pytest.mark.parametrize(
    "lie",
    ["above", "root", "encoded", "endless card", "endless weights", "a size without end", "cut short", "redirect",
     "no JSON", "an endless answer", *ELSEWHERE],
)  # fmt: skip
def test_a_lie_ends_in_a_line(lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, home = card(tmp_path).parent, tmp_path / "home"
    before = sorted(tmp_path.rglob("*"))
    line, asked = _fetched(model, lie, home, monkeypatch)
    assert isinstance(line, str), "it was taken"
    assert lie not in ELSEWHERE or lie == "itself" or "keeps the files elsewhere" in line
    assert "\n" not in line and len(line) < 1000 and line.isprintable()
    assert "/elsewhere" not in asked
    left = [path for path in home.rglob("*") if path.is_file()]
    assert not left and sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(home)) == before


def _kept(folder: Path, lie: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Keep a file with a run of a server; the line, or nothing, and what the server was asked for."""
    note = folder / "note.json"
    note.write_text("{}")
    with lying(folder / "place", lie) as (address, asked):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        _artifact_repos_cache.clear()  # by the run's id
        try:
            log_to_run("r", {}, [note], folder="reviews")
        except InputError as error:
            return str(error), asked
    return "", asked


@pytest.mark.parametrize("lie", ELSEWHERE)
def test_a_server_chooses_no_folder_to_write_in(lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "place").mkdir()
    line, asked = _kept(tmp_path, lie, monkeypatch)
    assert "keeps the files elsewhere" in line or lie == "itself", line
    assert "\n" not in line and not any("elsewhere" in path or path.startswith(ARTIFACTS) for path in asked)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["note.json", "place"]


def test_a_file_is_kept_at_the_server_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "place").mkdir()
    line, asked = _kept(tmp_path, "none", monkeypatch)
    assert not line and f"{ARTIFACTS}/1/r/artifacts/reviews/note.json" in asked


def test_a_log_that_a_server_sends_elsewhere_does_not_keep_a_run_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "log"
    log.touch()
    _artifact_repos_cache.clear()
    with lying(tmp_path / "place", "a plain path") as (address, asked):
        close_run(address, "r", "FAILED", log)
    assert "is not kept with it" in capsys.readouterr().out and not (tmp_path / "place").exists()
    assert any(path.endswith("runs/update") for path in asked)
