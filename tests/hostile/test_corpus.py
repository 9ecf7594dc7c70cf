"""Hostile files of every format, read with limits: one line or a result, in bounded memory, nothing else touched."""

import ast
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from shared_backbones.errors import InputError
from shared_backbones.memory import set_budget
from tests.conftest import ROOT
from tests.hostile.bombs import BOMBS, ODD_CARDS, image_with
from tests.hostile.confined import GIB, Ended, confined
from tests.hostile.damages import DAMAGES
from tests.hostile.formats import FORMATS
from tests.hostile.vector_bombs import VECTOR_BOMBS
from tests.test_words import SOURCES

BUDGET = 0.25
"""GiB that an input may take in each case."""
BOMBS.update(VECTOR_BOMBS)
CASES = [(name, damage) for name in FORMATS for damage in DAMAGES]
# A name is of no matter where the folder alone is named, and the rest of a series is read without one.
SKIPPED = {
    ("card", "an odd name"),
    ("safetensors", "an odd name"),
    ("verdict", "an odd name"),
    ("dicom", "an odd name"),
    ("index", "an odd name"),
    ("outliers", "an odd name"),
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


@pytest.mark.parametrize("name", ODD_CARDS)
def test_odd_cards_of_an_image_are_passed_over(name: str, tmp_path: Path):
    ended = confined(functools.partial(FORMATS["fits"][1][0], image_with(tmp_path, ODD_CARDS[name])), tmp_path / "out")
    check(ended)
    assert ended.code == 0, ended.err


PARSERS = {
    "BZ2File", "DictReader", "File", "GzipFile", "Image.open", "LZMAFile", "ParquetFile", "ParseFile", "ZipFile",
    "csv.reader", "dcmread", "decompressobj", "fits.open", "frombuffer", "fromstring", "json.loads", "load_file",
    "memmap", "nib.load", "np.load", "pyogrio.read", "rasterio.open", "read_array", "read_dataset", "safe_load",
    "safe_open", "shapely.shape", "sqlite3.connect",
    "tarfile.open", "torch.load", "votable.parse",
}  # fmt: skip
"""Calls by which libraries make values of a file's bytes."""
# Those that look at what this very process made or was given, and at notes in the folder of a run.
ELSEWHERE = {
    "InstanceMapper.map", "_Carry.take", "_check_whole", "_columns", "_draw", "_is_same", "_opened", "_parse", "_read",
    "_read_lines", "_save", "_train", "_values", "_write", "cloud_optimised", "draw_scene", "evaluate_ensemble",
    "jpeg_compression", "photograph", "read_lines", "read_note", "read_outcomes", "read_stop", "serve",
    "sweep_run_id", "write_bands",
}  # fmt: skip


def parsing(path: Path) -> Iterator[str]:
    """Functions of a module that call one of `PARSERS`."""

    def walk(node: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from walk(child, (*names, child.name))
                continue
            called = ast.unparse(child.func).split(".") if isinstance(child, ast.Call) else []
            if {".".join(called[-2:]), *called[-1:]} & PARSERS:
                yield ".".join(names)
            yield from walk(child, names)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), ())


def test_every_reader_has_its_row(tmp_path: Path):
    """Whatever parses bytes is reached by the sound files of the corpus."""
    reached: set[tuple[str, str]] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            name = frame.f_code.co_qualname.replace(".<locals>", "").removesuffix(".<lambda>")
            reached.add((frame.f_code.co_filename, name))

    for number, (make, readers) in enumerate(FORMATS.values()):
        (tmp_path / str(number)).mkdir()
        path = make(tmp_path / str(number))
        sys.setprofile(look)
        try:
            for reader in readers:
                with contextlib.suppress(InputError):  # of one that takes only part of a format
                    reader(path)
        finally:
            sys.setprofile(None)
    there = {(str(path), name) for path in SOURCES for name in parsing(path)}
    assert len(there) > 40, "the names of the parsers changed"
    missing = {f"{Path(path).relative_to(ROOT)}: {name}" for path, name in there - reached if name not in ELSEWHERE}
    assert not missing, "give them a row in tests/hostile/formats.py"
    assert {name for _, name in there} >= ELSEWHERE, "no such functions any more"
