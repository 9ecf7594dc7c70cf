"""Volumes: what is read, and geometry that comes out bit by bit as it went in."""

import gzip
import hashlib
import os
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvision.volumes.files import find_scans, read_labels, read_volume
from medvision.volumes.geometry import Grid, to_ras
from medvision.volumes.names import scan_stem
from medvision.volumes.writing import write_stack, write_volume
from shared_backbones.errors import InputError
from tests.medvision.phantoms import (
    ORIENTATIONS,
    SHAPE,
    load,
    make_affine,
    make_image,
    make_labels,
    nifti_bytes,
    read_file,
    write_scan,
)

MARKER = "DOE^JOHN42"
GEOMETRY = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
FLOATS = ("float32", "float64")
angles = st.tuples(*[st.floats(-25, 25, width=32)] * 3)
spacings = st.tuples(*[st.floats(0.25, 8, width=32)] * 3)


def raw_header(path: Path) -> nib.Nifti1Header:
    """The header as it stands in the file, mended nowhere."""
    content = read_file(path)
    kind = nib.Nifti1Header if 348 in (int.from_bytes(content[:4], order) for order in ("little", "big")) else None
    kind = kind or nib.Nifti2Header
    return kind(content[: kind.template_dtype.itemsize], check=False)


def assert_same_geometry(written: Path, source: Path) -> None:
    """Bits of every geometry field, and the affine that nibabel reads."""
    found, expected = raw_header(written), raw_header(source)
    assert type(found) is type(expected)
    for key in GEOMETRY:
        # Byte order may differ, bits not.
        assert found[key].tobytes() == expected[key].astype(found[key].dtype).tobytes(), key
    assert found["pixdim"][:4].tobytes() == expected["pixdim"][:4].astype(found["pixdim"].dtype).tobytes()
    assert load(written).shape[:3] == load(source).shape[:3]
    assert np.array_equal(load(written).affine, load(source).affine)


@given(
    orientation=st.sampled_from(ORIENTATIONS),
    angles_deg=angles,
    spacing=spacings,
    codes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    units=st.sampled_from([0, 1, 2, 3, 10, 18, 26]),
    version=st.sampled_from([1, 2]),
    endianness=st.sampled_from("<>"),
    suffixes=st.tuples(*[st.sampled_from([".nii", ".nii.gz"])] * 2),
)
@settings(max_examples=120)
def test_labels_keep_the_geometry_and_no_text(
    tmp_path_factory, orientation, angles_deg, spacing, codes, units, version, endianness, suffixes
):
    folder = tmp_path_factory.getbasetemp()
    affine = make_affine(orientation, spacing, angles_deg)
    unit_mm = {1: 1000, 3: 0.001}.get(units & 7, 1)
    affine[:3] /= unit_mm
    scan = write_scan(
        folder / f"{MARKER}{suffixes[0]}",
        affine=affine,
        qform_code=codes[0],
        sform_code=codes[1],
        units=units,
        version=version,
        endianness=endianness,
        marker=MARKER,
        fields={"cal_max": 77, "slice_duration": 3, "toffset": 5, "dim_info": 57},
    )
    assert MARKER.encode() in read_file(scan)
    assert MARKER.encode() in scan.read_bytes()[:40] or suffixes[0] == ".nii"  # the name in the gzip header
    volume = read_volume(scan)
    target = folder / f"{MARKER}_seg{suffixes[1]}"
    labels = make_labels()
    write_volume(target, labels, volume.grid)

    assert_same_geometry(target, scan)
    assert MARKER.encode() not in target.read_bytes()
    assert MARKER.encode() not in read_file(target)
    header = raw_header(target)
    fresh = type(header)()
    for key in header.keys():  # noqa: SIM118 - a header is not a dict
        if key not in (*GEOMETRY, "pixdim", "dim", "datatype", "bitpix", "vox_offset"):
            assert header[key].tobytes() == fresh[key].tobytes(), key
    reread = load(target)
    assert reread.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(reread.dataobj), labels)
    if any(codes):
        assert volume.grid.orientation == orientation
        assert np.allclose(volume.grid.spacing_mm, spacing, rtol=1e-4)
        # what the file holds: near half a turn, float32 quaternions are off by more than a reader may be
        assert np.allclose(volume.grid.affine[:3], load(scan).affine[:3] * unit_mm, rtol=1e-6, atol=1e-6)
    assert any("converted to mm" in warning for warning in volume.warnings) == (unit_mm != 1)


