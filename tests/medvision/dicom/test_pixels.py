"""Pixels of DICOM files become the values that their headers mean, in every form that they are stored."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
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
from medvision.dicom.pixels import stream_size
from medvision.dicom.series import read_series
from shared_backbones.errors import InputError
from tests.medvision.dicom.dicoms import (
    AFFINE,
    SHAPE,
    STORED,
    expect,
    make_slices,
    refusal,
    refused,
    retag,
    write_series,
)


def test_every_slice_has_its_own_slope(tmp_path: Path):
    slices = make_slices(STORED, AFFINE, modality="PT")
    slopes = np.linspace(0.5, 3, SHAPE[2])
    for dataset, slope in zip(slices, slopes, strict=True):
        dataset.RescaleSlope = f"{slope:g}"
    expect(read_series(write_series(tmp_path, slices)), (STORED * np.round(slopes, 6)).astype(np.float32), AFFINE)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_table_gives_the_values(tmp_path: Path, signed: int):
    values = STORED if signed else STORED.clip(0)
    first, entries = -900 * signed, 2500
    table = np.random.default_rng(0).permutation(entries)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [entries, first, 16])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    slices = make_slices(values, AFFINE, PixelRepresentation=signed, ModalityLUTSequence=[item])
    expected = table[(values.astype(int) - first).clip(0, entries - 1)]  # its ends go on beyond it
    expect(read_series(write_series(tmp_path / "a", slices)), expected.astype(np.float32), AFFINE)
    item.LUTData = item.LUTData[:100]
    assert "pixels cannot be decoded" in refused(tmp_path / "b", slices)


@pytest.mark.parametrize(("modality", "warned"), [("CT", False), ("MR", True)])
def test_how_values_are_to_be_shown_does_not_change_them(tmp_path: Path, modality: str, warned: bool):
    slices = make_slices(STORED, AFFINE, modality=modality, intercept=-24, PhotometricInterpretation="MONOCHROME1")
    volume = read_series(write_series(tmp_path, slices))
    expect(volume, STORED.astype(np.float32) - 24, AFFINE)
    note = "the series is to be shown dark for high (MONOCHROME1): its values were taken as stored"
    assert volume.warnings == [note] * warned


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_beyond_those_stored_mean_nothing(tmp_path: Path, signed: int):
    values = STORED.clip(-1000 if signed else 0, 2000)
    slices = make_slices(values, AFFINE)
    for dataset in slices:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed
        stored = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF | 0xA000  # as old overlays left there
        dataset.PixelData = stored.astype("<u2").tobytes()
    expect(read_series(write_series(tmp_path, slices)), values.astype(np.float32), AFFINE)


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


def jpeg(values: np.ndarray, lossless: bool) -> bytes:
    from PIL import Image

    if lossless:
        return bytes(imagecodecs.jpeg8_encode(values.astype(np.uint16), lossless=True, bitspersample=16))
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("damage", ["half", "two bytes", "noise", "another size"])
def test_damaged_jpeg_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lossless: bool, damage: str):
    """What is left of a stream never becomes a part of a volume; noise alone may decode, to noise."""
    monkeypatch.setattr(medvision.dicom.decoding, "_SECONDS", 10.0)
    random = np.random.default_rng(0)
    values = random.integers(0, 255, (SHAPE[1], SHAPE[0]))
    slices = make_slices(STORED.clip(0), AFFINE)
    for dataset in slices:
        stream = jpeg(np.tile(values, (2, 2)) if damage == "another size" else values, lossless)
        if damage == "noise":
            middle = random.integers(0, 255, len(stream) // 3).astype(np.uint8).tobytes()
            stream = stream[: len(stream) // 3] + middle + stream[len(stream) // 3 + len(middle) :]
        stream = {"half": stream[: len(stream) // 2], "two bytes": stream[:2]}.get(damage, stream)
        dataset.PixelRepresentation = 0
        if not lossless:
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1 if lossless else JPEGBaseline8Bit
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
    write_series(tmp_path, slices)
    try:
        volume = read_series(tmp_path)
    except InputError as error:
        assert str(error).isprintable() and "IM0000" in str(error)
    else:
        assert damage == "noise" and volume.data.shape == SHAPE


@pytest.mark.parametrize("stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\x00", b"\xff\x4f\xff\x51\x00", b"\x00" * 99])
def test_a_stream_that_claims_no_size_has_none(stream: bytes):
    assert stream_size(stream) is None
