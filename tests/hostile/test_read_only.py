"""Places that cannot be written: a folder, the cache, a tracking store, a full disk; each is one line."""

import ctypes
import functools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from apps.cli.shared.program import run
from pipelines.tracking import registry
from tests.hostile.confined import Ended, confined
from tests.hostile.killed import killed
from tests.hostile.sound_files import card
from tests.hostile.test_kills import PROGRAMS
from tests.pipelines.conftest import migrated, store  # noqa: F401 - fixtures
from tests.pipelines.tracking.test_runs import start


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def without_powers() -> None:
    """Let permissions of files hold for root, too: this process gives up its capabilities."""
    header, none = _Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(header), none) == 0, os.strerror(ctypes.get_errno())


def _fill_disk() -> None:
    """Let no file grow: what is written fails, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def read_only() -> Iterator[Callable[[Path, int], None]]:
    """Takes away the right to write; it comes back after the test."""
    changed: list[tuple[Path, int]] = []

    def change(path: Path, mode: int) -> None:
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield change
    for path, mode in changed:
        path.chmod(mode)


def one_line(ended: Ended) -> str:
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if not line.startswith(("warning: ", "note: "))]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in ended.err, ended.err
    return lines[0]


@pytest.mark.parametrize("trouble", ["a folder without the right to write", "a full disk"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_output_that_cannot_be_written_is_one_line(
    name: str, trouble: str, tmp_path: Path, read_only: Callable[[Path, int], None]
):
    app, prepare = PROGRAMS[name]
    out = tmp_path / "out"
    out.mkdir()
    words = [str(word).replace("OUT", str(out)) for word in prepare(tmp_path)]
    is_full = trouble == "a full disk"
    if not is_full:
        read_only(out, 0o555)

    def call() -> int:
        (_fill_disk if is_full else without_powers)()
        return run(app, words)

    line = one_line(confined(call, tmp_path, program=True, seconds=120))
    assert str(out) in line or "No space left" in line or "File too large" in line, line
    assert not list(out.iterdir())


def test_a_cache_that_cannot_be_written_names_the_variable(
    store: str,  # noqa: F811
    tmp_path: Path,
    read_only: Callable[[Path, int], None],
):
    cache = tmp_path / "cache"
    cache.mkdir()
    read_only(cache, 0o555)

    def fetch() -> None:
        without_powers()
        registry.resolve_model("models:/tiny@best", cache)

    assert "XDG_CACHE_HOME" in one_line(confined(fetch, tmp_path))


@pytest.mark.parametrize("what", ["its folder", "its file", "its artifacts"])
def test_a_tracking_store_that_cannot_be_written_is_one_line(
    what: str,
    store: str,  # noqa: F811
    tmp_path: Path,
    read_only: Callable[[Path, int], None],
):
    database = Path(store.removeprefix("sqlite:///"))
    model, example = card(tmp_path).parent, np.zeros((2, 3, 32, 32), np.float32)

    def register(name: str) -> int:
        with start(store, tmp_path / "spool") as run_of_test:
            registry.register(run_of_test, model, name, "newest", example)
        return 0

    assert killed(lambda: register("tiny")).code == 0  # in a process of its own: this one has nothing open
    if what == "its file":
        read_only(database, 0o444)
    else:
        for path in sorted(database.parent.rglob("*") if what == "its artifacts" else [], reverse=True):
            if path.is_dir():
                read_only(path, 0o555)
        if what == "its folder":
            read_only(database.parent, 0o555)

    def register_without_powers() -> None:
        without_powers()
        register("other")

    assert "tracking store" in one_line(confined(register_without_powers, tmp_path))


def test_powers_are_given_up(tmp_path: Path, read_only: Callable[[Path, int], None]):
    read_only(tmp_path, 0o555)

    def write() -> None:
        without_powers()
        with pytest.raises(PermissionError):
            (tmp_path / "file").touch()

    assert confined(functools.partial(write), tmp_path).code == 0
