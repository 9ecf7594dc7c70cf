"""The notebooks of the documentation run, what they compare is so, and their pages are those of their sources."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from apps.notebooks import SOURCES

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(SOURCES.glob("*.py"))


def test_every_domain_has_a_notebook():
    assert [path.stem for path in NOTEBOOKS] == ["brain_scans", "galaxies", "satellite_scenes"]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda source: source.stem)
def test_a_page_has_the_cells_of_its_notebook(source: Path):
    page = source.with_suffix(".md").read_text()
    for cell in jupytext.read(source).cells:
        assert cell.source in page, f"stale; run: python -m apps.notebooks {SOURCES.relative_to(ROOT)} {source.stem}"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda source: source.stem)
def test_a_notebook_runs_and_comes_to_what_is_known(source: Path, tmp_path: Path):
    command = [sys.executable, "-m", "apps.notebooks", str(tmp_path), source.stem]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / f"{source.stem}.md").read_text()
    assert page.count("```text") >= 2 and (tmp_path / f"{source.stem}-1.webp").stat().st_size > 2000
