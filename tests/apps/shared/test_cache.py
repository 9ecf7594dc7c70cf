"""`cache list` and `cache clear`."""

import json
import os
from pathlib import Path

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = tmp_path / "domain-vision"
    for number, name in enumerate(("0123456789abcdef", "engines/fedcba9876543210")):
        (home / name / "part").mkdir(parents=True)
        (home / name / "part" / "file").write_bytes(bytes(1000))
        os.utime(home / name, (number, number))
    return home


def test_it_says_what_is_kept_and_what_was_used_last_first(folder: Path, capsys):
    assert run(app, ["cache", "list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["folder"] == str(folder)
    assert [(entry["kind"], entry["name"], entry["bytes"]) for entry in known["entries"]] == [
        ("engine", "fedcba9876543210", 1000),
        ("model", "0123456789abcdef", 1000),
    ]
    assert run(app, ["cache", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "1970-01-01" in lines[1]


def test_it_is_emptied_and_nothing_else_is_touched(folder: Path, capsys):
    (folder.parent / "other").mkdir()
    (folder / ".domain-vision-12345678").mkdir()  # a process may be working in it
    (folder / "elsewhere").symlink_to(folder.parent / "other")
    assert run(app, ["cache", "clear"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [".domain-vision-12345678", "elsewhere", "engines"]
    assert (folder.parent / "other").is_dir() and "0.0 MB" in capsys.readouterr().out
    assert run(app, ["cache", "list"]) == 0


def test_there_may_be_no_cache_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert run(app, ["cache", "clear"]) == 0 and run(app, ["cache", "list"]) == 0
    assert not (tmp_path / "none").exists()
