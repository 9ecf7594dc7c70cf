"""`astrovision classify` as a user meets it."""

import io
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch
from astropy.io import fits
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.classification import GalaxyClassifier
from astrovision.stretches import Stretch
from astrovision.tables import read_table
from shared_backbones import weights
from tests.astrovision import small_models

SIDE = 300
MARKER = "ngc4565"
# in the middle of a cut-out of an even side; the last two are at the border and off the image
PLACES = np.array([[60.5, 70.5], [200.5, 90.5], [150.5, 220.5], [8.5, 150.5], [-500.5, 20.5]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("colours") / "m")


@pytest.fixture(scope="module")
def flux_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("fluxes") / "m", small_models.FLUXES)


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    """A folder of five images."""
    folder = tmp_path / "cuts"
    folder.mkdir()
    for number, image in enumerate(small_models.galaxies(5).transpose(0, 2, 3, 1)):
        name = f"{MARKER}-{number}.{'png' if number else 'jpg'}"
        Image.fromarray(image).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def wcs(scale_arcsec: float = 0.5) -> WCS:
    found = WCS(naxis=2)
    found.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    found.wcs.crval, found.wcs.crpix = [150, 2], [SIDE / 2, SIDE / 2]
    found.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return found


def sky(noise: float = 0.02, finer: int = 1) -> np.ndarray:
    """Fluxes `(3, SIDE * finer, SIDE * finer)` of galaxies at all places that are on the image."""
    random = np.random.default_rng(3)
    y, x = (np.mgrid[: SIDE * finer, : SIDE * finer] + 0.5) / finer - 0.5
    planes = random.normal(0, noise, (3, *x.shape))
    for number, (left, top) in enumerate(PLACES):
        core = np.exp(-(((x - left) / (4 + number)) ** 2) - ((y - top) / 6) ** 2)
        planes += core * np.array([2.0, 4.0, 8.0])[:, None, None]
    if noise:
        planes[1, 88:91, 199:202] = np.nan  # within the second
    return planes.astype(np.float32)


@pytest.fixture
def mosaic(tmp_path: Path) -> Path:
    """A folder of one file for each band, in the order of their names."""
    folder = tmp_path / "mosaic"
    folder.mkdir()
    for band, plane in zip("grz", sky(), strict=True):
        fits.PrimaryHDU(plane, fits.Header([*wcs().to_header().cards, ("FILTER", band)])).writeto(
            folder / f"{MARKER}-{band}.fits"
        )
    return folder


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    lon, lat = np.asarray(wcs().all_pix2world(PLACES, 0)).T
    table = Table({"objid": np.arange(5) + 10**17, "RA": lon, "DEC": lat, "col": PLACES[:, 0], "row": PLACES[:, 1]})
    table.write(tmp_path / f"{MARKER}.ecsv")
    return tmp_path / f"{MARKER}.ecsv"


def classify(*arguments: object) -> int:
    return run(app, ["classify", *map(str, arguments), "--device", "cpu"])


def read(*arguments: Any, **options: Any) -> Any:
    return Table.read(*arguments, **options)


