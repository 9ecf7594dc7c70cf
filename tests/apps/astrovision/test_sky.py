"""`astrovision classify` on FITS data as it comes: mirrored, of other units, wrapped, in files of one object each."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import FK4, SkyCoord
from astropy.io import fits
from astropy.io.votable import validate
from astropy.table import QTable, Table
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.bands import colours
from astrovision.tables import read_table
from tests.astrovision import small_models

SIDE = 160
PLACES = np.array([[40.0, 50.0], [100.5, 60.25], [80.0, 110.0], [45.0, 120.0]])
FLUXES: dict[str, Any] = {**small_models.FLUXES, "unit": "nJy", "zero_points": [22.5, 22.5, 22.5]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("fluxes") / "m", small_models.FLUXES)


def sky_wcs(parity: int = -1, turn: float = 0.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150, 2], [SIDE / 2, SIDE / 2]
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = 0.5 / 3600 * np.array([[parity * cos, -sin], [parity * sin, cos]])
    return wcs


def sky() -> np.ndarray:
    """Fluxes `(3, SIDE, SIDE)` of spirals that wind one way, whose mirror images would wind the other."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    light = np.random.default_rng(0).normal(0, 0.02, (SIDE, SIDE))
    for left, top in PLACES:
        radius, angle = np.hypot(x - left, y - top), np.arctan2(y - top, x - left)
        light += np.exp(-radius / 8) * (1 + np.cos(2 * angle + radius / 3))
    return (light * np.array([2.0, 4.0, 8.0])[:, None, None]).astype(np.float32)


def write(path: Path, values: np.ndarray, wcs: WCS | None = None, **cards: Any) -> Path:
    header = fits.Header() if wcs is None else wcs.to_header()
    header.update({"BANDS": "grz", **cards})
    fits.PrimaryHDU(values, header).writeto(path, overwrite=True)
    return path


def positions(wcs: WCS) -> dict[str, Any]:
    ra, dec = np.transpose(wcs.all_pix2world(PLACES, 0))
    return {"id": np.arange(1, 5), "ra": ra, "dec": dec}


def write_catalogue(path: Path, wcs: WCS | None = None, **more: Any) -> Path:
    table = Table({**positions(wcs or sky_wcs()), **more})
    table.write(path, overwrite=True, **({"format": "votable"} if path.suffix == ".vot" else {}))
    return path


def classify(*arguments: object) -> int:
    return run(app, ["classify", *map(str, arguments), "--device", "cpu"])


