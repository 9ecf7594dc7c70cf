"""Volumes read from NIfTI-1, NIfTI-2 and MGH files."""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medvision.volumes.geometry import Grid
from medvision.volumes.headers import Layout, Stream, read_layout, refuse_short, take
from shared_backbones.errors import InputError
from shared_backbones.files import printable

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")

_BLOCK = 1 << 22  # bytes read or written at a time
SMALLEST_AXIS = 8  # voxels; thinner volumes leave a network nothing to see
_DEFLATE_RATIO = 1032  # no deflate stream expands further
_LARGEST_TAIL = 1 << 20  # bytes looked at behind the voxels, to reach and verify the gzip checksum
_OUTPUT = re.compile(r"case-[0-9a-f]{8}_(seg|prob)")  # of results under a pseudonym
_LARGEST_LABEL = np.iinfo(np.int32).max


@dataclass
class Volume:
    """A volume as read from a file.

    Attributes:
        data: (X, Y, Z), float32 intensities (or integer labels), as stored: not reoriented.
        grid: where the voxels lie.
        sha256: hex digest of the file's bytes.
        warnings: what a user should know about the file, one clause each, free of header text.
        modality: what its header says, such as "CT" or "MR"; None where the format has no place for it.
    """

    data: np.ndarray
    grid: Grid
    sha256: str
    warnings: list[str] = field(default_factory=list)
    modality: str | None = None

    @property
    def case_id(self) -> str:
        """Name of the case where the file's own name must not appear."""
        return f"case-{self.sha256[:8]}"


def read_volume(
    path: str | os.PathLike[str],
    *,
    volume_index: int | None = None,
    geometry: str | None = None,
    allow_nonfinite: bool = False,
    max_bytes: int = 4 * 2**30,
    smallest_axis: int = SMALLEST_AXIS,
) -> Volume:
    """Read a scan.

    Args:
        path: `.nii`, `.nii.gz`, `.mgz` or `.mgh`, 3-D or 4-D.
        volume_index: which volume of a 4-D file, from 0; not needed where it has only one.
        geometry: "sform" or "qform", to choose where both are set and disagree.
        allow_nonfinite: read NaN and infinite voxels as 0 instead of refusing them.
        max_bytes: largest size that a header may claim, counting at least 4 bytes a voxel.
        smallest_axis: voxels that there must be along each axis.

    Returns:
        The volume with `data` float32, scaled by the header's slope and intercept. Beside it only a few MB are held.

    Raises:
        InputError: no such file, not an image, damaged, or not a volume that can be used.
    """
    return _read(path, False, volume_index, geometry, allow_nonfinite, max_bytes, smallest_axis)


def read_labels(
    path: str | os.PathLike[str],
    *,
    volume_index: int | None = None,
    geometry: str | None = None,
    allow_nonfinite: bool = False,
    max_bytes: int = 4 * 2**30,
    smallest_axis: int = SMALLEST_AXIS,
) -> Volume:
    """Read a label map: as `read_volume`, but `data` keeps the file's integer type, and is int32 where that is not one.

    A constant map is a valid one.

    Raises:
        InputError: as `read_volume`, or a value is not an integer.
    """
    return _read(path, True, volume_index, geometry, allow_nonfinite, max_bytes, smallest_axis)


def scan_stem(path: str | os.PathLike[str]) -> str:
    """File name without `.nii.gz`, `.nii`, `.mgz` or `.mgh`."""
    name = Path(path).name
    return name[: len(name) - len(scan_suffix(name))]


