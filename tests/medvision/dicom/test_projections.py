"""Radiographs and mammograms: brightness as the standard has it, or one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from medvision.dicom.projections import read_projection
from shared_backbones.errors import InputError

STORED = np.arange(12 * 10, dtype=np.uint16).reshape(12, 10) * 34  # 0 to 4046, of 12 bits
KINDS = {
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
}


def write(path: Path, stored: np.ndarray = STORED, modality: str = "DX", **tags: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = KINDS[modality], generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName = modality, "DOE^JOHN42"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.astype("<u2" if stored.dtype.kind == "u" else "<i2").tobytes()
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def lookup(entries: int, first: int, bits: int, data: Any, vr: str = "US") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", vr, data)
    return [item]


def shown(path: Path) -> np.ndarray:
    image, _, warnings = read_projection(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and warnings == []
    return image[0]


def expect(image: np.ndarray, brightness: np.ndarray) -> None:
    np.testing.assert_array_equal(image, np.rint(255 * np.clip(brightness, 0, 1)).astype(np.uint8))


@pytest.mark.parametrize("modality", KINDS)
def test_without_a_window_the_whole_range_is_shown(tmp_path: Path, modality: str):
    expect(shown(write(tmp_path / "a.dcm", modality=modality)), STORED / STORED.max())


def test_monochrome1_is_dark_where_numbers_are_high(tmp_path: Path):
    plain = write(tmp_path / "a.dcm", WindowCenter=2048, WindowWidth=4096)
    inverted = write(
        tmp_path / "b.dcm", WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
    )  # fmt: skip
    difference = shown(plain).astype(int) + shown(inverted) - 255
    assert np.abs(difference).max() <= 1  # where both round up


@settings(max_examples=50, deadline=None)
@given(
    center=st.integers(-500, 5000),
    width=st.integers(2, 6000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    slope=st.sampled_from([0.5, 1.0, 2.0]),
    intercept=st.sampled_from([-1024.0, 0.0]),
)
def test_windows_are_those_of_the_standard(
    tmp_path_factory: pytest.TempPathFactory, center: int, width: int, function: str, slope: float, intercept: float
):
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, of the values after slope and intercept."""
    path = write(
        tmp_path_factory.mktemp("d") / "a.dcm", WindowCenter=center, WindowWidth=width, VOILUTFunction=function,
        RescaleSlope=slope, RescaleIntercept=intercept,
    )  # fmt: skip
    values = STORED * slope + intercept
    if function == "LINEAR":
        brightness = (values - (center - 0.5)) / (width - 1) + 0.5
    elif function == "LINEAR_EXACT":
        brightness = (values - center) / width + 0.5
    else:
        brightness = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    difference = np.abs(shown(path) - 255 * np.clip(brightness, 0, 1))
    assert difference.max() <= 0.5 + 1e-6


def test_the_first_of_several_windows_is_shown(tmp_path: Path):
    several = write(tmp_path / "a.dcm", WindowCenter=[1000, 3000], WindowWidth=[500, 9])
    np.testing.assert_array_equal(shown(several), shown(write(tmp_path / "b.dcm", WindowCenter=1000, WindowWidth=500)))


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize(("bits", "entries"), [(8, 256), (8, 4096), (12, 1024), (16, 4096)])
def test_a_table_is_looked_up_and_counts_before_a_window(tmp_path: Path, bits: int, entries: int, vr: str):
    table = np.sqrt(np.linspace(0, 1, entries)) * (2**bits - 1)
    table = table.astype(np.uint16)
    data = table.tolist() if vr == "US" else table.astype("<u2").tobytes()
    path = write(
        tmp_path / "a.dcm", WindowCenter=1, WindowWidth=2, VOILUTSequence=lookup(entries, 100, bits, data, vr)
    )  # fmt: skip
    at = np.clip(STORED.astype(int) - 100, 0, entries - 1)
    expect(shown(path), table[at] / (2**bits - 1))


def test_padding_is_black_and_counts_for_nothing(tmp_path: Path):
    stored = STORED.astype(np.int16) - 1000
    stored[0] = -2048
    stored[1, :4] = -2047
    tags: dict[str, Any] = {
        "PixelPaddingValue": -2048,
        "PixelPaddingRangeLimit": -2047,
        "BitsStored": 16,
        "HighBit": 15,
    }
    path = write(tmp_path / "a.dcm", stored, **tags)
    image, real = shown(path), stored > -2047
    expect(image, np.where(real, (stored - stored[real].min()) / (stored[real].max() - stored[real].min()), 0.0))
    inverted = write(tmp_path / "b.dcm", stored, PhotometricInterpretation="MONOCHROME1", **tags)
    assert (shown(inverted)[~real] == 0).all() and shown(inverted)[real].max() == 255


def test_compressed_pixels_are_the_same(tmp_path: Path):
    from pydicom import dcmread

    path = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=3000)
    packed = dcmread(path)
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(shown(path), shown(tmp_path / "b.dcm"))


def test_a_presentation_that_contradicts_the_pixels_is_said(tmp_path: Path):
    path = write(tmp_path / "a.dcm", PresentationLUTShape="INVERSE")
    image, sha256, (warning,) = read_projection(path)
    assert len(sha256) == 64 and warning == "MONOCHROME2 images with another presentation are shown as MONOCHROME2"
    expect(image[0], STORED / STORED.max())


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NumberOfFrames": 2, "PixelData": STORED.tobytes() * 2}, "holds 2 frames; expected one image"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "its pixels are RGB; expected MONOCHROME1 or"),
        ({"PhotometricInterpretation": "DOE JOHN"}, "its pixels are of an unknown kind; expected"),
        ({"Rows": 60000, "Columns": 60000}, "claims 60000 x 60000 pixels, 26.8 GB; the limit is 4 GB"),
        ({"PixelData": bytes(10)}, "its pixels cannot be decoded"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "is damaged or no valid DICOM (value error)"),
    ],
)
def test_what_cannot_be_shown_is_one_line(tmp_path: Path, tags: dict[str, Any], said: str):
    path = write(tmp_path / "a.dcm", **tags)
    with pytest.raises(InputError) as refused:
        read_projection(path, max_bytes=4 * 2**30)
    assert str(refused.value).startswith(f"{path}: {said}") and "DOE" not in str(refused.value)
