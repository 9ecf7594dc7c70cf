"""Where mosaics lie: parity, whole-sky maps, pixels that are not square, frames, and what headers leave unclear."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable
from hypothesis import given, settings
from hypothesis import strategies as st

from astrovision.cutouts import OFF_IMAGE, PARTIAL, open_mosaic
from shared_backbones.errors import InputError

SIDE = 60


def sky_wcs(
    projection: str = "TAN", turn: float = 0.0, parity: int = -1, scale: float = 1e-3, crval: tuple = (150, 2)
) -> WCS:
    """A WCS whose pixels are turned by some degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.crpix = crval, [SIDE / 2, SIDE / 2]
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale * np.array([[parity * cos, -sin], [parity * sin, cos]])
    return wcs


def mirrored(wcs: WCS, axis: int, length: int) -> WCS:
    """The WCS of the same image whose rows (axis 1) or columns (0) are in the other order."""
    other = wcs.deepcopy()
    other.wcs.crpix[axis] = length + 1 - wcs.wcs.crpix[axis]
    other.wcs.cd[:, axis] *= -1
    return other


def write(path: Path, values: np.ndarray, wcs: WCS | None = None, **cards: Any) -> Path:
    header = fits.Header() if wcs is None else wcs.to_header()
    header.update(cards)
    fits.PrimaryHDU(values, header).writeto(path, overwrite=True)
    return path


def noise(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)


@settings(max_examples=30)
@given(
    projection=st.sampled_from(["TAN", "SIN", "ZEA", "STG", "ARC", "AIT", "CAR", "MOL", "CEA", "SFL"]),
    turn=st.floats(-180, 180), parity=st.sampled_from([-1, 1]), axis=st.sampled_from([0, 1]),
    size=st.integers(1, 30), scale=st.sampled_from([None, 2.5, 5.0]),
)  # fmt: skip
def test_the_same_sky_mirrored_gives_the_same_cutouts(
    tmp_path_factory, projection: str, turn: float, parity: int, axis: int, size: int, scale: float | None
):
    folder = tmp_path_factory.mktemp("parity")
    wcs = sky_wcs(projection, turn, parity, crval=(40, 2))
    other = mirrored(wcs, axis, SIDE)
    places = np.array([[20.0, 30.0], [33.5, 17.25], [5, 50], [40, 40]])
    first, second = write(folder / "a.fits", noise(), wcs), write(folder / "b.fits", np.flip(noise(), 1 - axis), other)
    with open_mosaic(first) as one, open_mosaic(second) as two:
        assert (one.parity, two.parity) == (parity, -parity)
        sky = one.sky(places)
        for wanted in (-1, 1):
            ours, theirs = (
                mosaic.cut(mosaic.pixels(*sky.T), size, pixel_scale_arcsec=scale, parity=wanted)
                for mosaic in (one, two)
            )
            assert ours.flags.tolist() == theirs.flags.tolist()
            same = [
                any(np.allclose(np.rot90(other, turns, (1, 2)), values, atol=1e-3) for turns in (0, 2))
                for values, other in zip(ours.values, theirs.values, strict=True)
            ]
            assert all(same)


@pytest.mark.parametrize("axis", [0, 1])
def test_north_that_is_up_stays_up(tmp_path: Path, axis: int):
    wcs = sky_wcs(turn=20)
    write(tmp_path / "a.fits", noise(), wcs)
    write(tmp_path / "b.fits", np.flip(noise(), 1 - axis), mirrored(wcs, axis, SIDE))
    with open_mosaic(tmp_path / "a.fits") as one, open_mosaic(tmp_path / "b.fits") as two:
        sky = one.sky([[20, 30], [41, 12]])
        found = [mosaic.cut(mosaic.pixels(*sky.T), 16, parity=-1).values for mosaic in (one, two)]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_parity_that_is_unknown_is_asked_for_or_given(tmp_path: Path):
    path = write(tmp_path / "a.fits", noise())
    with open_mosaic(path) as mosaic:
        assert mosaic.parity is None
        with pytest.raises(InputError, match=r"a\.fits: has no WCS, so that its parity is unknown; .* --parity"):
            mosaic.cut([[20.3, 20.3]], 8, parity=-1)
        plain = mosaic.cut([[20.3, 20.3]], 8).values
    with open_mosaic(path, parity=1) as mosaic:
        np.testing.assert_array_equal(mosaic.cut([[20.3, 20.3]], 8, parity=1).values, plain)
        assert not np.array_equal(mosaic.cut([[20.3, 20.3]], 8, parity=-1).values, plain)


