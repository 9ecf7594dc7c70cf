"""Frames of catalogues, and columns whose numbers or text are easily lost."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from astropy.coordinates import FK4, FK5, BarycentricMeanEcliptic, SkyCoord
from astropy.io import fits
from astropy.table import Table
from pyarrow import parquet

from apps.cli.astrovision.catalogue_columns import identifiers
from astrovision.catalogues import read_catalogue
from astrovision.tables import read_table
from shared_backbones.errors import InputError

RA, DEC = np.array([150.0, 151.0, 152.5]), np.array([2.0, -3.0, 50.0])
SKY: Any = SkyCoord(RA, DEC, unit="deg")
B1950 = SKY.transform_to(FK4(equinox="B1950"))
ECLIPTIC = SKY.transform_to(BarycentricMeanEcliptic(equinox="J2000"))


def table_of(sky: Any, *names: str) -> Table:
    return Table(dict(zip(names or ("ra", "dec"), (sky.spherical.lon.deg, sky.spherical.lat.deg), strict=True)))


def check(path: Path, **columns: str) -> None:
    catalogue = read_catalogue(path, **columns)
    ours: Any = SkyCoord(catalogue.ra_deg, catalogue.dec_deg, unit="deg")
    assert ours.separation(SKY).arcsec.max() < 0.05


@pytest.mark.parametrize("cards", [{"RADESYS": "FK4"}, {"RADECSYS": "fk4 "}, {"EQUINOX": "B1950"}, {"EPOCH": 1950.0}])
@pytest.mark.parametrize("place", ["table", "first"])
def test_a_fits_file_says_its_frame_in_either_header(tmp_path: Path, cards: dict, place: str):
    first, table = fits.PrimaryHDU(), fits.BinTableHDU(table_of(B1950))
    (first if place == "first" else table).header.update(cards)
    fits.HDUList([first, table]).writeto(tmp_path / "t.fits")
    check(tmp_path / "t.fits")


def test_the_tables_header_comes_first_and_epochs_of_observation_are_no_equinox(tmp_path: Path):
    first, table = fits.PrimaryHDU(), fits.BinTableHDU(table_of(SKY))
    first.header["RADESYS"], table.header["RADESYS"], table.header["EPOCH"] = "FK4", "ICRS", 2016.0
    fits.HDUList([first, table]).writeto(tmp_path / "t.fits")
    check(tmp_path / "t.fits")
    del table.header["RADESYS"]
    table.writeto(tmp_path / "e.fits")
    check(tmp_path / "e.fits")


@pytest.mark.parametrize(
    ("names", "sky", "known"),
    [
        (("ELON", "ELAT"), ECLIPTIC, True), (("ecl_lon", "ecl_lat"), ECLIPTIC, True), (("l", "b"), SKY.galactic, True),
        (("gal_l", "gal_b"), SKY.galactic, True), (("SGL", "SGB"), SKY.supergalactic, True),
        (("ra_fk4", "dec_fk4"), B1950, True), (("ra_fk5", "dec_fk5"), SKY.fk5, True),
        (("ra_b1900", "dec_b1900"), SKY.transform_to(FK4(equinox="B1900")), False),
        (("RAJ1975", "DEJ1975"), SKY.transform_to(FK5(equinox="J1975")), False),
        (("ra_epoch2000", "dec_epoch2000"), SKY, False), (("RA_J2015.5", "DE_J2015.5"), SKY, False),
    ],
)  # fmt: skip
def test_names_of_columns_say_their_frame(tmp_path: Path, names: tuple[str, str], sky: Any, known: bool):
    table_of(sky, *names).write(tmp_path / "t.csv")
    check(tmp_path / "t.csv", ra=names[0], dec=names[1])
    if known:
        check(tmp_path / "t.csv")


def votable(path: Path, sky: Any, systems: str, fields: str, before: str = "") -> Path:
    rows = "".join(
        f"<TR><TD>{lon!r}</TD><TD>{lat!r}</TD></TR>"
        for lon, lat in zip(sky.spherical.lon.deg.tolist(), sky.spherical.lat.deg.tolist(), strict=True)
    )
    path.write_text(
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
        f"{systems}<TABLE>{before}{fields}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    return path


def field(name: str, more: str = "") -> str:
    return f'<FIELD ID="f_{name}" name="{name}" datatype="double" unit="deg" {more}/>'


def test_a_group_of_a_votable_says_the_frame_of_its_columns(tmp_path: Path):
    systems = '<COOSYS ID="o" system="ICRS"/><COOSYS ID="s" system="eq_FK4" equinox="B1950"/>'
    group = '<GROUP ref="s"><FIELDref ref="f_ra"/><FIELDref ref="f_dec"/></GROUP>'
    check(votable(tmp_path / "g.vot", B1950, systems, field("ra") + field("dec"), group))
    path = votable(tmp_path / "n.vot", B1950, systems, field("ra") + field("dec"))
    with pytest.raises(InputError, match="COOSYS ICRS, eq_FK4 B1950, and does not say in which of them ra and dec are"):
        read_catalogue(path)
    ecliptic = [field(name, f'ucd="pos.ecliptic.{axis}"') for name, axis in (("x", "lon"), ("y", "lat"))]
    check(votable(tmp_path / "e.vot", ECLIPTIC, "", "".join(ecliptic)))


@pytest.mark.parametrize("code", ["B", "I", "J", "K"])
@pytest.mark.parametrize("null", [None, 63])
def test_unsigned_numbers_of_fits_tables_may_be_missing(tmp_path: Path, code: str, null: int | None):
    zero = {"B": -128, "I": 2**15, "J": 2**31, "K": 2**63}[code]
    dtype = {"B": np.int8, "I": np.uint16, "J": np.uint32, "K": np.uint64}[code]
    number = fits.Column(
        "id", code, array=np.array([5, 63, 7], dtype), bzero=zero, null=None if null is None else null - zero
    )
    places = [fits.Column(name, "D", array=values) for name, values in (("ra", RA), ("dec", DEC))]
    fits.BinTableHDU.from_columns([number, *places]).writeto(tmp_path / "t.fits")
    notices: list[str] = []
    ids = np.ma.asarray(identifiers(read_table(tmp_path / "t.fits"), notices)[0])
    assert ids.tolist() == [5, None if null else 63, 7] and not notices


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t"), ("txt", " ")])
def test_numbers_that_begin_with_0_keep_it(tmp_path: Path, ending: str, mark: str):
    rows = ["id x ra dec", "007 05 010.5 1", "042 6 150 2", "100 7 151 -3"]
    (tmp_path / f"t.{ending}").write_text("\n".join(row.replace(" ", mark) for row in rows) + "\n")
    table = read_table(tmp_path / f"t.{ending}")
    assert list(table["id"]) == ["007", "042", "100"] and table["ra"].dtype.kind == "f"
    (tmp_path / "m.csv").write_text("id,ra,dec\n007,150,2\n,151,3\n")
    assert np.ma.getmaskarray(read_table(tmp_path / "m.csv")["id"]).tolist() == [False, True]


def test_decimals_of_parquet_are_ids(tmp_path: Path):
    places = {"ra": RA, "dec": DEC}
    for ids, wanted in (
        ([Decimal(2**63 + 1), Decimal(2), None], [str(2**63 + 1), "2", None]),
        ([Decimal(2**60 + 1), Decimal(2), Decimal(3)], [2**60 + 1, 2, 3]),
    ):
        parquet.write_table(pyarrow.table({"id": pyarrow.array(ids), **places}), tmp_path / "t.parquet")
        assert np.ma.asarray(read_table(tmp_path / "t.parquet")["id"]).tolist() == wanted
