"""A model of SDSS's pictures takes FITS images, too, and answers as it does for the pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.stretches import Stretch
from astrovision.tables import read_table
from tests.apps.astrovision.test_sky import sky_wcs
from tests.astrovision import small_models

SIDE = 80


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("sdss") / "m", small_models.SDSS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder of pictures, and their pixels `(N, 3, H, W)`."""
    folder, images = tmp_path_factory.mktemp("pictures"), small_models.galaxies(4, SIDE)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.png")
    return folder, images


def write_fits(folder: Path, images: np.ndarray, parity: int = -1, unit: str = "nanomaggy", factor: float = 1) -> Path:
    """The pictures' fluxes: of i, r and g, from the south up, or mirrored."""
    folder.mkdir()
    wcs = sky_wcs(parity)
    for number, image in enumerate(images):
        fluxes = Stretch("sdss", {}).invert(image.astype("f4") / 255)[:, ::-1] * factor
        fluxes = fluxes if parity == -1 else fluxes[:, :, ::-1]
        header = wcs.to_header()
        header.update({"BANDS": "irg", **({"BUNIT": unit} if unit else {})})
        fits.PrimaryHDU(fluxes.astype("f4"), header).writeto(folder / f"{number}.fits")
    return folder


def classify(*arguments: object) -> int:
    return run(app, ["classify", *map(str, arguments), "--device", "cpu"])


def probabilities(path: Path) -> np.ndarray:
    table = read_table(path)
    return np.stack([np.asarray(table[f"p_{name}"]) for name in small_models.NAMES], 1)


@pytest.mark.parametrize(("parity", "unit", "factor"), [(-1, "nanomaggy", 1), (1, "nanomaggy", 1), (-1, "uJy", 3.631)])
def test_fluxes_are_classified_as_their_pictures(
    model: Path, pictures: tuple[Path, np.ndarray], tmp_path: Path, parity: int, unit: str, factor: float
):
    folder, images = pictures
    sky = write_fits(tmp_path / "sky", images, parity, unit, factor)
    for name, source in (("a", folder), ("b", sky)):
        assert classify("-i", source, "-o", tmp_path / f"{name}.ecsv", "--model", model) == 0
    np.testing.assert_allclose(probabilities(tmp_path / "a.ecsv"), probabilities(tmp_path / "b.ecsv"), atol=2e-3)


def test_sources_of_a_mosaic_are_classified_with_a_colour_model(model: Path, tmp_path: Path, capsys):
    images = small_models.galaxies(1, 300, seed=3)
    sky = write_fits(tmp_path / "sky", images, unit="") / "0.fits"
    ra, dec = sky_wcs().all_pix2world([150, 120], [150, 160], 0)
    Table({"id": [7, 8], "ra": ra, "dec": dec}).write(tmp_path / "c.csv")
    assert classify("-i", sky, "--catalogue", tmp_path / "c.csv", "-o", tmp_path / "o.csv", "--model", model) == 0
    assert "taken to be the model's, nmgy" in capsys.readouterr().err
    assert list(read_table(tmp_path / "o.csv")["id"]) == [7, 8]


def refused(capsys, *arguments: Any) -> str:
    capsys.readouterr()
    assert classify(*arguments) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_what_does_not_go_with_sdss_colours_is_refused(model: Path, tmp_path: Path, capsys):
    (image,) = small_models.galaxies(1, SIDE)
    arguments = ["--model", model, "-o", tmp_path / "o.csv"]
    handless = tmp_path / "handless.fits"
    fits.PrimaryHDU(image.astype("f4"), fits.Header({"BANDS": "irg"})).writeto(handless)
    assert "--parity" in refused(capsys, "-i", handless, *arguments)
    other = tmp_path / "other.fits"
    fits.PrimaryHDU(image.astype("f4"), fits.Header({**sky_wcs().to_header(), "BANDS": "grz"})).writeto(other)
    assert "the model takes i, r, g" in refused(capsys, "-i", other, *arguments)
    counts = tmp_path / "counts.fits"
    header = fits.Header({**sky_wcs().to_header(), "BANDS": "irg", "BUNIT": "adu"})
    fits.PrimaryHDU(image.astype("f4"), header).writeto(counts)
    assert "BUNIT adu" in refused(capsys, "-i", counts, *arguments)
    large = tmp_path / "large.fits"
    fits.PrimaryHDU(np.zeros((3, 600, 600), "f4"), fits.Header({**sky_wcs().to_header(), "BANDS": "irg"})).writeto(
        large
    )
    assert "--catalogue" in refused(capsys, "-i", large, *arguments)
