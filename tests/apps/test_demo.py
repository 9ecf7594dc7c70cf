"""The demo: what is drawn is what its page says, and each domain's program makes its results of it."""

import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from apps import demo
from astrovision.datasets.phantoms import PHANTOMS
from astrovision.stretches import Stretch
from astrovision.tables import read_table


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / demo.OUTPUT


def test_the_drawn_sky_has_a_galaxy_at_each_place_of_its_catalogue(tmp_path: Path):
    demo.draw_sky(tmp_path / "sky.fits", tmp_path / "c.csv")
    rows = list(csv.DictReader((tmp_path / "c.csv").read_text().splitlines()))
    assert len(rows) == demo.GALAXIES**2 and {row["drawn"] for row in rows} == set(PHANTOMS)
    header, sky = fits.getheader(tmp_path / "sky.fits"), fits.getdata(tmp_path / "sky.fits")
    wcs = WCS(header).celestial
    assert header["BUNIT"] == "nanomaggy" and np.linalg.det(wcs.pixel_scale_matrix) < 0, "east is left of north"
    colours = Stretch("sdss", {}).apply(np.asarray(sky))
    for row in rows:
        x, y = (round(float(v)) for v in wcs.all_world2pix([[float(row["ra"]), float(row["dec"])]], 0)[0])
        inner, outer = (colours[:, y - r : y + r, x - r : x + r] for r in (8, 60))
        assert inner.mean() > 2 * outer.mean(), row


def test_earth_and_sky_make_their_results_and_one_page(output: Path, capfd: pytest.CaptureFixture):
    assert demo.main(["earth", "sky"]) == 0
    page = (output / "index.html").read_text()
    for name in ("scene_map.tif", "galaxies.vot", "sky.fits"):
        assert (output / name).is_file() and f'href="{name}"' in page
    table = read_table(output / "galaxies.vot")
    assert len(table) == demo.GALAXIES**2
    right = [str(row["class"]) == str(row["drawn"]) for row in table]
    assert sum(right) >= 0.7 * len(right), "drawn galaxies are easier than real ones"
    assert demo.main(["earth", "sky"]) == 0, "a second demo replaces the first"


def test_an_unknown_part_is_named(output: Path, capsys: pytest.CaptureFixture):
    assert demo.main(["moon"]) == 2
    assert capsys.readouterr().err == "demo moon: is unknown; expected one of: medical, earth, sky\n"
    assert not output.exists()
