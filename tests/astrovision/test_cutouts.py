"""Cut-outs: those that astropy gives, from every kind of FITS file, and a line for everything that cannot be cut."""

import gzip
import hashlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NDData
from astropy.wcs import WCS
from hypothesis import assume, example, given
from hypothesis import strategies as st

import astrovision.planes
from astrovision.cutouts import FLAGS, HAS_INVALID, OFF_IMAGE, PARTIAL, flag_names, open_mosaic
from shared_backbones.errors import InputError


def tan(scale_arcsec: float = 0.5, side: int = 60, **changes: Any) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = changes.pop("ctype", ["RA---TAN", "DEC--TAN"])
    wcs.wcs.crval = changes.pop("crval", [150, 2])
    wcs.wcs.crpix = changes.pop("crpix", [side / 2, side / 2])
    wcs.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return wcs


def write(path: Path, values: np.ndarray, wcs: WCS | None = None, kind: Any = fits.PrimaryHDU, **cards: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = kind(values, None if wcs is None else wcs.to_header())
    hdu.header.update(cards)
    (hdu if kind is fits.PrimaryHDU else fits.HDUList([fits.PrimaryHDU(), hdu])).writeto(path)
    return path


def ramp(height: int = 50, width: int = 60, dtype: str = "float32") -> np.ndarray:
    """Values that tell row and column: 100 * row + column."""
    return np.add.outer(np.arange(height) * 100, np.arange(width)).astype(dtype)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("mosaics") / "plain.fits", ramp() + 1, tan())


def test_importing_leaves_astropy_alone():
    code = "import sys, astrovision.cutouts, astrovision.catalogues\nassert 'astropy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    x=st.floats(-30, 90) | st.integers(-40, 200).map(lambda number: number / 2),
    y=st.floats(-30, 80) | st.integers(-40, 200).map(lambda number: number / 2),
    size=st.integers(1, 80),
)
def test_a_cutout_is_that_of_cutout2d(plain: Path, x: float, y: float, size: int):
    with open_mosaic(plain) as mosaic:
        found = mosaic.cut([[x, y]], size)
    try:
        expected = Cutout2D(ramp() + 1, (x, y), size, mode="partial", fill_value=0).data
    except ValueError:  # they do not overlap
        expected = np.zeros((size, size))
    np.testing.assert_array_equal(found.values[0, 0], expected)
    np.testing.assert_array_equal(found.valid[0], expected > 0)
    share = (expected > 0).mean()
    assert found.flags[0] == (OFF_IMAGE if share == 0 else PARTIAL if share < 1 else 0)
    with open_mosaic(plain) as mosaic:
        for scale in (None, 0.3, 0.9):
            cut = mosaic.cut([[x, y], [np.nan, y], [x, np.inf]], size, pixel_scale_arcsec=scale)
            here = mosaic.touches([[x, y], [np.nan, y], [x, np.inf]], size, pixel_scale_arcsec=scale)
            assert here.tolist() == (cut.flags != OFF_IMAGE).tolist()


def test_missing_and_endless_positions_are_off_the_image(plain: Path):
    with open_mosaic(plain) as mosaic:
        found = mosaic.cut([[np.nan, 3], [3, np.inf], [-1e300, 3], [1e18, 1e18], [5, 5]], 4)
        assert len(mosaic.cut(np.empty((0, 2)), 4)) == 0
    assert found.flags.tolist() == [OFF_IMAGE] * 4 + [0]
    assert not found.values[:4].any() and not found.valid[:4].any()


def test_flags_have_names():
    assert flag_names(0) == [] and flag_names(PARTIAL | HAS_INVALID) == ["partial", "has_invalid"]
    assert set(FLAGS) == {1, 2, 4}


