"""Slices put in order: where each lies, whether they make a regular grid, and what to do where they do not.

Frames come in DICOM's coordinates (left, back, up). One matrix takes them to the suite's (right, front, up), and no
array is ever turned or flipped for it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medvision.dicom.frames import Frame
from medvision.dicom.splitting import SAME_PLACE_MM
from shared_backbones.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

COSINE_TOLERANCE = 1e-3
"""Direction cosines may miss length 1, a right angle and one another by this; they are then made orthonormal."""
REGULAR_TOLERANCE = 0.1
"""Slices may lie this part of their spacing away from a regular grid: a label is then still over its voxel."""
TILT_TOLERANCE_DEG = 0.5
"""Slices may be stacked this far off their normal; the affine keeps the shear."""
_STILL = 1e-3  # pixels: a slice shifted less than this is taken as it is


@dataclass(frozen=True)
class Stack:
    """Slices of one size and orientation, ordered along their normal.

    Attributes:
        frames: n of them, in order.
        cosines: (2, 3) orthonormal directions of columns and rows, in DICOM's coordinates.
        positions: (n, 3) mm.
        problems: why the slices are not a regular grid, one clause with figures each; empty where they are one.
        warnings: what a user should know.
    """

    frames: tuple[Frame, ...]
    cosines: np.ndarray
    positions: np.ndarray
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        return self.frames[0].columns, self.frames[0].rows, len(self.frames)

    @property
    def distances(self) -> np.ndarray:
        """(n,) mm along the normal."""
        return self.positions @ np.cross(*self.cosines)

    def affine(self) -> np.ndarray:
        """(4, 4) from (column, row, slice) to mm (right, front, up)."""
        step = (self.positions[-1] - self.positions[0]) / (len(self.frames) - 1)
        return make_affine(self.cosines, self.frames[0].spacing, step, self.positions[0])


def make_affine(cosines: np.ndarray, spacing: np.ndarray, step: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Affine (4, 4), (column, row, slice) to mm (right, front, up), of slices in DICOM's coordinates.

    Args:
        cosines: (2, 3) directions in which columns and rows are counted.
        spacing: (2,) mm between rows, and between columns, as PixelSpacing has them.
        step: (3,) mm from slice to slice.
        origin: (3,) mm, of the first pixel of the first slice.
    """
    lps = np.eye(4)
    lps[:3, 0] = cosines[0] * spacing[1]
    lps[:3, 1] = cosines[1] * spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return LPS_TO_RAS @ lps


def arrange(frames: Sequence[Frame], name: str) -> Stack:
    """Put slices in order along their normal.

    Raises:
        InputError: there is one slice only, they differ in size or orientation, or several lie at one place.
    """
    _check_alike((f"{frame.columns} x {frame.rows} pixels" for frame in frames), "sizes", name)
    spacings = np.array([frame.spacing for frame in frames])
    _check_alike(
        (f"{x:.4g} x {y:.4g} mm" for y, x in _rounded(spacings, 1e-3 * spacings.max())), "pixel spacings", name
    )
    cosines = np.array([frame.cosines for frame in frames])
    if np.abs(cosines - cosines[0]).max() > COSINE_TOLERANCE:
        groups = _rounded(cosines.reshape(-1, 6), 0.01)
        _check_alike(("\\".join(f"{part:.2f}" for part in group) for group in groups), "orientations", name)
        raise InputError(
            f"{name}: its slices turn against one another by up to {np.abs(cosines - cosines[0]).max():.2g} in their "
            f"direction cosines; at most {COSINE_TOLERANCE:g} expected; choose another series"
        )
    cosines, warnings = _orthonormal(cosines[0], name)
    if len(frames) == 1:
        raise InputError(f"{name}: holds 1 slice; expected a volume; give the folder of the whole series")
    positions = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ np.cross(*cosines), kind="stable")
    stack = Stack(tuple(frames[index] for index in order), cosines, positions[order], (), warnings)
    places = 1 + int((np.diff(stack.distances) > SAME_PLACE_MM).sum())
    if places < len(frames):
        at = stack.distances[int(np.argmin(np.diff(stack.distances)))]
        raise InputError(
            f"{name}: holds {len(frames)} slices at {places} places, two of them at {at:.2f} mm along the slices' "
            "normal, and nothing tells whole volumes apart; expected one at each; give the files of one volume"
        )
    return Stack(stack.frames, cosines, stack.positions, tuple(_problems(stack)), warnings)


