"""Series with a file that is spoilt, packed or not there: nothing of one is lost without a word."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from medvision.dicom.files import holds_dicom
from medvision.dicom.series import find_series, read_series
from tests.medvision.dicom.dicoms import AFFINE, SHAPE, STORED, expect, make_slices, refusal, write_series, zip_of

LAST = SHAPE[2] - 1


def _without_preamble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


def _without_meta_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])


def _zip(path: Path) -> None:
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", content)


def _link_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / ".git/annex/objects/x")


def _packed_by(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(pack(path.read_bytes()))

    return spoil


def _cut(end: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:end])

    return spoil


READ = {"no preamble": _without_preamble, "no meta header": _without_meta_header}
UNREAD = {
    "empty": (_cut(0), "1 empty files"),
    "gzip": (_packed_by(gzip.compress), "1 packed DICOM files"),
    "bzip2": (_packed_by(bz2.compress), "1 packed DICOM files"),
    "xz": (_packed_by(lzma.compress), "1 packed DICOM files"),
    "zip": (_zip, "1 packed DICOM files"),
    "cut in the header": (_cut(500), "is damaged or cut short: its header has no Rows"),
    "cut in the meta header": (_cut(150), "is damaged"),
    "cut in the pixels": (_cut(-100), "pixels cannot be decoded"),
    "a link": (_link_nowhere, "1 links to files that are not there"),
}


def a_series(folder: Path) -> list[Path]:
    """Files of a series in the order of its slices."""
    slices = make_slices(STORED, AFFINE)
    folder.mkdir(parents=True)
    paths = [folder / f"IM{index:05}" for index in range(len(slices))]
    for path, dataset in zip(paths, slices, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


@settings(max_examples=25)
@given(indices=st.sets(st.integers(0, LAST), min_size=1), how=st.sampled_from(sorted(READ)), packed=st.booleans())
def test_slices_without_preamble_are_read(tmp_path_factory: Any, indices: set[int], how: str, packed: bool):
    folder = tmp_path_factory.mktemp("study") / "series"
    paths = a_series(folder)
    for index in indices:
        READ[how](paths[index])
    path = zip_of(folder.parent / "a.zip", folder) if packed else folder
    assert holds_dicom(path) and holds_dicom(paths[min(indices)])
    volume = read_series(path)
    expect(volume, STORED.astype(np.float32), AFFINE)
    assert volume.warnings == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_transfer_syntax_of_bare_data_sets_is_seen_in_their_bytes(tmp_path: Path, syntax: Any):
    slices = make_slices(STORED, AFFINE)
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
            dataset.set_original_encoding(False, False)
    folder = write_series(tmp_path / "series", slices)
    for path in folder.iterdir():
        _without_meta_header(path)
    expect(read_series(folder), STORED.astype(np.float32), AFFINE)


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, LAST), how=st.sampled_from(sorted(UNREAD)))
def test_a_series_with_a_file_that_cannot_be_read_is_refused_unless_it_is_to_be_skipped(
    tmp_path_factory: Any, index: int, how: str
):
    """Which file of a series is spoilt, and how."""
    folder = tmp_path_factory.mktemp("study") / "series"
    path = a_series(folder)[index]
    spoil, kind = UNREAD[how]
    spoil(path)
    line = refusal(lambda: read_series(folder))
    assert kind in line and path.name in line and "--skip-unreadable" in line
    if 0 < index < LAST:
        assert "missing or irregular" in refusal(lambda: read_series(folder, skip_unreadable=True))
        volume = read_series(folder, skip_unreadable=True, resample_irregular=True)
        assert volume.data.shape == SHAPE
    else:
        volume = read_series(folder, skip_unreadable=True)
        expect(volume, STORED[:, :, 1:] if index == 0 else STORED[:, :, :-1], AFFINE + _shift(index == 0))
    assert any("were left out" in warning for warning in volume.warnings)


def _shift(first_is_lost: bool) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[:, 3] = AFFINE[:, 2] * first_is_lost
    return shift


def test_a_file_with_a_value_that_cannot_be_read_is_skipped_too(tmp_path: Path):
    slices = make_slices(STORED, AFFINE)
    slices[-1].RescaleSlope = 0
    write_series(tmp_path / "series", slices)
    assert "its RescaleSlope is 0" in refusal(lambda: read_series(tmp_path / "series"))
    volume = read_series(tmp_path / "series", skip_unreadable=True)
    assert volume.data.shape == (9, 10, 10) and volume.warnings == ["1 damaged DICOM files were left out"]


def test_what_lies_beside_the_slices_is_counted_by_kind(tmp_path: Path):
    folder = a_series(tmp_path / "study/series")[0].parent
    for name in ("notes.txt", "LICENSE", "a.pdf", "b.PDF", ".hidden", "notes.gz"):
        (folder / name).write_bytes(gzip.compress(b"notes") if name.endswith("gz") else b"some text")
    (tmp_path / "study/elsewhere").mkdir()
    (tmp_path / "study/elsewhere/readme.md").write_text("text")
    volume = read_series(tmp_path / "study")
    assert volume.warnings == ["6 files that are no DICOM (.gz, .md, .pdf, .txt, others) were left out"]
    assert read_series(zip_of(tmp_path / "a.zip", tmp_path / "study")).warnings == volume.warnings


@pytest.mark.parametrize("how", sorted(set(UNREAD) - {"cut in the pixels"}))
def test_other_series_are_read_beside_one_that_cannot_be(tmp_path: Path, how: str):
    UNREAD[how][0](a_series(tmp_path / "study/a")[3])
    a_series(tmp_path / "study/b")
    listed = find_series(tmp_path / "study")
    refusals = {Path(series.instances[0].member.folder).name: series.refusal for series in listed}
    assert refusals["b"] is None and "among the slices cannot be read" in str(refusals["a"])
    good, bad = sorted(listed, key=lambda series: series.refusal is not None)
    assert "--skip-unreadable" in refusal(lambda: read_series(bad))
    expect(read_series(good), STORED.astype(np.float32), AFFINE)
    # in a folder of no series, it may be of any
    (tmp_path / "study/c").mkdir()
    (tmp_path / "study/c/x").touch()
    assert all("1 empty files" in str(s.refusal) for s in find_series(tmp_path / "study") if s.uid == good.uid)


def test_folders_in_which_nothing_can_be_read_say_why(tmp_path: Path):
    for name, (spoil, _) in UNREAD.items():
        if name in ("cut in the pixels", "cut in the header", "cut in the meta header"):
            continue
        for path in a_series(tmp_path / name):
            spoil(path)
        line = refusal(lambda name=name: find_series(tmp_path / name))
        assert f"contains no DICOM file, but {SHAPE[2]} " in line, line
        assert ("DataLad data set before `datalad get`" in line) == (name == "a link")
        assert holds_dicom(tmp_path / name) == ("packed" in UNREAD[name][1])


# slices that are missing at the ends


def notes(path: Path) -> list[list[str]]:
    return [list(series.warnings) for series in find_series(path)]


@given(lost=st.integers(0, 3), first=st.sampled_from([0, 1]))
@settings(max_examples=8)
def test_instance_numbers_that_do_not_begin_with_the_first_are_named(tmp_path_factory: Any, lost: int, first: int):
    slices = make_slices(STORED, AFFINE)
    for index, dataset in enumerate(slices):
        dataset.InstanceNumber = index + first
    folder = write_series(tmp_path_factory.mktemp("study") / "s", slices[lost:])
    missing = lost + first - 1 if lost else 0
    expected = f"its instance numbers begin at {lost + first}: {missing} images may be missing before the first"
    assert notes(folder) == [[expected] if missing > 0 else []]


def test_numbers_that_other_series_have_are_not_missing(tmp_path: Path):
    first, second = make_slices(STORED, AFFINE), make_slices(STORED, AFFINE)
    for index, dataset in enumerate(second):
        dataset.InstanceNumber = SHAPE[2] + index + 1
    write_series(tmp_path / "study/a", first)
    write_series(tmp_path / "study/b", second)
    assert notes(tmp_path / "study") == [[], []]
    assert "begin at 12: 11 images may be missing" in notes(write_series(tmp_path / "alone", second))[0][0]
    every_second = make_slices(STORED, AFFINE)
    for index, dataset in enumerate(every_second):
        dataset.InstanceNumber = 2 * index + 2
    assert notes(write_series(tmp_path / "interleaved", every_second)) == [[]]


def test_fewer_images_than_the_acquisition_has_are_named(tmp_path: Path):
    slices = make_slices(STORED, AFFINE, ImagesInAcquisition=SHAPE[2])
    assert notes(write_series(tmp_path / "whole", slices)) == [[]]
    expected = "its headers give the acquisition 11 images, 9 are there: some may be missing"
    assert notes(write_series(tmp_path / "part", slices[:-2])) == [[expected]]


@pytest.mark.parametrize("kept", [slice(0, 9), slice(2, 11), slice(1, 10)])
def test_places_that_other_series_have_are_named(tmp_path: Path, kept: slice):
    whole = make_slices(STORED, AFFINE, SeriesNumber=1)
    part = make_slices(STORED, AFFINE, SeriesNumber=2)[kept]
    for index, dataset in enumerate(part):
        dataset.InstanceNumber, dataset.FrameOfReferenceUID = index + 1, whole[0].FrameOfReferenceUID
    write_series(tmp_path / "study/a", whole)
    write_series(tmp_path / "study/b", part)
    expected = "another series has 2 slices more beyond its ends: some may be missing"
    assert notes(tmp_path / "study") == [[], [expected]]


@pytest.mark.parametrize("change", ["place", "spacing", "shift", "orientation"])
def test_places_of_another_kind_tell_nothing(tmp_path: Path, change: str):
    whole = make_slices(STORED, AFFINE, SeriesNumber=1)
    affine = AFFINE.copy()
    if change == "spacing":
        affine[:3, 2] *= 1.3
    if change == "shift":
        affine[:3, 3] += 0.4 * AFFINE[:3, 2]
    data = STORED[:, :, :8]
    if change == "orientation":
        affine[:3, :2] = affine[:3, 1::-1]
        data = np.ascontiguousarray(data.transpose(1, 0, 2))
    part = make_slices(data, affine, SeriesNumber=2)
    for dataset in part:
        if change != "place":
            dataset.FrameOfReferenceUID = whole[0].FrameOfReferenceUID
    write_series(tmp_path / "study/a", whole)
    write_series(tmp_path / "study/b", part)
    assert notes(tmp_path / "study") == [[], []]
