"""Catalogues: positions in every format, tables that come back as written, and a line for all that cannot be used."""

import csv
import socket
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import FK5, Latitude, SkyCoord
from astropy.io import fits, votable
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import example, given
from hypothesis import strategies as st

from astrovision.catalogues import Column, read_catalogue, write_catalogue
from shared_backbones.errors import InputError

RA, DEC = np.array([150.1, 0.0, 359.9]), np.array([2.2, -89.5, 41.0])
META = {"model": "galaxies", "sha256": "ab" * 32, "model_sha256": "ab" * 16, "note": "é, long: " + "x" * 200}


def columns(rows: int = 3) -> list[Column]:
    return [
        Column("name", np.array([f"source {row}" for row in range(rows)]), description="as given"),
        Column("ra", RA[:rows], "deg", "pos.eq.ra;meta.main", "right ascension, ICRS"),
        Column("dec", DEC[:rows], "deg", "pos.eq.dec;meta.main"),
        Column("flux", np.array([1.5, np.nan, 3.0], "f4")[:rows], "nJy", "phot.flux"),
        Column("count", np.ma.array([1, 2, 3], mask=[False, True, False])[:rows]),
        Column("good", np.array([True, False, True])[:rows]),
        Column("flags", np.array([0, 255, 7], np.uint8)[:rows]),
    ]


def check(found: Any) -> None:
    np.testing.assert_allclose(found.ra_deg, RA, atol=1e-9)
    np.testing.assert_allclose(found.dec_deg, DEC, atol=1e-9)
    assert found.x is None and found.y is None and len(found) == 3


def test_columns_are_given_as_text(tmp_path: Path):
    table = Table({"ra": RA, "dec": DEC, "kind": [" disk ", "", "star"], "number": [1.0, np.nan, 2.5]})
    table["count"] = MaskedColumn([1, 2, 3], mask=[False, True, False])
    table.write(tmp_path / "c.fits")
    found = read_catalogue(tmp_path / "c.fits")
    assert found.texts("kind") == ["disk", "", "star"]
    assert found.texts("number") == ["1", "", "2.5"] and found.texts("count") == ["1", "", "3"]
    with pytest.raises(InputError, match="has no column label; found ra, dec, kind, number, count"):
        found.texts("label")


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".vot", ".xml", ".fits", ".fit", ".parquet"])
def test_what_is_written_is_read(tmp_path: Path, ending: str):
    path = tmp_path / f"c{ending}"
    write_catalogue(path, columns(), meta=META)
    found = read_catalogue(path)
    check(found)
    assert found.table.colnames == [column.name for column in columns()]
    assert list(found.table["name"]) == ["source 0", "source 1", "source 2"]
    assert list(found.table["flags"]) == [0, 255, 7]
    assert [value in (True, "True") for value in found.table["good"].tolist()] == [True, False, True]
    assert np.ma.getmaskarray(found.table["count"]).tolist() == [False, True, False]
    flux = np.ma.filled(np.ma.asanyarray(found.table["flux"]), np.nan)
    np.testing.assert_array_equal(flux, np.array([1.5, np.nan, 3], "f4"))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_votable_says_what_its_columns_are(tmp_path: Path):
    write_catalogue(tmp_path / "c.vot", columns(), meta=META)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = votable.parse(tmp_path / "c.vot")
    table = document.get_first_table()
    ra = table.get_field_by_id_or_name("ra")
    assert (ra.ucd, str(ra.unit), ra.description) == ("pos.eq.ra;meta.main", "deg", "right ascension, ICRS")
    infos: Any = document.resources[0].infos
    assert {info.name: info.value for info in infos} == META