@pytest.mark.parametrize("pixdim", [[0, 2, 3, 4], [1, -2, 3, 4], [-1, 2, 0, 4], [5, 2, 3, 4]])
@pytest.mark.parametrize("codes", [(0, 0), (0, 3)])
def test_odd_voxel_sizes_are_read_as_nibabel_does_and_kept(tmp_path, pixdim, codes):
    scan = write_scan(
        tmp_path / "a.nii",
        qform_code=codes[0],
        sform_code=codes[1],
        fields={"pixdim": [*pixdim, 0, 0, 0, 0], "quatern_b": np.nan},
    )
    volume = read_volume(scan)
    assert np.array_equal(volume.grid.affine, load(scan).affine)
    assert any("pixdim" in warning for warning in volume.warnings)
    write_volume(tmp_path / "b.nii.gz", make_labels(), volume.grid)
    assert_same_geometry(tmp_path / "b.nii.gz", scan)


def test_the_affine_is_sform_then_qform_then_voxel_sizes(tmp_path):
    qform, sform = make_affine("LAS", (2, 2, 2)), make_affine("RAS", (1, 1, 1))
    rows = {f"srow_{axis}": sform[row] for row, axis in enumerate("xyz")}
    both = write_scan(tmp_path / "both.nii", affine=qform, fields=rows)
    only_q = write_scan(tmp_path / "q.nii", affine=qform, sform_code=0, fields=rows)
    neither = write_scan(tmp_path / "none.nii", affine=qform, qform_code=0, sform_code=0, fields=rows)

    with pytest.raises(InputError, match=r"qform \(code 1\) and sform \(code 1\).*--use-sform or --use-qform"):
        read_volume(both)
    assert np.allclose(read_volume(both, geometry="sform").grid.affine, sform)
    assert np.allclose(read_volume(both, geometry="qform").grid.affine, qform)
    assert np.allclose(read_volume(only_q).grid.affine, qform)
    assert read_volume(only_q).warnings == []
    fallback = read_volume(neither)
    assert np.allclose(fallback.grid.affine, [[-2, 0, 0, 8], [0, 2, 0, -9], [0, 0, 2, -10], [0, 0, 0, 1]])
    assert any("left and right are assumed" in warning for warning in fallback.warnings)
    with pytest.raises(InputError, match="sform code is 0"):
        read_volume(only_q, geometry="sform")
    write_volume(tmp_path / "labels.nii", make_labels(), read_volume(both, geometry="qform").grid)
    assert_same_geometry(tmp_path / "labels.nii", both)


@pytest.mark.parametrize(("shift", "agrees"), [(0.18, True), (0.22, False)])
def test_the_tolerance_between_qform_and_sform_is_a_tenth_of_a_voxel(tmp_path, shift, agrees):
    affine = make_affine(spacing=(3, 2, 4))  # smallest edge 2 mm
    scan = write_scan(tmp_path / "a.nii", affine=affine, fields={"qoffset_y": affine[1, 3] + shift})
    if agrees:
        assert np.allclose(read_volume(scan).grid.affine, affine)
    else:
        with pytest.raises(InputError, match=r"0\.11 voxels apart"):
            read_volume(scan)


