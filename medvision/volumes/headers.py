"""Headers of volume files: where and how the voxels behind them are stored."""

import math
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from medvision.volumes.geometry import Grid, mgh_grid, nifti_grid
from medvision.volumes.names import PAIR
from medvision.volumes.nibabel_headers import DATA_OFFSET, HeaderDataError, MGHHeader, Nifti1Header, Nifti2Header
from shared_backbones.errors import InputError

ENHANCED = "enhanced: not for diagnosis"
"""How the description in a header begins of a volume with detail that a network made up."""
_FURTHEST = 2**30  # byte at which voxels may begin, behind what extensions a header has


class Stream(Protocol):
    """Bytes read from front to back; a read returns fewer than asked only at the end."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes."""
        ...


@dataclass
class Layout:
    """Where and how the voxels lie behind a header.

    Attributes:
        grid: grid of one volume.
        volumes: Number of volumes in the file.
        dtype: number type of the voxels as stored, byte order included.
        header_bytes: bytes read of the file so far.
        offset: byte at which the voxels begin.
        slope: factor, and `inter` summand, that make values of stored numbers; 1 and 0 where there are none.
        warnings: what a user should know about the header.
    """

    grid: Grid
    volumes: int
    dtype: np.dtype
    header_bytes: int
    offset: int
    slope: float
    inter: float
    warnings: list[str]

    @property
    def voxels(self) -> int:
        """Voxels of one volume."""
        return math.prod(self.grid.shape)

    @property
    def scaled(self) -> bool:
        """Whether values differ from the stored numbers."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def label_type(self) -> np.dtype:
        """Number type of a label map: that of the file, or int32 where it has no integers."""
        integers = self.dtype.kind in "iu" and not self.scaled
        return self.dtype.newbyteorder("=") if integers else np.dtype(np.int32)


def read_layout(stream: Stream, suffix: str, name: str, geometry: str | None, *, insist: bool = True) -> Layout:
    """Read the header from the beginning of a file, and nothing behind it.

    Args:
        stream: the file's uncompressed bytes.
        suffix: the file's suffix, which decides between MGH and NIfTI.
        name: Name of the file in messages.
        geometry: "sform" or "qform" where both are set and disagree; an MGH file has one affine only.
        insist: whether `geometry` must be set in the header.

    Raises:
        InputError: not such a header, or not of a volume that can be used.
    """
    if suffix in (".mgz", ".mgh"):
        return _mgh_layout(stream, name)
    return _nifti_layout(stream, name, geometry, insist, pair=suffix in PAIR)


def take(stream: Stream, size: int, name: str) -> bytes:
    """The next `size` bytes.

    Raises:
        InputError: the stream ends before.
    """
    data = stream.read(size)
    if len(data) < size:
        refuse_short(name)
    return data


def check_size(layout: Layout, wanted: int, labels: bool, max_bytes: int, name: str) -> None:
    """Raise an InputError where the volumes that are wanted take too much memory as they are kept."""
    needed = layout.voxels * wanted * (layout.label_type if labels else np.dtype(np.float32)).itemsize
    if needed > max_bytes:
        raise InputError(
            f"{name}: its header claims {needed / 2**30:.3g} GB of voxels; the limit is {max_bytes / 2**30:.3g} GB; "
            "raise it with --max-gigabytes if the file can be trusted"
        )


def refuse_short(name: str) -> NoReturn:
    """Raise the InputError for a file that ends before its last voxel."""
    raise InputError(f"{name}: is cut short: it ends before the voxels its header promises; copy or download it again")


def _nifti_layout(stream: Stream, name: str, geometry: str | None, insist: bool, *, pair: bool) -> Layout:
    start = take(stream, 4, name)
    kinds = {348: Nifti1Header, 540: Nifti2Header}
    little, big = (int.from_bytes(start, order) for order in ("little", "big"))
    kind = kinds.get(little) or kinds.get(big)
    if kind is None:
        raise InputError(f"{name}: is not a NIfTI file (no NIfTI header at its start); convert it to NIfTI")
    block = start + take(stream, kind.template_dtype.itemsize - 4, name)
    header = kind(block, endianness="<" if little in kinds else ">", check=False)
    _check_magic(header, kind, name, pair)
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise InputError(f"{name}: its header claims {rank} dimensions; expected 3 or 4; convert the scan again")
    shape, volumes = _checked_shape([int(length) for length in header["dim"][1 : rank + 1]], name)
    dtype = _checked_type(header, int(header["datatype"]), name)
    least = 0 if pair else kind.single_vox_offset
    offset = float(header["vox_offset"]) or least
    if not least <= offset <= _FURTHEST:
        raise InputError(
            f"{name}: its header puts the voxels at byte {offset:g}; expected {least} or a little more; "
            "convert the scan again"
        )
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # the standard's and nibabel's ways to say that there is no scaling
        slope, inter = 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise InputError(
            f"{name}: its header scales voxels by slope {slope:g} and intercept {inter:g}; expected finite ones; "
            "convert the scan again"
        )
    grid, warnings = nifti_grid(header, shape, name, geometry, insist=insist)
    if header["descrip"].item().startswith(ENHANCED.encode()):
        warnings.append("was enhanced, as its header says: detail in it may be made up, and is not for diagnosis")
    return Layout(grid, volumes, dtype, len(block), int(offset), slope, inter, warnings)


def _check_magic(header: Nifti1Header, kind: type[Nifti1Header], name: str, pair: bool) -> None:
    """Raise an InputError unless the header is of a single file, or of a pair, as the file's name says."""
    magic = header["magic"].item()
    if magic == (kind.pair_magic if pair else kind.single_magic):
        return
    if magic == kind.pair_magic:
        problem, way_out = "is the header of a .hdr/.img pair", "name both files so"
    elif magic == kind.single_magic:
        problem, way_out = "is a pair whose header is of a single file", "name the file with both .nii"
    elif pair:
        problem, way_out = "is an Analyze 7.5 file, which does not say where left is, not NIfTI", "convert it to NIfTI"
    else:
        problem, way_out = "is not a NIfTI file (its magic bytes are wrong)", "convert it to NIfTI"
    raise InputError(f"{name}: {problem}; {way_out}")


