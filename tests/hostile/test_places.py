"""Paths and folders that cannot be: every program says so in a line."""

import importlib
import os
from pathlib import Path

import pytest

from apps.cli.shared.program import run
from tests.hostile.confined import confined
from tests.hostile.test_read_only import one_line, without_powers

VERBS = [
    ("medvision", "segment", "-i"), ("medvision", "classify", "-i"), ("medvision", "series", ""),
    ("medvision", "plan", ""), ("medvision", "robustness", "-i"), ("medvision", "import", ""),
    ("medvision", "export", ""), ("medvision", "merge", ""), ("medvision", "models show", ""),
    ("geovision", "info", ""), ("geovision", "map", "-i"), ("geovision", "classify", "-i"),
    ("geovision", "embed", "-i"), ("geovision", "enhance", "-i"), ("astrovision", "classify", "-i"),
    ("medvision", "review collect", ""),
]  # fmt: skip
"""Programs, verbs, and the option of what they read."""
PLACES = {"a long name": "a" * 300, "a long path": "a/" * 5000, "itself": "loop/scan.nii.gz", "closed": "closed/a.png"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("program", "verb", "option"), VERBS)
def test_a_path_that_cannot_be_is_one_line(program: str, verb: str, option: str, place: str, tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "closed").mkdir(mode=0)
    words = [*verb.split(), *([option] if option else []), str(tmp_path / PLACES[place]), "-o", str(tmp_path / "t.csv")]
    if (program == "geovision" and verb == "info") or verb in ("models show", "merge", "series"):
        words = words[:-2]
    app = importlib.import_module(f"apps.cli.{program}.program").app

    def call() -> int:
        without_powers()
        return run(app, words)

    assert len(one_line(confined(call, tmp_path, program=True))) < 1500
    (tmp_path / "closed").chmod(0o700)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "loop"]


@pytest.mark.parametrize("program", ["medvision", "geovision", "astrovision"])
def test_a_current_folder_that_was_deleted_is_one_line(program: str, tmp_path: Path):
    app = importlib.import_module(f"apps.cli.{program}.program").app

    def call() -> int:
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        return run(app, ["doctor"])

    assert "current folder" in one_line(confined(call, tmp_path, program=True))