def refused(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert classify(*arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ") and not [line for line in said[:-1] if not line.startswith("warning: ")]
    return said[-1]


def probabilities(path: Path) -> np.ndarray:
    table = read_table(path)
    return np.stack([np.ma.filled(np.ma.asarray(table[f"p_{name}"]), np.nan) for name in small_models.NAMES], 1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("more", [[], ["--no-symmetries"]])
def test_the_same_sky_mirrored_gives_the_same_classes(model: Path, tmp_path: Path, axis: int, more: list, capsys):
    mirrored = sky_wcs()
    mirrored.wcs.crpix[axis] = SIDE + 1 - mirrored.wcs.crpix[axis]
    mirrored.wcs.cd[:, axis] *= -1
    write(tmp_path / "a.fits", sky(), sky_wcs())
    write(tmp_path / "b.fits", np.flip(sky(), 2 - axis), mirrored)
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    for name in "ab":
        arguments = ["-i", tmp_path / f"{name}.fits", "--catalogue", catalogue, "--model", model, *more]
        assert classify(*arguments, "-o", tmp_path / f"{name}.ecsv") == 0
    assert "parity" not in capsys.readouterr().err
    ours, theirs = read_table(tmp_path / "a.ecsv"), read_table(tmp_path / "b.ecsv")
    assert list(ours["class"]) == list(theirs["class"])
    np.testing.assert_allclose(probabilities(tmp_path / "a.ecsv"), probabilities(tmp_path / "b.ecsv"), atol=1e-5)
    side = json.loads((tmp_path / "b.json").read_text())["input"]
    assert side["parity"] == 1 and side["cutout_parity"] == -1


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(turn=st.floats(-180, 180), parity=st.sampled_from([-1, 1]))
def test_parity_and_not_rotation_decides_what_is_mirrored(model: Path, tmp_path: Path, turn: float, parity: int):
    """The same pixels under any WCS give the same, but for the handedness that the WCS says they have."""
    wcs = sky_wcs(parity, turn)
    write(tmp_path / "a.fits", sky(), wcs)
    catalogue, output = write_catalogue(tmp_path / "c.ecsv", wcs), tmp_path / "o.ecsv"
    assert classify("-i", tmp_path / "a.fits", "--catalogue", catalogue, "--model", model, "-o", output, "-q") == 0
    write(tmp_path / "p.fits", sky(), sky_wcs())
    plain, other = write_catalogue(tmp_path / "d.ecsv"), tmp_path / "p.ecsv"
    assert classify("-i", tmp_path / "p.fits", "--catalogue", plain, "--model", model, "-o", other, "-q") == 0
    expected = probabilities(other)[:, [0, 1, 2, 3] if parity == -1 else small_models.SWAPPED]
    # a place in the middle of two windows may go to the other one where the sky is turned
    np.testing.assert_allclose(probabilities(output)[1], expected[1], atol=1e-4)


def test_an_unknown_parity_is_refused_where_classes_are_mirrored(model: Path, tmp_path: Path, capsys):
    path = write(tmp_path / "a.fits", sky()[:, :64, :64])
    arguments = ["-i", path, "--model", model, "-o", tmp_path / "o.ecsv"]
    assert "a.fits: has no WCS, so that its parity is unknown" in (said := refused(capsys, *arguments))
    assert "--parity" in said and not (tmp_path / "o.ecsv").exists()
    found = {}
    for parity in ("-1", "1"):
        assert classify(*arguments, "--parity", parity, "-q") == 0
        found[parity] = probabilities(tmp_path / "o.ecsv")
    np.testing.assert_allclose(found["-1"], found["1"][:, small_models.SWAPPED], atol=1e-5)
    assert "Invalid value" in refused(capsys, *arguments, "--parity", "2")


def test_a_card_without_parity_takes_images_as_stored_and_says_so(tmp_path: Path, capsys):
    contract = {key: value for key, value in small_models.FLUXES.items() if key != "parity"}
    old = small_models.classifier(tmp_path / "m", contract)
    found = []
    for parity in (-1, 1):
        path = write(tmp_path / "a.fits", sky(), sky_wcs(parity))
        catalogue = write_catalogue(tmp_path / "c.ecsv", sky_wcs(parity))
        assert classify("-i", path, "--catalogue", catalogue, "--model", old, "-o", tmp_path / "o.ecsv") == 0
        assert "warning: the model's card names no parity; cut-outs are taken as stored" in capsys.readouterr().err
        found.append(probabilities(tmp_path / "o.ecsv"))
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize(("unit", "factor"), [("nJy", 1), ("uJy", 1e-3), ("Jy", 1e-9), ("njy", 1)])
def test_fluxes_in_another_unit_are_converted(tmp_path: Path, unit: str, factor: float):
    own = small_models.classifier(tmp_path / "m", FLUXES)
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    found = []
    for name, values, said in (("a", sky(), "nJy"), ("b", sky() * np.float32(factor), unit)):
        path = write(tmp_path / f"{name}.fits", values, sky_wcs(), BUNIT=said)
        assert classify("-i", path, "--catalogue", catalogue, "--model", own, "-o", tmp_path / "o.ecsv", "-q") == 0
        found.append(probabilities(tmp_path / "o.ecsv"))
    np.testing.assert_allclose(*found, atol=1e-4)


def test_fluxes_that_cannot_be_converted_are_refused_and_those_unknown_warned_about(tmp_path: Path, capsys):
    own = small_models.classifier(tmp_path / "m", FLUXES)
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    arguments = ["-i", tmp_path / "a.fits", "--catalogue", catalogue, "--model", own, "-o", tmp_path / "o.ecsv"]
    write(tmp_path / "a.fits", sky(), sky_wcs(), BUNIT="MJy/sr")
    assert "a.fits: has BUNIT MJy/sr, the model takes nJy" in refused(capsys, *arguments)
    write(tmp_path / "a.fits", sky(), sky_wcs())
    assert classify(*arguments) == 0
    assert "warning: the input does not say its unit (BUNIT); it was taken to be the model's" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["DOE JANE 1970", "=HYPERLINK(1)", "<b>Jy</b>", "Jy by J. Doe"])
def test_a_unit_that_is_none_stays_out_of_the_side_car(said: str, model: Path, tmp_path: Path):
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    for unit, noted in ((said, False), ("nJy", True)):
        path = write(tmp_path / "a.fits", sky(), sky_wcs(), BUNIT=unit)
        assert classify("-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / "o.ecsv", "-q") == 0
        assert (f'"unit": "{unit}"' in (tmp_path / "o.json").read_text()) == noted
        assert noted or unit not in (tmp_path / "o.json").read_text() + (tmp_path / "o.ecsv").read_text()


def test_zero_points_are_heeded_where_fluxes_are_counts(tmp_path: Path):
    counts = small_models.classifier(tmp_path / "m", {**FLUXES, "unit": "adu"})
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    found = []
    for zero, factor in ((22.5, 1.0), (25.0, 10.0)):
        path = write(tmp_path / "a.fits", sky() * np.float32(factor), sky_wcs(), BUNIT="adu", MAGZERO=zero)
        assert classify("-i", path, "--catalogue", catalogue, "--model", counts, "-o", tmp_path / "o.ecsv", "-q") == 0
        found.append(probabilities(tmp_path / "o.ecsv"))
    np.testing.assert_allclose(*found, atol=1e-4)


def test_a_cutout_without_a_valid_pixel_has_no_class(model: Path, tmp_path: Path, capsys):
    values = sky()
    values[:, :100, :100] = np.nan
    path, output = write(tmp_path / "a.fits", values, sky_wcs()), tmp_path / "o.vot"
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    arguments = ["-i", path, "--catalogue", catalogue, "--model", model, "-o", output]
    assert classify(*arguments, "--grad-cam", tmp_path / "cams") == 0
    assert "warning: 1 of 4 sources have no pixel with a value and have no class" in capsys.readouterr().err
    table = read_table(output)
    assert str(table["class"][0]) in ("", "--") and np.ma.is_masked(table["set_size"][0])
    assert table["valid_share"][0] == 0 and 0 < table["valid_share"][1] < 1
    assert np.isnan(probabilities(output)[0]).all() and str(table["flags"][0]) == "has_invalid"
    assert json.loads((tmp_path / "o.json").read_text())["classified"] == 3
    assert len(list((tmp_path / "cams").iterdir())) == 3


def objects(folder: Path, by: str = "object") -> dict[str, Path]:
    """FITS cut-outs of 64 pixels, one for each object, or for each object and band; half of them mirrored."""
    folder.mkdir()
    made: dict[str, Path] = {}
    for number, (x, y) in enumerate(np.ceil(PLACES).astype(int)):
        values = np.ascontiguousarray(sky()[:, y - 32 : y + 32, x - 32 : x + 32])
        wcs = sky_wcs()
        wcs.wcs.crpix = wcs.wcs.crpix - [x - 32, y - 32]
        if number % 2:
            values, wcs.wcs.crpix[1] = values[:, ::-1], 65 - wcs.wcs.crpix[1]
            wcs.wcs.cd[:, 1] *= -1
        if by == "object":
            made[f"src{number}"] = write(folder / f"src{number}.fits", values, wcs)
            continue
        for band, plane in zip("grz", values, strict=True):
            place = folder / (f"src{number}_{band}.fits" if by == "name" else f"src{number}/{band.upper()}.fits")
            place.parent.mkdir(exist_ok=True)
            made[f"src{number}"] = write(place, plane, wcs, BANDS="")
    return made


@pytest.mark.parametrize("by", ["object", "name", "folder"])
def test_a_folder_of_cutouts_is_classified_as_the_mosaic_is(model: Path, tmp_path: Path, by: str):
    objects(tmp_path / "cuts", by)
    assert classify("-i", tmp_path / "cuts", "--model", model, "-o", tmp_path / "o.ecsv", "-q") == 0
    path, catalogue = write(tmp_path / "a.fits", sky(), sky_wcs()), write_catalogue(tmp_path / "c.ecsv")
    assert classify("-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / "m.ecsv", "-q") == 0
    table, whole = read_table(tmp_path / "o.ecsv"), read_table(tmp_path / "m.ecsv")
    assert list(table["id"]) == ["src0", "src1", "src2", "src3"] and list(table["row"]) == [1, 2, 3, 4]
    np.testing.assert_allclose(table["ra"], whole["ra"], atol=5e-4)
    found, expected = probabilities(tmp_path / "o.ecsv"), probabilities(tmp_path / "m.ecsv")
    np.testing.assert_allclose(found[::2], expected[::2], atol=1e-4)
    assert json.loads((tmp_path / "o.json").read_text())["input"]["kind"] == "cutouts"


@pytest.mark.parametrize(
    "name", ["{band}/{key}.fits", "{band}/{key}_{band}.fits", "{key}/img-{band}.fits", "{band}_{key}.fits"]
)
def test_files_of_objects_and_bands_are_known_by_names_and_folders(model: Path, tmp_path: Path, name: str, capsys):
    places = {}
    for key in ("s1", "s2"):
        for band in "grzi":
            place = places[key, band] = tmp_path / "cuts" / name.format(key=key, band=band)
            place.parent.mkdir(exist_ok=True, parents=True)
            write(place, sky()["grzi".index(band) % 3, :64, :64], sky_wcs(), BANDS="")
    arguments = ["-i", tmp_path / "cuts", "--model", model, "-o", tmp_path / "o.ecsv"]
    assert classify(*arguments, "-q") == 0
    assert list(read_table(tmp_path / "o.ecsv")["id"]) == ["s1", "s2"]
    places["s2", "z"].unlink()
    assert "s2 has no file of band z; expected one for each of g, r, z" in refused(capsys, *arguments)


def test_the_first_file_of_a_folder_may_be_left_out(model: Path, tmp_path: Path, capsys):
    files = objects(tmp_path / "cuts")
    files["src0"].write_bytes(b"nothing")
    arguments = ["-i", tmp_path / "cuts", "--model", model, "-o", tmp_path / "o.ecsv"]
    assert "src0.fits: is no FITS file" in refused(capsys, *arguments)
    assert classify(*arguments, "--skip-unreadable") == 5
    assert list(read_table(tmp_path / "o.ecsv")["id"]) == ["src1", "src2", "src3"]


def test_a_table_names_the_objects_of_a_folder(model: Path, tmp_path: Path, capsys):
    objects(tmp_path / "cuts")
    Table({"filename": ["src2.fits", "src0.fits"], "objid": [2**60 + 1, 7], "z": [0.1, 0.2]}).write(tmp_path / "t.csv")
    arguments = [
        "-i",
        tmp_path / "cuts",
        "--model",
        model,
        "-o",
        tmp_path / "o.fits",
        "--catalogue",
        tmp_path / "t.csv",
    ]
    assert classify(*arguments, "--keep-columns", "z") == 0
    assert "warning: 2 objects are not in the table and were left out" in capsys.readouterr().err
    table = read_table(tmp_path / "o.fits")
    assert list(table["id"]) == [2**60 + 1, 7] and list(table["z"]) == [0.1, 0.2]
    Table({"id": ["src2", "src9"]}).write(tmp_path / "t.csv", overwrite=True)
    assert "t.csv: names src9, but there is no FITS file of that name" in refused(capsys, *arguments)


def test_an_image_larger_than_a_cutout_is_cut_at_its_centre_where_that_is_asked_for(
    model: Path, tmp_path: Path, capsys
):
    path = write(tmp_path / "a.fits", sky(), sky_wcs())
    arguments = ["-i", path, "--model", model, "-o", tmp_path / "o.ecsv"]
    assert "more than one cut-out of 64" in (said := refused(capsys, *arguments)) and "--centre" in said
    assert classify(*arguments, "--centre", "-q") == 0
    middle = write(tmp_path / "b.fits", np.ascontiguousarray(sky()[:, 48:112, 48:112]))
    assert classify("-i", middle, "--parity", "-1", "--model", model, "-o", tmp_path / "b.ecsv", "-q") == 0
    np.testing.assert_allclose(probabilities(tmp_path / "o.ecsv"), probabilities(tmp_path / "b.ecsv"), atol=1e-5)


@pytest.mark.parametrize("target", ["same", "link", "hard", "side-car", "other", "catalogue"])
def test_an_input_is_never_an_output(model: Path, tmp_path: Path, target: str, capsys):
    path, catalogue = write(tmp_path / "m.fits", sky(), sky_wcs()), write_catalogue(tmp_path / "c.fits")
    output = {"same": path, "catalogue": catalogue}.get(target, tmp_path / "o.fits")
    if target == "link":
        output.symlink_to(path)
    elif target == "hard":
        os.link(path, output)
    elif target == "other":
        output.symlink_to(catalogue)
    elif target == "side-car":
        path.rename(tmp_path / "m.json.fits")
        path = tmp_path / "m.json.fits"
        (tmp_path / "o.json").symlink_to(path)
    before = path.read_bytes(), catalogue.read_bytes()
    for more in ([], ["--overwrite"]):
        refused(capsys, "-i", path, "--catalogue", catalogue, "--model", model, "-o", output, *more)
        assert (path.read_bytes(), catalogue.read_bytes()) == before
    assert not [path for path in tmp_path.iterdir() if ".bak" in path.name or path.name.startswith(".")]


IDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float64", "U12"]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from(IDS),
    masked=st.booleans(),
    ending=st.sampled_from(["fits", "ecsv", "parquet"]),
)
@pytest.mark.parametrize("output", ["vot", "fits", "ecsv", "csv", "parquet"])
def test_any_id_reaches_any_format(
    model: Path, tmp_path_factory: pytest.TempPathFactory, output: str, data: Any, dtype: str, masked: bool, ending: str
):
    folder = tmp_path_factory.mktemp("ids")
    kind = np.dtype(dtype)
    if kind.kind == "U":
        values = [f"J{number}" for number in data.draw(st.lists(st.integers(0, 99), min_size=4, max_size=4))]
    elif kind.kind == "f":
        values = data.draw(st.lists(st.integers(-(2**53), 2**53), min_size=4, max_size=4))
    else:
        limits = np.iinfo(kind)
        special = st.sampled_from(
            [limits.min, limits.max, min(63, limits.max), min(16959, limits.max), min(999999, limits.max)]
        )
        values = data.draw(st.lists(special | st.integers(int(limits.min), int(limits.max)), min_size=4, max_size=4))
    ids = np.ma.array(np.array(values, kind), mask=[False, False, masked, False])
    from astrovision.catalogues import Column, write_catalogue

    place = positions(sky_wcs())
    columns = [Column("objid", ids), Column("RA", place["ra"], "deg"), Column("DEC", place["dec"], "deg")]
    write_catalogue(folder / f"c.{ending}", columns, meta={})
    path, table = write(folder / "m.fits", sky(), sky_wcs()), folder / f"o.{output}"
    assert classify("-i", path, "--catalogue", folder / f"c.{ending}", "--model", model, "-o", table, "-q") == 0
    found = read_table(table)["id"]
    for number in (0, 1, 3):
        assert str(found[number]) == str(values[number])
    if masked:
        assert np.ma.is_masked(found[2]) or str(found[2]) in ("", "--")
    if output == "vot":
        assert validate(str(table))


def test_ids_that_were_floats_warn(model: Path, tmp_path: Path, capsys):
    path = write(tmp_path / "a.fits", sky(), sky_wcs())
    catalogue = write_catalogue(tmp_path / "c.fits", id=np.array([1e17, 3, 5, 7]))
    assert classify("-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / "o.csv") == 0
    assert "warning: column id holds floating-point numbers; identifiers beyond" in capsys.readouterr().err
    assert [str(value) for value in read_table(tmp_path / "o.csv")["id"]] == ["100000000000000000", "3", "5", "7"]


def test_columns_of_the_catalogue_are_kept(model: Path, tmp_path: Path, capsys):
    path, output = write(tmp_path / "a.fits", sky(), sky_wcs()), tmp_path / "o.vot"
    good = np.ma.array([True, False, True, True], mask=[False, False, True, False])
    catalogue = write_catalogue(tmp_path / "c.ecsv", mag=[1.5, 2, 3, 4], good=good, Class=["a", "b", "c", "d"])
    arguments = ["-i", path, "--catalogue", catalogue, "--model", model, "-o", output]
    assert classify(*arguments, "--keep-columns", "all", "-q") == 0
    table = read_table(output)
    assert table.colnames[-6:] == ["catalogue_id", "catalogue_ra", "catalogue_dec", "mag", "good", "catalogue_Class"]
    assert list(table["mag"]) == [1.5, 2, 3, 4] and list(table["catalogue_Class"]) == ["a", "b", "c", "d"]
    assert np.ma.getmaskarray(table["good"]).tolist() == [False, False, True, False]
    assert validate(str(output)) and 'datatype="bit"' not in output.read_text()
    assert "column nothing is not there; --keep-columns takes id, ra" in refused(
        capsys, *arguments, "--keep-columns", "nothing"
    )
    assert classify(*arguments, "--keep-columns", "mag", "--shard", "2/2", "-q") == 0
    part = read_table(tmp_path / "o.2-of-2.vot")
    assert list(part["mag"]) == [3, 4] and list(part["row"]) == [3, 4]


def test_one_position_that_is_none_leaves_out_its_row_alone(model: Path, tmp_path: Path, capsys):
    path = write(tmp_path / "a.fits", sky(), sky_wcs())
    place = positions(sky_wcs())
    place["ra"][2] = place["dec"][2] = -999
    Table(place).write(tmp_path / "c.csv")
    assert classify("-i", path, "--catalogue", tmp_path / "c.csv", "--model", model, "-o", tmp_path / "o.csv") == 0
    assert "warning: 1 of 4 rows have no position, such as row 3 with -999 -999" in capsys.readouterr().err
    assert np.isnan(probabilities(tmp_path / "o.csv")).all(1).tolist() == [False, False, True, False]


def of_1950(folder: Path) -> list[Path]:
    """The same positions in catalogues of many frames and forms."""
    place = positions(sky_wcs())
    ours: Any = SkyCoord(place["ra"], place["dec"], unit="deg")
    old, galactic = ours.transform_to(FK4(equinox="B1950")), ours.galactic
    plain: Any = {"id": place["id"], "ra": old.ra.deg, "dec": old.dec.deg}
    Table({"id": place["id"], "RAB1950": old.ra.deg, "DEB1950": old.dec.deg}).write(folder / "names.csv")
    Table({"id": place["id"], "GLON": galactic.l.deg, "GLAT": galactic.b.deg}).write(folder / "galactic.csv")
    Table(plain, meta={"RADESYS": "FK4", "EQUINOX": 1950.0}).write(folder / "header.fits")
    Table(plain, meta={"EQUINOX": 1950.0}).write(folder / "equinox.fits")
    Table(plain, meta={"RADESYS": "fk4"}).write(folder / "meta.ecsv")
    QTable({"id": place["id"], "coord": old}).write(folder / "coord.ecsv")
    fields = "".join(f'<FIELD name="{name}" datatype="double" unit="DEG" ref="old"/>' for name in ("ra", "dec"))
    rows = "".join(
        f"<TR><TD>{a!r}</TD><TD>{d!r}</TD></TR>"
        for a, d in zip(plain["ra"].tolist(), plain["dec"].tolist(), strict=True)
    )
    (folder / "coosys.vot").write_text(
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        '<COOSYS ID="old" system="eq_FK4" equinox="B1950"/><COOSYS ID="new" system="ICRS"/>'
        f"<TABLE>{fields}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    return sorted(folder.iterdir())


def test_catalogues_of_every_frame_mean_the_same_sky(model: Path, tmp_path: Path):
    path = write(tmp_path / "a.fits", sky(), sky_wcs())
    (tmp_path / "catalogues").mkdir()
    place = positions(sky_wcs())
    for catalogue in of_1950(tmp_path / "catalogues"):
        output = tmp_path / "o.vot"
        assert classify("-i", path, "--catalogue", catalogue, "--model", model, "-o", output, "-q") == 0
        table = read_table(output)
        np.testing.assert_allclose(table["ra"], place["ra"], atol=1e-6, err_msg=catalogue.name)
        np.testing.assert_allclose(table["dec"], place["dec"], atol=1e-6, err_msg=catalogue.name)
        assert table["ra"].meta["coosys"]["system"] == "ICRS"


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "vot.gz", "fits.gz", "votable", "csv.bz2", "ecsv.xz"])
def test_catalogues_of_every_ending_are_read(model: Path, tmp_path: Path, ending: str):
    path, place = write(tmp_path / "a.fits", sky(), sky_wcs()), positions(sky_wcs())
    kinds = {
        "csv": "ascii.csv",
        "tsv": "ascii.tab",
        "txt": "ascii.commented_header",
        "vot": "votable",
        "votable": "votable",
    }
    first = ending.split(".")[0]
    Table(place).write(tmp_path / "plain", format={"fits": "fits", "ecsv": "ascii.ecsv", **kinds}[first])
    content = (tmp_path / "plain").read_bytes()
    if first == "csv":
        content = b"#Table1\n" + content
    if first == "tsv":
        content = b"#\n#   VizieR\n" + content.replace(b"\n", b"\n\tdeg\tdeg\n--\t---\t---\n", 1)
    pack: Any = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(ending.split(".")[-1], bytes)
    catalogue = tmp_path / f"c.{ending}"
    catalogue.write_bytes(pack(content))
    assert classify("-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / "o.csv", "-q") == 0
    table = read_table(tmp_path / "o.csv")
    np.testing.assert_allclose(table["ra"], place["ra"], atol=1e-9)
    assert list(table["id"]) == [1, 2, 3, 4]


def test_the_json_on_stdout_is_json_whatever_libraries_log(model: Path, tmp_path: Path, capfd):
    cards = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": 0.0, "RADESYS": "icrs"}
    path, catalogue = write(tmp_path / "a.fits", sky(), sky_wcs(), **cards), write_catalogue(tmp_path / "c.vot")
    capfd.readouterr()
    arguments = ["-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / "o.vot"]
    assert classify(*arguments, "--json") == 0
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert said.err.count("\n") == 1 and f"warning: {path}: has SIP terms, but no -SIP in CTYPE" in said.err
    assert "shift positions by up to" in found["input"]["notices"][0] and "a.fits" not in json.dumps(found)


def test_pictures_have_north_up_the_longest_wavelength_red_and_words(model: Path, tmp_path: Path):
    assert colours(["g", "r", "z"]) == colours(["a", "b", "c"]) == (2, 1, 0)
    assert colours(["z", "g", "r"]) == (0, 2, 1) and colours(["F606W", "F444W", "F115W"]) == (1, 2, 0)
    values = np.full((3, SIDE, SIDE), 0.01, np.float32)
    values[2, 110:] = 9  # the north is bright in z
    sizes = set()
    for parity, name in ((-1, "a"), (1, "b")):
        path, catalogue = write(tmp_path / f"{name}.fits", values, sky_wcs(parity)), tmp_path / "c.ecsv"
        write_catalogue(catalogue, sky_wcs(parity))
        arguments = ["-i", path, "--catalogue", catalogue, "--model", model, "-o", tmp_path / f"{name}.csv", "-q"]
        assert classify(*arguments, "--grad-cam", tmp_path / name) == 0
        with Image.open(tmp_path / name / "000003-3.png") as picture:
            pixels = np.asarray(picture, int)
            sizes.add(picture.size)
        top, bottom = pixels[100, 60], pixels[280, 200]
        assert top[0] > 150 and top[2] < 100 and bottom.max() < 100
    assert len(sizes) == 1


def test_a_second_run_does_not_take_its_own_table_for_an_image(model: Path, tmp_path: Path, capsys):
    folder = tmp_path / "bands"
    folder.mkdir()
    for band, plane in zip("grz", sky(), strict=True):
        write(folder / f"{band}.fits", plane, sky_wcs(), BANDS="", FILTER=band)
    catalogue = write_catalogue(tmp_path / "c.ecsv")
    arguments = ["-i", folder, "--catalogue", catalogue, "--model", model, "-o", folder / "out.fits", "-q"]
    assert classify(*arguments) == 0 and classify(*arguments) == 0
    assert len(read_table(folder / "out.fits")) == 4
    write(folder / "foreign.fits", sky()[0], sky_wcs(), BANDS="", FILTER="i")
    before = (folder / "foreign.fits").read_bytes()
    refused(capsys, *arguments[:-2], folder / "foreign.fits", "--overwrite")
    assert (folder / "foreign.fits").read_bytes() == before


def test_options_that_mean_nothing_are_refused(model: Path, tmp_path: Path, capsys):
    colours_model = small_models.classifier(tmp_path / "m")
    Image.fromarray(small_models.galaxies(1)[0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    picture = ["-i", tmp_path / "a.png", "--model", colours_model, "-o", tmp_path / "o.csv"]
    for options in (["--parity", "1"], ["--centre"], ["--keep-columns", "all"]):
        assert f"is no FITS image, so {options[0]} means nothing" in refused(capsys, *picture, *options)
    path = write(tmp_path / "a.fits", sky(), sky_wcs())
    said = refused(capsys, "-i", path, "--model", model, "-o", tmp_path / "o.csv", "--keep-columns", "all")
    assert "give it with --catalogue" in said
    sources = ["-i", path, "--catalogue", write_catalogue(tmp_path / "c.ecsv"), "--model", model]
    assert "--centre is for images of one object" in refused(capsys, *sources, "-o", tmp_path / "o.csv", "--centre")
