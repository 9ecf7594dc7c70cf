"""Where a volume lies in space: its grid of voxels, and the header fields that say so."""

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from medvision.volumes.nibabel_headers import HeaderDataError, MGHHeader, Nifti1Header, Nifti2Header
from shared_backbones.errors import InputError

# qform and sform may disagree by this part of the smallest voxel edge at the corners. Rounding to float32 stays a
# hundred times below it, and a label moved this little is still over the voxel that it was drawn on.
CONFLICT_TOLERANCE_VOXELS = 0.1
# Edges outside this range are no scanner's: they come from damaged headers.
SPACING_RANGE_MM = (1e-4, 1e3)
_FARTHEST_MM = 1e7
_FLATTEST = 0.01  # volume of the cell spanned by unit vectors along the axes; 1 for a right-angled grid

_UNIT_MM = {1: 1e3, 3: 1e-3}  # NIfTI: metre, micrometre; everything else is read as millimetre
_FIELDS = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_SILENT = logging.Logger("medvision.volumes.headers", level=logging.CRITICAL + 1)
_NEVER = 1000  # above every problem level of nibabel's header checks, so that they repair and do not raise


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel grid of a volume.

    Attributes:
        shape: voxels along the three stored axes.
        affine: (4, 4) float64, voxel index to position in mm (x to the right, y to the front, z up).
        header: NIfTI header with the geometry of the file, bit by bit, and nothing else of it.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: Nifti1Header = field(repr=False)

    @classmethod
    def from_affine(cls, shape: tuple[int, int, int], affine: np.ndarray) -> "Grid":
        """Grid with qform and sform codes 1/1 in mm; the affine is rounded to what its header can hold.

        A sheared affine has no qform: its code is then 0.
        """
        header = (Nifti2Header if max(shape) > np.iinfo(np.int16).max else Nifti1Header)(endianness="<")
        header.set_xyzt_units("mm")
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)
        sform = _form(header, "sform")
        if _conflict_voxels(_form(header, "qform"), sform, shape) > CONFLICT_TOLERANCE_VOXELS:
            header["qform_code"] = 0
        return cls(shape, sform, header)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edge along each stored axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def orientation(self) -> str:
        """Directions in which the stored axes grow, as in "RAS"."""
        axes, signs = _closest_axes(self.affine)
        return "".join(("LR", "PA", "IS")[axis][int(sign > 0)] for axis, sign in zip(axes, signs, strict=True))

    def differs_from(self, other: "Grid", tolerance_mm: float = 1e-3) -> str | None:
        """None where both grids hold the same voxels at the same places, else one clause that says how they differ."""
        if self.shape != other.shape:
            return f"its shape is {_times(self.shape)}, not {_times(other.shape)}"
        distance = corner_displacement(self.affine, other.affine, self.shape)
        if distance <= tolerance_mm:
            return None
        clause = f"its corners lie up to {distance:.4g} mm off"
        if self.orientation != other.orientation:
            clause += f" (its axes run {self.orientation}, not {other.orientation})"
        return clause


def to_ras(
    data: np.ndarray, grid: Grid
) -> tuple[np.ndarray, tuple[float, float, float], Callable[[np.ndarray], np.ndarray]]:
    """Turn an array so that its axes run as nearly right, anterior, superior as flips and transposes allow.

    Args:
        data: (X, Y, Z) on `grid`.
        grid: any orientation; an oblique grid is turned to the closest axes and stays oblique.

    Returns:
        The view of `data` (no copy), its spacing in mm, and `undo`, which takes an array on the view's axes, of any
        length, back to the input's axes (a view as well).
    """
    axes, signs = _closest_axes(grid.affine)
    order = np.argsort(axes)
    flips = tuple(slice(None, None, int(sign)) for sign in signs)

    def undo(array: np.ndarray) -> np.ndarray:
        return array.transpose(axes)[flips]

    right, front, up = (grid.spacing_mm[axis] for axis in order)
    return data[flips].transpose(order), (right, front, up), undo


