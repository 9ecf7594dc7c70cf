"""Input that cannot be used: always one clear line, never another exception, never memory for what a header claims."""

import gzip
import os
import resource
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvision.volumes.files import read_labels, read_volume
from medvision.volumes.geometry import Grid
from medvision.volumes.writing import write_volume
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing
from tests.medvision.phantoms import SHAPE, make_affine, make_image, make_labels, nifti_bytes, write_file, write_scan

MARKER = "DOE^JOHN42"
NAN, INF = np.nan, np.inf


def refusal(path, **options) -> str:
    """The line with which a file is refused: one line, with the file's name, free of header text, and a way out."""
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    line = str(caught.value)
    assert line.startswith(f"{printable(path)}: ")
    assert "\n" not in line
    assert MARKER not in line
    assert ";" in line, "no way out"
    return line


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dim": [2, 99, 99, 1, 1, 1, 1, 1]}, "is 2-D (99 x 99)"),
        ({"dim": [3, 99, 10, 1, 1, 1, 1, 1]}, "is 2-D (99 x 10 x 1)"),
        ({"dim": [3, 90, 7, 11, 1, 1, 1, 1]}, "has 90 x 7 x 11 voxels; expected at least 8"),
        ({"dim": [4, 90, 11, 1, 9, 1, 1, 1]}, "has 90 x 11 x 1 x 9 voxels"),
        ({"dim": [5, 9, 10, 11, 1, 3, 1, 1]}, "is 5-D (9 x 10 x 11 x 1 x 3)"),
        ({"dim": [0, 9, 10, 11, 1, 1, 1, 1]}, "claims 0 dimensions"),
        ({"dim": [8, 9, 10, 11, 1, 1, 1, 1]}, "claims 8 dimensions"),
        ({"dim": [-1, 9, 10, 11, 1, 1, 1, 1]}, "claims -1 dimensions"),
        ({"dim": [3, 9, 0, 11, 1, 1, 1, 1]}, "claims 9 x 0 x 11 voxels; expected positive"),
        ({"dim": [3, 9, -10, 11, 1, 1, 1, 1]}, "claims 9 x -10 x 11 voxels; expected positive"),
        ({"dim": [3, 9, 10, 12, 1, 1, 1, 1]}, "is cut short"),
        ({"dim": [3, 20000, 20000, 20000, 1, 1, 1, 1]}, "claims 2.98e+04 GB of voxels; the limit is"),
        ({"datatype": 128}, "voxels are RGB colours (type code 128)"),
        ({"datatype": 2304}, "voxels are RGB colours"),
        ({"datatype": 32}, "voxels are complex numbers"),
        ({"datatype": 1}, "voxels are of an unknown type (type code 1)"),
        ({"datatype": 4321}, "voxels are of an unknown type (type code 4321)"),
        ({"vox_offset": 100}, "puts the voxels at byte 100"),
        ({"vox_offset": -352}, "puts the voxels at byte -352"),
        ({"vox_offset": 2**60}, "puts the voxels at byte 1.15292e+18"),
        ({"vox_offset": 1e6}, "is cut short"),
        ({"scl_slope": INF}, "scales voxels by slope inf"),
        ({"scl_slope": 2, "scl_inter": NAN}, "slope 2 and intercept nan"),
        ({"srow_x": [0, 1, 0, 5]}, "affine is singular (an axis of length 0)"),
        ({"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0]}, "affine is singular (its axes lie in one plane)"),
        ({"srow_x": [1, 0, 0, NAN]}, "affine holds NaN or infinite"),
        ({"srow_x": [INF, 0, 0, 0]}, "affine holds NaN or infinite"),
        ({"srow_x": [1e6, 0, 0, 0]}, "voxels of 1e+06 x 1 x 1 mm"),
        ({"srow_x": [1, 0, 0, 1e20]}, "of the origin"),
        ({"magic": b"ni1"}, "is the header of a .hdr/.img pair"),
        ({"magic": b"abc"}, "is not a NIfTI file (its magic bytes are wrong)"),
        ({"sizeof_hdr": 349}, "is not a NIfTI file (no NIfTI header"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_headers_that_cannot_be_used(tmp_path, fields, expected, version):
    if version == 2 and fields.get("magic") == b"ni1":
        fields = {"magic": b"ni2"}
    scan = write_scan(tmp_path / "a.nii", marker=MARKER, qform_code=0, version=version, fields=fields)
    assert expected in refusal(scan)


@pytest.mark.parametrize("offset", [NAN, INF, -INF])
def test_voxels_do_not_begin_at_infinity(tmp_path, offset):
    assert "puts the voxels at byte" in refusal(write_scan(tmp_path / "a.nii", fields={"vox_offset": offset}))


def test_the_qform_is_checked_as_the_sform_is(tmp_path):
    for fields, expected in (({"qoffset_x": NAN}, "NaN"), ({"quatern_b": 3}, "NaN")):
        assert expected in refusal(write_scan(tmp_path / "a.nii", sform_code=0, fields=fields))


def test_files_that_are_no_scans(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.nii")
    assert "not named like a scan" in refusal(write_file(tmp_path / "scan.dcm", b"x"))
    os.mkfifo(tmp_path / "pipe.nii")
    assert "not a regular file" in refusal(tmp_path / "pipe.nii")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300 + ".nii"))
    for name in ("a.nii", "a.nii.gz", "a.mgz", "a.mgh"):
        (tmp_path / name).write_bytes(b"")
        assert "is empty (0 bytes)" in refusal(tmp_path / name)
        (tmp_path / name).write_bytes(b"hello world, this is a letter and not an image\n" * 20)
        assert "is not a" in refusal(tmp_path / name)
        (tmp_path / name).write_bytes(b"\x5c")
        assert "is cut short" in refusal(tmp_path / name)
    assert "is cut short" in refusal(write_file(tmp_path / "packed.nii.gz", b""))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    scan = write_scan(tmp_path / "a.nii")

    def closed(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", closed)
    assert "cannot be read (Permission denied)" in refusal(scan)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz"])
def test_truncation_anywhere_is_noticed(tmp_path, name):
    content = write_scan(tmp_path / name).read_bytes()
    footer = {"a.mgh": 200, "a.mgz": 0}.get(name, 0)  # behind the voxels, not needed
    for length in [*range(1, 700, 23), len(content) // 2, len(content) - footer - 9, len(content) - footer - 1]:
        (tmp_path / name).write_bytes(content[:length])
        assert "cut short" in refusal(tmp_path / name)


def test_a_wrong_checksum_is_noticed(tmp_path):
    content = bytearray(write_scan(tmp_path / "a.nii.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert "gzip stream is damaged" in refusal(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("inter", [0, 3])
def test_nonfinite_voxels_are_counted_and_become_the_lowest_or_the_highest(tmp_path, inter):
    data = make_image(dtype=np.float32)
    data[0, 0, :3], data[1, 0, 0], data[2, 0, 0] = NAN, INF, -INF
    scan = write_scan(tmp_path / "a.nii", data, slope=1, inter=inter)
    assert "holds 3 NaN and 2 infinite voxels of 990" in refusal(scan)
    volume = read_volume(scan, allow_nonfinite=True)
    finite = data[np.isfinite(data)]
    expected = np.nan_to_num(data, nan=finite.min(), posinf=finite.max(), neginf=finite.min()) + inter
    assert np.array_equal(volume.data, expected)
    assert volume.warnings == ["3 NaN and 2 infinite voxels of 990 were read as the lowest finite value"]
    labels = np.where(np.isfinite(data), 1, data)
    with pytest.raises(InputError, match="3 NaN and 2 infinite"):
        read_labels(write_scan(tmp_path / "b.nii", labels))
    assert read_labels(tmp_path / "b.nii", allow_nonfinite=True).data.sum() == 985


@pytest.mark.parametrize(("slope", "inter"), [(1e38, 0), (-3e38, 0), (1, 3e38), (1e30, 1e30)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_slopes_and_intercepts_that_overflow_are_refused(tmp_path, slope, inter, dtype):
    scan = write_scan(tmp_path / "a.nii", make_image(dtype=dtype), slope=slope, inter=inter)
    for allow_nonfinite in (False, True):
        assert "its header scales voxels by slope" in refusal(scan, allow_nonfinite=allow_nonfinite)
    with pytest.raises(InputError, match="beyond 1e\\+30"):
        read_labels(scan)


def test_values_beyond_float32_are_infinite(tmp_path):
    data = make_image(dtype=np.float64)
    data[0, 0, 0] = 1e300
    assert "1 infinite" in refusal(write_scan(tmp_path / "a.nii", data))


def test_constant_images(tmp_path):
    assert "every voxel is 7" in refusal(write_scan(tmp_path / "a.nii", np.full(SHAPE, 7, np.uint8)))
    assert "no voxel is finite" in refusal(
        write_scan(tmp_path / "b.nii", np.full(SHAPE, NAN, np.float32)), allow_nonfinite=True
    )


def peak_of(call) -> int:
    """Bytes that Python held at most while the call ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_a_header_claims_is_limited_before_any_voxel_is_read(tmp_path):
    scan = write_scan(tmp_path / "a.nii.gz", make_image((64, 64, 64), np.uint8))
    assert "claims 0.000977 GB" in refusal(scan, max_bytes=2**20 - 1)  # uint8 counts as float32
    assert read_volume(scan, max_bytes=2**20).data.shape == (64, 64, 64)
    fields = {"dim": [3, 20000, 20000, 20000, 1, 1, 1, 1]}
    bomb = write_file(tmp_path / "b.nii.gz", nifti_bytes(make_image(), fields=fields) + bytes(2**20))
    assert peak_of(lambda: refusal(bomb)) < 2**22
    # Allowed, but no gzip file of this size can hold as much: refused without asking for the memory.
    assert peak_of(lambda: refusal(bomb, max_bytes=2**50)) < 2**22
    huge = write_scan(tmp_path / "c.nii", version=2, fields={"dim": [7, *[2**62] * 7]})
    assert "is 7-D" in refusal(huge)
    huge = write_scan(tmp_path / "d.nii", version=2, fields={"dim": [3, *[2**62] * 3, 1, 1, 1, 1]})
    assert "GB of voxels" in refusal(huge)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_a_stream_is_not_expanded_beyond_what_its_header_claims(tmp_path, name):
    content = write_scan(tmp_path / name).read_bytes()
    with gzip.GzipFile(tmp_path / name, "wb", 9) as stream:
        stream.write(gzip.decompress(content))
        for _ in range(16):
            stream.write(bytes(2**22))
    volume = None

    def read():
        nonlocal volume
        volume = read_volume(tmp_path / name)

    assert peak_of(read) < 2**23  # 64 MiB follow
    assert volume is not None
    assert np.array_equal(volume.data, make_image())
    assert bool(volume.warnings) == name.endswith(".nii.gz")  # MGH files may go on


def test_hostile_names_are_escaped(tmp_path):
    for name, shown in (("a\nb", r"a\nb"), ("\x1b[31mred", r"\x1b[31mred"), ("\u202egpj", r"\u202egpj"), ("ß", "ß")):
        path = tmp_path / f"{name}.nii"
        path.write_bytes(b"not an image")
        assert f"/{shown}.nii: is not a" in refusal(path)
    undecodable = os.fsdecode(b"\xff.nii")
    assert printable(undecodable) == r"\udcff.nii"


seeds = {
    (version, codes): nifti_bytes(make_image(), version=version, qform_code=codes[0], sform_code=codes[1])
    for version in (1, 2)
    for codes in ((0, 0), (1, 0), (0, 2), (1, 1))
}


@st.composite
def damaged(draw) -> bytes:
    """A file with some bytes of its header changed, perhaps cut off or lengthened, perhaps with dimensions drawn."""
    content = bytearray(seeds[draw(st.sampled_from(sorted(seeds)))])
    for position, value in draw(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6)):
        content[position] = value
    if draw(st.booleans()):
        # dim stands at byte 40 as int16, or at 16 as int64
        start, size = (40, 2) if int.from_bytes(content[:4], "little") == 348 else (16, 8)
        bits = 8 * size - 1
        lengths = st.one_of(st.integers(0, 16), st.integers(-(2**bits), 2**bits - 1))
        for index, length in enumerate(draw(st.lists(lengths, max_size=8))):
            where = start + index * size
            content[where : where + size] = length.to_bytes(size, "little", signed=True)
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content)


@given(content=damaged(), suffix=st.sampled_from([".nii", ".nii.gz"]), geometry=st.sampled_from([None, "sform"]))
@settings(max_examples=400)
def test_damaged_headers(tmp_path_factory, content, suffix, geometry):
    scan = write_file(tmp_path_factory.getbasetemp() / f"damaged{suffix}", content)
    outcome(scan, geometry)


@given(
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4),
    name=st.sampled_from(["x.nii.gz", "x.mgz", "x.mgh"]),
)
@settings(max_examples=150)
def test_damaged_streams_and_mgh(tmp_path_factory, changes, name):
    folder = tmp_path_factory.getbasetemp()
    scan = write_scan(folder / name)
    content = bytearray(scan.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    scan.write_bytes(content)
    outcome(scan, None)


@given(st.binary(max_size=2000), st.sampled_from(["y.nii", "y.nii.gz", "y.mgz", "y.mgh"]))
def test_noise(tmp_path_factory, content, name):
    scan = tmp_path_factory.getbasetemp() / name
    scan.write_bytes(content)
    outcome(scan, None)


def outcome(scan, geometry) -> None:
    """Either a finite volume whose grid can be written and read again, or an InputError of one line."""
    limit = 2**24
    for allow in (False, True):
        try:
            volume = read_volume(scan, geometry=geometry, allow_nonfinite=allow, max_bytes=limit)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert volume.data.ndim == 3
        assert volume.data.nbytes <= limit
        assert np.isfinite(volume.data).all()
        assert np.isfinite(volume.grid.affine).all()
        assert all(0 < edge < 1001 for edge in volume.grid.spacing_mm)
        target = scan.with_name("again.nii")
        write_volume(target, np.zeros(volume.grid.shape, np.uint8), volume.grid)
        again = read_labels(target, geometry=geometry if scan.name.startswith("damaged") else None)
        assert again.grid.differs_from(volume.grid, 0) is None


def test_no_warning_leaves_the_reader(tmp_path, caplog):
    fields = {"quatern_b": 1e38, "quatern_c": NAN, "pixdim": [NAN, INF, -1, 0, 0, 0, 0, 0], "qform_code": -5}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_volume(write_scan(tmp_path / "a.nii", fields=fields))
    assert volume.warnings[0].startswith("header fields outside the NIfTI standard")
    assert caplog.records == []  # nibabel's logger would write to the terminal


# ------------------------------------------------------------------------------------------------------- writing


def test_a_full_disk_leaves_the_old_file(tmp_path):
    labels = np.random.default_rng(0).integers(0, 255, (64, 64, 64)).astype(np.uint8)
    grid = Grid.from_affine(labels.shape, make_affine())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))
        try:
            with pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
                write_volume(tmp_path / name, labels, grid)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.nii", "a.nii.gz"]


def test_outputs_that_cannot_be(tmp_path):
    grid = Grid.from_affine(SHAPE, make_affine())
    (tmp_path / "taken.nii").mkdir()
    for path, reason in (("no/such/a.nii", "No such file"), ("taken.nii", "Is a directory"), ("a.mgz", "format")):
        with pytest.raises(InputError, match=reason):
            write_volume(tmp_path / path, make_labels(), grid)
    assert os.listdir(tmp_path) == ["taken.nii"]


def test_an_interrupted_block_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as path:
        path.write_bytes(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old"
    with replacing(tmp_path / "a") as path:
        path.write_bytes(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]