def test_a_quaternion_that_is_no_rotation_is_a_conflict_unless_sform_is_chosen(tmp_path):
    scan = write_scan(tmp_path / "a.nii", fields={"quatern_b": 0.9, "quatern_c": 0.9})
    with pytest.raises(InputError, match="not a rotation"):
        read_volume(scan)
    assert np.allclose(read_volume(scan, geometry="sform").grid.affine, make_affine())


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize(
    "name", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize(("slope", "inter"), [(np.nan, np.nan), (0, 5), (0.5, -3)])
def test_intensities_are_nibabels(tmp_path, name, endianness, slope, inter):
    data = make_image(dtype=name) - (100 if name.startswith("float") else 0)
    scan = write_scan(tmp_path / "a.nii.gz", data, endianness=endianness, slope=slope, inter=inter)
    volume = read_volume(scan)
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, load(scan).get_fdata().astype(np.float32))
    assert volume.sha256 == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert volume.case_id == f"case-{volume.sha256[:8]}"


def test_blocks_fall_on_the_right_voxels(tmp_path):
    data = np.arange(200 * 150 * 101, dtype=np.int32).reshape(200, 150, 101)  # three blocks and a rest
    scan = write_scan(tmp_path / "a.nii", data)
    assert np.array_equal(read_volume(scan).data, data.astype(np.float32))
    assert np.array_equal(read_labels(scan).data, data)
    write_volume(tmp_path / "b.nii.gz", data, read_volume(scan).grid)
    assert np.array_equal(np.asarray(load(tmp_path / "b.nii.gz").dataobj), data)


def test_compression_is_seen_in_the_bytes_not_the_name(tmp_path):
    content = nifti_bytes(make_image())
    half = len(content) // 2
    members = gzip.compress(content[:half]) + gzip.compress(content[half:])  # as block compressors write
    for name, held in (("plain.nii.gz", content), ("members.nii.gz", members), ("packed.NII", members)):
        (tmp_path / name).write_bytes(held)
        assert np.array_equal(read_volume(tmp_path / name).data, make_image())


def test_four_dimensions(tmp_path):
    data = make_image((*SHAPE, 3))
    scan = write_scan(tmp_path / "many.nii.gz", data, fields={"pixdim": [1, 1, 1, 1, 2.5, 0, 0, 0]})
    with pytest.raises(InputError, match=r"holds 3 volumes; .*--volume-index 0 to 2"):
        read_volume(scan)
    for index in range(3):
        volume = read_volume(scan, volume_index=index)
        assert np.array_equal(volume.data, data[..., index])
        assert volume.sha256 == hashlib.sha256(scan.read_bytes()).hexdigest()
        assert volume.warnings == []
    for index in (3, -1):
        with pytest.raises(InputError, match="from 0 to 2"):
            read_volume(scan, volume_index=index)

    one = write_scan(tmp_path / "one.nii", data[..., :1])
    assert read_volume(one).data.shape == SHAPE
    assert np.array_equal(read_volume(one, volume_index=0).data, data[..., 0])
    assert read_volume(write_scan(tmp_path / "five.nii", data[..., :1, None])).data.shape == SHAPE
    with pytest.raises(InputError, match="no volume 1"):
        read_volume(one, volume_index=1)
    write_volume(tmp_path / "labels.nii", make_labels(), read_volume(one).grid)
    assert load(tmp_path / "labels.nii").shape == SHAPE


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("name", ["uint8", "int16", "int32", "float32"])
def test_freesurfer_volumes(tmp_path, suffix, name):
    affine = make_affine("LIA", (1.5, 1, 0.75), (5, -10, 20))
    scan = write_scan(tmp_path / f"a{suffix}", make_image(dtype=name), affine)
    volume = read_volume(scan, geometry="sform")  # there is nothing to choose
    assert np.array_equal(volume.data, make_image())
    assert np.allclose(volume.grid.affine, affine, atol=1e-4)
    write_volume(tmp_path / "seg.nii.gz", make_labels(), volume.grid)
    header = raw_header(tmp_path / "seg.nii.gz")
    assert (int(header["qform_code"]), int(header["sform_code"]), int(header["xyzt_units"])) == (1, 1, 2)
    assert read_volume(tmp_path / "seg.nii.gz").grid.differs_from(volume.grid) is None
    assert np.allclose(np.asarray(header.get_qform()), affine, atol=1e-4)


