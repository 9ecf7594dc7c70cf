"""Where DICOM files are looked for, and what hostile ones come to."""

import gc
import stat
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
)

import medvision.dicom.decoding
import medvision.dicom.files
from medvision.dicom.files import holds_dicom
from medvision.dicom.series import read_series
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from tests.medvision.dicom.dicoms import AFFINE, SHAPE, STORED, expect, make_slices, refusal, write_series, zip_of
from tests.medvision.phantoms import make_image, write_scan


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
    archive.write_bytes(content[: len(content) // 2])  # as of a download that broke off
    assert "is a damaged zip archive" in refusal(lambda: read_series(archive))


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
    assert volume.warnings == [
        "2 links that lead out of the folder were left out",
        "its instance numbers begin at 3: 2 images may be missing before the first",
    ]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # as hostile ones are
def test_a_dicomdir_is_not_followed(tmp_path: Path):
    from pydicom.fileset import FileSet

    media = FileSet()
    for dataset in make_slices(STORED, AFFINE, StudyDate="20200101", StudyTime="10", PatientID="1", StudyID="1",
                               SeriesNumber=1):  # fmt: skip
        media.add(dataset)
    media.write(tmp_path / "media")
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # of pydicom's own temporary folder
        del media
        gc.collect()
    outside = write_series(tmp_path / "outside", make_slices(STORED, AFFINE)[:1])
    directory = dcmread(tmp_path / "media/DICOMDIR")
    record = next(item for item in directory.DirectoryRecordSequence if "ReferencedFileID" in item)
    record.ReferencedFileID = ["..", "outside", next(outside.iterdir()).name]
    directory.save_as(tmp_path / "media/DICOMDIR", enforce_file_format=True)
    assert read_series(tmp_path / "media").grid.shape == SHAPE
    (tmp_path / "alone").mkdir()
    (tmp_path / "media/DICOMDIR").rename(tmp_path / "alone/DICOMDIR")
    assert "none of which is an image" in refusal(lambda: read_series(tmp_path / "alone"))


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


@pytest.mark.parametrize("tag", [(0x0008, 0x1140), (0x5200, 0x9229)], ids=["unused", "functional groups"])
def test_sequences_within_sequences_without_end_are_refused(tmp_path: Path, tag: tuple[int, int]):
    folder = write_series(tmp_path, make_slices(STORED, AFFINE))
    path = next(folder.iterdir())
    content, depth = path.read_bytes(), 20_000
    begin = struct.pack("<HH2sHI", *tag, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    place = content.find(struct.pack("<HH", 0x0008, 0x0016), 200)  # the first attribute behind the meta header
    assert place > 0
    path.write_bytes(content[:place] + begin * depth + content[place:])
    assert "is damaged or no valid DICOM (recursion error)" in refusal(lambda: read_series(folder))


def test_names_that_look_alike_are_two_files(tmp_path: Path):
    folder = write_series(tmp_path, make_slices(STORED, AFFINE))
    first, second, *_ = sorted(folder.iterdir())
    first.rename(folder / "a\x1b")
    second.rename(folder / "a\\x1b")
    assert printable(folder / "a\x1b") == printable(folder / "a\\x1b")
    expect(read_series(folder), STORED.astype(np.float32), AFFINE)


# what is DICOM, and what are other scans


def test_what_reads_other_scans_imports_no_dicom_library():
    code = (
        "import sys, medvision.volumes.files, medvision.dicom.series, medvision.dicom.segmentations\n"
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
