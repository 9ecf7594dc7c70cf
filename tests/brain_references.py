"""The real scans with reference labels that the bundled model is measured on, and never trained on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medvision.datasets.brain_labels import FREESURFER, NEUROMORPHOMETRICS, UNSCORED, structures_of
from medvision.volumes.files import Volume, read_labels, read_volume
from medvision.volumes.geometry import Grid

MANUAL = ("1000", "1001", "1002", "1006", "1007", "1008")
SCORED = (1, 2, 3, 4, 5, 7, 8, 9)
"""Structures that count; 6, other CSF, is defined differently in every source."""

# The archive has no affine. Its axes run left, inferior, anterior: shown by where its labels lie.
_LIA = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -112], [0, -1, 0, 96], [0, 0, 0, 1]])


def voxelmorph_scan(data_root: Path) -> tuple[Volume, np.ndarray]:
    """VoxelMorph's test scan and its structures."""
    with np.load(data_root / "medical/brain_t1/vxm_test_scan.npz") as archive:
        image, ids = np.asfortranarray(archive["vol"], dtype=np.float32), archive["seg"].astype(np.int32)
    return Volume(image, Grid.from_affine(image.shape, _LIA), "0" * 64), structures_of(ids, FREESURFER)


def manual_scan(data_root: Path, name: str) -> tuple[Volume, np.ndarray]:
    """One of the six scans with manual regions, and its structures."""
    folder = data_root / "medical/brain_t1_manual_noncommercial"
    ids = read_labels(folder / f"{name}_glm.nii.gz").data
    return read_volume(folder / f"{name}_SS.nii.gz"), structures_of(ids, NEUROMORPHOMETRICS)


def reference_scans(data_root: Path) -> Iterator[tuple[str, Volume, np.ndarray]]:
    """Name, scan and structures of all seven."""
    yield "vxm_test_scan", *voxelmorph_scan(data_root)
    for name in MANUAL:
        yield name, *manual_scan(data_root, name)


def without_unscored(labels: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both maps with 0 where the reference has an id that is left out of scoring."""
    scored = reference != UNSCORED
    return labels * scored, reference * scored
