"""What a few voxels or slices hold, or how intensities are scaled, does not change what real scans are labelled."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvision.metrics.overlap import dice
from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume, read_volume
from tests.brain_references import SCORED
from tests.golden.brain_labels import find_scan
from tests.medvision.phantoms import write_scan

SCANS = ("colin27", "1000", "1001")
Spoilt = tuple[np.ndarray, np.ndarray]
"""A scan's values, and which voxels count."""


@functools.cache
def segmenter() -> Segmenter:
    return Segmenter("brain-structures", device="cpu", precision="float32")


@functools.cache
def unspoilt(path: Path) -> tuple[Volume, np.ndarray]:
    """A scan, and its labels."""
    volume = read_volume(path)
    return volume, segmenter().segment(volume).labels


def hot_voxels(data: np.ndarray) -> Spoilt:
    places = np.random.default_rng(0).choice(data.size, data.size // 10_000, replace=False)
    spoilt = data.copy()
    spoilt.ravel(order="K")[places] = 1e4 * data.max()
    return spoilt, np.ones(data.shape, bool)


def slices(axis: int, value: float | None) -> Callable[[np.ndarray], Spoilt]:
    """One slice in fifty, in the middle of the head, of one value or of three times the brightness."""

    def spoil(data: np.ndarray) -> Spoilt:
        count = data.shape[axis] // 50
        band = [slice(None)] * 3
        band[axis] = slice(data.shape[axis] // 2, data.shape[axis] // 2 + count)
        spoilt, counts = data.copy(), np.ones(data.shape, bool)
        spoilt[tuple(band)] = 3 * spoilt[tuple(band)] if value is None else value
        counts[tuple(band)] = False
        return spoilt, counts

    return spoil


def metal(data: np.ndarray) -> Spoilt:
    """A ball of 8 voxels in the upper brain, twenty times as bright."""
    x, y, z = np.meshgrid(*(np.arange(length) - length // 2 for length in data.shape), indexing="ij", sparse=True)
    outside = np.asarray(x**2 + y**2 + (z - 20) ** 2 >= 64)
    return np.where(outside, data, 20 * data.max()), outside


def scaled(scale: float, offset: float) -> Callable[[np.ndarray], Spoilt]:
    return lambda data: (((data + offset * data.max()) * scale).astype(np.float32), np.ones(data.shape, bool))


CASES: dict[str, Callable[[np.ndarray], Spoilt]] = {
    "hot voxels": hot_voxels,
    "sagittal slices of 20000": slices(0, 20_000),
    "coronal slices of -20000": slices(1, -20_000),
    "axial slices three times as bright": slices(2, None),
    "metal": metal,
    "scale 1e-12": scaled(1e-12, 0),
    "scale 1e9, shifted": scaled(1e9, -0.5),
}


def check(labels: np.ndarray, expected: np.ndarray, counts: np.ndarray) -> None:
    """Dice against the labels of the unspoilt scan, over the voxels that count: 0.98 on average, 0.95 everywhere."""
    scores = [dice((labels == number) & counts, (expected == number) & counts) or 0.0 for number in SCORED]
    assert np.mean(scores) >= 0.98
    assert min(scores) >= 0.95


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SCANS)
def test_a_spoilt_scan_is_labelled_as_the_scan(data_root: Path, tmp_path: Path, name: str, case: str):
    volume, expected = unspoilt(find_scan(name, data_root, tmp_path))
    data, counts = CASES[case](volume.data)
    check(segmenter().segment(Volume(data, volume.grid, volume.sha256)).labels, expected, counts)


@pytest.mark.parametrize("name", SCANS)
def test_a_background_of_nan_is_the_lowest_value(data_root: Path, tmp_path: Path, name: str):
    volume, expected = unspoilt(find_scan(name, data_root, tmp_path))
    inside = volume.data > 0
    scores = (volume.data - volume.data[inside].mean()) / volume.data[inside].std()
    scan = write_scan(tmp_path / "a.nii", np.where(inside, scores, np.nan).astype(np.float32), volume.grid.affine)
    labels = segmenter().segment(read_volume(scan, allow_nonfinite=True)).labels
    check(labels, expected, np.ones(labels.shape, bool))