def find_scans(folder: str | os.PathLike[str]) -> list[Path]:
    """Scans directly in a folder, sorted by name.

    Hidden files are left out, and so are label maps and probabilities (`_seg`, `_prob`) beside the scan of that name or
    named by a scan's hash.

    Raises:
        InputError: not a folder, or no scans in it.
    """
    name = printable(folder)
    try:
        files = sorted(entry for entry in Path(folder).iterdir() if entry.is_file())
    except OSError as error:
        raise InputError(f"{name}: cannot be listed ({error.strerror}); expected a folder of scans") from None
    scans = [file for file in files if scan_suffix(file.name) and not file.name.startswith(".")]
    stems = {scan_stem(scan) for scan in scans}
    outputs = {f"{stem}{ending}" for stem in stems for ending in ("_seg", "_prob")}
    scans = [scan for scan in scans if scan_stem(scan) not in outputs and not _OUTPUT.fullmatch(scan_stem(scan))]
    if not scans:
        raise InputError(
            f"{name}: contains no scan; expected files ending in {', '.join(SUFFIXES)} directly in it, or DICOM files"
        )
    return scans


class _HashedFile:
    """A file read from front to back whose bytes are hashed on the way, so that it is read only once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        while self.read(_BLOCK):
            pass
        return self._hash.hexdigest()


def _read(
    path: str | os.PathLike[str],
    labels: bool,
    volume_index: int | None,
    geometry: str | None,
    allow_nonfinite: bool,
    max_bytes: int,
    smallest_axis: int,
) -> Volume:
    if geometry not in (None, "sform", "qform"):
        raise ValueError(f'geometry is None, "sform" or "qform", not {geometry!r}')
    name = printable(path)
    suffix = _check_file(Path(path), name)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = _HashedFile(file)
            stream = gzip.GzipFile(fileobj=source, mode="rb") if packed else source  # type: ignore[arg-type]
            layout = read_layout(stream, suffix, name, geometry, max_bytes)
            _check_size(layout, smallest_axis, name)
            index = _checked_index(volume_index, layout.volumes, name)
            volume_bytes = layout.voxels * layout.dtype.itemsize
            begin = layout.offset + index * volume_bytes
            if begin + volume_bytes > size * (_DEFLATE_RATIO if packed else 1):
                refuse_short(name)
            _skip(stream, begin - layout.header_bytes, name)
            data = (_label_map if labels else _intensities)(stream, layout, allow_nonfinite, name)
            if index == layout.volumes - 1 and stream.read(_LARGEST_TAIL) and suffix in (".nii", ".nii.gz"):
                layout.warnings.append("the file goes on behind its voxels; the rest was ignored")
            sha256 = source.hexdigest()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{name}: its gzip stream is damaged or cut short; copy or download it again") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file and its rights") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; use a machine with more, or a smaller scan") from None
    return Volume(data, layout.grid, sha256, layout.warnings)


def _check_size(layout: Layout, smallest_axis: int, name: str) -> None:
    if min(layout.grid.shape) < smallest_axis:
        lengths = layout.grid.shape + (layout.volumes,) * (layout.volumes > 1)
        raise InputError(
            f"{name}: has {' x '.join(map(str, lengths))} voxels; expected at least {smallest_axis} along each axis; "
            "give the whole scan"
        )


def scan_suffix(name: str) -> str:
    """The suffix of a scan's file name in lower case; empty where it has none of `SUFFIXES`."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def _check_file(path: Path, name: str) -> str:
    """The file's suffix in lower case, if it can be a scan."""
    expected = f"expected a file ending in {', '.join(SUFFIXES)}"
    try:
        if path.is_dir():
            raise InputError(f"{name}: is a folder; {expected}")
        if not path.exists():
            raise InputError(f"{name}: no such file; {expected}; check the path")
        if not path.is_file():
            raise InputError(f"{name}: is not a regular file; {expected}")
        suffix = scan_suffix(path.name)
        if not suffix:
            raise InputError(f"{name}: is not named like a scan; {expected}; convert it, or rename it if it is one")
        if path.stat().st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
    except (OSError, ValueError) as error:  # a name that the system cannot hold, or a folder closed to the user
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise InputError(f"{name}: cannot be read ({reason}); {expected}") from None
    return suffix