def refused(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert classify(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def columns(table: Any) -> list[str]:
    return [
        *(name for name in table.colnames if name in ("id", "row", "ra", "dec", "x", "y")), "class", "confidence",
        *(f"p_{name}" for name in small_models.NAMES), *(f"in_set_{name}" for name in small_models.NAMES), "set_size",
        "outlier_score", "is_outlier", *(name for name in table.colnames if name == "valid_share"), "flags",
    ]  # fmt: skip


def test_a_folder_of_images_becomes_a_table_and_a_side_car(cutouts: Path, model: Path, tmp_path: Path, capsys):
    output = tmp_path / "out.ecsv"
    assert classify("-i", cutouts, "-o", output, "--model", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    table = read_table(output)
    assert table.colnames == columns(table)
    assert sorted(table["id"]) == [f"{MARKER}-{n}" for n in range(5)], "as tables of objects name them"
    classifier = GalaxyClassifier(model, device="cpu")
    images = torch.from_numpy(small_models.galaxies(5))
    expected = classifier.predict(classifier.prepare(images))
    for number in range(1, 5):  # the JPEG is not what was drawn
        row = table[list(table["id"]).index(f"{MARKER}-{number}")]
        assert row["class"] == small_models.NAMES[expected.labels[number]]
        assert row["confidence"] == pytest.approx(expected.probabilities[number].max(), abs=1e-5)
        scores = [row[f"p_{name}"] for name in small_models.NAMES]
        np.testing.assert_allclose(scores, expected.probabilities[number], atol=1e-5)
        assert [row[f"in_set_{name}"] for name in small_models.NAMES] == [score >= 0.2 for score in scores]
        assert row["set_size"] == sum(score >= 0.2 for score in scores)
    assert found["classes"] == [
        {"name": name, "count": list(table["class"]).count(name)} for name in small_models.NAMES
    ]
    assert found["rows"] == found["classified"] == 5 and found["failed"] == 0 and found["warnings"] == []
    sha256 = weights.load(model).sha256
    assert table.meta["model_sha256"] == found["model"]["sha256"] == sha256
    assert table.meta["model_sha256_12"] == sha256[:12] and table.meta["software"].startswith("domain-vision ")
    assert found["case"] == f"case-{found['input']['sha256'][:8]}"
    assert (
        MARKER not in (tmp_path / "out.json").read_text() and str(tmp_path) not in (tmp_path / "out.json").read_text()
    )


@pytest.mark.parametrize("ending", ["vot", "fits", "ecsv", "csv", "parquet"])
def test_every_format_holds_the_same(cutouts: Path, model: Path, tmp_path: Path, ending: str):
    output = tmp_path / f"out.{ending}"
    assert classify("-i", cutouts, "-o", output, "--model", model, "-q") == 0
    assert classify("-i", cutouts, "-o", tmp_path / "other.ecsv", "--model", model, "-q", "--batch-size", 2) == 0
    expected = read(tmp_path / "other.ecsv")
    found: Any
    if ending == "parquet":
        stored = pyarrow.parquet.read_table(output)
        assert stored.schema.metadata[b"model_sha256"].decode() == expected.meta["model_sha256"]
        assert stored.schema.field("confidence").metadata[b"ucd"] == b"stat.confidenceLevel;src.class"
        found = Table({name: stored[name].to_numpy() for name in stored.column_names})
    else:
        kind = {"vot": "votable", "ecsv": "ascii.ecsv", "csv": "ascii.csv"}.get(ending, "fits")
        found = read(output, format=kind, **({"use_names_over_ids": True} if ending == "vot" else {}))
    assert found.colnames == expected.colnames and len(found) == 5
    assert [str(name).strip() for name in found["class"]] == list(expected["class"])
    for name in small_models.NAMES:
        np.testing.assert_allclose(found[f"p_{name}"], expected[f"p_{name}"], atol=1e-5)
        assert [str(value) for value in found[f"in_set_{name}"]] == [str(value) for value in expected[f"in_set_{name}"]]


def test_columns_have_words_of_the_vocabulary(mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path):
    output = tmp_path / "out.ecsv"
    assert classify("-i", mosaic, "--catalogue", catalogue, "-o", output, "--model", flux_model, "-q") == 0
    table = read(output)
    for name in table.colnames:
        assert parse_ucd(table[name].meta["ucd"], check_controlled_vocabulary=True), name
        assert table[name].description
    assert table["ra"].meta["ucd"] == "pos.eq.ra;meta.main" and table["ra"].unit == "deg"
    assert table["dec"].meta["ucd"] == "pos.eq.dec;meta.main" and table["x"].unit == "pix"
    assert table["class"].meta["ucd"] == "src.class"


def test_a_catalogue_of_a_mosaic_is_classified(mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path, capsys):
    output = tmp_path / "out.fits"
    arguments = ["-i", mosaic, "--catalogue", catalogue, "-o", output, "--model", flux_model]
    assert classify(*arguments, "--batch-size", 2) == 0
    said = capsys.readouterr()
    assert "warning: 1 of 5 sources lie off the image and have no class" in said.err and "4 of 5 classified" in said.out
    table = read_table(output)
    given = read(catalogue)
    assert list(table["id"]) == list(given["objid"])
    np.testing.assert_allclose(table["ra"], given["RA"], atol=1e-9)
    np.testing.assert_allclose(np.stack([table["x"], table["y"]], 1), PLACES, atol=1e-5)
    flags = [str(value) for value in table["flags"]]
    assert flags[0].replace("outlier", "") == flags[2].replace("outlier", "") == ""
    assert "has_invalid" in flags[1] and "partial" in flags[3] and flags[4] == "off_image"
    last = table[4]
    assert not str(last["class"]).strip() and np.ma.is_masked(last["confidence"]) and np.ma.is_masked(last["set_size"])
    assert all(np.ma.is_masked(last[f"p_{name}"]) for name in small_models.NAMES)
    assert not any(last[f"in_set_{name}"] for name in small_models.NAMES) and not last["is_outlier"]
    classifier = GalaxyClassifier(flux_model, device="cpu")
    x, y = np.ceil(PLACES[0]).astype(int)
    values = Stretch.from_card(small_models.FLUXES["stretch"], "m").apply(
        sky()[None, :, y - 32 : y + 32, x - 32 : x + 32]
    )
    expected = classifier.predict(classifier.prepare(torch.from_numpy(values)))
    np.testing.assert_allclose(
        [table[0][f"p_{name}"] for name in small_models.NAMES], expected.probabilities[0], atol=1e-5
    )
    side = json.loads((tmp_path / "out.json").read_text())
    assert side["flags"] == {"partial": 1, "off_image": 1, "has_invalid": 1, "outlier": side["flags"]["outlier"]}
    assert side["input"]["kind"] == "mosaic" and len(side["input"]["catalogue_sha256"]) == 64
    assert side["rows"] == 5 and side["classified"] == sum(row["count"] for row in side["classes"]) == 4
    assert MARKER not in json.dumps(side)


def test_pixel_positions_and_files_with_commas_give_the_same(
    mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path
):
    first, second = tmp_path / "a.ecsv", tmp_path / "b.ecsv"
    assert classify("-i", mosaic, "--catalogue", catalogue, "-o", first, "--model", flux_model, "-q") == 0
    files = ",".join(str(mosaic / f"{MARKER}-{band}.fits") for band in "zgr")
    places = ["--x", "col", "--y", "row"]
    assert classify("-i", files, "--catalogue", catalogue, *places, "-o", second, "--model", flux_model, "-q") == 0
    found, expected = read(second), read(first)
    for name in ("ra", "dec", "x", "y", *(f"p_{name}" for name in small_models.NAMES)):
        np.testing.assert_allclose(found[name][:4], expected[name][:4], atol=1e-5)
    assert list(found["class"][:4]) == list(expected["class"][:4]) and np.ma.is_masked(found["class"][4])


@pytest.mark.parametrize("ending", ["vot", "fits", "ecsv", "csv", "parquet"])
@pytest.mark.parametrize("identifiers", ["numbers", "texts", "none"])
def test_identifiers_of_a_fits_catalogue_reach_every_format(
    mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path, ending: str, identifiers: str
):
    table = read(catalogue)
    if identifiers == "texts":
        table["objid"] = [f"J{number}" for number in range(5)]
    if identifiers == "none":
        table.remove_column("objid")
    table.write(tmp_path / "c.fits")
    output = tmp_path / f"o.{ending}"
    assert classify("-i", mosaic, "--catalogue", tmp_path / "c.fits", "-o", output, "--model", flux_model, "-q") == 0
    found = [str(value) for value in read_table(output)["id"]]
    expected = range(1, 6) if identifiers == "none" else table["objid"]
    assert found == [str(value) for value in expected]


def test_shards_of_a_catalogue_are_parts_of_the_whole_table(
    mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path
):
    own = ("--model", flux_model, "-q", "--batch-size", 1)  # sums of one order
    asked = ("-i", mosaic, "--catalogue", catalogue, "-o", tmp_path / "t.csv", *own)
    assert classify(*asked) == 0
    for number in (1, 2):
        assert classify(*asked, "--shard", f"{number}/2") == 0
    first, second, whole = ((tmp_path / f"t{part}.csv").read_text().splitlines() for part in (".1-of-2", ".2-of-2", ""))
    assert first[0] == second[0] == whole[0] and first[1:] + second[1:] == whole[1:]


def test_bands_without_names_are_asked_for(tmp_path: Path, catalogue: Path, flux_model: Path, capsys):
    path = tmp_path / "cube.fits"
    fits.PrimaryHDU(sky()[[2, 0, 1]], wcs().to_header()).writeto(path)
    output = tmp_path / "out.vot"
    arguments = ["-i", path, "--catalogue", catalogue, "-o", output, "--model", flux_model]
    said = refused(capsys, *arguments)
    assert (
        "has bands band1, band2, band3, the model takes g, r, z" in said and "--bands" in said and not output.exists()
    )
    assert "has 3 bands, but --bands names 2" in refused(capsys, *arguments, "--bands", "g,r")
    assert classify(*arguments, "--bands", "z,g,r", "--hdu", 0, "-q") == 0


def test_a_fits_image_as_large_as_a_cutout_is_one(tmp_path: Path, mosaic: Path, flux_model: Path, capsys):
    x, y = np.ceil(PLACES[0]).astype(int)
    path = tmp_path / f"{MARKER}.fits"
    header = wcs().to_header()
    header["CRPIX1"] -= x - 32
    header["CRPIX2"] -= y - 32
    fits.PrimaryHDU(sky()[:, y - 32 : y + 32, x - 32 : x + 32], header).writeto(path)
    arguments = ["--model", flux_model, "--bands", "g,r,z", "-q"]
    assert classify("-i", path, "-o", tmp_path / "out.ecsv", *arguments) == 0
    table = read(tmp_path / "out.ecsv")
    assert table.colnames == columns(table) and list(table["id"]) == [path.name]
    expected = wcs().all_pix2world([[x - 0.5, y - 0.5]], 0)[0]
    np.testing.assert_allclose([table["ra"][0], table["dec"][0]], expected, atol=1e-7)
    said = refused(capsys, "-i", mosaic, "-o", tmp_path / "big.ecsv", "--model", flux_model)
    assert "has 300 x 300 pixels, more than one cut-out of 64" in said and "--catalogue" in said


def test_sources_of_another_pixel_scale_look_alike(tmp_path: Path, catalogue: Path, flux_model: Path):
    """The same sky in pixels half as large, which are cut at the model's scale."""
    fine = sky(0, 2)
    finer = wcs(0.25)
    finer.wcs.crpix = [SIDE - 0.5, SIDE - 0.5]
    fits.PrimaryHDU(fine, finer.to_header()).writeto(tmp_path / "fine.fits")
    fits.PrimaryHDU(sky(0), wcs().to_header()).writeto(tmp_path / "plain.fits")
    found = {}
    for name in ("fine", "plain"):
        arguments = ["--catalogue", catalogue, "--model", flux_model, "--bands", "g,r,z", "-q"]
        assert classify("-i", tmp_path / f"{name}.fits", "-o", tmp_path / f"{name}.ecsv", *arguments) == 0
        found[name] = read(tmp_path / f"{name}.ecsv")
    for name in small_models.NAMES:
        np.testing.assert_allclose(found["fine"][f"p_{name}"][:3], found["plain"][f"p_{name}"][:3], atol=0.02)


def write_hdf5(path: Path, count: int = 5, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["images"] = small_models.galaxies(count).transpose(0, 2, 3, 1)
        for name, values in more.items():
            file[name] = values
    return path


def test_a_galaxy10_file_is_classified_with_its_positions(model: Path, tmp_path: Path):
    path = write_hdf5(tmp_path / "g.h5", ra=np.linspace(0, 9, 5), dec=np.linspace(-1, 1, 5))
    assert classify("-i", path, "-o", tmp_path / "o.ecsv", "--model", model, "--batch-size", 2, "-q") == 0
    table = read(tmp_path / "o.ecsv")
    assert table.colnames == columns(table) and list(table["id"]) == list(range(5))
    np.testing.assert_allclose(table["dec"], np.linspace(-1, 1, 5))
    classifier = GalaxyClassifier(model, device="cpu")
    expected = classifier.predict(classifier.prepare(torch.from_numpy(small_models.galaxies(5))))
    np.testing.assert_allclose(table["confidence"], expected.confidence, atol=1e-5)
    assert classify("-i", write_hdf5(tmp_path / "n.h5"), "-o", tmp_path / "n.ecsv", "--model", model, "-q") == 0
    assert "ra" not in read(tmp_path / "n.ecsv").colnames


def test_the_coverage_that_is_asked_for_is_the_stored_one(cutouts: Path, model: Path, tmp_path: Path, capsys):
    arguments = ["-i", cutouts, "-o", tmp_path / "o.csv", "-q"]
    said = refused(capsys, *arguments, "--model", model, "--coverage", 0.95)
    assert "--coverage 0.95" in said and "those of 0.9" in said
    assert classify(*arguments, "--model", model, "--coverage", 0.9) == 0
    plain = small_models.classifier(tmp_path / "plain", outliers=False, calibration={})
    assert "the model has none" in refused(capsys, *arguments, "--model", plain, "--coverage", 0.9)
    assert classify(*arguments, "--model", plain) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("warning: ") == 2
    table = read_table(tmp_path / "o.csv")
    assert not {"set_size", "outlier_score", "is_outlier"} & set(table.colnames) and "p_elliptical" in table.colnames


def test_no_symmetries_is_another_result_and_is_noted(cutouts: Path, model: Path, tmp_path: Path, capsys):
    for name, more in (("a", []), ("b", ["--no-symmetries"])):
        assert classify("-i", cutouts, "-o", tmp_path / f"{name}.ecsv", "--model", model, "-q", *more) == 0
    assert "calibration is for averages over symmetries" in capsys.readouterr().err
    first, second = (read(tmp_path / f"{name}.ecsv")["confidence"] for name in "ab")
    assert np.abs(first - second).max() > 1e-3
    assert json.loads((tmp_path / "b.json").read_text())["settings"]["symmetries"] is False


def test_grad_cam_gives_a_picture_of_each_image(cutouts: Path, model: Path, tmp_path: Path, capsys):
    arguments = ["-i", cutouts, "-o", tmp_path / "o.vot", "--model", model, "-q", "--grad-cam", tmp_path / "cams"]
    assert classify(*arguments) == 0
    pictures = sorted((tmp_path / "cams").iterdir())
    assert len(pictures) == 5 and pictures[0].name == f"000001-{MARKER}-0.png"
    for path in pictures:
        with Image.open(path) as image:
            assert image.mode == "RGB" and image.width >= 640 and image.height >= 320
    assert "already there; expected a new or empty folder" in refused(capsys, *arguments)


def test_grad_cam_leaves_out_what_is_off_the_image(mosaic: Path, catalogue: Path, flux_model: Path, tmp_path: Path):
    arguments = ["-i", mosaic, "--catalogue", catalogue, "-o", tmp_path / "o.vot", "--model", flux_model, "-q"]
    assert classify(*arguments, "--grad-cam", tmp_path / "cams") == 0
    assert len(list((tmp_path / "cams").iterdir())) == 4


def damaged(kind: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(small_models.galaxies(1)[0].transpose(1, 2, 0))
    if kind == "grey":
        image.convert("L").save(buffer, "PNG")
    elif kind == "alpha":
        image.convert("RGBA").save(buffer, "PNG")
    elif kind == "sixteen":
        Image.fromarray(np.zeros((80, 80), np.uint16)).save(buffer, "PNG")
    elif kind == "tiff":
        image.save(buffer, "TIFF")
    elif kind == "bomb":
        Image.new("RGB", (20000, 10000)).save(buffer, "PNG")
    else:
        image.save(buffer, kind)
        return buffer.getvalue()[: len(buffer.getvalue()) // 2]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("JPEG", "x.jpg", "cannot be read as JPEG or PNG"),
        ("PNG", "x.png", "cannot be read as JPEG or PNG"),
        ("tiff", "x.png", "cannot be read as JPEG or PNG"),
        ("bomb", "x.png", "cannot be read as JPEG or PNG"),
        ("grey", "x.png", "has 1 bands (L), the model takes 3 of 8 bits (R, G, B)"),
        ("alpha", "x.png", "has 4 bands (R, G, B, A), the model takes 3"),
        ("sixteen", "x.png", "has 1 bands of 16 bits"),
    ],
)
def test_images_that_cannot_be_used_are_one_line_or_are_skipped(
    cutouts: Path, model: Path, tmp_path: Path, capsys, kind: str, name: str, message: str
):
    (cutouts / name).write_bytes(damaged(kind))
    arguments = ["-i", cutouts, "-o", tmp_path / "o.csv", "--model", model]
    assert message in refused(capsys, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"cuts"}
    assert classify(*arguments, "--skip-unreadable", "--json") == 5
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err.count("\n") == 1 and "cannot be used: " in said.err and name in said.err
    assert found["failed"] == 1 and found["rows"] == 5 and len(read_table(tmp_path / "o.csv")) == 5
    said = refused(capsys, "-i", cutouts / name, "-o", tmp_path / "p.csv", "--model", model)
    assert message in said and not (tmp_path / "p.csv").exists()
    capsys.readouterr()
    assert classify("-i", cutouts / name, "-o", tmp_path / "p.csv", "--model", model, "--skip-unreadable") == 2
    assert "none of 1 images can be used" in capsys.readouterr().err and not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"-o": "map.png"}, "ends in '.png'; expected .csv"),
        ({"-o": "nowhere/o.csv"}, "nowhere: no such folder"),
        ({"-o": "c.ecsv", "-i": "cube.fits", "--model": "f", "--bands": "g,r,z", "--catalogue": "c.ecsv"},
         "c.ecsv: is there and was not written by this program"),
        ({"--model": "nowhere"}, "model nowhere: neither a bundled model (galaxy-morphology) nor a folder"),
        ({"-i": "absent.jpg"}, "absent.jpg: no such file or folder"),
        ({"-i": "c.ecsv"}, "ends in .ecsv; expected .jpg"),
        ({"-i": "empty"}, "holds neither JPEG or PNG images nor FITS files"),
        ({"-i": "both"}, "holds both images and FITS files"),
        ({"-i": "cube.fits,g.h5"}, "names several inputs; expected FITS files alone"),
        ({"-i": "cube.fits"}, "holds fluxes, the model takes colour images (red, green, blue)"),
        ({"--model": "f"}, "holds colour images, the model takes fluxes of g, r, z"),
        ({"--catalogue": "c.ecsv"}, "is no FITS image, so --catalogue means nothing"),
        ({"--bands": "g,r,z"}, "is no FITS image, so --bands means nothing"),
        ({"--ra": "RA", "--dec": "DEC"}, "give it with --catalogue"),
        ({"-i": "damaged.h5"}, "cannot be read as HDF5"),
        ({"-i": "odd.h5"}, "ra is (4,) float64, expected 5 numbers"),
        ({"-i": "none.h5"}, "contains no image"),
        ({"-i": "damaged.fits", "--model": "f"}, "is no FITS file"),
        ({"-i": "plain.fits", "--model": "f", "--catalogue": "c.ecsv", "--bands": "g,r,z", "--x": "col", "--y": "row"},
         "has no celestial WCS, so its pixel scale is unknown"),
        ({"-i": "cube.fits", "--model": "f", "--catalogue": "c.ecsv", "--bands": "g,r,z", "--ra": "A", "--dec": "B"},
         "has no column A"),
        ({"-i": "cube.fits", "--model": "f", "--catalogue": "void.ecsv", "--bands": "g,r,z"}, "has no row"),
        ({"-i": "cube.fits", "--model": "f", "--catalogue": "c.ecsv", "--hdu": "3", "--bands": "g,r,z"}, "--hdu 3"),
        ({"--grad-cam": "both"}, "already there; expected a new or empty folder"),
        ({"--batch-size": "0"}, "Invalid value"),
        ({"--device": "gpu"}, "expected auto, cpu, cuda, cuda:N or mps"),
    ],
)  # fmt: skip
def test_what_cannot_be_classified_is_one_line(
    model: Path, flux_model: Path, catalogue: Path, tmp_path: Path, capsys, monkeypatch, changes: dict, message: str
):
    monkeypatch.chdir(tmp_path)
    catalogue.rename("c.ecsv")
    read("c.ecsv")[:0].write("void.ecsv")
    fits.PrimaryHDU(sky(), wcs().to_header()).writeto("cube.fits")
    fits.PrimaryHDU(sky()).writeto("plain.fits")
    write_hdf5(Path("g.h5"))
    write_hdf5(Path("odd.h5"), ra=np.zeros(4), dec=np.zeros(5))
    write_hdf5(Path("none.h5"), 0)
    for name in ("damaged.h5", "damaged.fits"):
        Path(name).write_bytes(b"damaged")
    for name in ("empty", "both"):
        Path(name).mkdir()
    for name in ("a.jpg", "a.fits"):
        (Path("both") / name).write_bytes(b"")
    before = {path.name for path in tmp_path.iterdir()}
    given = {"-i": "g.h5", "-o": "o.csv", "--model": "c", **changes}
    given["--model"] = {"c": model, "f": flux_model}.get(given["--model"], given["--model"])
    arguments = [part for pair in given.items() for part in pair]
    if "--device" in changes:
        assert run(app, ["classify", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
    else:
        said = refused(capsys, *arguments)
    assert message in said
    assert {path.name for path in tmp_path.iterdir()} == before


def test_nothing_is_left_where_the_table_cannot_be_written(
    cutouts: Path, model: Path, tmp_path: Path, monkeypatch, capsys
):
    import astrovision.table_writing

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(astrovision.table_writing, "_write_votable", fail)
    arguments = ["-i", cutouts, "-o", tmp_path / "o.vot", "--model", model, "--grad-cam", tmp_path / "cams"]
    assert "No space left on device" in refused(capsys, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"cuts"}


def test_a_gallery_shows_the_most_doubtful_images_and_random_ones(tmp_path: Path, model: Path, cutouts: Path):
    table = tmp_path / "t.csv"
    arguments = ["classify", "-i", str(cutouts), "-o", str(table), "--model", str(model), "--quiet", "--device", "cpu"]
    assert run(app, [*arguments, "--gallery", "2", "--gallery-random", "1"]) == 0
    page = (tmp_path / "t_gallery.html").read_text()
    data = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])
    rows = read_table(table)
    ordered = np.sort(np.stack([np.asarray(rows[f"p_{name}"], float) for name in small_models.NAMES], 1), 1)
    margins = dict(zip(map(str, rows["id"]), ordered[:, -1] - ordered[:, -2], strict=True))
    shown = {entry["id"]: entry for entry in data["entries"]}
    doubtful = [name for name, entry in shown.items() if entry["drawn"] == "doubtful"]
    (drawn,) = [name for name, entry in shown.items() if entry["drawn"] == "random"]
    left = sorted((name for name in margins if name != drawn), key=lambda name: margins[name])
    assert sorted(doubtful) == sorted(left[:2]) and len(shown) == 3
    assert all(entry["margin"] == pytest.approx(margins[name], abs=1e-4) for name, entry in shown.items())
    assert page.count("data:image/webp;base64,") == 3 * (1 + 3 + 1), "the picture, three bands and Grad-CAM"
    assert re.findall(r">band (\w+)<", page) == ["red", "green", "blue"] and str(tmp_path) not in page
    count = json.loads((tmp_path / "t_gallery.json").read_text())["count"]
    assert count == {"doubtful": 2, "random": 1, "labelled": 0} and "least believed" not in page
    (tmp_path / "t_gallery.html").write_text("mine")
    assert run(app, [*arguments, "--gallery", "2"]) == 2, "a page that was changed is kept"
    assert run(app, [*arguments, "--gallery", "2", "--shard", "1/2"]) == 2


