"""The display copy of a page: what is reduced, how, and that it lies where the scan lies."""

import gzip
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nibabel.nifti1 import Nifti1Image

from medvision.volumes.geometry import Grid
from pipelines.report import viewer
from pipelines.report.grey_levels import GreyLevels
from pipelines.report.segmentation import segmentation_report
from shared_backbones.card import ClassEntry
from tests.medvision.phantoms import ORIENTATIONS, make_affine

PROGRAM = viewer.Program(gzip.compress(b"0"), "digest", "notices")
CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "none"},
    {"id": 2, "name": "two"},
    {"id": 9, "name": "nine", "color": [1, 2, 3]},
]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the viewer was built does not matter here."""
    monkeypatch.setattr(viewer, "viewer_program", lambda: PROGRAM)


def content(
    image: np.ndarray, labels: np.ndarray, grid: Grid, modality: str = "MRI", room: int = 10**7
) -> viewer.Viewer:
    copy = viewer.make_viewer(image, labels, grid, CLASSES, modality=modality, window=(0, 1), room=room)
    assert copy is not None
    return copy


def volume(packed: bytes) -> Any:
    return Nifti1Image.from_bytes(gzip.decompress(packed))


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_what_is_small_is_shown_as_it_is_where_it_is(orientation: str):
    random = np.random.default_rng(0)
    grid = Grid.from_affine((11, 12, 13), make_affine(orientation, (1, 2, 3), (10, 20, 5)))
    image = random.uniform(-50, 200, grid.shape).astype(np.float32)
    labels = random.choice(np.array([0, 2, 5, 9], np.uint8), grid.shape)
    shown = content(image, labels, grid)
    scan, map_ = volume(shown.scan), volume(shown.labels)
    for copy in (scan, map_):
        np.testing.assert_allclose(copy.affine, grid.affine, atol=1e-5)
    np.testing.assert_allclose(scan.get_fdata(), np.minimum(image, np.percentile(image, 99.95)), atol=shown.step)
    np.testing.assert_array_equal(np.asarray(map_.dataobj), np.select([labels == 2, labels == 9], [1, 2], 0))
    assert shown.factors == (1, 1, 1)


def test_a_header_holds_geometry_scale_and_intent_alone():
    grid = Grid.from_affine((11, 12, 13), make_affine("LPI", (1, 2, 3)))
    shown = content(np.ones(grid.shape), np.ones(grid.shape, np.uint8), grid)
    for packed, intent in ((shown.scan, 0), (shown.labels, 1002)):
        assert packed[3:8] == bytes(5), "the gzip header names a file or a time"
        header = volume(packed).header
        assert int(header["intent_code"]) == intent
        texts = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
        assert all(not header[text].tobytes().strip(b"\0") for text in texts)
        assert not header.extensions


@given(
    labels=arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 4)),
    factors=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_labels_are_reduced_to_the_most_frequent_and_the_scan_to_the_mean(
    labels: np.ndarray, factors: tuple[int, int, int]
):
    reduced = np.stack([*viewer._mode_slices(labels, factors)], axis=-1)
    scale = GreyLevels("", 0.0, 4 / 255)
    means = np.stack([*viewer._mean_slices(labels, factors, scale)], axis=-1) * scale.step
    assert reduced.shape == means.shape == tuple(-(-n // f) for n, f in zip(labels.shape, factors, strict=True))
    padding = [(0, -n % f) for n, f in zip(labels.shape, factors, strict=True)]
    padded = np.pad(labels, [*padding[:2], (0, 0)], mode="edge")
    for place in np.ndindex(reduced.shape):
        block = padded[tuple(slice(i * f, (i + 1) * f) for i, f in zip(place, factors, strict=True))]
        counts = Counter(block.ravel().tolist())
        assert reduced[place] == max(counts, key=lambda label: (counts[label], label))
        assert means[place] == pytest.approx(block.mean(), abs=scale.step)


def test_certainty_is_a_layer_of_means_where_there_is_room():
    image, grid = np.random.default_rng(0).random((24, 24, 24)).astype("f4"), Grid.from_affine((24, 24, 24), np.eye(4))
    labels, certainty = np.ones(image.shape, np.uint8), np.full(image.shape, 255, np.uint8)
    certainty[8:16] = 60
    arguments: Any = {"modality": "MR", "window": (0, 1)}
    copy = viewer.make_viewer(image, labels, grid, CLASSES, room=10**6, certainty=certainty, **arguments)
    assert copy is not None and copy.certainty is not None and copy.factors == (1, 1, 1)
    np.testing.assert_allclose(np.asarray(volume(copy.certainty).dataobj), certainty, atol=9)
    assert "viewer-certainty" in {each.id for each in copy.embedded}
    noise = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
    room = next(room for room in range(20_000, 80_000, 500) if viewer.make_viewer(
        image, labels, grid, CLASSES, room=room, **arguments) is not None)  # fmt: skip
    small = viewer.make_viewer(image, labels, grid, CLASSES, room=room, certainty=noise, **arguments)
    assert small is not None and small.certainty is None, "labels and scan come first"


@given(orientation=st.sampled_from(ORIENTATIONS), angle=st.integers(-20, 20))
@settings(max_examples=10)
def test_a_reduced_copy_lies_where_the_scan_lies(orientation: str, angle: int):
    grid = Grid.from_affine((30, 34, 26), make_affine(orientation, (1, 1, 1.2), (angle, 0, angle)))
    x, y, z = (
        np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], np.indices(grid.shape)) + grid.affine[:3, 3, None, None, None]
    )
    labels = np.where((x - x.mean()) ** 2 + (y - y.mean()) ** 2 + (z - z.mean() - 3) ** 2 < 36, 9, 0).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer, "_MOST_VOXELS", 5_000)
        shown = content(x.astype(np.float32), labels, grid)
    assert np.prod(shown.shape) <= 5_000
    scan = volume(shown.scan)
    inner = tuple(slice(0, n // f) for n, f in zip(grid.shape, shown.factors, strict=True))  # blocks that are whole
    where = np.einsum("j,jxyz->xyz", scan.affine[0, :3], np.indices(scan.shape)) + scan.affine[0, 3]
    high = np.percentile(x, 99.95)
    near = where[inner] < high - 3
    assert np.abs(scan.get_fdata()[inner] - where[inner])[near].max() < 2 * shown.step
    two, nine = shown.structures
    assert two.point_mm is None
    assert nine.point_mm == pytest.approx((x.mean(), y.mean(), z.mean() + 3), abs=2.5)


def test_the_point_of_a_structure_is_inside_it():
    labels = np.zeros((21, 21, 21), np.uint8)
    ring = np.hypot(*(np.indices((21, 21)) - 10))
    labels[(ring > 6) & (ring < 9), 10] = 2  # its centroid is in the hole
    grid = Grid.from_affine(labels.shape, np.eye(4))
    two, nine = content(np.ones(labels.shape), labels, grid).structures
    assert two.point_mm is not None
    assert labels[tuple(int(mm) for mm in two.point_mm)] == 2 and nine.point_mm is None


def test_ct_in_hu_has_its_steps_and_windows_and_scaled_ct_has_not():
    grid = Grid.from_affine((20, 20, 20), np.eye(4))
    image = np.linspace(-1000, 1400, 8000, dtype=np.float32).reshape(grid.shape)
    labels = np.zeros(grid.shape, np.uint8)
    shown = content(image, labels, grid, "CT, in HU")
    np.testing.assert_allclose(volume(shown.scan).get_fdata(), np.minimum(image, 1016), atol=4.001)
    assert shown.grey == "HU in steps of 8, cut off at −1024 and 1016"
    assert shown.windows["soft tissue"] == (-160, 240) and shown.windows["lung"] == (-1350, 150)
    scaled = content((image + 1000) / 2400, labels, grid, "CT, scaled to 0 to 1")
    assert scaled.unit == "" and "lung" not in scaled.windows


@pytest.mark.parametrize("image", [np.zeros((9, 9, 9)), np.full((9, 9, 9), np.nan), np.full((9, 9, 9), 7, np.int16)])
def test_a_scan_without_contrast_or_numbers_makes_a_copy(image: np.ndarray):
    shown = content(image, np.zeros(image.shape, np.uint8), Grid.from_affine((9, 9, 9), np.eye(4)))
    np.testing.assert_allclose(volume(shown.scan).get_fdata(), np.nan_to_num(image))


def test_where_there_is_no_room_or_no_program_the_page_says_so(monkeypatch: pytest.MonkeyPatch):
    grid = Grid.from_affine((24, 24, 24), np.eye(4))
    image = np.random.default_rng(0).uniform(size=grid.shape).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    arguments = {"modality": "", "window": (0.0, 1.0)}
    assert viewer.make_viewer(image, labels, grid, CLASSES, room=9_000, **arguments) is None
    monkeypatch.setattr(viewer, "viewer_program", lambda: None)
    assert viewer.make_viewer(image, labels, grid, CLASSES, room=10**7, **arguments) is None
    html = segmentation_report({"case": "case-00000000"}, {"classes": CLASSES}, image, labels, grid)
    assert (
        "made without the interactive viewer" in html
        and 'id="open-viewer"' not in html
        and 'id="viewer-data"' not in html
    )


def test_data_of_the_viewer_cannot_leave_its_block():
    grid = Grid.from_affine((12, 12, 12), np.eye(4))
    labels = np.full(grid.shape, 2, np.uint8)
    name = '<script>alert("x")<!-- &amp;'
    html = segmentation_report(
        {"case": "case-00000000"}, {"classes": [{"id": 2, "name": name}]}, np.ones(grid.shape), labels, grid
    )
    block = re.search(r'<script type="application/json" id="viewer-data">([^<]*)</script>', html)
    assert block is not None
    assert json.loads(block[1])["structures"][0]["name"] == name