def test_pixels_without_a_value_are_flagged_and_zero_in_all_bands(tmp_path: Path):
    values = np.stack([ramp() + 1, ramp() + 1])
    values[0, 10, 10], values[1, 11, 12], values[0, 30, 30] = np.nan, np.inf, -np.inf
    with open_mosaic(write(tmp_path / "m.fits", values)) as mosaic:
        found = mosaic.cut([[10, 10], [30, 30], [40, 20], [0, 0]], 5)
    assert found.flags.tolist() == [HAS_INVALID, HAS_INVALID, 0, PARTIAL]
    assert sorted(map(tuple, np.argwhere(~found.valid[0]))) == [(2, 2), (3, 4)]
    assert not found.values[0, :, ~found.valid[0]].any() and np.isfinite(found.values).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_type_is_read_as_astropy_reads_it(tmp_path: Path, dtype: str, packed: bool):
    if packed and dtype == "int64":
        pytest.skip("FITS has no tile compression of it")
    values = ramp(dtype=dtype)
    path = write(tmp_path / "m.fits", values, kind=fits.CompImageHDU if packed else fits.PrimaryHDU)
    expected = fits.getdata(path, 1 if packed else 0)
    with open_mosaic(path) as mosaic:
        found = mosaic.cut([[30, 25]], 20)
    np.testing.assert_allclose(found.values[0, 0], np.asarray(expected, "f8")[15:35, 20:40], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_small_numbers_survive_a_large_bzero(tmp_path: Path, dtype: str):
    values = np.arange(100, dtype=dtype).reshape(10, 10)
    with open_mosaic(write(tmp_path / "m.fits", values)) as mosaic:
        np.testing.assert_array_equal(mosaic.cut([[4.5, 4.5]], 10).values[0, 0], values)


def test_scales_blanks_and_values_that_are_too_large_are_heeded(tmp_path: Path):
    stored = ramp(dtype="int16")
    stored[7, 8] = -99
    path = write(tmp_path / "i.fits", stored)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header.update({"BSCALE": 0.5, "BZERO": 10, "BLANK": -99})  # pyright: ignore
    with open_mosaic(path) as mosaic:
        found = mosaic.cut([[10, 10]], 10)
    expected = stored[5:15, 5:15] * 0.5 + 10
    expected[2, 3] = 0
    np.testing.assert_allclose(found.values[0, 0], expected)
    assert found.flags[0] == HAS_INVALID and not found.valid[0, 2, 3]
    large = ramp(dtype="float64")
    large[1, 1] = 1e300
    with open_mosaic(write(tmp_path / "f.fits", large)) as mosaic:
        assert np.argwhere(~mosaic.cut([[2, 2]], 5).valid[0]).tolist() == [[1, 1]]


def test_blanks_of_compressed_images_are_heeded(tmp_path: Path):
    stored = ramp(dtype="int16")
    stored[7, 8] = -99
    path = write(tmp_path / "m.fits", stored, kind=fits.CompImageHDU, BLANK=-99)
    with open_mosaic(path) as mosaic:
        found = mosaic.cut([[10, 10]], 10)
    assert np.argwhere(~found.valid[0]).tolist() == [[2, 3]]


def test_compressed_images_are_the_same_by_window_and_whole(tmp_path: Path, monkeypatch):
    values = np.stack([ramp(300, 400), ramp(300, 400)[::-1]]).astype("int32")
    path = write(tmp_path / "m.fits.fz", values, tan(), fits.CompImageHDU, FILTER="r")
    position = [[390, 150]]
    with open_mosaic(path) as mosaic:
        windows = mosaic.cut(position, 32)
        assert not mosaic._planes[0].pixels.size
        mosaic.cut(position * 200, 32)
        assert mosaic._planes[0].pixels.size
        whole = mosaic.cut(position, 32)
    monkeypatch.setattr(astrovision.planes, "_IN_MEMORY", 1000)
    monkeypatch.setattr(astrovision.planes, "_BLOCK", 1000)
    with open_mosaic(path) as mosaic:
        in_file = next(mosaic.batches(position * 200, 32, 7))[1]
        assert mosaic._planes[1].pixels.size
    assert windows.flags[0] == PARTIAL
    np.testing.assert_array_equal(windows.values[0, 0, :, :26], values[0, 134:166, 374:])
    np.testing.assert_array_equal(windows.values, whole.values)
    np.testing.assert_array_equal(windows.values[0], in_file.values[0])


def test_a_gzipped_file_is_the_file(plain: Path, tmp_path: Path):
    packed = tmp_path / "plain.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with open_mosaic(packed) as mosaic, open_mosaic(plain) as expected:
        np.testing.assert_array_equal(mosaic.cut([[20, 20]], 9).values, expected.cut([[20, 20]], 9).values)
        assert mosaic.sha256() == hashlib.sha256(packed.read_bytes()).hexdigest()
    packed.write_bytes(gzip.compress(plain.read_bytes())[:-500])
    with pytest.raises(InputError, match=r"plain\.fits\.gz: cannot be read"):
        open_mosaic(packed)


def test_batches_are_what_one_cut_gives(plain: Path):
    positions = np.random.default_rng(0).uniform(-10, 70, (101, 2))
    positions[7] = np.nan
    for scale in (None, 0.8):
        with open_mosaic(plain) as mosaic:
            whole = mosaic.cut(positions, 9, pixel_scale_arcsec=scale)
            seen = []
            for indices, found in mosaic.batches(positions, 9, 10, pixel_scale_arcsec=scale):
                assert len(indices) == len(found) <= 10
                np.testing.assert_array_equal(found.values, whole.values[indices])
                np.testing.assert_array_equal(found.flags, whole.flags[indices])
                seen += indices.tolist()
        assert sorted(seen) == list(range(101))


@pytest.mark.parametrize("ratio", [0.4, 0.5, 1.0, 1.5, 2.0, 3.7])
def test_another_scale_keeps_surface_brightness_and_position(tmp_path: Path, ratio: float):
    y, x = np.mgrid[:200, :220]
    centre, sigma = (103.3, 90.7), 6.0
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2)).astype("f4")
    path = write(tmp_path / "m.fits", np.stack([blob, np.full_like(blob, 3)]), tan(1.0))
    size = 2 * int(30 / ratio) + 1
    with open_mosaic(path) as mosaic:
        found = mosaic.cut([centre], size, pixel_scale_arcsec=ratio)
    assert found.flags.tolist() == [0] and found.valid.all()
    np.testing.assert_allclose(found.values[0, 1], 3, rtol=1e-5)
    image = found.values[0, 0].astype("f8")
    assert image.sum() * ratio**2 == pytest.approx(blob.sum(), rel=2e-3)
    weighted = (image * np.arange(size)).sum() / image.sum()
    offset = 0.0 if ratio != 1 else centre[0] - 103  # copies are centred on whole pixels
    assert weighted == pytest.approx((size - 1) / 2 + offset, abs=0.02)


