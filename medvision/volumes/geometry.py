"""Where a volume lies in space: its grid of voxels, and the header fields that say so."""

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from medvision.volumes.nibabel_headers import (
    HeaderDataError,
    MGHHeader,
    Nifti1Header,
    Nifti2Header,
    mat2quat,
    quat2mat,
)
from shared_backbones.errors import InputError

# qform and sform may disagree by this part of the smallest voxel edge at the corners. Rounding to float32 stays a
# hundred times below it, and a label moved this little is still over the voxel that it was drawn on.
CONFLICT_TOLERANCE_VOXELS = 0.1
# A quaternion is stored as b, c and d; a = sqrt(1 - b² - c² - d²). Parts rounded to float32 miss the sum of squares by
# up to eps = 2^-23; three times that, nibabel's bound, leaves room for writers that compute in float32. A quarter turn
# away this is nothing. At half a turn, where a is 0, it is an a of up to 0.0006: a rotation by 0.07 degrees.
_SQUARES_ERROR = 3 * float(np.finfo(np.float32).eps)
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
        """None where both grids hold the same voxels at the same places, else one clause that says how they differ.

        A qform that agrees with its grid counts as well, as any rotation that its quaternion can mean.
        """
        if self.shape != other.shape:
            return f"its shape is {_times(self.shape)}, not {_times(other.shape)}"
        distance = corner_displacement(self.affine, other.affine, self.shape)
        pairs = itertools.product(self._readings(other.affine), other._readings(self.affine))
        if min(corner_displacement(*pair, self.shape) for pair in pairs) <= tolerance_mm:
            return None
        clause = f"its corners lie up to {distance:.4g} mm off"
        if self.orientation != other.orientation:
            clause += f" (its axes run {self.orientation}, not {other.orientation})"
        return clause

    def _readings(self, affine: np.ndarray) -> list[np.ndarray]:
        """The grid's affine, and where its header has a qform that agrees with it, the qform nearest to another one."""
        if int(self.header["qform_code"]) <= 0:
            return [self.affine]
        header, unit = _repaired(self.header), np.array([_unit_mm(self.header)] * 3 + [1])[:, None]
        own, nearest = (unit * _nearest_qform(header, target / unit) for target in (self.affine, affine))
        agrees = _conflict_voxels(own, self.affine, self.shape) <= CONFLICT_TOLERANCE_VOXELS
        return [self.affine, nearest] if agrees else [self.affine]


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


def ras_axes(grid: Grid) -> np.ndarray:
    """Steps of the axes that `to_ras` gives: columns of `(3, 3)`, in mm."""
    axes, signs = _closest_axes(grid.affine)
    return (grid.affine[:3, :3] * signs)[:, np.argsort(axes)]


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
    sform = _form(grid.header, "sform")
    return _conflict_voxels(_nearest_qform(_repaired(grid.header), sform), sform, grid.shape)


def nifti_grid(
    header: Nifti1Header, shape: tuple[int, int, int], name: str, geometry: str | None, *, insist: bool = True
) -> tuple[Grid, list[str]]:
    """Grid of a NIfTI header as it was read, unchecked, and what a user should know about it.

    The affine is nibabel's reading: sform where its code is above 0, else qform where its code is, else the voxel
    sizes alone. Where both are set and disagree, `geometry` ("sform" or "qform") has to choose; unless it `insist`s, it
    may be one that is not set.

    Raises:
        InputError: affine singular or not finite, qform and sform in conflict, or `geometry` not in the file.
    """
    notes = []
    repaired = _repaired(header)
    with np.errstate(all="ignore"):
        affine = _chosen_affine(repaired, shape, name, geometry, insist)
    odd = [key for key in ("pixdim", *_FIELDS) if header[key].tobytes() != repaired[key].tobytes()]
    if odd:
        notes.append(f"header fields outside the NIfTI standard were read as nibabel reads them: {', '.join(odd)}")
    if int(repaired["qform_code"]) == int(repaired["sform_code"]) == 0:
        notes.append("neither qform nor sform is set: left and right are assumed, not known")
    unit = _unit_mm(repaired)
    affine[:3] *= unit
    if unit != 1:
        notes.append(f"the header's unit of length is {unit:g} mm; sizes were converted to mm")
    _check_affine(affine, name)
    notes += _other_sizes(np.abs(header["pixdim"][1:4].astype(float)) * unit, affine, shape)
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


def _chosen_affine(
    header: Nifti1Header, shape: tuple[int, int, int], name: str, geometry: str | None, insist: bool
) -> np.ndarray:
    codes = {form: int(header[f"{form}_code"]) for form in ("sform", "qform")}
    forms = {form: _form(header, form) for form, code in codes.items() if code > 0}
    if geometry in forms:
        forms = {geometry: forms[geometry]}
    elif geometry is not None and insist:
        raise InputError(f"{name}: --use-{geometry} was asked for, but its {geometry} code is 0 (not set); run without")
    if len(forms) == 2 and _usable(forms["sform"]):
        apart = _conflict_voxels(_nearest_qform(header, forms["sform"]), forms["sform"], shape)
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


def _nearest_qform(header: Nifti1Header, affine: np.ndarray) -> np.ndarray:
    """The qform of a repaired header, its rotation the nearest to an affine's that its quaternion can mean.

    NaN where the quaternion is not one of a rotation, or the affine has none.
    """
    bcd = np.array([header[f"quatern_{part}"] for part in "bcd"], float)
    square = 1 - bcd @ bcd
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (square >= -_SQUARES_ERROR and _usable(affine)):
        return np.full((4, 4), np.nan)
    zooms = header["pixdim"][1:4].astype(float) * [1, 1, float(header["pixdim"][0])]
    left, _, right = np.linalg.svd(affine[:3, :3] / lengths * [1, 1, np.sign(zooms[2]) or 1])
    wanted = mat2quat(left @ right)
    a = wanted[0] if wanted[1:] @ bcd >= 0 else -wanted[0]
    least, most = np.sqrt(np.clip([square - _SQUARES_ERROR, square + _SQUARES_ERROR], 0, None))
    qform = np.eye(4)
    qform[:3, :3] = quat2mat([np.clip(a, least, most), *bcd]) * zooms
    qform[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return qform


def _other_sizes(pixdim: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]) -> list[str]:
    """What to know where the voxel sizes beside an affine are others, by a tenth of a voxel over the whole volume."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    off = np.abs(pixdim - sizes) * (np.array(shape) - 1) / sizes.min()
    if (off <= CONFLICT_TOLERANCE_VOXELS).all():
        return []
    beside, counted = (_times(f"{size:.4g}" for size in lengths) for lengths in (pixdim, sizes))
    with np.errstate(all="ignore"):
        factor = pixdim.prod() / sizes.prod()
    return [
        f"the header's voxel sizes (pixdim) are {beside} mm, its affine's {counted} mm: the affine counts; volumes by "
        f"pixdim would be {factor:.3g} times as large"
    ]


def _repaired(header: Nifti1Header) -> Nifti1Header:
    """A copy in which fields outside the standard are as nibabel reads them."""
    repaired = header.copy()
    with np.errstate(all="ignore"):
        repaired.check_fix(logger=_SILENT, error_level=_NEVER)
    return repaired


def _unit_mm(header: Nifti1Header) -> float:
    return _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _usable(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and affine[:3, :3].any(axis=0).all())


def _conflict_voxels(qform: np.ndarray, sform: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest corner displacement in units of the sform's smallest voxel edge; infinite where one is none."""
    if not (np.isfinite(qform).all() and _usable(sform)):
        return np.inf
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