def whole_sky(projection: str, first: float = 0.0) -> WCS:
    """A map of 360 x 180 pixels of a degree that begins at a longitude."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval, wcs.wcs.cdelt, wcs.wcs.crpix = [first, 0], [1, 1], [0.5, 90.5]
    return wcs


@pytest.mark.parametrize("projection", ["CAR", "CEA", "MER", "SFL"])
@pytest.mark.parametrize("first", [0.0, 100.0])
def test_maps_of_the_whole_sky_wrap(tmp_path: Path, projection: str, first: float):
    path = write(tmp_path / "m.fits", noise(180, 360), whole_sky(projection, first))
    ra = (first + np.array([10.0, 179.0, 181, 270, 350, 359.5])) % 360
    with open_mosaic(path) as mosaic:
        found = mosaic.pixels(ra, np.full(6, 20.0))
        assert (found[:, 0] >= -0.5).all() and (np.diff(found[:, 0]) > 0).all()
        if projection != "SFL":
            np.testing.assert_allclose(found[:, 0], np.array([10, 179, 181, 270, 350, 359.5]) - 0.5, atol=1e-6)
            np.testing.assert_allclose(mosaic.sky(found)[:, 0], ra, atol=1e-6)
            across = mosaic.cut(mosaic.pixels([first], [5.0]), 20)
            x, y = np.ceil(mosaic.pixels([first], [5.0])[0] - 10).astype(int)
            rolled = np.roll(noise(180, 360), -x, 1)[y : y + 20, :20]
            np.testing.assert_array_equal(across.values[0, 0], rolled)
            assert across.flags[0] == 0
            assert mosaic.cut([[0.0, 90.0]], 20, pixel_scale_arcsec=5400).flags[0] == 0


def test_a_map_of_part_of_the_sky_does_not_wrap(tmp_path: Path):
    with open_mosaic(write(tmp_path / "m.fits", noise(180, 200), whole_sky("CAR"))) as mosaic:
        assert mosaic.cut([[0.0, 90.0], [-300.0, 90.0]], 20).flags.tolist() == [PARTIAL, OFF_IMAGE]
        assert mosaic.pixels([270.0], [0.0])[0, 0] < 0 or mosaic.pixels([270.0], [0.0])[0, 0] > 199


def test_pixels_that_are_not_square_are_resampled_to_square_ones(tmp_path: Path):
    y, x = np.mgrid[:80, :80].astype(np.float32)
    wcs = sky_wcs()
    wcs.wcs.cd = np.diag([-1e-3, 2e-3])
    wcs.wcs.crpix = [40, 40]
    blob = np.exp(-(((x - 39) / 8) ** 2) - ((y - 39) / 4) ** 2)  # round on the sky
    with open_mosaic(write(tmp_path / "m.fits", blob, wcs)) as mosaic:
        assert mosaic.pixel_scale_arcsec == pytest.approx(3.6 * np.sqrt(2))
        for scale in (None, 5.0):
            found = mosaic.cut([[39, 39]], 25, pixel_scale_arcsec=scale)
            assert found.flags[0] == 0
            np.testing.assert_allclose(found.values[0, 0], found.values[0, 0].T, atol=0.03)


def test_pixels_that_are_sheared_are_refused(tmp_path: Path):
    wcs = sky_wcs()
    wcs.wcs.cd = 1e-3 * np.array([[-1, 0.5], [0, 1]])
    with (
        open_mosaic(write(tmp_path / "m.fits", noise(), wcs)) as mosaic,
        pytest.raises(InputError, match=r"rows and columns are 63\.4 degrees apart on the sky, expected 90"),
    ):
        mosaic.cut([[30, 30]], 8)


@pytest.mark.parametrize("system", ["icrs", "fk5", "Fk4", "FK4-no-e", "ICRS", " icrs "])
def test_a_frame_is_known_in_any_case_of_letters(tmp_path: Path, system: str):
    path = write(tmp_path / "m.fits", noise(), sky_wcs(), RADESYS=system, EQUINOX=1950.0 if "4" in system else 2000.0)
    frame = {"FK4-NO-E": "fk4noeterms"}.get(system.strip().upper(), system.strip().lower())
    equinox: Any = {"equinox": "B1950" if "4" in system else "J2000"} if frame != "icrs" else {}
    expected: Any = SkyCoord(150, 2, unit="deg", frame=frame, **equinox).icrs
    with open_mosaic(path) as mosaic:
        np.testing.assert_allclose(mosaic.pixels(expected.ra.deg, expected.dec.deg), [[29, 29]], atol=1e-4)


@pytest.mark.parametrize("cards", [{}, {"RADESYS": "ICRS"}, {"RADESYS": "FK5", "EQUINOX": 2000.0}, {"EQUINOX": 2000.0}])
@pytest.mark.parametrize(
    ("axes", "frame"), [("G", "galactic"), ("E", "barycentricmeanecliptic"), ("S", "supergalactic")]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_axes_decide_the_frame_whatever_radesys_says(tmp_path: Path, cards: dict, axes: str, frame: str, swapped: bool):
    wcs = sky_wcs()
    wcs.wcs.ctype = [f"{axes}LON-TAN", f"{axes}LAT-TAN"][:: -1 if swapped else 1]
    wcs.wcs.crval = (2, 150) if swapped else (150, 2)
    expected: Any = SkyCoord(150, 2, unit="deg", frame=frame).icrs
    path = write(tmp_path / "m.fits", noise(), wcs, **cards)
    with open_mosaic(path) as mosaic:
        np.testing.assert_allclose(mosaic.pixels(expected.ra.deg, expected.dec.deg), [[29, 29]], atol=1e-4)
        np.testing.assert_allclose(mosaic.sky([[29, 29]]), [[expected.ra.deg, expected.dec.deg]], atol=1e-7)


def test_ecliptic_axes_of_an_old_frame_are_refused(tmp_path: Path):
    wcs = sky_wcs()
    wcs.wcs.ctype = ["ELON-TAN", "ELAT-TAN"]
    with (
        open_mosaic(write(tmp_path / "m.fits", noise(), wcs, RADESYS="FK4", EQUINOX=1950.0)) as mosaic,
        pytest.raises(InputError, match=r"its frame is not known \(RADESYS FK4, CTYPE ELON-TAN, ELAT-TAN\)"),
    ):
        mosaic.pixels([150], [2])


@pytest.mark.parametrize(
    ("cards", "frame"),
    [
        ({"CTYPE1": "ra---tan", "CTYPE2": "Dec--Tan"}, "icrs"), ({"CUNIT1": "DEG", "CUNIT2": "Degrees"}, "icrs"),
        ({"CUNIT1": "degree", "CUNIT2": "degree"}, "icrs"), ({"EQUINOX": "B1950"}, "fk4"),
        ({"EQUINOX": "1950.0"}, "fk4"), ({"EPOCH": "1950"}, "fk4"), ({"EQUINOX": " j2000.0"}, "fk5"),
        ({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}, "icrs"),
    ],
)  # fmt: skip
def test_headers_that_differ_from_the_standard_in_spelling_are_read(tmp_path: Path, cards: dict, frame: str):
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 30.0}
    header |= {"CRPIX2": 30.0, "CDELT1": -1e-3, "CDELT2": 1e-3, **cards}
    path = write(tmp_path / "m.fits", noise(), **header)
    expected: Any = SkyCoord(150, 2, unit="deg", frame=frame).icrs
    with open_mosaic(path) as mosaic:
        assert mosaic.parity == -1 and mosaic.pixel_scale_arcsec == pytest.approx(3.6)
        np.testing.assert_allclose(mosaic.pixels(expected.ra.deg, expected.dec.deg), [[29, 29]], atol=1e-4)


@pytest.mark.parametrize("system", ["XYZ", "gappt"])
def test_a_frame_that_is_not_known_is_named(tmp_path: Path, system: str):
    path = write(tmp_path / "m.fits", noise(), sky_wcs(), RADESYS=system)
    with pytest.raises(InputError, match=rf"m\.fits\[0\]: its frame is not known \(RADESYS {system.upper()}"):
        open_mosaic([path, write(tmp_path / "n.fits", noise(), sky_wcs())])
    with open_mosaic(path) as mosaic:
        for ask in (lambda: mosaic.pixels([150], [2]), lambda: mosaic.sky([[1, 1]])):
            with pytest.raises(InputError, match=rf"m\.fits: its frame is not known \(RADESYS {system.upper()}"):
                ask()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"turn": 12.5}, "turned by (-)?12.50 degrees, its centre shifted by"),
        ({"parity": 1}, r"mirrored \(parity \+1, not -1\), its centre shifted by"),
        ({"scale": 1.5e-3}, "with pixels 1.5000 times as large, its centre shifted by"),
        ({"crval": (150.01, 2)}, r": its centre shifted by -9\.99, (-)?0\.00 pixels;"),
        ({"crval": (300, -50)}, "on another part of the sky"),
    ],
)
def test_grids_that_differ_say_how(tmp_path: Path, other: dict, said: str):
    files = [write(tmp_path / "a.fits", noise(), sky_wcs()), write(tmp_path / "b.fits", noise(), sky_wcs(**other))]
    with pytest.raises(InputError, match=said) as caught:
        open_mosaic(files)
    assert "expected one for all bands" in str(caught.value)


def test_bands_in_two_units_are_refused(tmp_path: Path):
    files = [write(tmp_path / f"{unit}.fits", noise(), sky_wcs(), BUNIT=unit) for unit in ("nJy", "adu")]
    with pytest.raises(InputError, match=r"adu\.fits\[0\]: has BUNIT adu, .*nJy\.fits\[0\] has nJy; expected one unit"):
        open_mosaic(files)
    same = [write(tmp_path / f"{unit}.fits", noise(), sky_wcs(), BUNIT=unit) for unit in ("Jy", "Jansky")]
    with open_mosaic(same) as mosaic:
        assert mosaic.unit == "Jy"


def test_pv_terms_beside_tan_are_a_distortion_or_are_refused(tmp_path: Path):
    terms = {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_2": 0.0, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_2": 0.0}
    with open_mosaic(write(tmp_path / "scamp.fits", noise(), sky_wcs(crval=(10, 20)), **terms)) as mosaic:
        np.testing.assert_allclose(mosaic.sky([[29, 29]]), [[10, 20]], atol=1e-9)
        assert "has PV terms beside CTYPE RA---TAN; they are applied as the distortion TPV" in mosaic.notices[0]
    with pytest.raises(InputError, match=r"turned\.fits\[0\]: has PV1_1, PV1_2 beside CTYPE RA---TAN: .* write TPV"):
        open_mosaic(write(tmp_path / "turned.fits", noise(), sky_wcs(), PV1_1=1.0, PV1_2=0.0))
    with open_mosaic(write(tmp_path / "plain.fits", noise(), sky_wcs(), PV1_3=180.0)) as mosaic:
        assert not mosaic.notices


@pytest.mark.parametrize("terms", [{"PV2_1": 1.0}, {"PV1_5": 1e-9}, {"PV2_0": 0.0, "PV2_7": 0.0}])
def test_the_first_power_is_there_where_pv_terms_leave_it_out(tmp_path: Path, terms: dict):
    with open_mosaic(write(tmp_path / "p.fits", noise(), sky_wcs())) as plain:
        expected = plain.sky([[3, 5], [40, 9]])
    with open_mosaic(write(tmp_path / "m.fits", noise(), sky_wcs(), **terms)) as mosaic:
        np.testing.assert_allclose(mosaic.sky([[3, 5], [40, 9]]), expected, atol=1e-7)
        np.testing.assert_allclose(mosaic.pixels(*expected.T), [[3, 5], [40, 9]], atol=1e-3)


def test_pv_terms_that_change_nothing_or_repeat_sip_are_passed_over(tmp_path: Path):
    with open_mosaic(write(tmp_path / "d.fits", noise(), sky_wcs(), PV1_0=0.0, PV1_1=0.0, PV1_2=90.0)) as mosaic:
        assert not mosaic.notices
    sip = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "B_0_2": 0.0, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
    with open_mosaic(write(tmp_path / "s.fits", noise(), sky_wcs(), **sip)) as mosaic:
        expected = mosaic.sky([[3, 5], [40, 9]])
    pv = {"PV1_0": 0.0, "PV1_1": 1.01, "PV1_3": 0.1, "PV2_1": 1.0, "PV2_7": 0.1}
    with open_mosaic(write(tmp_path / "b.fits", noise(), sky_wcs(), **sip, **pv)) as mosaic:
        np.testing.assert_allclose(mosaic.sky([[3, 5], [40, 9]]), expected, atol=1e-9)
        assert mosaic.notices == (
            "has PV terms beside SIP terms and CTYPE RA---TAN-SIP; the SIP terms are applied, the others not",
        )


def test_a_distortion_with_the_latitude_first_is_refused(tmp_path: Path):
    swapped = {"CTYPE1": "DEC--TPV", "CTYPE2": "RA---TPV", "CRVAL1": 2.0, "CRVAL2": 150.0, "PV1_1": 1.0, "PV2_1": 1.0}
    with pytest.raises(InputError, match="has the distortion TPV, and its latitude as the first axis"):
        open_mosaic(write(tmp_path / "t.fits", noise(), sky_wcs(), **swapped))


def test_sip_terms_without_sip_are_applied_and_said_to_be(tmp_path: Path, capfd):
    path = write(tmp_path / "m.fits", noise(), sky_wcs(), A_ORDER=2, B_ORDER=2, A_2_0=1e-3, B_0_2=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(fits.getheader(path)).all_pix2world([[0, 0]], 0)
    capfd.readouterr()
    with open_mosaic(path) as mosaic:
        np.testing.assert_allclose(mosaic.sky([[0, 0]]), expected, atol=1e-9)
        assert mosaic.notices == (
            "has SIP terms, but no -SIP in CTYPE; they are applied, and shift positions by up to 0.9 pixels: add -SIP, "
            "or remove the terms",
        )
    assert capfd.readouterr() == ("", "") and not log.filters


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int16", "int32", "uint8"])
def test_blank_pixels_of_packed_images_are_invalid_in_every_type(tmp_path: Path, dtype: str):
    values = np.arange(100, dtype=dtype).reshape(10, 10)
    hdu = fits.CompImageHDU(values)
    hdu.header["BLANK"] = 44 - (2 ** (8 * values.dtype.itemsize - 1) if dtype in ("uint16", "uint32") else 0)
    hdu.writeto(tmp_path / "m.fits")
    with open_mosaic(tmp_path / "m.fits") as mosaic:
        for size in (3, 9):  # by window, and whole
            found = mosaic.cut([[4.0, 4.0]], size)
            assert np.argwhere(~found.valid[0]).tolist() == [[size // 2, size // 2]]


@pytest.mark.parametrize("ending", [".fits.gz", ".fits.bz2", ".fits.xz"])
def test_packed_files_are_the_file(tmp_path: Path, ending: str):
    import bz2
    import gzip
    import lzma

    plain = write(tmp_path / "m.fits", noise(), sky_wcs())
    pack = {".fits.gz": gzip.compress, ".fits.bz2": bz2.compress, ".fits.xz": lzma.compress}[ending]
    (tmp_path / f"m{ending}").write_bytes(pack(plain.read_bytes()))
    with open_mosaic(plain) as expected, open_mosaic(tmp_path / f"m{ending}") as mosaic:
        np.testing.assert_array_equal(mosaic.cut([[9, 9]], 8).values, expected.cut([[9, 9]], 8).values)


def test_tables_of_a_distortion_are_no_images_and_are_heeded(tmp_path: Path):
    wcs = sky_wcs()
    table = DistortionLookupTable(np.full((4, 4), 3, np.float32), (1.0, 1.0), (1.0, 1.0), (20.0, 20.0))
    wcs.cpdis1 = wcs.cpdis2 = table
    hdus: Any = wcs.to_fits()
    hdus[0] = fits.PrimaryHDU(noise(), hdus[0].header)
    hdus[0].header["EXTEND"] = True
    hdus.writeto(tmp_path / "m.fits")
    with open_mosaic(tmp_path / "m.fits") as mosaic:
        np.testing.assert_allclose(mosaic.pixels([150], [2]), [[26, 26]], atol=1e-3)


def test_a_wcs_that_cannot_be_used_is_named(tmp_path: Path):
    path = write(tmp_path / "m.fits", noise(), sky_wcs(), CTYPE1="RA---XYZ", CTYPE2="DEC--XYZ")
    with open_mosaic(path) as mosaic:
        assert mosaic.wcs is None and "has a WCS that cannot be used" in mosaic.notices[0]