def test_a_fits_table_says_what_its_columns_are(tmp_path: Path):
    write_catalogue(tmp_path / "c.fits", columns(), meta=META)
    header = fits.getheader(tmp_path / "c.fits", 1)
    assert (header["TUNIT2"], header["TUCD2"], header["TCOMM2"]) == (
        "deg", "pos.eq.ra;meta.main", "right ascension, ICRS",
    )  # fmt: skip
    assert header["MODEL"] == "galaxies" and header["SHA256"] == "ab" * 32 and header["model_sha256"] == "ab" * 16
    assert header["NOTE"] == "\\xe9, long: " + "x" * 200
    table = read_catalogue(tmp_path / "c.fits").table
    assert Table.read(tmp_path / "c.fits")["flux"].unit == table["flux"].unit == units.nJy
    assert table["ra"].description == "right ascension, ICRS" and table["ra"].meta == {"ucd": "pos.eq.ra;meta.main"}


def test_long_or_odd_names_become_comments_in_fits(tmp_path: Path):
    meta = {"a long name": "x", "model_weights_sha256": "y" * 64, "naxis": "9", "TFORM1": "PA"}
    write_catalogue(tmp_path / "c.fits", columns(), meta=meta)
    header = fits.getheader(tmp_path / "c.fits", 1)
    said = "".join(map(str, header["COMMENT"]))
    assert "a long name: x" in said and "y" * 64 in said and "TFORM1: PA" in said and header["NAXIS"] == 2


def test_an_ecsv_table_says_what_its_columns_are(tmp_path: Path):
    write_catalogue(tmp_path / "c.ecsv", columns(), meta=META)
    table = Table.read(tmp_path / "c.ecsv", format="ascii.ecsv")
    assert table.meta == META and table["ra"].meta == {"ucd": "pos.eq.ra;meta.main"}
    assert table["flux"].unit == units.nJy and table["ra"].description == "right ascension, ICRS"
    assert table["good"].dtype == bool and table["flags"].dtype == np.uint8


def test_a_parquet_file_says_what_its_columns_are(tmp_path: Path):
    write_catalogue(tmp_path / "c.parquet", columns(), meta=META)
    table = pq.read_table(tmp_path / "c.parquet")
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == META
    assert table.schema.field("ra").metadata == {
        b"unit": b"deg", b"ucd": b"pos.eq.ra;meta.main", b"description": b"right ascension, ICRS",
    }  # fmt: skip
    assert table["count"].to_pylist() == [1, None, 3] and table["good"].to_pylist() == [True, False, True]


def test_a_csv_file_is_one_that_every_program_reads(tmp_path: Path):
    write_catalogue(tmp_path / "c.csv", [*columns(), Column('odd, "name"', ["a,b", 'c"d', "é"])], meta=META)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["ra"]) for row in rows] == RA.tolist() and [row["count"] for row in rows] == ["1", "", "3"]
    assert [row['odd, "name"'] for row in rows] == ["a,b", 'c"d', "é"]


@given(
    numbers=st.lists(st.floats(width=64, allow_infinity=False), min_size=1, max_size=5),
    text=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8),
)
@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".vot", ".fits", ".parquet"])
def test_any_number_and_text_comes_back(tmp_path_factory, ending: str, numbers: list, text: str):
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    rows = len(numbers)
    given_columns = [
        Column("ra", np.zeros(rows), "deg"), Column("dec", np.zeros(rows), "deg"), Column("value", np.array(numbers)),
        Column("text", np.array([f"t-{text}"] * rows), description=text),
    ]  # fmt: skip
    write_catalogue(path, given_columns, meta={"text": text})
    table = read_catalogue(path).table
    np.testing.assert_array_equal(np.ma.filled(np.ma.asanyarray(table["value"]).astype(float), np.nan), numbers)
    escaped = text.encode("ascii", "backslashreplace").decode() if ending == ".fits" else text
    assert set(table["text"].tolist()) == {f"t-{escaped}"}


