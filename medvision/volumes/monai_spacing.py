"""The grid on which MONAI's `Spacingd` puts a volume (compared with MONAI 1.6.1)."""

from collections.abc import Sequence

import numpy as np
from nibabel.orientations import io_orientation

_SHEAR = 1e-3  # cosine between two axes, above what rounded headers have
_ROUNDING = 1e-8  # numpy.allclose's, with which MONAI compares corners


def monai_grid(
    axes: np.ndarray, shape: Sequence[int], target_mm: Sequence[float]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Size of the new grid, and where its first voxel lies.

    The grids have their first voxel in common where the axes are at right angles to the last bit. Where they are not,
    as in headers of oblique scans, whose numbers are rounded, MONAI puts the middles `shape / 2` of both on each other.

    Args:
        axes: `(3, 3)`, steps of the volume's axes in mm, one a column.
        shape: voxels along the axes.
        target_mm: spacing wanted.

    Returns:
        Voxels of the new grid, and the position of its first one in voxels of the volume, along the axes.
    """
    stretch = np.linalg.cholesky(axes.T @ axes).T
    turned = axes @ np.linalg.inv(stretch) @ np.diag(np.sign(np.diag(stretch)) * np.asarray(target_mm))
    to_new = np.linalg.solve(turned, axes)
    corners = np.stack(np.meshgrid(*([0.0, length - 1.0] for length in shape), indexing="ij")).reshape(3, -1)
    placed = to_new @ corners
    sizes = np.round(np.ptp(placed, axis=1) + 1)
    starts = np.zeros(3)
    if (np.abs(placed.min(axis=1)) > _ROUNDING).any():
        starts = np.asarray(shape) / 2 - np.diag(np.linalg.inv(to_new)) * sizes / 2
    return tuple(map(int, sizes.tolist())), tuple(starts.tolist())


def why_not_monais(axes: np.ndarray) -> str | None:
    """One clause where MONAI brings a volume to other axes than we do, else None.

    Args:
        axes: `(3, 3)`, steps of the axes that `to_ras` gives, in mm.
    """
    cosines = axes / np.linalg.norm(axes, axis=0)
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > _SHEAR:
        return "the scan's axes are not at right angles, which MONAI would straighten"
    affine = np.eye(4)
    affine[:3, :3] = axes
    if not np.array_equal(io_orientation(affine), [[0, 1], [1, 1], [2, 1]]):
        return "the scan is so oblique that MONAI takes other axes for right, anterior and superior"
    return None
