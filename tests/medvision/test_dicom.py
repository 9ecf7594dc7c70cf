"""DICOM series become volumes whose voxels lie where their headers put them, and bad ones end in one line."""

import io
import stat
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

import medvision.dicom.decoding
import medvision.dicom.files
from medvision.dicom.files import holds_dicom
from medvision.dicom.pixels import stream_size
from medvision.dicom.series import DicomVolume, find_series, read_series
from shared_backbones.errors import InputError
from tests.medvision.dicoms import make_enhanced, make_slices, retag, write_series
from tests.medvision.phantoms import ORIENTATIONS, make_affine, make_image, write_scan

SHAPE = (9, 10, 11)
STORED = np.random.default_rng(0).integers(-1000, 3000, SHAPE).astype(np.int16)
AFFINE = make_affine("LPS", (1, 2, 3), (4, -7, 11))


def expect(volume: DicomVolume, values: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel of the volume has the value that the array has at the same place in the world."""
    assert sorted(volume.data.shape) == sorted(values.shape)
    across = np.linalg.inv(affine) @ volume.grid.affine
    voxels = np.r_[np.indices(volume.data.shape).reshape(3, -1), np.ones((1, volume.data.size))]
    places = (across @ voxels)[:3]
    assert np.abs(places - np.rint(places)).max() < 1e-3
    assert np.array_equal(volume.data.ravel(), values[tuple(np.rint(places).astype(int))])


def refusal(call: Callable[[], Any]) -> str:
    """The one line that it ends in."""
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and line.isprintable()
    return line


def refused(folder: Path, slices: Any, **options: Any) -> str:
    """The one line that a series ends in."""
    write_series(folder, slices)
    return refusal(lambda: read_series(folder, **options))


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


def test_every_slice_has_its_own_slope(tmp_path: Path):
    slices = make_slices(STORED, AFFINE, modality="PT")
    slopes = np.linspace(0.5, 3, SHAPE[2])
    for dataset, slope in zip(slices, slopes, strict=True):
        dataset.RescaleSlope = f"{slope:g}"
    expect(read_series(write_series(tmp_path, slices)), (STORED * np.round(slopes, 6)).astype(np.float32), AFFINE)


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_beyond_those_stored_mean_nothing(tmp_path: Path, signed: int):
    values = STORED.clip(-1000 if signed else 0, 2000)
    slices = make_slices(values, AFFINE)
    for dataset in slices:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed
        stored = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF | 0xA000  # as old overlays left there
        dataset.PixelData = stored.astype("<u2").tobytes()
    expect(read_series(write_series(tmp_path, slices)), values.astype(np.float32), AFFINE)


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


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.keyword
)
def test_plain_transfer_syntaxes(tmp_path: Path, syntax: Any):
    slices = make_slices(STORED, AFFINE)
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
            dataset.set_original_encoding(False, False)
    expect(read_series(write_series(tmp_path, slices)), STORED.astype(np.float32), AFFINE)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_lossless_transfer_syntaxes(tmp_path: Path, syntax: Any):
    values = np.tile(STORED.clip(0), (4, 4, 1))  # JPEG 2000 wants some pixels
    slices = make_slices(values, AFFINE)
    for dataset in slices:
        dataset.PixelRepresentation = 0
        dataset.compress(syntax, generate_instance_uid=False)
    expect(read_series(write_series(tmp_path, slices)), values.astype(np.float32), AFFINE)


@pytest.mark.parametrize(("bits", "signed"), [(16, 0), (12, 0), (16, 1), (13, 1)])
def test_lossless_jpeg(tmp_path: Path, bits: int, signed: int):
    values = STORED if signed else STORED.clip(0)
    slices = make_slices(values, AFFINE)
    for index, dataset in enumerate(slices):
        plane = np.ascontiguousarray(values[:, :, index].T).view(np.uint16) & (2**bits - 1)
        stream = imagecodecs.jpeg8_encode(plane, lossless=True, bitspersample=bits)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, signed
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset["PixelData"].is_undefined_length = True
    expect(read_series(write_series(tmp_path, slices)), values.astype(np.float32), AFFINE)


def test_lossy_jpeg(tmp_path: Path):
    from PIL import Image

    values = np.indices(SHAPE).sum(0).astype(np.int16) * 8
    slices = make_slices(values, AFFINE)
    for index, dataset in enumerate(slices):
        stream = io.BytesIO()
        Image.fromarray(values[:, :, index].T.astype(np.uint8)).save(stream, "JPEG", quality=100)
        dataset.PixelRepresentation = 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
    volume = read_series(write_series(tmp_path, slices))
    assert np.abs(volume.data - values).max() <= 3


def test_real_series_are_read(data_root: Path):
    nrrd = data_root / "medical/dicom_seg_dcmqi"
    volume = read_series(nrrd / "ct-3slice", smallest_axis=3)
    assert (volume.grid.shape, volume.modality) == ((512, 512, 3), "CT")
    # as the label maps beside it say: in left, back, up
    expected = np.diag([-0.810547, -0.810547, 1.0, 1.0])
    expected[:3, 3] = 235.199997, 226.800003, -128.690002
    np.testing.assert_allclose(volume.grid.affine, expected, atol=1e-5)
    lowest = min(nrrd.glob("ct-3slice/*"), key=lambda path: dcmread(path).ImagePositionPatient[2])
    assert np.array_equal(volume.data[:, :, 0], dcmread(lowest).pixel_array.T - 1024.0)
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
        (_spoil("PixelData", None), "holds no pixel data"),
        (_spoil("ImageOrientationPatient", None), "has no ImageOrientationPatient"),
        (_spoil("ImagePositionPatient", None), "has no ImagePositionPatient"),
        (_spoil("ImagePositionPatient", [1, 2]), "ImagePositionPatient has 2 values"),
        (_spoil("PixelSpacing", [0, 1], None), "expected 0.0001 to 1000 mm"),
        (_spoil("RescaleSlope", 0), "its RescaleSlope is 0"),
        (_spoil("RescaleSlope", "1e200"), "RescaleSlope has 1 values; expected 1 finite ones"),
        (_spoil("PhotometricInterpretation", "MONOCHROME1", None), "its pixels are MONOCHROME1"),
        (_spoil("PhotometricInterpretation", "\x1b[2J", None), "its kind of pixels is unknown"),
        (_spoil("BitsAllocated", 12), "pixels cannot be decoded"),
        (_spoil("NumberOfFrames", 3), "holds 3 frames without a position each"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_no_volume_ends_in_one_line(tmp_path: Path, spoil: Callable[[list[Any]], None], expected: str):
    slices = make_slices(STORED, AFFINE)
    spoil(slices)
    assert expected in refused(tmp_path / "series", slices)


def test_localizers_among_the_slices_are_left_out(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    scouts = make_slices(STORED[:, :, :2], make_affine("PSR"), SeriesInstanceUID=slices[0].SeriesInstanceUID)
    retag(scouts, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    volume = read_series(write_series(tmp_path, [*scouts, *slices]))
    expect(volume, STORED.astype(np.float32), AFFINE)
    assert volume.warnings == ["2 localizer images in the series were left out"]


def test_series_are_listed_and_chosen(tmp_path: Path):
    slices = {
        name: make_slices(STORED, AFFINE, modality=modality, SeriesNumber=number, SeriesDescription=name)
        for number, (name, modality) in enumerate((("T1 \x1b[31mred", "MR"), ("bone", "CT"), ("last", "JOHN DOE")))
    }
    for folder, datasets in zip("xyz", slices.values(), strict=True):
        write_series(tmp_path / folder, datasets)
    line = refusal(lambda: read_series(tmp_path))
    assert "holds 3 series; choose with --series NUMBER or UID" in line
    assert "1 MR 'T1 \\x1b[31mred' 11 of 9 x 10, 1 x 2 x 3 mm; 2 CT 'bone'" in line
    assert "JOHN" not in line and "3 unknown 'last'" in line
    for series in ("2", str(slices["bone"][0].SeriesInstanceUID)):
        assert read_series(tmp_path, series=series).modality == "CT"
    assert "has no series '7'" in refusal(lambda: read_series(tmp_path, series="7"))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_one_line(tmp_path: Path, seed: int):
    """Bytes are overwritten anywhere: the series is read, or refused in a line, and nothing else."""
    random = np.random.default_rng(seed)
    folder = write_series(tmp_path / "series", make_slices(STORED, AFFINE))
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for path, content in contents.items():
        for _ in range(2):
            damaged = bytearray(content)
            for place in random.integers(132, min(len(damaged), 900), 8):
                damaged[place] = random.integers(256)
            path.write_bytes(
                damaged[: int(random.integers(140, len(damaged) + 1))] if random.random() < 0.3 else damaged
            )
            try:
                assert read_series(folder).data.shape[2] <= SHAPE[2]
            except InputError as error:
                assert "\n" not in str(error) and str(error).isprintable()
        path.write_bytes(content)


# archives, links and bombs


def zip_of(path: Path, folder: Path, **info: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(file.relative_to(folder)))
    return path


@pytest.mark.parametrize("name", ["../out.dcm", "/etc/out.dcm", "a/../../out.dcm", "..\\out.dcm", "C:\\out.dcm"])
def test_archive_members_with_paths_out_of_it_are_refused(tmp_path: Path, name: str):
    archive = zip_of(tmp_path / "a.zip", write_series(tmp_path / "s", make_slices(STORED, AFFINE)))
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr(name, b"x")
    line = refusal(lambda: read_series(archive))
    assert "absolute path" in line or "a path that leaves the archive" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "s"]


def test_odd_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_series(tmp_path / "s", make_slices(STORED, AFFINE))

    def altered(change: Callable[[zipfile.ZipFile], None], **options: Any) -> str:
        archive = zip_of(tmp_path / "a.zip", folder)
        with zipfile.ZipFile(archive, "a") as more:
            change(more)
        return refusal(lambda: read_series(archive, **options))

    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "link.dcm is a link" in altered(lambda archive: archive.writestr(link, "/etc/passwd"))
    odd = zipfile.ZipInfo("odd.dcm")
    odd.compress_type = zipfile.ZIP_LZMA
    assert "packed in an unusual way" in altered(lambda archive: archive.writestr(odd, b"x" * 1000))
    bomb = bytes(100 * 2**20)
    assert "times as much" in altered(lambda archive: archive.writestr("bomb", bomb, zipfile.ZIP_DEFLATED, 9))
    assert "--max-gigabytes" in altered(lambda archive: archive.writestr("big", bytes(10**6)), max_bytes=10**6)
    monkeypatch.setattr(medvision.dicom.files, "MOST_FILES", 10)
    assert "11 files; expected at most 10" in refusal(lambda: read_series(zip_of(tmp_path / "a.zip", folder)))
    assert "more than 10 files" in refusal(lambda: read_series(folder))


def test_a_damaged_archive_is_refused(tmp_path: Path):
    archive = zip_of(tmp_path / "a.zip", write_series(tmp_path / "s", make_slices(STORED, AFFINE)))
    content = bytearray(archive.read_bytes())
    for place in range(200, 1500, 7):
        content[place] ^= 0xFF
    archive.write_bytes(content)
    assert "damaged" in refusal(lambda: read_series(archive))
    archive.write_bytes(content[: len(content) // 2])
    assert "holds no DICOM file" in refusal(lambda: read_series(archive))


def test_links_out_of_a_folder_are_left_out(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    elsewhere = write_series(tmp_path / "elsewhere", slices[:2])
    folder = write_series(tmp_path / "folder", slices[2:])
    (folder / "inside").symlink_to(next(folder.iterdir()))
    for file in elsewhere.iterdir():
        (folder / f"out-{file.name}").symlink_to(file)
    (folder / "other").symlink_to(elsewhere)
    volume = read_series(folder)
    assert volume.grid.shape == (9, 10, 9)
    assert volume.warnings == ["2 links that lead out of the folder were left out"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # as hostile ones are
def test_a_dicomdir_is_not_followed(tmp_path: Path):
    from pydicom.fileset import FileSet

    media = FileSet()
    for dataset in make_slices(STORED, AFFINE, StudyDate="20200101", StudyTime="10", PatientID="1", StudyID="1",
                               SeriesNumber=1):  # fmt: skip
        media.add(dataset)
    media.write(tmp_path / "media")
    outside = write_series(tmp_path / "outside", make_slices(STORED, AFFINE)[:1])
    directory = dcmread(tmp_path / "media/DICOMDIR")
    record = next(item for item in directory.DirectoryRecordSequence if "ReferencedFileID" in item)
    record.ReferencedFileID = ["..", "outside", next(outside.iterdir()).name]
    directory.save_as(tmp_path / "media/DICOMDIR", enforce_file_format=True)
    assert read_series(tmp_path / "media").grid.shape == SHAPE
    (tmp_path / "alone").mkdir()
    (tmp_path / "media/DICOMDIR").rename(tmp_path / "alone/DICOMDIR")
    assert "no image among them" in refusal(lambda: read_series(tmp_path / "alone"))


def test_sizes_are_checked_before_pixels_are_decoded(tmp_path: Path):
    slices = make_slices(np.tile(STORED.clip(0), (4, 4, 1)), AFFINE)
    for dataset in slices:
        dataset.PixelRepresentation = 0
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    retag(slices, {"Rows": 60000, "Columns": 60000})
    tracemalloc.start()
    assert "headers claim 148 GB" in refused(tmp_path / "header", slices)
    retag(slices, {"Rows": 40, "Columns": 36})
    for dataset in slices:
        stream = bytearray(dataset.PixelData)
        place = stream.find(b"\xff\x4f\xff\x51")
        stream[place + 8 : place + 16] = (30000).to_bytes(4) * 2
        dataset.PixelData = bytes(stream)
    assert "compressed pixels claim 30000 x 30000" in refused(tmp_path / "stream", slices)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path):
    dataset = make_slices(STORED, AFFINE)[0]
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    content = (tmp_path / "bomb.dcm").read_bytes()
    meta = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    body = zlib.decompress(content[meta:], -15) + bytes(100 * 2**20)
    (tmp_path / "bomb.dcm").write_bytes(content[:meta] + packer.compress(body) + packer.flush())
    del body
    tracemalloc.start()
    line = refusal(lambda: read_series(tmp_path / "bomb.dcm", max_bytes=2**26))
    assert "unpacks to more than" in line and tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("fault", "expected"), [("crash", "the decoder crashed"), ("sleep", "the decoder took over 1 s")]
)
def test_a_decoder_that_crashes_or_never_ends_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, expected: str
):
    slices = make_slices(np.tile(STORED.clip(0), (4, 4, 1)), AFFINE)
    for dataset in slices:
        dataset.PixelRepresentation = 0
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    write_series(tmp_path, slices)
    program = tmp_path / ".program.py"
    program.write_text("import os, time\n" + {"crash": "os.abort()", "sleep": "time.sleep(60)"}[fault])
    monkeypatch.setattr(medvision.dicom.decoding, "__file__", str(program))
    if fault == "sleep":
        monkeypatch.setattr(medvision.dicom.decoding, "_SECONDS", 1.0)
    assert expected in refusal(lambda: read_series(tmp_path))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_damaged_compressed_pixels_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: Any):
    monkeypatch.setattr(medvision.dicom.decoding, "_SECONDS", 3.0)
    slices = make_slices(np.tile(STORED.clip(0), (4, 4, 1)), AFFINE)
    random = np.random.default_rng(0)
    for dataset in slices:
        dataset.PixelRepresentation = 0
        dataset.compress(syntax, generate_instance_uid=False)
        stream = bytearray(dataset.PixelData)
        stream[200 : len(stream) - 40] = random.integers(0, 256, len(stream) - 240).astype(np.uint8).tobytes()
        dataset.PixelData = bytes(stream)
    write_series(tmp_path, slices)
    try:
        read_series(tmp_path)  # such streams may decode, to noise
    except InputError as error:
        assert "pixels cannot be decoded" in str(error) and str(error).isprintable()


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\x00", b"\xff\x4f\xff\x51\x00", b"\x00" * 99])
def test_a_stream_that_claims_no_size_has_none(stream: bytes):
    assert stream_size(stream) is None


# what is DICOM, and what are other scans


def test_what_reads_other_scans_imports_no_dicom_library():
    code = (
        "import sys, medvision.volumes, medvision.dicom.series, medvision.dicom.segmentations\n"
        "print(*sorted({'pydicom', 'highdicom', 'imagecodecs', 'requests'} & set(sys.modules)))\n"
        "import pydicom, nibabel\n"
        "assert nibabel.Nifti1Image"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_folders_of_dicom_and_of_other_scans_are_told_apart(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    series = write_series(tmp_path / "study/series", slices)
    assert holds_dicom(tmp_path / "study") and holds_dicom(series) and holds_dicom(next(series.iterdir()))
    assert holds_dicom(zip_of(tmp_path / "a.zip", series))
    scans = tmp_path / "scans"
    scans.mkdir()
    assert not holds_dicom(scans) and not holds_dicom(tmp_path / "missing")
    scan = write_scan(scans / "scan.nii.gz", make_image())
    assert not holds_dicom(scans) and not holds_dicom(scan)
    write_series(scans / "beneath", slices)
    assert not holds_dicom(scans)
    write_series(scans, slices)
    assert "holds both DICOM files (IM0" in refusal(lambda: holds_dicom(scans))