@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".vot", ".fits", ".parquet"])
def test_control_characters_units_in_no_standard_and_no_rows_can_be_written(tmp_path: Path, ending: str):
    odd = [
        Column("ra", RA, "deg"), Column("dec", DEC, "deg"), Column("we\x1bird", np.array(["a\0b", "\x1b[31m", "é"])),
        Column("rate", np.ones(3), "furlongs/fortnight"), Column("half", np.ones(3, np.float16)),
        *(Column(kind, np.ones(3, kind)) for kind in ("int8", "uint16", "uint32", "int64")),
    ]  # fmt: skip
    path = tmp_path / f"c{ending}"
    if ending == ".csv":
        odd.pop(2)
    write_catalogue(path, odd, meta={"we\x1bird": "a\nb"})
    table = read_catalogue(path).table
    assert table["rate"].unit is None or "furlong" in str(table["rate"].unit)
    assert {int(table[kind][0]) for kind in ("int8", "uint16", "uint32", "int64")} == {1}
    if ending in (".vot", ".fits"):
        assert table["we\\x1bird"][1] == "\\x1b[31m"
    write_catalogue(path, columns(0), meta={})
    assert len(read_catalogue(path)) == 0


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(InputError, match=r"c\.txt: ends in '\.txt'; expected \.csv, \.ecsv, \.vot"):
        write_catalogue(tmp_path / "c.txt", columns(), meta={})
    with pytest.raises(InputError, match="cannot be written"):
        write_catalogue(tmp_path / "absent" / "c.fits", columns(), meta={})
    with pytest.raises(ValueError, match="expected one or more different ones"):
        write_catalogue(tmp_path / "c.csv", [Column("a", [1]), Column("a", [2])], meta={})
    with pytest.raises(ValueError, match="expected one length"):
        write_catalogue(tmp_path / "c.csv", [Column("a", [1]), Column("b", [2, 3])], meta={})
    with pytest.raises(ValueError, match=r"expected \(N,\) numbers, bools or text"):
        write_catalogue(tmp_path / "c.csv", [Column("a", np.array([object()]))], meta={})
    with pytest.raises(InputError, match="columns id, ID: some differ in case alone"):
        write_catalogue(tmp_path / "c.fits", [Column("id", [1]), Column("ID", [2])], meta={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("ra", "dec"), ("RA", "DEC"), ("RAJ2000", "DEJ2000"), ("_RAJ2000", "_DEJ2000"), ("ALPHA_J2000", "DELTA_J2000"),
        ("ra_deg", "dec_deg"), ("RA_ICRS", "DE_ICRS"), ("Right Ascension", "Declination"),
    ],
)  # fmt: skip
def test_usual_names_are_known(tmp_path: Path, ra: str, dec: str):
    rows = "".join(f"{number},{a},{d}\n" for number, (a, d) in enumerate(zip(RA, DEC, strict=True)))
    check(read_catalogue(write_csv(tmp_path / "c.csv", f"id,{ra},{dec}\n{rows}")))


def test_ucds_come_before_names(tmp_path: Path):
    table: Any = Table({"RAJ2000": RA / 2, "DEJ2000": DEC / 2, "lon": RA, "lat": DEC, "e_lon": RA})
    for name, ucd in {
        "RAJ2000": "pos.eq.ra", "DEJ2000": "pos.eq.dec", "lon": "pos.eq.ra;meta.main", "lat": "POS.EQ.DEC;meta.main",
        "e_lon": "stat.error;pos.eq.ra",
    }.items():  # fmt: skip
        table[name].meta["ucd"] = ucd
    table.write(tmp_path / "c.vot", format="votable")
    check(read_catalogue(tmp_path / "c.vot"))
    found: Any = read_catalogue(tmp_path / "c.vot", ra="RAJ2000", dec="lat")
    np.testing.assert_allclose(found.ra_deg, RA / 2)


@pytest.mark.parametrize("unit", [units.deg, units.rad, units.hourangle, units.arcsec, units.hour])
@pytest.mark.parametrize("ending", ["ecsv", "fits", "vot"])
def test_units_are_heeded(tmp_path: Path, unit: Any, ending: str):
    factor = 15.0 if unit in (units.hourangle, units.hour) else unit.to(units.deg)
    path = tmp_path / f"c.{ending}"
    write_catalogue(path, [Column("ra", RA / factor, str(unit)), Column("dec", np.radians(DEC), "rad")], meta={})
    check(read_catalogue(path))