def straighten(data: np.ndarray, stack: Stack, max_bytes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Bring slices to a regular grid at right angles, with their smallest spacing, by linear interpolation.

    Args:
        data: (X, Y, n) float32, on the slices of `stack`. What they do not reach becomes its lowest value.
        stack: any spacing, and any offset of slices against each other in their own plane, as of a tilted gantry.
        max_bytes: largest size that the result may have.
        name: how errors call the series.

    Returns:
        (X', Y', Z') float32 and its affine.

    Raises:
        InputError: the result would be too large.
    """
    distances, spacing = stack.distances, stack.frames[0].spacing
    pixel_mm = spacing[::-1]
    offsets = (stack.positions - stack.positions[0]) @ stack.cosines.T / pixel_mm  # (n, 2) pixels along x and y
    low = offsets.min(axis=0)
    offsets -= low
    x, y = (int(np.ceil(reach - _STILL)) for reach in offsets.max(axis=0))
    extent = distances[-1] - distances[0]
    count = round(extent / np.diff(distances).min()) + 1
    shape = (data.shape[0] + x, data.shape[1] + y, count)
    needed = data.nbytes + 4 * np.prod(shape, dtype=float)
    if needed > max_bytes:
        raise InputError(
            f"{name}: would be {' x '.join(map(str, shape))} voxels on a regular grid, which takes "
            f"{needed / 2**30:.3g} GB; the limit is {max_bytes / 2**30:.3g} GB; raise it with --max-gigabytes if that "
            "is meant"
        )
    step = extent / (count - 1)
    out = _interpolate(data, distances, offsets, distances[0] + step * np.arange(count), shape)
    origin = stack.positions[0] + (low * pixel_mm) @ stack.cosines
    return out, make_affine(stack.cosines, spacing, step * np.cross(*stack.cosines), origin)


def _interpolate(
    data: np.ndarray, distances: np.ndarray, offsets: np.ndarray, targets: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Slices at other distances, by linear interpolation between their neighbours.

    Args:
        data: (X, Y, n) float32.
        distances: (n,) mm along the slices' normal, rising.
        offsets: (n, 2) pixels that each slice is shifted in its own plane, at least 0.
        targets: (N,) mm of the slices to make.
        shape: (X', Y', N) of the result.
    """
    lowest = float(data.min())

    def placed(index: int) -> np.ndarray:
        canvas = np.full(shape[:2], lowest, np.float32)
        canvas[: data.shape[0], : data.shape[1]] = data[:, :, index]
        if offsets[index].max() < _STILL:
            return canvas
        return np.asarray(ndimage.shift(canvas, offsets[index], order=1, cval=lowest))

    out = np.empty(shape, np.float32, order="F")
    below = np.clip(np.searchsorted(distances, targets, side="right") - 1, 0, len(distances) - 2)
    near: dict[int, np.ndarray] = {}
    for index, (lower, target) in enumerate(zip(below.tolist(), targets, strict=True)):
        near = {k: near[k] if k in near else placed(k) for k in (lower, lower + 1)}
        weight = float(np.clip((target - distances[lower]) / (distances[lower + 1] - distances[lower]), 0, 1))
        out[:, :, index] = (1 - weight) * near[lower] + weight * near[lower + 1]
    return out


def _rounded(values: np.ndarray, unit: float) -> np.ndarray:
    """Values as near those of the first row as `unit` are called equal to it."""
    return np.where(np.abs(values - values[0]) <= unit, values[0], values)


def _check_alike(kinds: Iterable[str], what: str, name: str) -> None:
    counts = Counter(kinds)
    if len(counts) > 1:
        localizers = ", as localizers do" if what == "orientations" else ""
        listed = ", ".join(f"{count} of {kind}" for kind, count in counts.most_common(3))
        raise InputError(
            f"{name}: mixes slices of {len(counts)} {what} ({listed}){localizers}; "
            "expected one; choose another series, or give the files of one of them"
        )


def _orthonormal(cosines: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The nearest orthonormal directions, and a warning where these differ by more than rounding."""
    lengths, product = np.linalg.norm(cosines, axis=1), float(cosines[0] @ cosines[1])
    off = max(float(np.abs(lengths - 1).max()), abs(product))
    if off > COSINE_TOLERANCE:
        raise InputError(
            f"{name}: its direction cosines have lengths {lengths[0]:.4f} and {lengths[1]:.4f} and the product "
            f"{product:.4f}; expected 1, 1 and 0 within {COSINE_TOLERANCE:g}; export the series again"
        )
    left, _, right = np.linalg.svd(cosines, full_matrices=False)
    note = f"direction cosines were {off:.1g} away from orthonormal and were made so"
    return left @ right, (note,) if off > 1e-5 else ()


def _problems(stack: Stack) -> list[str]:
    problems = []
    steps = np.diff(stack.positions, axis=0)
    normal = np.cross(*stack.cosines)
    mean = steps.mean(axis=0)
    along = float(mean @ normal)
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(mean - along * normal), along)))
    if tilt > TILT_TOLERANCE_DEG:
        problems.append(
            f"its slices are stacked {tilt:.2f} degrees off their normal, as by a tilted gantry (at most "
            f"{TILT_TOLERANCE_DEG:g} expected)"
        )
    line = stack.positions[0] + np.arange(len(stack.frames))[:, None] * mean
    astray = np.linalg.norm(stack.positions - line, axis=1)
    if astray.max() > REGULAR_TOLERANCE * np.linalg.norm(mean):
        gaps = np.diff(stack.distances)
        typical = float(np.percentile(gaps, 50, method="lower"))
        odd = np.flatnonzero(np.abs(gaps - typical) > REGULAR_TOLERANCE * typical)
        worst = sorted(odd, key=lambda index: -abs(gaps[index] - typical))[:3]
        places = ", ".join(
            f"{gaps[k]:.2f} mm between {stack.distances[k]:.2f} and {stack.distances[k + 1]:.2f} mm" for k in worst
        )
        more = f" and {len(odd) - len(worst)} more" if len(odd) > len(worst) else ""
        problems.append(
            f"its slices are missing or irregular: {places}{more}, where {typical:.2f} mm is usual"
            if len(odd)
            else f"its slices lie up to {astray.max():.2f} mm off a straight, regular stack of {typical:.2f} mm"
        )
    return problems
