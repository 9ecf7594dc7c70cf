"""Hostile files of every format, read with limits: one line or a result, in bounded memory, nothing else touched."""

import ast
import functools
import re
from pathlib import Path

import pytest

from shared_backbones.memory import set_budget
from tests.conftest import ROOT
from tests.hostile.bombs import BOMBS
from tests.hostile.confined import GIB, Ended, confined
from tests.hostile.damages import DAMAGES
from tests.hostile.formats import FORMATS
from tests.test_words import SOURCES

BUDGET = 0.25
"""GiB that an input may take in each case."""
CASES = [(name, damage) for name in FORMATS for damage in DAMAGES]
# A name is of no matter where the folder alone is named, and the rest of a series is read without one.
SKIPPED = {
    ("card", "an odd name"),
    ("safetensors", "an odd name"),
    ("verdict", "an odd name"),
    ("dicom", "an odd name"),
    ("index", "an odd name"),
}


@pytest.fixture(autouse=True)
def budget():
    set_budget(BUDGET)
    yield
    set_budget(None)


def check(ended: Ended) -> None:
    """One line or none, an exit code of 0 or 2, and memory within the budget and a GiB."""
    assert ended.code in (0, 2), ended.err
    assert len(ended.err.splitlines()) <= 3, ended.err
    assert "Traceback" not in ended.err and "\x1b" not in ended.err + ended.out and "\u202e" not in ended.err
    assert ended.code == 0 or (ended.err.startswith("error: ") and len(ended.err) < 1500), ended.err
    assert ended.peak <= BUDGET * GIB + GIB


def test_the_corpus_is_large():
    assert len(CASES) + len(BOMBS) >= 150


@pytest.mark.parametrize("name", FORMATS)
def test_sound_files_are_read(name: str, tmp_path: Path):
    make, readers = FORMATS[name]
    path = make(tmp_path)
    for reader in readers:
        if not (name == "dicom" and reader is readers[1]):
            ended = confined(functools.partial(reader, path), tmp_path / "out")
            assert ended.code == 0, ended.err


@pytest.mark.parametrize(("name", "damage"), [case for case in CASES if case not in SKIPPED])
def test_damaged_files_end_in_a_line(name: str, damage: str, tmp_path: Path):
    make, readers = FORMATS[name]
    path = DAMAGES[damage](make(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    for reader in readers:
        check(confined(functools.partial(reader, path), tmp_path / "out"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_a_line(name: str, tmp_path: Path):
    make, reader = BOMBS[name]
    path = make(tmp_path)
    ended = confined(functools.partial(reader, path), tmp_path / "out")
    check(ended)
    assert ended.code == 2, "it was read"


# Functions that look like readers of a user's files and are none, or are called by those of the corpus alone.
NOT_READERS = {
    "read_layout", "read_intensities", "read_label_map", "read_bounded", "read_card", "read_shapes", "open_planes",
    "open_fits", "open_hdf5", "read_text", "read_values", "read_voxels", "read_header", "read_whole", "read_instance",
    "read_yaml", "read_typed", "open_for_model", "open_store", "open_image", "read_channels", "read_reference",
    "read_segmentation", "read_catalogue", "read_corrupted", "read_targets", "read_cases", "read_measurement",
    "read_lines", "read_stop", "read_summary", "read_note", "read_record", "read_run",
    "open_fits_source", "load_foreign", "load_official", "read_outcomes", "open_source", "read_images",
    "read_frames", "read_in_batches", "read_case", "read_config",
}  # fmt: skip


def test_every_reader_has_its_row():
    text = (ROOT / "tests/hostile/formats.py").read_text() + (ROOT / "tests/hostile/bombs.py").read_text()
    rows = set(re.findall(r"\b(?:read|open|load)_\w+", text))
    readers = {
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and re.match(r"(read|open|load)_", node.name)
    }
    assert readers - rows - NOT_READERS == set(), "give them a row in tests/hostile/formats.py"
    assert readers >= NOT_READERS, "no such functions any more"