def test_quantities_of_a_qtable_are_read(tmp_path: Path):
    QTable({"ra": RA * units.deg, "dec": np.radians(DEC) * units.rad}).write(tmp_path / "c.ecsv")
    check(read_catalogue(tmp_path / "c.ecsv"))


def test_sexagesimal_text_is_hours_and_degrees(tmp_path: Path):
    sky: Any = SkyCoord(RA, DEC, unit="deg")
    text = sky.to_string("hmsdms", sep=":", precision=9)
    rows = "\n".join(line.replace(" ", ",") for line in text)
    check(read_catalogue(write_csv(tmp_path / "c.csv", f"ra,dec\n{rows}\n")))
    letters = "\n".join(line.replace(" ", ",") for line in sky.to_string("hmsdms", precision=9))
    check(read_catalogue(write_csv(tmp_path / "l.csv", f"ra,dec\n{letters}\n")))
    spaced = [line.split(",") for line in rows.replace(":", " ").splitlines()]
    table: Any = Table(rows=spaced, names=["RAJ2000", "DEJ2000"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table["RAJ2000"].unit = units.UnrecognizedUnit('"h:m:s"')
        table["DEJ2000"].unit = units.UnrecognizedUnit('"d:m:s"')
        table.write(tmp_path / "c.vot", format="votable")
    check(read_catalogue(tmp_path / "c.vot"))


@given(hours=st.floats(0, 24), degrees=st.floats(-90, 90))
@example(hours=23.9999999999, degrees=0.0)
def test_sexagesimal_text_is_what_astropy_makes_of_it(tmp_path_factory, hours: float, degrees: float):
    sky: Any = SkyCoord(hours * 15 % 360, degrees, unit="deg")
    ra, dec = sky.to_string("hmsdms", sep=":", precision=4).split()
    found = read_catalogue(write_csv(tmp_path_factory.getbasetemp() / "s.csv", f"ra,dec\n{ra},{dec}\n"))
    expected: Any = Latitude(dec, unit="deg")  # astropy warns of 24 hours, which a right ascension rounds to
    assert found.ra_deg is not None and found.dec_deg is not None
    assert found.ra_deg[0] == pytest.approx(15 * sum(float(p) / 60**n for n, p in enumerate(ra.split(":"))), abs=1e-9)
    assert found.dec_deg[0] == pytest.approx(expected.deg, abs=1e-9)


def test_missing_positions_are_nan(tmp_path: Path):
    found = read_catalogue(write_csv(tmp_path / "c.csv", "ra,dec\n1,2\n,3\nnan,4\n5,\n"))
    np.testing.assert_array_equal(found.ra_deg, [1, np.nan, np.nan, 5])
    np.testing.assert_array_equal(found.dec_deg, [2, 3, 4, np.nan])
    found = read_catalogue(write_csv(tmp_path / "t.csv", "ra,dec\n01:00:00,02:00:00\n,\n"))
    np.testing.assert_array_equal(found.ra_deg, [15, np.nan])
    masked = [Column("ra", np.ma.array([1, 2], mask=[False, True])), Column("dec", np.array([1, 2]))]
    for ending in ("fits", "vot", "ecsv", "parquet"):
        write_catalogue(tmp_path / f"m.{ending}", masked, meta={})
        np.testing.assert_array_equal(read_catalogue(tmp_path / f"m.{ending}").ra_deg, [1, np.nan])


def test_pixel_positions_are_taken_where_they_are_asked_for(tmp_path: Path):
    path = write_csv(tmp_path / "c.csv", "X_IMAGE,Y_IMAGE,t\n1.5,2\n,4\n".replace("\n", ",a\n").replace("t,a", "t"))
    found = read_catalogue(path, x="X_IMAGE", y="Y_IMAGE")
    assert found.ra_deg is None and found.dec_deg is None and found.y is not None
    np.testing.assert_array_equal(found.x, [1.5, np.nan])
    assert found.y.tolist() == [2, 4]
    with pytest.raises(InputError, match="column t has text, expected pixels"):
        read_catalogue(path, x="X_IMAGE", y="t")
    write_catalogue(tmp_path / "u.ecsv", [Column("x", [1.0], "deg"), Column("y", [1.0], "pix")], meta={})
    with pytest.raises(InputError, match="column x has unit deg, expected pixels"):
        read_catalogue(tmp_path / "u.ecsv", x="x", y="y")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "no column that is known to be ra; found a, b; give the names with --ra and --dec, or --x"),
        ("ra,b\n1,2\n", {}, "has no column that is known to be dec; found ra, b"),
        ("ra,RAJ2000,dec\n1,2,3\n", {}, "ra, RAJ2000 could all be the column of --ra; give the names with --ra and"),
        ("ra,dec\n1,2\n", {"ra": "r\x1bx", "dec": "dec"}, r"has no column r\\x1bx; found ra, dec"),
        ("ra,dec\n1,2\n", {"ra": "ra"}, "only one of --ra and --dec is given"),
        ("ra,dec\n1,2\n", {"y": "ra"}, "only one of --x and --y is given"),
        ("ra,dec\n1,2\n", {"ra": "ra", "dec": "dec", "x": "ra", "y": "dec"}, "expected one pair"),
        ("ra,dec\n1,2\n1,91\n", {}, "column dec has 91 degrees in row 2, expected -90 to 90"),
        ("ra,dec\n361,2\n", {}, "column ra has 361 degrees in row 1, expected -360 to 360"),
        ("ra,dec\nabc,2\n", {}, "column ra has 'abc' in row 1, expected degrees, or three parts such as 12:34:56.7"),
        ("ra,dec\n1:2:3,2\n1:61:3,2\n", {}, "column ra has '1:61:3' in row 2"),
        ("ra,dec\n1 2 3,4 5 6\n", {}, "column ra has '1 2 3' in row 1"),
        ("ra,dec\n1,1h2m3s\n", {}, "column dec has '1h2m3s' in row 1"),
        ("ra,dec,ra\n1,2,3\n", {}, "has column ra more than once; rename all but one"),
        ("/etc/hostname", {}, "no column that is known to be ra"),
        ("ra,dec\n1,2,3\n", {}, r"c\.csv: cannot be read"),
        ("", {}, "has no columns of numbers or text"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, options: dict, message: str):
    path = write_csv(tmp_path / "c.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        read_catalogue(path, **options)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("unit", ["mag", "Jy", "m", "furlong"])
@pytest.mark.parametrize("ending", ["ecsv", "fits", "vot", "parquet"])
def test_units_that_are_no_angles_are_refused(tmp_path: Path, unit: str, ending: str):
    path = tmp_path / f"c.{ending}"
    write_catalogue(path, [Column("ra", RA, unit), Column("dec", DEC, "deg")], meta={})
    with pytest.raises(InputError, match=f"column ra has unit {unit}, which is no angle; expected deg, rad"):
        read_catalogue(path)


def test_units_of_text_that_are_no_angles_are_refused(tmp_path: Path):
    write_catalogue(tmp_path / "c.ecsv", [Column("ra", ["1:2:3"], "mag"), Column("dec", [1.0])], meta={})
    with pytest.raises(InputError, match="column ra has text with unit mag, expected d:m:s"):
        read_catalogue(tmp_path / "c.ecsv")


def test_ambiguous_ucds_are_refused(tmp_path: Path):
    both = [Column(name, RA, "deg", "pos.eq.ra;meta.main") for name in ("a", "b")]
    write_catalogue(tmp_path / "c.vot", [*both, Column("dec", DEC)], meta={})
    with pytest.raises(InputError, match="a, b could all be the column of --ra"):
        read_catalogue(tmp_path / "c.vot")


def test_columns_of_other_things_are_left_out_or_refused(tmp_path: Path):
    variable = fits.Column("v", "PE()", array=np.array([np.ones(2, "f4"), np.ones(1, "f4")], object))
    pairs = fits.Column("pair", "2E", array=np.ones((2, 2)))
    good = fits.Column("good", "L", array=np.array([True, False]))
    plain = [fits.Column(name, "D", array=np.ones(2)) for name in ("ra", "dec")]
    fits.BinTableHDU.from_columns([variable, pairs, good, *plain]).writeto(tmp_path / "c.fits")
    found = read_catalogue(tmp_path / "c.fits")
    assert found.table.colnames == ["pair", "good", "ra", "dec"]
    for name in ("pair", "good"):
        with pytest.raises(InputError, match=f"column {name} does not hold one number for each row"):
            read_catalogue(tmp_path / "c.fits", ra=name, dec="dec")
    table = pa.table({
        "ra": [1.0, None], "dec": pa.array([1, 2], pa.int16()), "list": [[1], [2]], "raw": [b"a", b"b"],
        "kind": pa.array(["a", None]).dictionary_encode(), "good": [True, None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "c.parquet")
    found = read_catalogue(tmp_path / "c.parquet")
    assert found.table.colnames == ["ra", "dec", "kind", "good"] and found.table["kind"].tolist() == ["a", None]
    np.testing.assert_array_equal(found.ra_deg, [1, np.nan])
    pq.write_table(pa.table({"list": [[1], [2]]}), tmp_path / "l.parquet")
    with pytest.raises(InputError, match="has no columns of numbers or text"):
        read_catalogue(tmp_path / "l.parquet")


def test_sextractor_s_table_is_found_beside_the_header(tmp_path: Path):
    header = fits.BinTableHDU.from_columns([fits.Column("Field Header Card", "80A", array=np.array(["x"]))])
    objects = [fits.Column(name, "D", array=values, unit="deg") for name, values in
               (("ALPHA_J2000", RA), ("DELTA_J2000", DEC))]  # fmt: skip
    data = fits.BinTableHDU.from_columns(objects)
    fits.HDUList([fits.PrimaryHDU(), header, data]).writeto(tmp_path / "ldac.fits")
    check(read_catalogue(tmp_path / "ldac.fits"))
    fits.HDUList([fits.PrimaryHDU(), data, data.copy()]).writeto(tmp_path / "two.fits")
    with pytest.raises(InputError, match="has 2 tables"):
        read_catalogue(tmp_path / "two.fits")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(InputError, match=r"has 0 tables \(none\); expected one"):
        read_catalogue(tmp_path / "image.fits")


VOTABLE = """<?xml version="1.0"?>{doctype}
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="ra" datatype="double" unit="deg"/><FIELD name="dec" datatype="double" unit="deg"/>
<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"""


def test_a_votable_never_leads_elsewhere(tmp_path: Path):
    path = tmp_path / "c.vot"
    server = socket.create_server(("127.0.0.1", 0))
    asked = []
    threading.Thread(target=lambda: asked.append(server.accept()), daemon=True).start()
    for address in (f"http://127.0.0.1:{server.getsockname()[1]}/x", f"file://{tmp_path}/x", "ftp://127.0.0.1/x"):
        for stream in (f'<STREAM href="{address}"/>', f"<v:STREAM xmlns:v='x' href='{address}'></v:STREAM>"):
            path.write_text(VOTABLE.format(doctype="", data=f"<BINARY>{stream}</BINARY>"))
            with pytest.raises(InputError, match="its data are in another file or at an address"):
                read_catalogue(path)
    assert not asked
    doctype = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    path.write_text(VOTABLE.format(doctype=doctype, data="<TABLEDATA><TR><TD>&b;</TD><TD>1</TD></TR></TABLEDATA>"))
    with pytest.raises(InputError, match="defines XML entities"):
        read_catalogue(path)
    path.write_text(VOTABLE.format(doctype="", data="<TABLEDATA><TR><TD>1</TD><TD>2</TD></TR></TABLEDATA>"))
    assert len(read_catalogue(path)) == 1
    two = VOTABLE.replace("</TABLE></RESOURCE>", "</TABLE><TABLE/></RESOURCE>").format(doctype="", data="<TABLEDATA/>")
    path.write_text(two)
    with pytest.raises(InputError, match="has 2 tables; expected one"):
        read_catalogue(path)
    server.close()


def test_an_ecsv_header_makes_no_objects(tmp_path: Path):
    path = tmp_path / "c.ecsv"
    for hostile in ("!!python/object/apply:os.system ['touch hacked']", "!!python/name:os.system"):
        path.write_text(
            "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, datatype: float64}\n# - {name: dec, datatype: float64}\n"
            f"# meta: {hostile}\nra dec\n1 2\n"
        )
        with pytest.raises(InputError, match=r"c\.ecsv: cannot be read"):
            read_catalogue(path)


@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".vot", ".xml", ".fits", ".parquet"])
def test_damaged_and_foreign_files_are_one_line(tmp_path: Path, ending: str):
    path = tmp_path / f"c\n{ending}"
    with pytest.raises(InputError, match="no such file; expected a catalogue"):
        read_catalogue(path)
    for content in (b"", b"\x80\x04\x95\0\0", b"\xff\xfe\0\0" * 99, np.random.default_rng(0).bytes(9000), b"PAR1PAR1"):
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_catalogue(path)
        assert str(caught.value).isprintable() and "c\\n" in str(caught.value)
    if ending in (".vot", ".xml", ".fits", ".parquet"):
        path.unlink()
        write_catalogue(path, columns(), meta={})
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=r"is truncated|cannot be read"):
            read_catalogue(path)


def test_another_ending_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"c\.doc: ends in '\.doc'; expected \.csv, \.ecsv"):
        read_catalogue(tmp_path / "c.doc")