def test_labels_that_the_network_does_not_believe_are_in_the_gallery(
    tmp_path: Path, model: Path, cutouts: Path, capsys
):
    arguments = ["-i", cutouts, "-o", tmp_path / "t.csv", "--model", model, "--quiet", "--device", "cpu"]
    assert run(app, ["classify", *map(str, arguments)]) == 0
    rows = read_table(tmp_path / "t.csv")
    surest = int(np.argmax([row["confidence"] for row in rows]))
    other = next(name for name in small_models.NAMES if name != rows[surest]["class"])
    given = {str(row["id"]): str(row["class"]) for row in rows} | {str(rows[surest]["id"]): other}
    given[str(rows[0]["id"]) if surest else str(rows[1]["id"])] = "no class of the model"
    labels = tmp_path / "labels.csv"
    labels.write_text("id,kind\n" + "".join(f"{key},{name}\n" for key, name in given.items()))
    told = [*arguments, "--gallery", 1, "--labels", labels, "--label-column", "kind"]
    assert run(app, ["classify", *map(str, told)]) == 0
    page = (tmp_path / "t_gallery.html").read_text()
    (entry,) = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])["entries"]
    doubts = {
        str(row["id"]): min(
            np.diff(np.sort([row[f"p_{name}"] for name in small_models.NAMES]))[-1],
            row[f"p_{given[str(row['id'])]}"] if given[str(row["id"])] in small_models.NAMES else 1,
        )
        for row in rows
    }
    assert entry["id"] == min(doubts, key=lambda key: doubts[key])
    assert min(entry["margin"], entry["believed"]) == pytest.approx(doubts[entry["id"]], abs=1e-4)
    assert f"; label {given[entry['id']]} {entry['believed']:.2f}" in page
    assert '<option value="believed">least believed label</option>' in page
    for changes, message in (
        (["--label-column", "label"], "has no column label; --label-column takes id, kind"),
        (["--label-column", "id"], "no value of column id is a class of the model"),
        (["--labels", tmp_path / "absent.csv"], "no such file"),
        (["--gallery", 0], "--labels: orders the images of a gallery"),
    ):
        assert message in refused(capsys, *told, *changes)
    labels.write_text(f"id,kind\nelsewhere,{other}\n")
    assert "none of its 1 ids is an image of the input" in refused(capsys, *told)
