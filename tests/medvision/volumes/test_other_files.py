"""Scans in two files, with something behind them, packed in another way, or not there yet."""

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header, Nifti1Pair
from nibabel.nifti2 import Nifti2Pair
from nibabel.spm99analyze import Spm99AnalyzeImage

from medvision.volumes.files import find_scans, read_labels, read_volume, scan_sha256
from medvision.volumes.names import scan_stem
from shared_backbones.errors import InputError
from tests.medvision.phantoms import load, make_affine, make_image, make_labels, write_scan

AFFINE = make_affine("LAS", (1.0, 2.0, 3.0), (5, 3, 1))
ZSTD = bytes.fromhex("28b52ffd 04 58 01 00 00")


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and "\n" not in line
    return line


@pytest.mark.parametrize("kind", [Nifti1Pair, Nifti2Pair])
@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")])
def test_pairs_are_read_by_either_name(tmp_path: Path, kind: type[Nifti1Pair], suffixes: tuple[str, str]):
    data = make_image()
    kind(data, AFFINE).to_filename(tmp_path / "x.hdr")
    packed = gzip.compress if suffixes[0].endswith("gz") else bytes
    header, image = (tmp_path / f"a{suffix}" for suffix in suffixes)
    header.write_bytes(packed((tmp_path / "x.hdr").read_bytes()))
    image.write_bytes(packed((tmp_path / "x.img").read_bytes()))
    volumes = [read_volume(path) for path in (header, image)]
    for volume, path in zip(volumes, (header, image), strict=True):
        assert np.array_equal(volume.data, data) and volume.warnings == []
        assert np.array_equal(volume.grid.affine, load(tmp_path / "x.hdr").affine)
        assert volume.sha256 == scan_sha256(path) == volumes[0].sha256
        assert scan_stem(path) == "a"
    assert np.array_equal(read_labels(header).data, data)
    assert find_scans(tmp_path) == sorted([image, tmp_path / "x.img"])
    image.write_bytes(packed((tmp_path / "x.img").read_bytes()[:-1]))
    assert "cut short" in refusal(header) + refusal(image)
    image.unlink()
    assert f"has no {image.name} beside it" in refusal(header)
    assert find_scans(tmp_path) == [tmp_path / "x.img"]


def test_pairs_that_are_none_are_named(tmp_path: Path):
    Spm99AnalyzeImage(make_image(), np.diag([-2.0, 2, 2, 1])).to_filename(tmp_path / "spm.img")
    assert "Analyze 7.5 file, which does not say where left is" in refusal(tmp_path / "spm.img")
    whole = write_scan(tmp_path / "a.nii").rename(tmp_path / "a.hdr")
    (tmp_path / "a.img").write_bytes(b"x")
    assert "name the file with both .nii" in refusal(whole)
    (tmp_path / "b.hdr").write_bytes(Nifti1Header().binaryblock)
    (tmp_path / "b.img").touch()
    with pytest.raises(InputError, match=r"b\.img: is empty \(0 bytes\)"):
        read_volume(tmp_path / "b.hdr")


@given(
    behind=st.binary(min_size=1, max_size=40).filter(
        lambda tail: not tail.startswith(b"\x1f\x8b") and tail.strip(b"\0")
    )
)
def test_what_follows_a_gzip_stream_is_ignored_with_a_warning(tmp_path_factory, behind: bytes):
    scan = write_scan(tmp_path_factory.mktemp("scan") / "a.nii.gz")
    content = scan.read_bytes()
    scan.write_bytes(content + behind.lstrip(b"\0"))
    volume = read_volume(scan)
    assert np.array_equal(volume.data, make_image())
    assert volume.warnings == ["the file goes on behind its gzip stream; the rest was ignored"]
    assert volume.sha256 == scan_sha256(scan)
    damaged = bytearray(content + behind.lstrip(b"\0"))
    damaged[len(content) - 8] ^= 1  # of the checksum
    scan.write_bytes(damaged)
    assert "gzip stream is damaged" in refusal(scan)


def test_streams_one_behind_the_other_are_one(tmp_path: Path):
    scan = write_scan(tmp_path / "a.nii")
    content = scan.read_bytes()
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(512))
    assert np.array_equal(read_volume(packed).data, make_image()) and read_volume(packed).warnings == []


@pytest.mark.parametrize("name", ["a.nii.zst", "a.nii.gz", "a.nii", "a.mgz"])
@pytest.mark.parametrize("kind", ["zstd", "bzip2", "xz"])
def test_other_compressions_are_named(tmp_path: Path, name: str, kind: str):
    pack = {"zstd": lambda content: ZSTD + content, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
    (tmp_path / name).write_bytes(pack(write_scan(tmp_path / "x.nii").read_bytes()))
    assert f"is compressed with {kind}; expected gzip, or no compression; unpack it first" in refusal(tmp_path / name)


def test_links_that_lead_nowhere_are_named(tmp_path: Path):
    link = tmp_path / "a.nii.gz"
    link.symlink_to(tmp_path / ".git/annex/objects/MD5E-s1--0.nii.gz")
    assert "is a link to a file that is not there, as in a DataLad data set before `datalad get`" in refusal(link)
    (tmp_path / "note.txt").touch()
    with pytest.raises(InputError, match="holds 1 links to files that are not there"):
        find_scans(tmp_path)
    write_scan(tmp_path / "b.nii", make_labels())
    assert find_scans(tmp_path) == [link, tmp_path / "b.nii"]