def test_what_is_finer_than_the_new_pixels_is_not_seen(tmp_path: Path):
    checks = (np.indices((200, 200)).sum(0) % 2).astype("f4")
    with open_mosaic(write(tmp_path / "m.fits", checks, tan(1.0))) as mosaic:
        found = mosaic.cut([[100.2, 99.9]], 20, pixel_scale_arcsec=4)
    np.testing.assert_allclose(found.values, 0.5, atol=0.02)


def test_flags_and_masks_hold_at_another_scale(tmp_path: Path):
    values = np.full((100, 100), 5, "f4")
    values[40:60, 40:60] = np.nan
    with open_mosaic(write(tmp_path / "m.fits", values, tan(1.0))) as mosaic:
        found = mosaic.cut([[20, 20], [50, 50], [0, 20], [-100, 20], [np.nan, 1]], 10, pixel_scale_arcsec=2)
        big = mosaic.cut([[49.5, 49.5]], 50, pixel_scale_arcsec=2)
    assert found.flags.tolist() == [0, HAS_INVALID, PARTIAL, OFF_IMAGE, OFF_IMAGE] and big.flags[0] == HAS_INVALID
    assert not found.values[3:].any() and not found.valid[3:].any()
    np.testing.assert_allclose(found.values[2, 0][found.valid[2]], 5, rtol=1e-6)
    assert 0.4 < found.valid[2].mean() < 0.6
    expected = np.ones((50, 50), bool)
    expected[20:30, 20:30] = False
    np.testing.assert_array_equal(big.valid[0], expected)


