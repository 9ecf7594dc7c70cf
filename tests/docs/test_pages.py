"""The documentation: pages that follow from the code are fresh, links lead somewhere, and commands exist."""

import html
import importlib
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from apps.manual import PROGRAMS, pages
from pipelines.recipe.loading import bundled_recipes

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^(?: *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """Commands of our programs in a page's shell blocks, as words; continued lines are one."""
    for language, text in _BLOCK.findall(page.read_text()):
        if language not in {"sh", ""}:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"[|;&]+ ", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:
                    continue
                if words and words[0].rpartition("/")[2] in PROGRAMS:
                    yield [words[0].rpartition("/")[2], *words[1:]]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_that_follows_from_the_code_is_fresh(page: Path):
    assert page.read_text() == pages()[page], "stale; run: python -m apps.manual"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_a_title_and_is_no_book(page: Path):
    lines = page.read_text().splitlines()
    assert len(lines) <= (150 if page.name == "README.md" else 400)
    assert any(line.startswith(("# ", "--8<--")) for line in lines[:4])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path):
    for words in commands(page):
        command: Any = typer.main.get_command(importlib.import_module(f"apps.cli.{words[0]}.program").app)
        rest = words[1:]
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{page.name}: {' '.join(words)}: no such command"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for part in command.params for option in (*part.opts, *part.secondary_opts)} | {"--help"}
        for word in rest:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{page.name}: {' '.join(words)}: no option {word}"


_PYTHON = re.compile(r"(<!-- not run: .+ -->\n)?( *)```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_python_runs_or_says_why_not(page: Path):
    if page.parent.name == "notebooks":
        return  # they run as a whole in a test of their own
    for reason, indent, text in _PYTHON.findall(page.read_text()):
        if not reason and not text.startswith("--8<--"):  # an example, which has a test of its own
            exec(compile(textwrap.dedent(indent + text), page.name, "exec"), {})  # noqa: S102


def test_every_recipe_that_a_page_runs_is_bundled():
    for page in PAGES:
        for words in commands(page):
            if words[1:2] == ["run"] and len(words) > 2 and re.fullmatch(r"[a-z][a-z0-9_]+", words[2]):
                assert words[2] in bundled_recipes(), f"{page.name}: {' '.join(words)}"


def test_links_of_the_readme_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_pages_build_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert "domain-vision" in home and not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', home)
    assert "Segmenter" in (tmp_path / "site" / "reference" / "python.html").read_text()
    guides = [html.unescape(page.read_text()) for page in (tmp_path / "site" / "how-to").glob("*.html")]
    for example in (ROOT / "docs" / "examples").glob("*.py"):
        first = example.read_text().splitlines()[0].strip('"')
        assert any(first in guide for guide in guides), f"no page shows {example.name}"
