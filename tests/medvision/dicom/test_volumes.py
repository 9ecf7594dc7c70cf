"""DICOM series become volumes whose voxels lie where their headers put them, and bad ones end in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from medvision.dicom.series import find_series, read_series
from tests.medvision.dicom.dicoms import (
    AFFINE,
    SHAPE,
    STORED,
    expect,
    make_enhanced,
    make_slices,
    refusal,
    refused,
    retag,
    write_series,
    zip_of,
)
from tests.medvision.phantoms import ORIENTATIONS, make_affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("angles", [(0, 0, 0), (12, -25, 8)], ids=["straight", "oblique"])
def test_voxels_lie_where_the_headers_put_them(tmp_path: Path, orientation: str, angles: tuple[float, ...]):
    values, affine = STORED[:8, :9, :8], make_affine(orientation, (1.5, 2, 3), angles)
    folder = write_series(tmp_path / "series", make_slices(values, affine, modality="CT", slope=2, intercept=-1024))
    volume = read_series(folder)
    expect(volume, values.astype(np.float32) * 2 - 1024, affine)
    assert volume.data.dtype == np.float32 and np.linalg.det(volume.grid.affine[:3, :3]) > 0
    assert (volume.modality, volume.warnings, volume.resampled) == ("CT", [], False)


def test_a_case_is_its_content_whatever_names_order_and_packing(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    plain = read_series(write_series(tmp_path / "a", slices, seed=1))
    deep = write_series(tmp_path / "b/c", slices, seed=2).parent
    (deep / "again").write_bytes(next((deep / "c").iterdir()).read_bytes())  # a copy of a file counts once
    (deep / "README").write_text("no DICOM")
    archive = zip_of(tmp_path / "series.zip", deep)
    for path in (deep, archive):
        volume = read_series(path)
        assert volume.sha256 == plain.sha256 == find_series(path)[0].sha256()
        assert volume.case_id == f"case-{plain.sha256[:8]}"
        assert np.array_equal(volume.data, plain.data)
    other = make_slices(STORED + np.int16(1), AFFINE)
    assert read_series(write_series(tmp_path / "other", other)).sha256 != plain.sha256


def test_frames_of_an_enhanced_image_have_places_and_slopes_of_their_own(tmp_path: Path):
    order = np.random.default_rng(1).permutation(SHAPE[2]).tolist()
    slopes, intercepts = [1 + k / 4 for k in range(SHAPE[2])], [-3.0 * k for k in range(SHAPE[2])]
    dataset = make_enhanced(STORED, AFFINE, order=order, slopes=slopes, intercepts=intercepts)
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    expected = (STORED * np.array(slopes) + np.array(intercepts)).astype(np.float32)
    expect(read_series(tmp_path / "enhanced.dcm"), expected, AFFINE)
    del dataset.PerFrameFunctionalGroupsSequence[4]
    dataset.save_as(tmp_path / "short.dcm", enforce_file_format=True)
    assert "claims 11 frames and describes 10" in refusal(lambda: read_series(tmp_path / "short.dcm"))
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    assert "without a position each" in refusal(lambda: read_series(tmp_path / "none.dcm"))


def test_real_series_are_read(data_root: Path):
    nrrd = data_root / "medical/dicom_seg_dcmqi"
    volume = read_series(nrrd / "ct-3slice", smallest_axis=3)
    assert (volume.grid.shape, volume.modality) == ((512, 512, 3), "CT")
    # as the label maps beside it say: in left, back, up
    expected = np.diag([-0.810547, -0.810547, 1.0, 1.0])
    expected[:3, 3] = 235.199997, 226.800003, -128.690002
    np.testing.assert_allclose(volume.grid.affine, expected, atol=1e-5)
    lowest = min(nrrd.glob("ct-3slice/*"), key=lambda path: dcmread(path).ImagePositionPatient[2])
    # -2000 is padding, and 0 the lowest that is none
    assert np.array_equal(volume.data[:, :, 0], np.maximum(dcmread(lowest).pixel_array.T, 0) - 1024.0)
    assert "at least 8 along each axis" in refusal(lambda: read_series(nrrd / "ct-3slice"))

    enhanced = data_root / "medical/dicom_misc/enh_multiframe_mr.dcm"
    volume = read_series(enhanced, smallest_axis=3)
    np.testing.assert_allclose(volume.grid.spacing_mm, (3.375, 3.375, 2.4), atol=1e-4)
    frames = dcmread(enhanced)
    heights = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in frames.PerFrameFunctionalGroupsSequence]
    assert np.array_equal(volume.data, frames.pixel_array[np.argsort(heights)].transpose(2, 1, 0))


# what is refused, or mended when asked


def test_a_tilted_gantry_is_refused_with_its_angle_and_straightened_when_asked(tmp_path: Path):
    def anatomy(x: Any, y: Any, z: Any) -> Any:
        return 40.0 * x - 25.0 * y + 30.0 * z  # linear, so that interpolation is exact

    sheared = make_affine("LPS", (2, 2, 3), origin=(0, 0, 0))
    sheared[:3, 2] = (0, 3 * np.tan(np.radians(15)), 3)
    world = np.einsum("ij,jxyz->ixyz", sheared[:3, :3], np.indices((12, 12, 10)))
    slices = make_slices(np.rint(anatomy(*world)).astype(np.int16), sheared, GantryDetectorTilt="15")
    line = refused(tmp_path, slices)
    assert "15.00 degrees off their normal" in line and "--resample-irregular" in line

    volume = read_series(tmp_path, resample_irregular=True)
    directions = volume.grid.affine[:3, :3] / volume.grid.spacing_mm
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(volume.grid.spacing_mm, (2, 2, 3), atol=1e-5)
    assert volume.resampled and "15.00 degrees" in volume.warnings[0]
    found = np.einsum("ij,jxyz->ixyz", volume.grid.affine[:3, :3], np.indices(volume.data.shape))
    expected = anatomy(*(found + volume.grid.affine[:3, 3, None, None, None]))
    inside = volume.data != volume.data.min()
    inside[:, 1:-1] &= inside[:, :-2] & inside[:, 2:]  # a slice's rim is mixed with what lies outside
    inside[:, [0, -1]] = False
    assert inside.sum() > 0.5 * 12 * 12 * 10
    assert np.abs(volume.data - expected)[inside].max() < 1.5


def test_a_missing_slice_is_refused_with_its_place_and_filled_in_when_asked(tmp_path: Path):
    affine = make_affine("LPS", (1, 1, 2.5), origin=(0, 0, 100))
    values = np.broadcast_to(np.arange(12) * 10, (8, 8, 12)).astype(np.int16)
    slices = make_slices(values, affine)
    del slices[5]
    line = refused(tmp_path, slices)
    assert "5.00 mm between 110.00 and 115.00 mm, where 2.50 mm is usual" in line
    volume = read_series(tmp_path, resample_irregular=True)
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-5)
    np.testing.assert_allclose(volume.data, values, atol=1e-3)


def test_irregular_slices_get_the_smallest_spacing(tmp_path: Path):
    affine = make_affine("LPS", (1, 1, 1), origin=(0, 0, 0))
    places = np.array([0, 2, 4, 6, 8, 10, 15, 20, 25, 30])
    slices = make_slices(np.broadcast_to(places * 10, (8, 8, 10)).astype(np.int16), affine)
    for place, dataset in zip(places, slices, strict=True):
        dataset.ImagePositionPatient = [0, 0, int(place)]
    line = refused(tmp_path, slices)
    assert "5.00 mm between 10.00 and 15.00 mm" in line and "and 1 more, where 2.00 mm is usual" in line
    volume = read_series(tmp_path, resample_irregular=True)
    assert volume.grid.shape == (8, 8, 16) and np.isclose(volume.grid.spacing_mm[2], 2)
    np.testing.assert_allclose(volume.data[0, 0], np.arange(16) * 20, atol=1e-3)
    assert "voxels on a regular grid" in refusal(lambda: read_series(tmp_path, resample_irregular=True, max_bytes=3000))


@settings(max_examples=10)
@given(jitter=st.lists(st.floats(-0.04, 0.04), min_size=10, max_size=10), tilt=st.floats(0, 0.4))
def test_small_deviations_are_within_the_tolerance(tmp_path_factory: Any, jitter: list[float], tilt: float):
    affine = make_affine("LPS", (1, 1, 2), origin=(0, 0, 0))
    affine[1, 2] = 2 * np.tan(np.radians(tilt))
    slices = make_slices(STORED[:8, :8, :10], affine)
    for off, dataset in zip(jitter, slices, strict=True):
        dataset.ImagePositionPatient[2] += off
    volume = read_series(write_series(tmp_path_factory.mktemp("jitter"), slices))
    assert not volume.resampled
    last = volume.grid.affine @ [0, 0, 9, 1]
    np.testing.assert_allclose(last[:3], np.diag([-1, -1, 1]) @ slices[9].ImagePositionPatient, atol=1e-3)


def test_direction_cosines_are_made_orthonormal_within_a_tolerance(tmp_path: Path):
    for name, off in (("little", 4e-4), ("much", 0.02)):
        slices = make_slices(STORED, AFFINE)
        cosines = np.array(slices[0].ImageOrientationPatient, float)
        cosines[1] += off
        retag(slices, {"ImageOrientationPatient": [f"{part:.8f}" for part in cosines]})
        write_series(tmp_path / name, slices)
    volume = read_series(tmp_path / "little")
    assert "0.0004 away from orthonormal" in volume.warnings[0]
    directions = volume.grid.affine[:3, :2] / volume.grid.spacing_mm[:2]
    np.testing.assert_allclose(directions.T @ directions, np.eye(2), atol=1e-6)
    assert "expected 1, 1 and 0 within 0.001" in refusal(lambda: read_series(tmp_path / "much"))


def _spoil(key: str, value: Any, index: int | None = 3) -> Callable[[list[Any]], None]:
    def spoil(slices: list[Any]) -> None:
        retag(slices if index is None else slices[index : index + 1], {key: value})

    return spoil


def _cut_pixels(slices: list[Any]) -> None:
    slices[3].PixelData = slices[3].PixelData[:50]


def _duplicate(slices: list[Any]) -> None:
    slices[3].ImagePositionPatient = slices[4].ImagePositionPatient


def _turn_one(slices: list[Any]) -> None:
    slices[3].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _shrink_one(slices: list[Any]) -> None:
    slices[3].Rows, slices[3].PixelData = 9, slices[3].PixelData[: 2 * 9 * 9]


def _colour(slices: list[Any]) -> None:
    for dataset in slices:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = dataset.PixelData * 3


def _one(slices: list[Any]) -> None:
    del slices[1:]


def _two_echoes(slices: list[Any]) -> None:
    slices += make_slices(STORED, AFFINE, SeriesInstanceUID=slices[0].SeriesInstanceUID)


def _projection(slices: list[Any]) -> None:
    retag(slices, {"PixelSpacing": None, "ImagerPixelSpacing": [1, 2]})


def _flat(slices: list[Any]) -> None:
    for dataset in slices:
        dataset.PixelData = bytes(len(dataset.PixelData))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_cut_pixels, "pixels cannot be decoded"),
        (_duplicate, "11 slices at 10 places"),
        (_two_echoes, "22 slices at 11 places"),
        (_turn_one, "mixes slices of 2 orientations (10 of "),
        (_shrink_one, "mixes slices of 2 sizes (10 of 9 x 10 pixels, 1 of 9 x 9 pixels)"),
        (_spoil("PixelSpacing", [1, 1]), "mixes slices of 2 pixel spacings"),
        (_colour, "its pixels are RGB; expected grey ones"),
        (_one, "holds 1 slice; expected a volume"),
        (_flat, "every voxel is 0"),
        (_spoil("PixelData", None), "contains no pixel data"),
        (_spoil("ImageOrientationPatient", None), "has no ImageOrientationPatient"),
        (_spoil("ImagePositionPatient", None), "has no ImagePositionPatient"),
        (_spoil("ImagePositionPatient", [1, 2]), "ImagePositionPatient has 2 values"),
        (_spoil("PixelSpacing", [0, 1], None), "expected 0.0001 to 1000 mm"),
        (_spoil("RescaleSlope", 0), "its RescaleSlope is 0"),
        (_spoil("RescaleSlope", "1e200"), "RescaleSlope has 1 values; expected 1 finite ones"),
        (_spoil("PhotometricInterpretation", "PALETTE COLOR", None), "its pixels are PALETTE COLOR"),
        (_spoil("PhotometricInterpretation", "\x1b[2J", None), "its kind of pixels is unknown"),
        (_spoil("BitsAllocated", 12), "pixels cannot be decoded"),
        (_spoil("NumberOfFrames", 3), "contains 3 frames without a position each"),
        (_spoil("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], None), "is a mosaic, many slices in one picture"),
        (_projection, "has no PixelSpacing, but the detector's (ImagerPixelSpacing)"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_no_volume_ends_in_one_line(tmp_path: Path, spoil: Callable[[list[Any]], None], expected: str):
    slices = make_slices(STORED, AFFINE)
    spoil(slices)
    assert expected in refused(tmp_path / "series", slices)
