"""Where oblique scans lie: what a float32 quaternion can say of a rotation, and what no longer is rounding."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from medvision.volumes.files import read_labels, read_volume
from medvision.volumes.geometry import CONFLICT_TOLERANCE_VOXELS, Grid, forms_apart_voxels, nifti_grid
from shared_backbones.errors import InputError
from tests.medvision.phantoms import ORIENTATIONS, make_affine, make_labels, write_scan

LARGE = (512, 512, 400)
small_angles = st.tuples(*[st.floats(-15, 15) | st.floats(-0.2, 0.2)] * 3)
units = st.sampled_from([0, 2, 3])


def header_of(qform: np.ndarray | None, sform: np.ndarray | None, kind: type[Nifti1Header] = Nifti1Header) -> Any:
    """A header as nibabel writes it."""
    header = kind()
    header.set_data_shape(LARGE)
    header.set_qform(qform, 0 if qform is None else 1)
    header.set_sform(sform, 0 if sform is None else 1)
    return header


def grid_of(qform: np.ndarray | None, sform: np.ndarray | None, **options: Any) -> Grid:
    grid, _ = nifti_grid(header_of(qform, sform, **options), LARGE, "a scan", None)
    return grid


def turned(affine: np.ndarray, axis: np.ndarray, degrees: float) -> np.ndarray:
    """The affine with its axes turned about the first voxel."""
    x, y, z = axis / np.linalg.norm(axis)
    across, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.radians(degrees)
    other = affine.copy()
    other[:3, :3] = (np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across) @ affine[:3, :3]
    return other


def test_the_scan_that_was_refused_is_read(tmp_path):
    affine = make_affine("LAS", angles_deg=(8, 0.06, 0))
    scan = write_scan(tmp_path / "a.nii.gz", np.zeros((256, 256, 10), np.uint8), affine)
    assert read_labels(scan).warnings == []
    assert grid_of(affine, affine).orientation == "LAS"


@settings(max_examples=400)
@given(orientation=st.sampled_from(ORIENTATIONS), angles_deg=small_angles, spacing=st.floats(0.3, 3))
def test_no_oblique_scan_is_refused_whose_forms_are_one_affine(orientation, angles_deg, spacing):
    affine = make_affine(orientation, (spacing, 1.0, 1.7), angles_deg)
    for kind in (Nifti1Header, Nifti2Header):
        grid = grid_of(affine, affine, kind=kind)
        assert np.allclose(grid.affine, affine, rtol=1e-6, atol=1e-5)
        assert (forms_apart_voxels(grid) or 0) < 0.001
    # as converted from NIfTI-1: float32 parts in a header of float64
    converted = header_of(affine, affine, Nifti2Header)
    for part in "bcd":
        converted[f"quatern_{part}"] = np.float32(converted[f"quatern_{part}"])
    nifti_grid(converted, LARGE, "a scan", None)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@settings(max_examples=15)
@given(angles_deg=small_angles, axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1))
def test_half_a_degree_and_half_a_voxel_are_conflicts_in_every_orientation(orientation, angles_deg, axis):
    affine = make_affine(orientation, angles_deg=angles_deg)
    with pytest.raises(InputError, match="disagree"):
        grid_of(turned(affine, np.array(axis), 0.5), affine)
    shifted = affine.copy()
    shifted[:3, 3] += 0.5 * np.array(axis) / np.linalg.norm(axis)
    with pytest.raises(InputError, match=r"0\.5 voxels apart"):
        grid_of(shifted, affine)


@given(degrees=st.floats(-120, 120), axis=st.integers(0, 2), beyond=st.booleans())
def test_away_from_half_a_turn_the_tolerance_is_a_tenth_of_a_voxel(degrees, axis, beyond):
    affine = turned(make_affine("RAS"), np.eye(3)[axis], degrees)
    shifted = affine.copy()
    shifted[:3, 3] += np.eye(3)[axis] * (CONFLICT_TOLERANCE_VOXELS + (0.002 if beyond else -0.002))
    if not beyond:
        grid_of(shifted, affine)
        return
    with pytest.raises(InputError, match="disagree"):
        grid_of(shifted, affine)


@settings(max_examples=200)
@given(orientation=st.sampled_from(ORIENTATIONS), angles_deg=small_angles, unit=units)
def test_a_grid_by_its_qform_is_the_grid_of_its_sform(orientation, angles_deg, unit):
    affine = make_affine(orientation, angles_deg=angles_deg)
    headers = [header_of(*forms) for forms in ((affine, affine), (affine, None), (None, affine))]
    for header in headers:
        header["xyzt_units"] = unit
    by_both, by_qform, by_sform = (nifti_grid(header, LARGE, "a scan", None)[0] for header in headers)
    # as ITK writes it: both forms are what it read of the quaternion
    rewritten = grid_of(by_qform.affine, by_qform.affine) if unit in (0, 2) else by_qform
    for first, second in ((by_both, by_qform), (by_sform, by_qform), (by_both, rewritten)):
        assert first.differs_from(second) is second.differs_from(first) is None
    other = turned(affine, np.array([1.0, 2, 3]), 0.5)
    far = header_of(other, None)
    far["xyzt_units"] = unit
    assert "corners lie up to" in str(by_both.differs_from(nifti_grid(far, LARGE, "a scan", None)[0]))


def test_a_qform_that_was_overruled_does_not_count():
    affine, other = make_affine("LAS"), make_affine("RAS")
    chosen, _ = nifti_grid(header_of(other, affine), LARGE, "a scan", "sform")
    assert chosen.differs_from(grid_of(None, affine)) is None
    assert "axes run LAS, not RAS" in str(chosen.differs_from(grid_of(other, other)))


def test_which_form_to_trust_is_asked_of_labels_only_where_both_are_set(tmp_path):
    affine = make_affine("LAS")
    reference = write_scan(tmp_path / "a.nii", make_labels(), affine, sform_code=0)
    assert np.allclose(read_labels(reference, geometry="sform").grid.affine, affine)
    with pytest.raises(InputError, match="sform code is 0"):
        read_volume(reference, geometry="sform")


@pytest.mark.parametrize(("qform_code", "geometry"), [(0, None), (1, "sform")])
def test_voxel_sizes_beside_another_affine_are_named(tmp_path, qform_code, geometry):
    scan = write_scan(tmp_path / "a.nii", qform_code=qform_code, fields={"pixdim": [1, 1.5, 1.5, 1.5, 0, 0, 0, 0]})
    volume = read_volume(scan, geometry=geometry)
    assert volume.grid.spacing_mm == (1, 1, 1)
    assert volume.warnings == [
        "the header's voxel sizes (pixdim) are 1.5 x 1.5 x 1.5 mm, its affine's 1 x 1 x 1 mm: the affine counts; "
        "volumes by pixdim would be 3.38 times as large"
    ]


@given(
    spacing=st.tuples(*[st.floats(0.3, 4)] * 3), factor=st.floats(0.2, 5), axis=st.integers(0, 2),
    unit=st.sampled_from([0, 2, 3]),
)  # fmt: skip
def test_voxel_sizes_are_named_where_they_add_up_to_a_tenth_of_a_voxel(spacing, factor, axis, unit):
    header = header_of(None, make_affine("LPS", spacing, (5, 3, 1)))
    header["pixdim"][1:4] = spacing
    header["xyzt_units"] = unit
    assert not any("pixdim" in note for note in nifti_grid(header, LARGE, "a scan", None)[1])
    header["pixdim"][1 + axis] *= factor
    off = abs(factor - 1) * spacing[axis] * (LARGE[axis] - 1) / min(spacing)
    named = any("pixdim" in note for note in nifti_grid(header, LARGE, "a scan", None)[1])
    assert named == (off > CONFLICT_TOLERANCE_VOXELS) or abs(off - CONFLICT_TOLERANCE_VOXELS) < 0.01


@given(slope=st.sampled_from([1.0000001, 0.99999994]), highest=st.integers(1, 30_000))
def test_labels_scaled_by_almost_one_are_integers(tmp_path_factory, slope, highest):
    labels = make_labels(dtype=np.int16)
    labels[0, 0, 0] = highest
    scan = write_scan(tmp_path_factory.mktemp("labels") / "a.nii", labels, slope=slope, inter=0)
    assert np.array_equal(read_labels(scan).data, labels)


@pytest.mark.parametrize(("slope", "found"), [(1.001, "1.00100005"), (0.5, "0.5")])
def test_labels_that_are_none_are_named_with_the_digits_that_matter(tmp_path, slope, found):
    labels = np.ones((9, 10, 11), np.int16)
    scan = write_scan(tmp_path / "a.nii", labels, slope=slope, inter=0)
    with pytest.raises(InputError, match=f"holds the value {found};"):
        read_labels(scan)