def _checked_index(volume_index: int | None, volumes: int, name: str) -> int:
    if volume_index is None:
        if volumes > 1:
            raise InputError(
                f"{name}: holds {volumes} volumes; expected one; choose with --volume-index 0 to {volumes - 1}"
            )
        return 0
    if not 0 <= volume_index < volumes:
        raise InputError(f"{name}: has no volume {volume_index}; expected --volume-index from 0 to {volumes - 1}")
    return volume_index


def _skip(stream: Stream, size: int, name: str) -> None:
    for start in range(0, size, _BLOCK):
        take(stream, min(_BLOCK, size - start), name)


def _blocks(stream: Stream, layout: Layout, name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """The stored numbers of one volume, block by block, and where each block belongs in the flat volume."""
    step = _BLOCK // layout.dtype.itemsize
    for start in range(0, layout.voxels, step):
        stop = min(start + step, layout.voxels)
        yield (
            slice(start, stop),
            np.frombuffer(take(stream, (stop - start) * layout.dtype.itemsize, name), layout.dtype),
        )


def _scale(stored: np.ndarray, layout: Layout) -> np.ndarray:
    # float64 for the length of a block, as nibabel computes it
    return stored * np.float64(layout.slope) + np.float64(layout.inter) if layout.scaled else stored


def _intensities(stream: Stream, layout: Layout, allow_nonfinite: bool, name: str) -> np.ndarray:
    data = np.empty(layout.voxels, np.float32)
    low, high, nan, infinite = np.inf, -np.inf, 0, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for where, stored in _blocks(stream, layout, name):
            block = data[where]
            block[:] = _scale(stored, layout)
            nan_here, infinite_here = _zero_nonfinite(block)
            nan, infinite = nan + nan_here, infinite + infinite_here
            low, high = min(low, block.min()), max(high, block.max())
    _check_nonfinite(nan, infinite, layout, allow_nonfinite, name)
    if low == high:
        raise InputError(f"{name}: every voxel is {low:g}; expected an image; check how the scan was exported")
    return data.reshape(layout.grid.shape, order="F")


def _label_map(stream: Stream, layout: Layout, allow_nonfinite: bool, name: str) -> np.ndarray:
    integers = layout.dtype.kind in "iu" and not layout.scaled
    data = np.empty(layout.voxels, layout.dtype.newbyteorder("=") if integers else np.int32)
    nan = infinite = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for where, stored in _blocks(stream, layout, name):
            values = stored
            if not integers:
                values = np.array(_scale(stored, layout), np.float64)
                nan_here, infinite_here = _zero_nonfinite(values)
                nan, infinite = nan + nan_here, infinite + infinite_here
                odd = (values != np.rint(values)) | (np.abs(values) > _LARGEST_LABEL)
                if odd.any():
                    raise InputError(
                        f"{name}: holds the value {values[odd][0]:g}; expected integer labels up to {_LARGEST_LABEL}; "
                        "give a label map, not an image or probabilities"
                    )
            data[where] = values
    _check_nonfinite(nan, infinite, layout, allow_nonfinite, name)
    return data.reshape(layout.grid.shape, order="F")


def _zero_nonfinite(values: np.ndarray) -> tuple[int, int]:
    """Put 0 in place of what is not finite; how many were NaN, and how many infinite."""
    odd = ~np.isfinite(values)
    if not odd.any():
        return 0, 0
    nan = int(np.count_nonzero(np.isnan(values)))
    values[odd] = 0
    return nan, int(np.count_nonzero(odd)) - nan


def _check_nonfinite(nan: int, infinite: int, layout: Layout, allow_nonfinite: bool, name: str) -> None:
    if not nan + infinite:
        return
    found = f"{nan} NaN and {infinite} infinite voxels of {layout.voxels}"
    if not allow_nonfinite:
        raise InputError(
            f"{name}: holds {found}; expected finite ones; fix it, or use --allow-nonfinite to read them as 0"
        )
    layout.warnings.append(f"{found} were read as 0")