def test_freesurfer_frames_and_missing_orientation(tmp_path):
    frames = make_image((*SHAPE, 2))
    scan = write_scan(tmp_path / "a.mgh", frames)
    assert np.array_equal(read_volume(scan, volume_index=1).data, frames[..., 1])
    content = bytearray(write_scan(tmp_path / "b.mgh").read_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    (tmp_path / "b.mgh").write_bytes(content)
    with pytest.raises(InputError, match="contains no orientation"):
        read_volume(tmp_path / "b.mgh")


def test_label_maps(tmp_path):
    labels = make_labels(dtype=np.uint16) * 7000
    read = read_labels(write_scan(tmp_path / "a.nii.gz", labels))
    assert read.data.dtype == np.uint16
    assert np.array_equal(read.data, labels)
    floats = read_labels(write_scan(tmp_path / "b.nii", labels.astype(np.float32)))
    assert floats.data.dtype == np.int32
    assert np.array_equal(floats.data, labels)
    large = make_labels(dtype=np.int32) + 2**24  # not exact in float32
    assert np.array_equal(read_labels(write_scan(tmp_path / "c.nii", large)).data, large)
    scaled = write_scan(tmp_path / "d.nii", make_labels(), slope=2, inter=1)
    assert np.array_equal(read_labels(scaled).data, make_labels() * 2 + 1)
    assert not read_labels(write_scan(tmp_path / "e.nii", np.zeros(SHAPE, np.uint8))).data.any()
    with pytest.raises(InputError, match=r"holds the value \d\.5; expected integer labels"):
        read_labels(write_scan(tmp_path / "f.nii", make_labels() * np.float32(0.5), slope=1, inter=4))


def test_stacks_hold_one_volume_at_a_time(tmp_path):
    grid = Grid.from_affine(SHAPE, make_affine("PIR", (1, 2, 3), (3, 4, 5)))
    alive: list[weakref.ref] = []

    def volumes():
        for index in range(4):
            assert not [ref for ref in alive if ref() is not None]
            volume = make_image(dtype=np.uint8, seed=index)
            alive.append(weakref.ref(volume))
            yield volume
            del volume

    write_stack(tmp_path / "p.nii.gz", volumes(), 4, np.uint8, grid, slope=1 / 255)
    header = raw_header(tmp_path / "p.nii.gz")
    assert header["dim"].tolist() == [4, *SHAPE, 4, 1, 1, 1]
    assert header["pixdim"][4] == 1
    assert header["scl_slope"] == np.float32(1 / 255)
    expected = np.stack([make_image(seed=index) for index in range(4)], axis=-1)
    assert np.allclose(load(tmp_path / "p.nii.gz").get_fdata(), expected / 255, atol=1e-6)
    write_volume(tmp_path / "q.nii.gz", expected.astype(np.uint8), grid, slope=1 / 255)
    assert (tmp_path / "q.nii.gz").read_bytes() == (tmp_path / "p.nii.gz").read_bytes()


def test_equal_input_gives_equal_bytes_without_name_or_time(tmp_path, monkeypatch):
    grid = read_volume(write_scan(tmp_path / "a.nii")).grid
    write_volume(tmp_path / "one.nii.gz", make_labels(), grid)
    monkeypatch.setattr("time.time", lambda: 1.0)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        write_volume(tmp_path / "two.nii.gz", layout(make_labels()), grid)
        assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    # magic, deflate, no flags (so no name), no time, fastest level, unknown system
    assert (tmp_path / "one.nii.gz").read_bytes()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"


def test_reading_and_writing_hold_no_second_volume(tmp_path):
    shape = (160, 160, 160)
    scan = write_scan(tmp_path / "a.nii.gz", make_image(shape, np.int16))
    tracemalloc.start()
    volume = read_volume(scan)
    read_peak = tracemalloc.get_traced_memory()[1]
    labels = np.ascontiguousarray(volume.data.astype(np.int32))
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    write_volume(tmp_path / "b.nii.gz", labels, volume.grid)
    write_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert read_peak < volume.data.nbytes + 16 * 2**20
    assert write_peak < 16 * 2**20 < labels.nbytes + 2**20


@pytest.mark.parametrize(("read", "slope"), [(read_volume, 0.5), (read_labels, 2.0), (read_labels, np.nan)])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_voxels_that_are_computed_take_a_few_megabytes_beside_them(tmp_path, read, slope, kind):
    data = np.arange(160**3).reshape(160, 160, 160) % 200
    scan = write_scan(tmp_path / "a.nii", data.astype(kind), slope=slope, inter=0.0)
    tracemalloc.start()
    volume = read(scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < volume.data.nbytes + 16 * 2**20


@pytest.mark.parametrize("wrong", ["bool", "float16", "complex64", "shape", "volume", "count"])
def test_mistakes_of_the_caller_leave_nothing_behind(tmp_path, wrong):
    grid = Grid.from_affine(SHAPE, make_affine())
    labels = make_labels()
    with pytest.raises(ValueError, match="expected"):
        if wrong == "shape":
            write_volume(tmp_path / "a.nii", labels[1:], grid)
        elif wrong == "volume":
            write_stack(tmp_path / "a.nii", [labels, labels.astype(np.int16)], 2, np.uint8, grid)
        elif wrong == "count":
            write_stack(tmp_path / "a.nii.gz", [labels], 2, np.uint8, grid)
        else:
            write_volume(tmp_path / "a.nii", labels.astype(wrong), grid)
    assert os.listdir(tmp_path) == []


@given(
    orientation=st.sampled_from(ORIENTATIONS),
    angles_deg=angles,
    spacing=spacings,
    shape=st.permutations([8, 9, 10]).map(tuple),
)
def test_turning_to_ras_and_back(orientation, angles_deg, spacing, shape):
    affine = make_affine(orientation, spacing, angles_deg)
    grid = Grid.from_affine(shape, affine)
    assert grid.orientation == orientation
    data = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    view, spacing_mm, undo = to_ras(data, grid)
    assert np.shares_memory(view, data)
    assert np.shares_memory(undo(view), data)
    assert np.array_equal(undo(view), data)
    assert undo(view).strides == data.strides

    # The view's affine, from where its first voxel and its neighbours come from in the input.
    def place(*index):
        return affine @ [*np.argwhere(data == view[index])[0], 1]

    steps = np.stack([place(1, 0, 0), place(0, 1, 0), place(0, 0, 1)], axis=1)[:3] - place(0, 0, 0)[:3, None]
    assert (np.diag(steps) > 0).all()
    assert (np.abs(steps / spacing_mm).argmax(axis=0) == [0, 1, 2]).all()
    assert np.allclose(np.linalg.norm(steps, axis=0), spacing_mm, rtol=1e-5)


@given(angles_deg=st.tuples(*[st.floats(-180, 180)] * 3), orientation=st.sampled_from(ORIENTATIONS))
def test_any_rotation_has_three_distinct_axes(angles_deg, orientation):
    grid = Grid.from_affine((8, 9, 10), make_affine(orientation, angles_deg=angles_deg))
    assert {frozenset(pair) for pair in ("LR", "PA", "IS") for letter in grid.orientation if letter in pair} == {
        frozenset("LR"),
        frozenset("PA"),
        frozenset("IS"),
    }
    data = np.arange(720).reshape(8, 9, 10)
    view, _, undo = to_ras(data, grid)
    assert np.array_equal(undo(view), data)


def test_grids_differ_by_shape_place_or_direction():
    affine = make_affine()
    grid = Grid.from_affine(SHAPE, affine)
    assert grid.differs_from(Grid.from_affine(SHAPE, affine)) is None
    shifted = affine.copy()
    shifted[0, 3] += 0.5
    assert grid.differs_from(Grid.from_affine(SHAPE, shifted)) == "its corners lie up to 0.5 mm off"
    assert grid.differs_from(Grid.from_affine(SHAPE, shifted), tolerance_mm=0.6) is None
    turned = affine.copy()
    turned[:3, 1] *= 1.01  # the last of ten voxels lies 9 * 0.01 mm off
    assert grid.differs_from(Grid.from_affine(SHAPE, turned)) == "its corners lie up to 0.09 mm off"
    assert grid.differs_from(Grid.from_affine((9, 10, 12), affine)) == "its shape is 9 x 10 x 11, not 9 x 10 x 12"
    assert "RAS, not LAS" in str(grid.differs_from(Grid.from_affine(SHAPE, make_affine("LAS"))))


def test_a_sheared_affine_is_not_given_a_qform(tmp_path):
    sheared = make_affine()
    sheared[0, 2] = 0.3
    grid = Grid.from_affine(SHAPE, sheared)
    write_volume(tmp_path / "a.nii", make_labels(), grid)
    assert read_labels(tmp_path / "a.nii").grid.differs_from(grid) is None


def test_scans_of_a_folder(tmp_path):
    (tmp_path / "deeper.nii").mkdir()
    for name in ("b.nii.gz", "a.mgz", "b_seg.nii.gz", "b_prob.nii.gz", "c_seg.nii", "._b.nii", "b_seg.json", "d.NII"):
        (tmp_path / name).touch()
    assert [scan.name for scan in find_scans(tmp_path)] == ["a.mgz", "b.nii.gz", "c_seg.nii", "d.NII"]
    (tmp_path / "a.nii").touch()
    assert [scan.name for scan in find_scans(tmp_path)][:2] == ["a.mgz", "a.nii"]
    with pytest.raises(InputError, match="contains no scan"):
        find_scans(tmp_path / "deeper.nii")
    with pytest.raises(InputError, match="No such file"):
        find_scans(tmp_path / "absent")
    with pytest.raises(InputError, match="Not a directory"):
        find_scans(tmp_path / "a.nii")


def test_stems():
    names = ["x/a.nii", "a.nii.gz", "a.mgz", "A.v2.MGH", "plain", "a.gz"]
    assert [scan_stem(name) for name in names] == ["a", "a", "a", "A.v2", "plain", "a.gz"]


def test_importing_brings_nibabel_and_little_else():
    heavy = "{'torch', 'scipy.ndimage', 'pandas', 'matplotlib'} & set(sys.modules)"
    code = f"import medvision.volumes.files, sys; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize(
    "name",
    [
        "brain_t1/colin27/ch2.nii.gz",
        "brain_t1/chris_t1.nii.gz",
        "brain_t1/fsaverage_brain.mgz",
        "ct_mr_totalseg/example_ct_sm.nii.gz",
        "ct_mr_totalseg/example_mr_sm.nii.gz",
        "ct_mr_totalseg/example_ct.nii.gz",
        "brain_t1_manual_noncommercial/1006_tissues.nii.gz",
    ],
)
def test_real_scans_round_trip(data_root, tmp_path, name):
    scan = data_root / "medical" / name
    volume = read_volume(scan)
    image = load(scan)
    assert np.array_equal(volume.data, np.asanyarray(image.dataobj).astype(np.float32))
    assert volume.grid.orientation == "".join(nib.aff2axcodes(image.affine))
    labels = (volume.data > volume.data.mean()).astype(np.uint8)
    target = tmp_path / "seg.nii.gz"
    write_volume(target, labels, volume.grid)
    assert np.array_equal(np.asanyarray(load(target).dataobj), labels)
    if name.endswith(".mgz"):
        assert np.allclose(load(target).affine, image.affine, atol=1e-5)
        assert [int(raw_header(target)[f"{form}_code"]) for form in ("qform", "sform")] == [1, 1]
    else:
        assert_same_geometry(target, scan)
    assert read_labels(target).grid.differs_from(volume.grid) is None


def test_real_conflict_is_refused_and_can_be_settled(data_root):
    scan = (
        data_root / "medical" / "brain_t1" / "colin27" / "jhu189.nii.gz"
    )  # qform runs to the right, sform to the left
    with pytest.raises(InputError, match="disagree"):
        read_volume(scan)
    assert read_labels(scan, geometry="sform").grid.orientation == "LAS"
    assert read_labels(scan, geometry="qform").grid.orientation == "RAS"
