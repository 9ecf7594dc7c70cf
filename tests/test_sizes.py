"""How long files and functions are, and how often a type says nothing: limits that are lowered, never raised."""

import ast
import re

from tests.test_words import ROOT, SOURCES

LINES = 400
"""Lines of a file; a longer one says why in its first lines: `Longer than 400 lines: ...`."""
TOO_LONG: set[str] = set()
"""Longer files that are not divided yet; a listed one that is short enough fails the test."""
FUNCTION = 35
"""Lines of a function, from `def` to its last line, that 95 % of all functions have at most."""
ANY = 230
"""How often the word `Any` stands in the six packages, at most."""


def test_long_files_say_why():
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    longer = {name: text for name, text in texts.items() if text.count("\n") > LINES}
    silent = {name for name, text in longer.items() if f"Longer than {LINES} lines: " not in text[:500]}
    assert silent == TOO_LONG


def test_functions_are_short():
    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert len(lengths) > 1000
    assert lengths[int(0.95 * len(lengths))] <= FUNCTION


def test_types_say_something():
    times = sum(len(re.findall(r"\bAny\b", path.read_text(encoding="utf-8"))) for path in SOURCES)
    assert times <= ANY, f"{times} times: name the type instead"