@given(places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=12))
@pytest.mark.parametrize("ending", [".csv", ".ecsv", ".vot", ".fits", ".parquet"])
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path_factory, ending: str, places: list):
    folder = tmp_path_factory.getbasetemp() / "changed-catalogues"
    folder.mkdir(exist_ok=True)
    sound = folder / f"sound{ending}"
    if not sound.exists():
        write_catalogue(sound, columns(), meta=META)
    content = bytearray(sound.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    changed = folder / f"changed{ending}"
    changed.write_bytes(content)
    try:
        assert len(read_catalogue(changed)) >= 0
    except InputError as error:
        assert str(error).isprintable() and "changed" in str(error)


def test_masked_text_of_a_table_is_written(tmp_path: Path):
    for ending in ("fits", "vot", "ecsv", "parquet", "csv"):
        text = MaskedColumn(["a", "b", "c"], mask=[False, True, False])
        write_catalogue(tmp_path / f"c.{ending}", [Column("ra", RA), Column("dec", DEC), Column("t", text)], meta={})
        found = read_catalogue(tmp_path / f"c.{ending}").table["t"]
        assert [value or "" for value in np.ma.filled(np.ma.asanyarray(found), "").tolist()] == ["a", "", "c"]


@pytest.mark.parametrize("rows", [["150,2", "-999,-999"], ["-99,-99", "-99,-99", "150,2"], ["n/a,-", "150,2"]])
def test_however_many_rows_without_a_position_are_left_out(tmp_path: Path, rows: list[str]):
    found = read_catalogue(write_csv(tmp_path / "c.csv", "\n".join(["ra,dec", *rows, ""])))
    assert found.ra_deg is not None
    assert np.isnan(found.ra_deg).sum() == len(rows) - 1 and np.nanmax(found.ra_deg) == 150


def test_an_equinox_of_fk5_is_a_julian_year(tmp_path: Path):
    place: Any = SkyCoord(150, 2, unit="deg").transform_to(FK5(equinox="J1975"))
    table = Table({"ra": [place.ra.deg], "dec": [place.dec.deg]}, meta={"RADESYS": "FK5", "EQUINOX": 1975.0})
    table.write(tmp_path / "c.fits")
    found: Any = read_catalogue(tmp_path / "c.fits")
    np.testing.assert_allclose(found.ra_deg, 150, atol=1e-7)