def corner_displacement(first: np.ndarray, second: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest distance in mm between the corner voxels of one shape under two affines (4, 4)."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in shape))])
    return float(np.linalg.norm(corners @ (first - second)[:3].T, axis=1).max())


def forms_apart_voxels(grid: Grid) -> float | None:
    """How far qform and sform of a grid's header place its corners apart, in edges of the smallest voxel.

    0 where only one of them is set, infinite where the qform is not a rotation, None where neither is set.
    """
    codes = [int(grid.header[f"{form}_code"]) for form in ("sform", "qform")]
    if max(codes) <= 0:
        return None
    if min(codes) <= 0:
        return 0.0
    qform, sform = _form(grid.header, "qform"), _form(grid.header, "sform")
    if not (np.isfinite(qform).all() and _usable(sform)):
        return np.inf
    return _conflict_voxels(qform, sform, grid.shape)


def nifti_grid(
    header: Nifti1Header, shape: tuple[int, int, int], name: str, geometry: str | None
) -> tuple[Grid, list[str]]:
    """Grid of a NIfTI header as it was read, unchecked, and what a user should know about it.

    The affine is nibabel's reading: sform where its code is above 0, else qform where its code is, else the voxel
    sizes alone. Where both are set and disagree, `geometry` ("sform" or "qform") has to choose.

    Raises:
        InputError: affine singular or not finite, qform and sform in conflict, or `geometry` not in the file.
    """
    notes = []
    repaired = header.copy()
    with np.errstate(all="ignore"):
        repaired.check_fix(logger=_SILENT, error_level=_NEVER)
        affine = _chosen_affine(repaired, shape, name, geometry)
    odd = [key for key in ("pixdim", *_FIELDS) if header[key].tobytes() != repaired[key].tobytes()]
    if odd:
        notes.append(f"header fields outside the NIfTI standard were read as nibabel reads them: {', '.join(odd)}")
    if int(repaired["qform_code"]) == int(repaired["sform_code"]) == 0:
        notes.append("neither qform nor sform is set: left and right are assumed, not known")
    unit = _UNIT_MM.get(int(repaired["xyzt_units"]) & 7)
    if unit:
        affine[:3] *= unit
        notes.append(f"the header's unit of length is {unit:g} mm; sizes were converted to mm")
    _check_affine(affine, name)
    bare = type(header)(endianness="<")
    for key in _FIELDS:
        bare[key] = header[key]
    bare["pixdim"][:4] = header["pixdim"][:4]
    return Grid(shape, affine, bare), notes


def mgh_grid(header: MGHHeader, shape: tuple[int, int, int], name: str) -> Grid:
    """Grid of an MGH header; labels on it are NIfTI with codes 1/1.

    Raises:
        InputError: affine singular or not finite.
    """
    with np.errstate(all="ignore"):
        affine = header.get_affine()
    _check_affine(affine, name)
    return Grid.from_affine(shape, affine)


def _chosen_affine(header: Nifti1Header, shape: tuple[int, int, int], name: str, geometry: str | None) -> np.ndarray:
    codes = {form: int(header[f"{form}_code"]) for form in ("sform", "qform")}
    forms = {form: _form(header, form) for form, code in codes.items() if code > 0}
    if geometry is not None:
        if geometry not in forms:
            raise InputError(
                f"{name}: --use-{geometry} was asked for, but its {geometry} code is 0 (not set); run without"
            )
        forms = {geometry: forms[geometry]}
    if len(forms) == 2 and _usable(forms["sform"]):
        apart = np.inf
        if np.isfinite(forms["qform"]).all():
            apart = _conflict_voxels(forms["qform"], forms["sform"], shape)
        if apart > CONFLICT_TOLERANCE_VOXELS:
            how = f"place the corners {apart:.3g} voxels apart" if apart < np.inf else "the qform is not a rotation"
            raise InputError(
                f"{name}: qform (code {codes['qform']}) and sform (code {codes['sform']}) disagree: {how}; at most "
                f"{CONFLICT_TOLERANCE_VOXELS:g} voxels expected; choose with --use-sform or --use-qform"
            )
    return next(iter(forms.values())) if forms else np.asarray(header.get_base_affine())


def _form(header: Nifti1Header, form: str) -> np.ndarray:
    """The sform or the qform; NaN where the quaternion is not one of a rotation."""
    try:
        return np.asarray(header.get_sform() if form == "sform" else header.get_qform())
    except (ValueError, HeaderDataError):
        return np.full((4, 4), np.nan)


def _usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and affine[:3, :3].any(axis=0).all())


def _conflict_voxels(qform: np.ndarray, sform: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest corner displacement in units of the sform's smallest voxel edge."""
    smallest = np.linalg.norm(sform[:3, :3], axis=0).min()
    return corner_displacement(qform, sform, shape) / smallest


def _check_affine(affine: np.ndarray, name: str) -> None:
    way_out = "fix the header, or convert the scan again"
    if not np.isfinite(affine).all():
        raise InputError(f"{name}: its affine holds NaN or infinite values; expected finite ones; {way_out}")
    low, high = SPACING_RANGE_MM
    with np.errstate(over="ignore"):
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if (sizes == 0).any():
        raise InputError(f"{name}: its affine is singular (an axis of length 0); expected an invertible one; {way_out}")
    if not ((sizes >= low) & (sizes <= high)).all() or np.abs(affine).max() > _FARTHEST_MM:
        measured = _times(f"{size:.3g}" for size in sizes)
        raise InputError(
            f"{name}: its affine gives voxels of {measured} mm; expected edges from {low:g} to {high:g} mm within "
            f"{_FARTHEST_MM:g} mm of the origin; {way_out}"
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < _FLATTEST:
        raise InputError(f"{name}: its affine is singular (its axes lie in one plane); {way_out}")


def _closest_axes(affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """For each stored axis the world axis that it is assigned to, and the sign in which it runs along that axis."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    stored = [0, 1, 2]
    axes = max(itertools.permutations(stored), key=lambda world: np.abs(cosines[list(world), stored]).sum())
    return axes, np.where(cosines[list(axes), stored] < 0, -1, 1)


def _times(lengths: Iterable[object]) -> str:
    return " x ".join(str(length) for length in lengths)
