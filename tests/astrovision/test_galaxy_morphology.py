"""The bundled model of galaxies: its licence, its size, and real images that it never saw."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.classification import GalaxyClassifier
from astrovision.stretches import Stretch
from astrovision.tables import read_table
from shared_backbones.catalogue import Catalogue

NAME = "galaxy-morphology"
FOLDER = Catalogue("astrovision").find_model(NAME)


def drawn_outliers() -> np.ndarray:
    """Blank images, empty sky, fields of few faint, few bright and many stars, and noise, `(60, 3, 256, 256)` uint8."""
    random = np.random.default_rng(0)
    blank = np.full((10, 3, 256, 256), 8.0)
    parts, (y, x) = [blank, blank + random.normal(0, 1.5, blank.shape)], np.mgrid[:256, :256]
    for count, brightness in ((15, 40), (10, 300), (160, 400)):
        stars = blank + random.normal(0, 1.5, blank.shape)
        for image in stars:
            for left, top, light in zip(
                *random.uniform(0, 256, (2, count)), random.exponential(brightness, count), strict=True
            ):
                image += light * np.exp(-((x - left) ** 2 + (y - top) ** 2) / 2)
        parts.append(stars)
    noise = random.integers(0, 256, blank.shape).astype(float)
    return np.concatenate([*parts, noise]).clip(0, 255).astype(np.uint8)


def test_its_card_says_what_it_is_and_it_fits_the_wheel():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 14e6
    card = Catalogue("astrovision").model_card(NAME)
    assert card["license"] == "CC-BY-4.0" and "CC BY 4.0" in (FOLDER / "LICENSE").read_text()
    credits = " ".join(card["training"]["sources"])
    assert "Sloan Digital Sky Survey" in credits and "Galaxy Zoo" in credits
    contract = GalaxyClassifier(FOLDER, device="cpu").contract
    assert contract.flux_bands == ("i", "r", "g") and contract.parity == 1 and contract.flux_scale.unit == "nmgy"


def test_real_galaxies_and_their_fluxes_have_the_classes_that_people_gave_them(data_root: Path):
    root = data_root / "astro" / "galaxyzoo1_256"
    rows = list(csv.DictReader((root / "labels.csv").read_text().splitlines()))
    unseen = [row for row in rows if int(hashlib.md5(row["objid"].encode()).hexdigest(), 16) % 5 == 1][:120]  # noqa: S324
    pictures = [np.asarray(Image.open(root / "images" / f"{row['objid']}.jpg").convert("RGB")) for row in unseen]
    images = np.stack(pictures).transpose(0, 3, 1, 2)
    classifier, stretch = GalaxyClassifier(FOLDER, device="cpu"), Stretch("sdss", {})
    names = np.array([*classifier.names])
    found = names[classifier.predict(classifier.prepare(torch.from_numpy(images.copy()))).probabilities.argmax(1)]
    given = np.array([row["class_name"] for row in unseen])
    spirals = [np.char.startswith(labels, "spiral") for labels in (found, given)]
    assert np.mean((found == given) | (spirals[0] & spirals[1])) >= 0.82
    seen = stretch.apply(stretch.invert(images / np.float32(255)))
    again = names[classifier.predict(classifier.prepare(torch.from_numpy(seen))).probabilities.argmax(1)]
    assert np.mean(again == found) >= 0.99


def test_what_is_no_galaxy_is_an_outlier():
    classifier = GalaxyClassifier(FOLDER, device="cpu")
    called = classifier.predict(classifier.prepare(torch.from_numpy(drawn_outliers()))).is_outlier
    assert called is not None
    assert called.reshape(6, 10).mean(1).min() >= 0.9 and called.mean() >= 0.98


def test_sky_beside_a_galaxy_is_an_outlier_and_the_galaxy_is_none(data_root: Path):
    classifier = GalaxyClassifier(FOLDER, device="cpu")
    paths = sorted((data_root / "astro" / "galaxyzoo1_256" / "images").glob("*.jpg"))[:60]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]).transpose(0, 3, 1, 2)
    corners = torch.from_numpy(images[:, :, :90, :90].copy()).float()
    enlarged = torch.nn.functional.interpolate(corners, (256, 256), mode="bilinear").to(torch.uint8)
    for shown, least, most in ((enlarged, 0.9, 1.0), (torch.from_numpy(images.copy()), 0.0, 0.1)):
        called = classifier.predict(classifier.prepare(shown)).is_outlier
        assert called is not None and least <= called.mean() <= most


def test_it_is_what_classify_takes_by_itself(tmp_path: Path):
    (tmp_path / "images").mkdir()
    Image.fromarray(drawn_outliers()[45].transpose(1, 2, 0)).save(tmp_path / "images/a.png")
    arguments = ["classify", "-i", str(tmp_path / "images"), "-o", str(tmp_path / "o.ecsv"), "--device", "cpu", "-q"]
    assert run(app, arguments) == 0
    table = read_table(tmp_path / "o.ecsv")
    assert NAME in str(table.meta) and len(table) == 1
