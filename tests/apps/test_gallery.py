"""The gallery of the documentation: its links are checked, its pictures small, and every report has both."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from apps import gallery
from apps.corruptions import FAMILIES, Family

ROOT = Path(__file__).parents[2]


def test_links_that_lead_nowhere_are_named_with_their_page(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "index.html").write_text('<a href="b/page.html#part">in</a> <img src="../absent.png">')
    (tmp_path / "a" / "b" / "page.html").write_text('<a href="../">up</a> <a href="https://example.org/x">out</a>')
    (tmp_path / "index.html").write_text('<a href="a/b/">no index</a> <a href="#here">here</a> <img src="data:,x">')
    assert gallery.dead_links(tmp_path) == ["a/index.html: ../absent.png", "index.html: a/b/"]


def test_a_picture_that_shows_the_same_is_kept(tmp_path: Path):
    path, picture = tmp_path / "p.webp", Image.new("RGB", (1366, 900), "white")
    ImageDraw.Draw(picture).rectangle((100, 100, 800, 800), "black")
    assert gallery._save(picture, path)
    before = path.read_bytes()
    ImageDraw.Draw(picture).text((900, 10), "2026-11-30", "grey")
    assert not gallery._save(picture, path) and path.read_bytes() == before
    ImageDraw.Draw(picture).rectangle((100, 100, 800, 800), "red")
    assert gallery._save(picture, path) and path.read_bytes() != before


def test_the_folder_of_a_batch_goes_with_its_page(tmp_path: Path):
    (tmp_path / "out" / "reports").mkdir(parents=True)
    for name in ("index.html", "reports/case.html", "volumes.csv"):
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "site").mkdir()
    page = gallery.Report("batch", tmp_path / "out" / "index.html", folder=True).put(tmp_path / "site")
    assert page == tmp_path / "site" / "batch" / "index.html"
    assert {path.name for path in page.parent.rglob("*.*")} == {"index.html", "case.html"}


def test_the_pictures_of_the_page_are_there_and_small():
    shown = re.findall(r"\((reports/[\w-]+\.webp)\)", (ROOT / "docs" / "reports.md").read_text())
    linked = re.findall(r'href="reports/([\w-]+)[./]', (ROOT / "docs" / "reports.md").read_text())
    assert [Path(name).stem for name in shown] == linked and len(set(linked)) == 8
    others = {"reports/three-reports.webp", "reports/viewer.webp"}
    assert {*shown, *others, *(f"reports/{family.name}.webp" for family in FAMILIES)} == {
        path.relative_to(ROOT / "docs").as_posix() for path in gallery.PICTURES.iterdir()
    }
    assert sum(path.stat().st_size for path in gallery.PICTURES.iterdir()) < 1_500_000


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_sheet_of_corruptions_shows_each_worse_than_the_clean_image(family: Family):
    rows = dict(family.pictures())
    assert list(rows) == list(family.scales) and {len(row) for row in rows.values()} == {6}
    for name, (clean, *corrupted) in rows.items():
        lost = [np.abs(picture.astype(int) - clean).mean() for picture in corrupted]
        assert lost[0] < lost[-1], name


def test_without_a_browser_the_committed_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gallery.photograph([], tmp_path) == "no Chromium on this machine; the committed pictures are kept"
