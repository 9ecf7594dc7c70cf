"""The words of the six packages: identifiers are the field's own terms, and docstrings are plain sentences.

`NOT_YET_CLEAN` lists the files in which this does not hold yet. It only ever gets shorter: a listed file that is clean
fails the test, too.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("apps", "astrovision", "geovision", "medvision", "pipelines", "shared_backbones")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BANNED = {
    "found": "prediction, match, or what it is",
    "shares": "probabilities, recalls, fractions",
    "share": "fraction",
    "learnt": "train_set",
    "held": "val_set",
    "held_out": "val_set",
    "guess": "reconstruction, prediction",
    "gone": "mask",
    "edge": "border, or spacing_mm",
    "edges": "borders, or spacing_mm",
    "told": "noted, stated",
    "usual": "default, reference",
    "heated": "with its temperature",
}
BEGINNINGS = ("Of ", "Likewise", "See ")
ENTRY = re.compile(r"^ {4,}\**\w+(?: \([^)]*\))?: (.*)")
NOT_YET_CLEAN = set(Path(__file__).with_name("words_not_yet_clean.txt").read_text(encoding="utf-8").split())


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of variables, arguments, functions, classes and attributes that a module gives."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def descriptions(tree: ast.AST) -> Iterator[str]:
    """Docstrings, and in them what is said of each argument, attribute and error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node) or ""
            yield docstring
            for line in docstring.splitlines():
                if entry := ENTRY.match(line):
                    yield entry[1]


def faults(source: str) -> list[str]:
    """What of a module's words is not as it should be, a line each."""
    tree = ast.parse(source)
    names = [
        f"line {line}: {name} (instead: {BANNED[name.strip('_')]})"
        for line, name in identifiers(tree)
        if name.strip("_") in BANNED
    ]
    beginnings = tuple(form for word in BEGINNINGS for form in (word, word.lower()))
    return names + [f"docstring: {text[:60]}" for text in descriptions(tree) if text.startswith(beginnings)]


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "for _edge in []: pass",
        "def f(held): pass",
        "def told(): pass",
        "class A:\n    def __init__(self): self.usual = 1",
        "async def f(*, guess=1): pass",
        "with open('a') as gone: pass",
        'def f(a):\n    """Do.\n\n    Args:\n        a: of the image.\n    """',
        'def f(a):\n    """Do.\n\n    Args:\n        a (int): Likewise, for b.\n    """',
        '"""See the paper."""',
    ],
)
def test_the_rule_sees_what_it_forbids(source: str):
    assert len(faults(source)) == 1


def test_the_rule_lets_good_words_pass():
    source = (
        'def f(prediction, mask):\n    """Do. Of all things.\n\n    Args:\n        mask: Offset of it.\n    """\n'
        "    print(found.edges, shares())"
    )
    assert faults(source) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_the_fields_own(path: Path):
    name = path.relative_to(ROOT).as_posix()
    wrong = faults(path.read_text(encoding="utf-8"))
    if name in NOT_YET_CLEAN:
        assert wrong, f"{name} is clean: take it from {Path(__file__).stem}'s list"
    else:
        assert wrong == []


def test_every_file_that_is_not_yet_clean_exists():
    assert {path.relative_to(ROOT).as_posix() for path in SOURCES} >= NOT_YET_CLEAN