@pytest.mark.parametrize(
    "changes",
    [{}, {"ctype": ["GLON-CAR", "GLAT-CAR"]}, {"ctype": ["DEC--TAN", "RA---TAN"], "crval": [2, 150]}],
    ids=["tan", "galactic", "declination first"],
)
def test_positions_are_astropy_s(tmp_path: Path, changes: dict):
    wcs = tan(30, **changes)
    if "ctype" not in changes:
        wcs.wcs.radesys, wcs.wcs.equinox = "FK5", 1975
    points = np.random.default_rng(1).uniform(0, 60, (50, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sky: Any = wcs.pixel_to_world(*points.T)
    with open_mosaic(write(tmp_path / "m.fits", ramp(60, 60), wcs)) as mosaic:
        assert mosaic.pixel_scale_arcsec == pytest.approx(30)
        found = mosaic.pixels(sky.icrs.ra.deg, sky.icrs.dec.deg)
    np.testing.assert_allclose(found, points, atol=1e-6)


def test_positions_under_distortion_are_astropy_s(tmp_path: Path):
    wcs = tan(1, ctype=["RA---TAN-SIP", "DEC--TAN-SIP"])
    header = wcs.to_header()
    header.update({
        "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": -2e-4,
    })  # fmt: skip
    path = tmp_path / "m.fits"
    fits.PrimaryHDU(ramp(60, 60), header).writeto(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected_wcs = WCS(header)
    points = np.random.default_rng(1).uniform(0, 60, (20, 2))
    sky: Any = expected_wcs.pixel_to_world(*points.T)
    with open_mosaic(path) as mosaic:
        np.testing.assert_allclose(mosaic.pixels(sky.ra.deg, sky.dec.deg), points, atol=1e-5)
        part = mosaic.nddata(20, 30, 11)
        far = mosaic.pixels([150, 200, 330], [2, 60, -2])
    assert far.shape == (3, 2) and np.isfinite(far[0]).all() and np.isnan(far[2]).all()
    here: Any = part.wcs.pixel_to_world(5, 5)
    there: Any = expected_wcs.pixel_to_world(20, 30)
    assert here.separation(there).arcsec < 1e-6


def test_positions_that_have_no_place_are_nan(plain: Path):
    with open_mosaic(plain) as mosaic:
        found = mosaic.pixels([150, np.nan, 330, 150, np.inf], [2, 2, -2, 91, 2])
        assert mosaic.pixels([], []).shape == (0, 2)
        assert mosaic.cut(found, 5).flags.tolist() == [0] + [OFF_IMAGE] * 4
    assert np.isfinite(found[0]).all() and np.isnan(found[1:]).all()


def test_one_cutout_is_nddata(tmp_path: Path):
    values = ramp() + 1
    values[24, 3] = np.nan
    wcs = tan()
    with open_mosaic(write(tmp_path / "m.fits", values, wcs, BUNIT="nJy", FILTER="i")) as mosaic:
        found = mosaic.nddata(2, 25, 11)
        assert mosaic.unit == "nJy" and mosaic.bands == ("i",)
    assert found.__class__ is NDData and found.unit == units.nJy and found.data.shape == (11, 11)
    assert found.meta == {"bands": ("i",), "flags": ["partial", "has_invalid"]}
    assert found.mask[:, :3].all() and found.mask[4, 6] and found.mask.sum() == 34
    expected: Any = Cutout2D(values, (2, 25), 11, wcs=wcs, mode="partial").wcs
    for place in ((0, 0), (5, 5), (10, 3)):
        there: Any = expected.pixel_to_world(*place)
        assert found.wcs.pixel_to_world(*place).separation(there).arcsec < 1e-6
    several = write(tmp_path / "c.fits", np.stack([ramp(), ramp()]), wcs, BUNIT="furlongs")
    with open_mosaic(several) as mosaic:
        cube: Any = mosaic.nddata(20, 20, 8)
    assert cube.data.shape == cube.mask.shape == (2, 8, 8) and str(cube.unit) == "furlongs"


def test_bands_have_the_header_s_names_where_those_are_clear(tmp_path: Path):
    cube = np.zeros((3, 8, 8), "f4")
    cases = [
        ({}, ("band1", "band2", "band3")),
        ({"BANDS": "gri"}, ("g", "r", "i")),
        ({"BANDS": "g, r, i"}, ("g", "r", "i")),
        ({"BAND1": "u", "BAND2": "g", "BAND3": "r"}, ("u", "g", "r")),
        ({"BAND0": "u", "BAND1": "g", "BAND2": "r"}, ("u", "g", "r")),
        ({"BAND1": "u", "BAND2": "u", "BAND3": "r"}, ("band1", "band2", "band3")),
    ]
    for number, (cards, names) in enumerate(cases):
        with open_mosaic(write(tmp_path / f"{number}.fits", cube, **cards)) as mosaic:
            assert mosaic.bands == names
    files = [write(tmp_path / f"f{name}.fits", cube[0], FILTER=name) for name in "gr"]
    with open_mosaic(files) as mosaic:
        assert mosaic.bands == ("g", "r")
    with open_mosaic([files[0], files[0]]) as mosaic:
        assert mosaic.bands == ("band1", "band2")
    with open_mosaic(files, bands=["blue", "red"]) as mosaic:
        assert mosaic.bands == ("blue", "red")
    with pytest.raises(InputError, match="has 2 bands, but --bands names 1"):
        open_mosaic(files, bands=["g"])
    with pytest.raises(InputError, match="expected different names"):
        open_mosaic(files, bands=["g", "g"])
    odd = write(tmp_path / "odd.fits", cube[0], FILTER="r", BAND="Sloan r")
    with open_mosaic(odd) as mosaic:
        assert mosaic.bands == ("band1",)


def test_the_image_is_chosen_where_there_are_several(tmp_path: Path):
    path = tmp_path / "m.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(ramp(), name="SCI"), fits.ImageHDU(ramp() * 2, name="VAR")]
    small = fits.ImageHDU(ramp(5, 6), name="SMALL")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    fits.HDUList([*hdus, small, table]).writeto(path)
    with pytest.raises(InputError, match=r"has 3 images: 1 SCI \(50 x 60\), 2 VAR \(50 x 60\), .*say with --hdu which"):
        open_mosaic(path)
    for key in (2, "2", "VAR", "var"):
        with open_mosaic(path, hdu=key) as mosaic:
            assert mosaic.cut([[7, 3]], 1).values.item() == 614
    with open_mosaic(path, hdu=["VAR", 1], bands=["v", "s"]) as mosaic:
        assert mosaic.cut([[7, 3]], 1).values.ravel().tolist() == [614, 307]
    for key in ("DQ", 0, 4):
        with pytest.raises(InputError, match=f"--hdu {key} is none of its images: 1 SCI"):
            open_mosaic(path, hdu=key)
    with pytest.raises(InputError, match=r"m\.fits\[3\]: has 5 x 6 pixels, .*m\.fits\[1\] has 50 x 60"):
        open_mosaic(path, hdu=[1, 3])


def test_axes_of_length_one_are_none_and_more_than_three_are_refused(tmp_path: Path):
    with open_mosaic(write(tmp_path / "r.fits", ramp()[None, None])) as mosaic:
        assert mosaic.shape == (50, 60) and len(mosaic.bands) == 1
    with pytest.raises(InputError, match=r"has 4 axes .*expected bands, rows and columns"):
        open_mosaic(write(tmp_path / "h.fits", np.zeros((2, 3, 8, 8), "f4")))


def test_files_on_different_grids_are_refused(tmp_path: Path):
    first = write(tmp_path / "a.fits", ramp(), tan())
    near = write(tmp_path / "b.fits", ramp(), tan(crpix=[30.005, 30]))
    with open_mosaic([first, near]) as mosaic:
        assert mosaic.label == f"{first}, {near}"
        both = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in (first, near)))
        assert mosaic.sha256() == both.hexdigest()
    shifted = write(tmp_path / "c.fits", ramp(), tan(crpix=[30.02, 30]))
    small = write(tmp_path / "d.fits", ramp(40), tan())
    bare = write(tmp_path / "e.fits", ramp())
    for other, grid in ((shifted, "50 x 60 pixels of 0.5"), (small, "40 x 60"), (bare, "50 x 60 pixels, no WCS")):
        message = rf"{other.name}\[0\]: lies on another grid \({grid}.* than .*a\.fits\[0\] \(50 x 60 pixels of 0.5"
        with pytest.raises(InputError, match=message):
            open_mosaic([first, other])


def test_sizes_and_scales_that_make_no_sense_are_refused(tmp_path: Path, plain: Path):
    bare = write(tmp_path / "bare.fits", ramp())
    with open_mosaic(bare) as mosaic:
        assert mosaic.wcs is None and mosaic.pixel_scale_arcsec is None and mosaic.nddata(5, 5, 3).wcs is None
        with pytest.raises(InputError, match=r"bare\.fits: has no celestial WCS .*give pixel positions x,y instead"):
            mosaic.pixels([1], [2])
        with pytest.raises(InputError, match="has no WCS, so that its pixel scale is unknown"):
            mosaic.cut([[1, 2]], 3, pixel_scale_arcsec=1)
    with open_mosaic(plain) as mosaic:
        for size in (0, -1, 10_000):
            with pytest.raises(InputError, match=f"size is {size}, expected 1 to 8192"):
                mosaic.cut([[1, 2]], size)
        for scale in (0, -1, float("nan"), float("inf")):
            with pytest.raises(InputError, match=r"pixel scale is .* expected more than 0"):
                mosaic.cut([[1, 2]], 3, pixel_scale_arcsec=scale)
        for scale in (1e4, 1e-6):
            with pytest.raises(InputError, match=r"has 0\.5 arcsec to a pixel, so that 64 of .* give another --pixel"):
                mosaic.cut([[1, 2]], 64, pixel_scale_arcsec=scale)


def test_damaged_and_foreign_files_are_one_line(tmp_path: Path, plain: Path):
    cut = tmp_path / "c\nut.fits"
    cut.write_bytes(plain.read_bytes()[:7000])
    with pytest.raises(InputError, match=r"c\\nut\.fits: is truncated: HDU 0 needs \d+ bytes, the file has 7000"):
        open_mosaic(cut)
    packed = write(tmp_path / "p.fits", np.random.default_rng(0).normal(size=(80, 90)), kind=fits.CompImageHDU)
    packed.write_bytes(packed.read_bytes()[:12_000])
    with pytest.raises(InputError, match=r"p\.fits: is truncated"):
        open_mosaic(packed)
    later = tmp_path / "l2.fits"
    fits.HDUList([fits.PrimaryHDU(ramp()), fits.ImageHDU(ramp())]).writeto(later)
    later.write_bytes(later.read_bytes()[: 2880 * 6 + 1000])
    with pytest.raises(InputError, match=r"l2\.fits: is truncated or damaged in HDU 1"):
        open_mosaic(later)
    endless = tmp_path / "e.fits"
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))]).writeto(endless)
    card = b"PCOUNT  =                    0"
    endless.write_bytes(endless.read_bytes().replace(card, card.replace(b"    0", b"-5760")))
    with pytest.raises(InputError, match=r"e\.fits: has -2880 bytes in HDU 1; it is damaged"):
        open_mosaic(endless)
    foreign = tmp_path / "x.fits"
    for start in (b"", b"II*\0", b"\x80\x04\x95", b"SIMPLE"):
        foreign.write_bytes(start)
        with pytest.raises(InputError, match=r"x\.fits: is no FITS file"):
            open_mosaic(foreign)
    foreign.write_bytes(b"SIMPLE  =                    T".ljust(2880))
    with pytest.raises(InputError, match=r"x\.fits: cannot be read"):
        open_mosaic(foreign)
    for absent in (tmp_path / "absent.fits", tmp_path, "http://127.0.0.1/x.fits"):
        with pytest.raises(InputError, match="no such file; expected a FITS file"):
            open_mosaic(absent)
    with pytest.raises(InputError, match="no file is given"):
        open_mosaic([])
    table = tmp_path / "t.fits"
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))]).writeto(table)
    line = write(tmp_path / "l.fits", np.zeros(9, "f4"))
    for path in (table, line):
        with pytest.raises(InputError, match="has no image; expected a 2-D one"):
            open_mosaic(path)


