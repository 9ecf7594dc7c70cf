"""What the how-to pages quote under "What goes wrong" is what the programs and pages say."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
SOURCES = ("apps", "astrovision", "geovision", "medvision", "pipelines", "shared_backbones")
THEIRS = {
    "Invalid job array specification",  # SLURM's
    "Invalid Host header",  # MLflow's
    "No module named 'psycopg'",  # Python's
    "'psycopg2'",
}
"""Lines of other programs."""
_QUOTE = re.compile(r"`([^`]+)`")


@cache
def said() -> str:
    """All texts of our sources; where a value is put into one, a line ends."""
    texts = []
    for source in (path for package in SOURCES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "\n" for part in node.values]
                texts.append("".join(parts))
    for package in ("apps", "pipelines"):
        texts += [path.read_text() for path in (ROOT / package).rglob("*.js") if "node_modules" not in path.parts]
        texts += [path.read_text() for path in (ROOT / package).rglob("*.j2")]
    return "\n".join(texts)


def quotes(page: Path) -> Iterator[str]:
    """What the first column of the page's table of troubles quotes, but for single words, options and HTML."""
    part = page.read_text().partition("## What goes wrong")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (.+?) \|", part, re.MULTILINE):
        for quote in _QUOTE.findall(row):
            if " " in quote and not quote.startswith(("--only", "medvision ", "&lt;")):
                yield quote


def spoken_for(quote: str) -> float:
    """The longest piece of a quote that stands in our sources, as a fraction of its letters beside values."""
    words = quote.split(" ")
    pieces = (" ".join(words[i:j]) for i in range(len(words)) for j in range(len(words), i, -1))
    return max(len(piece) if piece in said() else 0 for piece in pieces) / len(quote)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_goes_wrong_and_the_way_out(page: Path):
    rows = re.findall(r"^\| .+ \|$", page.read_text().partition("## What goes wrong")[2], re.MULTILINE)
    assert len(rows) >= 4, "a heading, a line and two troubles at least"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_quotes_is_what_is_said(page: Path):
    unknown = [quote for quote in quotes(page) if quote not in THEIRS and spoken_for(quote) < 0.3]
    assert unknown == []


def test_a_line_that_nobody_says_would_be_noticed():
    assert spoken_for("purple walruses seldom have tusks") < 0.3
    assert spoken_for("its gzip stream is damaged or cut short") == 1
