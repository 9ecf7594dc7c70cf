"""Terminals that lack characters, readers that leave, disks that are full, and signals: the results are not lost."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.outputs import SIDECAR, Outputs
from apps.cli.shared.program import OUT_OF_MEMORY, is_out_of_memory, run
from pipelines.runtime.stopping import Terminated, stopping
from shared_backbones.errors import InputError
from shared_backbones.files import write_rows
from shared_backbones.terminal import Output, lasting_output, say
from shared_backbones.work_folders import work_folder
from tests.hostile.confined import confined
from tests.hostile.killed import working
from tests.hostile.sound_files import card, geotiff, nifti, picture
from tests.test_words import ROOT, SOURCES

HOSTILE = "a\x1b[2J\nb\u202ec\u2066d\x07\u00df"


def test_foreign_text_is_one_line_of_visible_characters(capsys: pytest.CaptureFixture[str]):
    say(HOSTILE)
    assert capsys.readouterr().out == "a\\x1b[2J\\nb\\u202ec\\u2066d\\x07\u00df\n"


def test_a_card_is_shown_without_its_escape_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = card(tmp_path)
    texts = {"name": HOSTILE, "limits": [HOSTILE], "classes": [{"id": 1, "name": HOSTILE}], "input": {HOSTILE: HOSTILE}}
    path.write_text(json.dumps(json.loads(path.read_text()) | texts))
    assert run(app, ["models", "show", str(path.parent)]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\u2066", "\x07"} & set(shown)
    assert shown.count("\\x1b[2J") == 5


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_text_can_be_shown_on_any_terminal(encoding: str):
    raw = io.BytesIO()
    stream = Output(io.TextIOWrapper(raw, encoding, newline=""))
    stream.write("Gro\u00dfhirn \u8111 \udc80\n")
    stream.flush()
    assert raw.getvalue().decode(encoding).startswith("Gro") and raw.getvalue().endswith(b"\\udc80\n")
    assert stream.failure is None


def _with_stdout(stream: io.TextIOWrapper | None, call: Callable[[], int]) -> Callable[[], int]:
    def replaced() -> int:
        sys.stdout = stream
        return call()

    return replaced


def _wordy(out: Path) -> int:
    with lasting_output() as outputs:
        for number in range(20_000):
            print(f"line {number} of many")
        sys.stdout.flush()
        out.write_text("done")
        return 2 if outputs[0].failure else 0


def test_work_ends_though_the_reader_of_its_output_left(tmp_path: Path):
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w")  # noqa: SIM115
    ended = confined(_with_stdout(stream, lambda: _wordy(tmp_path / "result")), tmp_path, program=True)
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "result").read_text() == "done"


def test_a_full_disk_behind_the_output_is_said_once(tmp_path: Path):
    with open("/dev/full", "w") as full:
        ended = confined(_with_stdout(full, lambda: run(app, ["models", "list"])), tmp_path, program=True)
        with contextlib.suppress(OSError):
            full.flush()
    assert ended.code == 2
    assert ended.err.startswith("error: standard output: cannot be written (No space left on device)")


def test_a_closed_output_is_no_error(tmp_path: Path):
    ended = confined(_with_stdout(None, lambda: run(app, ["models", "list"])), tmp_path, program=True)
    assert (ended.code, ended.err) == (0, "")


def _working(folder: Path) -> contextlib.AbstractContextManager[int]:
    """A process that works in a folder, and is never done."""

    def hold(ready: int) -> int:
        try:
            with stopping(), Outputs({SIDECAR: folder / "result.json"}).placing() as staged:
                staged[SIDECAR].write_text("half")
                os.write(ready, b"x")
                time.sleep(60)
        except KeyboardInterrupt:
            return 130
        except Terminated as end:
            return 128 + end.number
        return 0

    return working(hold)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path):
    with _working(tmp_path) as child:
        assert len(list(tmp_path.iterdir())) == 2
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + number
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_works_in_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with _working(tmp_path):
        pass
    with _working(tmp_path) as child:  # it sweeps, too
        living = sorted(tmp_path.iterdir())
        assert len(living) == 2
        (tmp_path / ".domain-vision-00000000").mkdir()  # of a version that had no locks
        with work_folder(tmp_path) as own:
            assert own.is_dir()
        os.kill(child, 0)
        assert sorted(tmp_path.iterdir()) == sorted([*living, tmp_path / ".domain-vision-00000000"])
    from shared_backbones import work_folders

    work_folders._swept.clear()
    with work_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".domain-vision-00000000"]
    assert "removed, as the process that worked in it was killed" in capsys.readouterr().err


def test_a_clock_that_was_set_back_removes_nothing(tmp_path: Path):
    with _working(tmp_path):
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        living = sorted(tmp_path.iterdir())
        with work_folder(tmp_path):
            pass
        assert sorted(tmp_path.iterdir()) == living


@pytest.mark.parametrize("program", ["medvision", "geovision", "astrovision"])
def test_an_interrupt_is_one_line_from_the_first_import_on(program: str):
    code = (
        "import importlib, time; from apps.cli import start\n"
        "importlib.import_module = lambda name: (print(name, flush=True), time.sleep(60))\n"
        f"start.{program}()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == f"apps.cli.{program}.program\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "error: interrupted; nothing was left half-written\n")


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


MEMORY: list[BaseException] = [
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("CUDA out of memory. Tried to allocate"),
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_want_of_memory_is_called_so(error: BaseException):
    assert is_out_of_memory(error)
    try:
        raise InputError("reinstall it") from error
    except InputError as told:
        assert is_out_of_memory(told)
    assert not is_out_of_memory(ValueError("no memory of it"))
    assert OUT_OF_MEMORY.startswith("out of memory")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1"])
def test_a_cell_that_is_a_formula_is_text(cell: str):
    table = io.StringIO(newline="")
    write_rows(table, [[cell, None, 1.5], ["plain", -1, True]])
    assert table.getvalue().lstrip('"').startswith(f"'{cell}")
    assert table.getvalue().endswith("plain,-1,True\n")


def test_tables_are_written_in_one_way():
    own = {"shared_backbones/files.py", "apps/cli/shared/review_command.py"}
    writers = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if "csv.writer(" in (text := path.read_text(encoding="utf-8")) or "DictWriter(" in text
    }
    assert writers <= own


def test_a_home_that_cannot_be_used_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pipelines.tracking.registry import resolve_model

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(InputError, match=r"models cannot be kept there .* XDG_CACHE_HOME"):
        resolve_model("models:/tiny@best")


@pytest.mark.parametrize(
    "name", ["/etc/model.json", "artifacts/../../model.json", "model.json", "artifacts//x\n/model.json"]
)
def test_a_tracking_server_names_files_of_its_own_alone(name: str):
    from pipelines.tracking.registry import _folder_of

    with pytest.raises(InputError, match="the store names a file"):
        _folder_of(name, "models:/tiny@best")
    assert _folder_of("1/models/m-2/artifacts/model/model.json", "models:/tiny@best") == "artifacts/model"


@pytest.mark.parametrize(
    ("program", "verb", "model"),
    [
        ("medvision", "classify", "hippocampus"),
        ("medvision", "segment", "chest-28"),
        ("geovision", "map", "satmae-mini"),
        ("geovision", "classify", "surface-types"),
        ("geovision", "enhance", "surface-types"),
    ],
)
def test_a_bundled_model_of_another_kind_is_called_by_its_name(
    program: str, verb: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = {"geovision": geotiff, "medvision": nifti if verb == "segment" else picture}[program](tmp_path)
    target = tmp_path / {"segment": "out", "classify": "t.csv"}.get(verb, "out.tif")
    options = ["-i", str(source), "-o", str(target), "--model", model]
    assert run(importlib.import_module(f"apps.cli.{program}.program").app, [verb, *options]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and str(ROOT) not in line and f"model {model}" in line, line