@given(places=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=12))
@example(places=[(737, 101)])  # an exponent that makes CDELT infinite
@pytest.mark.parametrize("kind", [fits.PrimaryHDU, fits.CompImageHDU])
def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path_factory, kind: Any, places: list):
    folder = tmp_path_factory.getbasetemp() / f"changed-{kind.__name__}"
    sound = folder / "sound.fits"
    if not sound.exists():
        write(sound, ramp(dtype="int16"), tan(), kind, BUNIT="nJy", FILTER="r")
    content = bytearray(sound.read_bytes())
    for place, value in places:
        content[place % len(content)] = value
    changed = folder / "changed.fits"
    changed.write_bytes(content)
    try:
        with open_mosaic(changed) as mosaic:
            assume(max(mosaic.shape) < 10_000)
            mosaic.cut([[5, 5], [40, 40]], 16)
            mosaic.nddata(20, 20, 9)
            if mosaic.wcs is not None:
                mosaic.pixels([150.0], [2.0])
    except InputError as error:
        assert str(error).count("\n") == 0 and "changed.fits" in str(error)


def test_real_mosaics_are_cut_as_astropy_cuts_them(data_root: Path):
    folder = data_root / "astro" / "fits"
    expected = {
        "decals_example_b_grz": (("g", "r", "z"), (162, 162), 0.262, ""),
        "gc_msx_e": (("band1",), (149, 149), 24, "W/m^2-sr"),
        "HorseHead": (("OG590",), (893, 891), 1.0, ""),
        "M51": (("band1",), (512, 512), None, ""),
        "sep_image_eso": (("band1",), (256, 256), None, ""),
        "reproject_galactic_2d": (("band1",), (43, 43), 7.2, ""),
    }
    for name, (bands, shape, scale, unit) in expected.items():
        path = folder / f"{name}.fits"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values: Any = fits.getdata(path)
            wcs = WCS(fits.getheader(path), naxis=2)
        with open_mosaic(path) as mosaic:
            assert (mosaic.bands, mosaic.shape, mosaic.unit) == (bands, shape, unit)
            centre = np.array(shape[::-1]) / 2 + 0.3
            found = mosaic.cut([centre], 24).values[0]
            if scale is None:
                assert mosaic.wcs is None
            else:
                assert mosaic.pixel_scale_arcsec == pytest.approx(scale, rel=0.02)
                sky: Any = wcs.pixel_to_world(*(np.random.default_rng(2).uniform(0, shape[0], (40, 2)).T))
                places = np.stack(SkyCoord(sky).to_pixel(wcs), -1)
                np.testing.assert_allclose(mosaic.pixels(sky.icrs.ra.deg, sky.icrs.dec.deg), places, atol=1e-6)
        for plane, cutout in zip(values.reshape(-1, *shape), found, strict=True):
            np.testing.assert_allclose(cutout, Cutout2D(plane, centre, 24).data, rtol=1e-6)


def test_three_real_files_are_three_bands_of_one_sky(data_root: Path):
    folder = data_root / "astro" / "fits"
    files = [folder / f"gc_2mass_{band}.fits" for band in "jhk"]
    with open_mosaic(files) as mosaic:
        assert mosaic.bands == ("J", "H", "K")
        found = mosaic.cut(mosaic.pixels([266.4168], [-29.0078]), 64)
        assert found.values.shape == (1, 3, 64, 64)
        bright = found.values[0].reshape(3, -1)
        assert np.corrcoef(bright)[0, 1] > 0.5 and np.corrcoef(bright)[1, 2] > 0.5  # the same stars
    with pytest.raises(InputError, match=r"gc_msx_e\.fits\[0\]: lies on another grid \(149 x 149 pixels of 24 arcsec"):
        open_mosaic([files[0], folder / "gc_msx_e.fits"])