def _mgh_layout(stream: Stream, name: str) -> Layout:
    block = take(stream, DATA_OFFSET, name)
    if int.from_bytes(block[:4], "big") != 1:
        raise InputError(f"{name}: is not an MGH file (no version 1 at its start); convert it to NIfTI")
    if not any(block[28:30]):  # goodRASFlag; FreeSurfer and nibabel disagree on what to assume then
        raise InputError(f"{name}: contains no orientation (its goodRASFlag is 0); set it with mri_convert")
    header = MGHHeader(block, check=False)
    dims = [int(length) for length in header["dims"]]
    shape, volumes = _checked_shape(dims, name)
    dtype = _checked_type(header, int(header["type"]), name)
    grid = mgh_grid(header, shape, name)
    return Layout(grid, volumes, dtype, DATA_OFFSET, DATA_OFFSET, 1.0, 0.0, [])


def _checked_shape(dims: list[int], name: str) -> tuple[tuple[int, int, int], int]:
    """Shape of one volume, and the number of volumes."""
    lengths = " x ".join(str(length) for length in dims)
    if min(dims) < 1:
        raise InputError(
            f"{name}: its header claims {lengths} voxels; expected positive lengths; convert the scan again"
        )
    while len(dims) > 3 and dims[-1] == 1:
        dims = dims[:-1]
    if len(dims) > 4:
        raise InputError(f"{name}: is {len(dims)}-D ({lengths}); expected a 3-D or 4-D file; extract one volume")
    if len(dims) < 3 or dims[2:] == [1]:
        raise InputError(f"{name}: is 2-D ({lengths}); expected a volume; give the whole scan, not a slice")
    x, y, z = dims[:3]
    return (x, y, z), (dims[3:] or [1])[0]


def _checked_type(header: Nifti1Header | MGHHeader, code: int, name: str) -> np.dtype:
    try:
        dtype = np.dtype(header.get_data_dtype())  # type: ignore[call-overload]
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V")
    if dtype.kind in "iuf":
        return dtype
    kind = "RGB colours" if dtype.names else "complex numbers" if dtype.kind == "c" else "of an unknown type"
    raise InputError(
        f"{name}: its voxels are {kind} (type code {code}); expected one real number each; convert the scan"
    )
