"""Volumes read from NIfTI-1, NIfTI-2 (one file, or `.hdr` and `.img`) and MGH files."""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medvision.volumes.geometry import Grid
from medvision.volumes.headers import Layout, Stream, check_size, read_layout, refuse_short, take
from medvision.volumes.names import SUFFIXES, is_dead_link, is_scan_name, scan_parts, scan_stem, scan_suffix
from medvision.volumes.voxels import BLOCK, read_intensities, read_label_map
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.memory import limit

SMALLEST_AXIS = 8  # voxels; thinner volumes leave a network nothing to see
_DEFLATE_RATIO = 1032  # no deflate stream expands further
_LARGEST_TAIL = 1 << 20  # bytes looked at behind the voxels, to reach and verify the gzip checksum
_OUTPUT = re.compile(r"case-[0-9a-f]{8}_(seg|prob)")  # of results under a pseudonym
_PACKED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\3\4": "zip",
    b"\x04\x22\x4d\x18": "lz4",
}
Accept = Callable[[Grid, str], None]  # judges a grid, and a name for messages, before voxels are read
_ABSENT = "as in a DataLad data set before `datalad get`"


@dataclass
class Volume:
    """A volume as read from a file.

    Attributes:
        data: (X, Y, Z), float32 intensities (or integer labels), as stored: not reoriented. Of several channels the
            first, which is the one that is shown and measured.
        grid: where the voxels lie.
        sha256: hex digest of the file's bytes; of a pair, of the header's and then the voxels'.
        warnings: what a user should know about the file, one clause each, free of header text.
        modality: what its header says, such as "CT" or "MR"; None where the format has no place for it.
        further: the other channels, on the same grid.
    """

    data: np.ndarray
    grid: Grid
    sha256: str
    warnings: list[str] = field(default_factory=list)
    modality: str | None = None
    further: tuple[np.ndarray, ...] = ()

    @property
    def channels(self) -> tuple[np.ndarray, ...]:
        """All channels, each `(X, Y, Z)` float32."""
        return self.data, *self.further

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
    max_bytes: int | None = None,
    smallest_axis: int = SMALLEST_AXIS,
    channels: Sequence[str] = (),
    accept: Accept | None = None,
) -> Volume:
    """Read a scan.

    Args:
        path: `.nii`, `.nii.gz`, `.mgz` or `.mgh`, or either file of a pair `.hdr` and `.img`; 3-D or 4-D.
        volume_index: which volume of a 4-D file, from 0; not needed where it has only one.
        geometry: "sform" or "qform", to choose where both are set and disagree.
        allow_nonfinite: read NaN as the lowest finite value, and infinite voxels as the lowest or the highest, instead
            of refusing them.
        max_bytes: most memory that the voxels may take, 4 bytes each.
        smallest_axis: voxels that there must be along each axis.
        channels: names of the channels that are the volumes of a 4-D file, in its order; where there are several, all
            are read.
        accept: judges the grid before a voxel is read.

    Returns:
        The volume with `data` float32, scaled by the header's slope and intercept. Beside it only a few MB are held.

    Raises:
        InputError: no such file, not an image, damaged, or not a volume that can be used.
    """
    return _read(path, False, volume_index, geometry, allow_nonfinite, max_bytes, smallest_axis, channels, accept)


def count_volumes(path: str | os.PathLike[str], geometry: str | None = None) -> int:
    """How many volumes a file holds, by its header alone.

    Raises:
        InputError: as `read_volume` of a file that cannot be read.
    """
    name = printable(path)
    suffix = _check_file(Path(path), name)
    with _read_errors(name), scan_parts(Path(path))[0].open("rb") as file:
        stream = _Source(file, lambda block: None).stream
        return read_layout(stream, suffix, name, geometry, insist=False).volumes


def read_labels(
    path: str | os.PathLike[str],
    *,
    volume_index: int | None = None,
    geometry: str | None = None,
    allow_nonfinite: bool = False,
    max_bytes: int | None = None,
    smallest_axis: int = SMALLEST_AXIS,
) -> Volume:
    """Read a label map: as `read_volume`, but `data` keeps the file's integer type, and is int32 where that is not one.

    A constant map is valid. Voxels that are not finite are 0 where allowed; `geometry` decides where both are set.

    Raises:
        InputError: as `read_volume`, or a value is not an integer.
    """
    return _read(path, True, volume_index, geometry, allow_nonfinite, max_bytes, smallest_axis)


def find_scans(folder: str | os.PathLike[str]) -> list[Path]:
    """Scans directly in a folder, sorted by name.

    Hidden files are left out, and so are label maps and probabilities (`_seg`, `_prob`) beside the scan of that name or
    named by a scan's hash. Links to files that are not there are scans, which cannot be read.

    Raises:
        InputError: not a folder, no scans in it, or all of them links that lead nowhere.
    """
    name = printable(folder)
    try:
        files = sorted(entry for entry in Path(folder).iterdir() if entry.is_file() or is_dead_link(entry))
    except OSError as error:
        raise InputError(f"{name}: cannot be listed ({error.strerror}); expected a folder of scans") from None
    dead = [file for file in files if is_dead_link(file)]
    scans = [file for file in files if is_scan_name(file)]
    if dead and set(scans) <= set(dead):
        raise InputError(
            f"{name}: holds {len(dead)} links to files that are not there, {_ABSENT}, and no scan; get them"
        )
    stems = {scan_stem(scan) for scan in scans}
    outputs = {f"{stem}{ending}" for stem in stems for ending in ("_seg", "_prob")}
    scans = [scan for scan in scans if scan_stem(scan) not in outputs and not _OUTPUT.fullmatch(scan_stem(scan))]
    if not scans:
        raise InputError(
            f"{name}: contains no scan; expected files ending in {', '.join(SUFFIXES)} directly in it, or DICOM files"
        )
    return scans


def scan_sha256(*paths: str | os.PathLike[str]) -> str:
    """The digest that the volume will have, of one file or of those of its channels, without reading its voxels.

    Raises:
        InputError: one cannot be read.
    """
    return joined_sha256(map(_file_sha256, paths))


def joined_sha256(digests: Iterable[str]) -> str:
    """A digest of several; of one, it is that one."""
    first, *others = digests
    return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first


def _file_sha256(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    for part in scan_parts(Path(path)):
        try:
            with part.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{printable(part)}: cannot be read ({error.strerror}); check the path") from None
    return digest.hexdigest()


class _Source:
    """A file read from front to back, decompressed where it is gzip, whose bytes are hashed on the way.

    Attributes:
        stream: its bytes, decompressed.
        most_bytes: more cannot come out of it.
    """

    def __init__(self, file: BinaryIO, hash_with: Callable[[bytes], None]) -> None:
        self._file, self._hash_with = file, hash_with
        start = file.read(2)
        file.seek(0)
        packed, size = start.startswith(b"\x1f\x8b"), os.fstat(file.fileno()).st_size
        self.most_bytes = size * (_DEFLATE_RATIO if packed else 1)
        self.stream: Stream = gzip.GzipFile(fileobj=self, mode="rb") if packed else self  # type: ignore[arg-type]

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash_with(data)
        return data

    def finish(self) -> None:
        """Hash what has not been read."""
        while self.read(BLOCK):
            pass


def _read(
    path: str | os.PathLike[str],
    labels: bool,
    volume_index: int | None,
    geometry: str | None,
    allow_nonfinite: bool,
    max_bytes: int | None,
    smallest_axis: int,
    channels: Sequence[str] = (),
    accept: Accept | None = None,
) -> Volume:
    if geometry not in (None, "sform", "qform"):
        raise ValueError(f'geometry is None, "sform" or "qform", not {geometry!r}')
    name = printable(path)
    suffix = _check_file(Path(path), name)
    digest = hashlib.sha256()
    with _read_errors(name), ExitStack() as opened:
        files = [_Source(opened.enter_context(part.open("rb")), digest.update) for part in scan_parts(Path(path))]
        header, source = files[0], files[-1]
        layout = read_layout(header.stream, suffix, name, geometry, insist=not labels)
        _check_axes(layout, smallest_axis, name)
        wanted = _wanted(volume_index, channels, layout.volumes, name)
        check_size(layout, len(wanted), labels, limit(max_bytes), name)
        if accept is not None:
            accept(layout.grid, name)
        volume_bytes = layout.voxels * layout.dtype.itemsize
        begin = layout.offset + wanted.start * volume_bytes
        if begin + len(wanted) * volume_bytes > source.most_bytes:
            refuse_short(name)
        if header is not source:
            header.finish()  # before the other is read, as the digest is of one behind the other
        _skip(source.stream, begin - (layout.header_bytes if header is source else 0), name)
        read = read_label_map if labels else read_intensities
        data, *further = [read(source.stream, layout, allow_nonfinite, name) for _ in wanted]
        if wanted.stop == layout.volumes:
            layout.warnings.extend(_behind(source.stream, suffix))
        source.finish()
    return Volume(data, layout.grid, digest.hexdigest(), layout.warnings, further=tuple(further))


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    """InputErrors in place of what goes wrong while a file is read."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{name}: its gzip stream is damaged or cut short; copy or download it again") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file and its rights") from None
    except MemoryError:
        raise InputError(f"{name}: does not fit into memory; use a machine with more, or a smaller scan") from None


def _behind(stream: Stream, suffix: str) -> list[str]:
    """What to know about bytes behind the voxels; its gzip checksum is verified on the way."""
    try:
        more = stream.read(_LARGEST_TAIL)
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # it is not the next stream that is none, but this one
            raise
        return ["the file goes on behind its gzip stream; the rest was ignored"]
    ignored = more and suffix not in (".mgz", ".mgh")
    return ["the file goes on behind its voxels; the rest was ignored"] if ignored else []


def _check_axes(layout: Layout, smallest_axis: int, name: str) -> None:
    if min(layout.grid.shape) < smallest_axis:
        lengths = layout.grid.shape + (layout.volumes,) * (layout.volumes > 1)
        raise InputError(
            f"{name}: has {' x '.join(map(str, lengths))} voxels; expected at least {smallest_axis} along each axis; "
            "give the whole scan"
        )


def _check_file(path: Path, name: str) -> str:
    """The file's suffix in lower case, if it can be a scan."""
    expected = f"expected a file ending in {', '.join(SUFFIXES)}"
    try:
        _check_place(path, name, expected)
        suffix, packing = scan_suffix(path.name), _packing(path)
        if packing:
            raise InputError(f"{name}: is compressed with {packing}; expected gzip, or no compression; unpack it first")
        if not suffix:
            raise InputError(f"{name}: is not named like a scan; {expected}; convert it, or rename it if it is one")
        for part in scan_parts(path):
            if not part.exists():
                raise InputError(f"{name}: has no {printable(part.name)} beside it; expected both; copy it there")
            if part.stat().st_size == 0:
                raise InputError(f"{printable(part)}: is empty (0 bytes); copy or download it again")
    except (OSError, ValueError) as error:  # a name that the system cannot hold, or a folder closed to the user
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise InputError(f"{name}: cannot be read ({reason}); {expected}") from None
    return suffix


def _check_place(path: Path, name: str, expected: str) -> None:
    if is_dead_link(path):
        raise InputError(f"{name}: is a link to a file that is not there, {_ABSENT}; get it")
    if path.is_dir():
        raise InputError(f"{name}: is a folder; {expected}")
    if not path.exists():
        raise InputError(f"{name}: no such file; {expected}; check the path")
    if not path.is_file():
        raise InputError(f"{name}: is not a regular file; {expected}")


def _packing(path: Path) -> str | None:
    """The compression, other than gzip, that a file begins with."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), None)


def _wanted(volume_index: int | None, channels: Sequence[str], volumes: int, name: str) -> range:
    """Numbers of the volumes that are read."""
    if len(channels) > 1:
        names = f"{len(channels)} channels ({', '.join(channels)})"
        if volume_index is not None:
            raise InputError(f"{name}: --volume-index has no meaning for a model of {names}; run without it")
        if volumes != len(channels):
            raise InputError(
                f"{name}: holds {volumes} volume{'s' * (volumes > 1)}, expected {names}: a 4-D file of them in this "
                "order, or for each a file NAME_0000.nii.gz, NAME_0001.nii.gz, ..."
            )
        return range(volumes)
    if volume_index is None:
        if volumes > 1:
            raise InputError(
                f"{name}: holds {volumes} volumes; expected one; choose with --volume-index 0 to {volumes - 1}"
            )
        return range(1)
    if not 0 <= volume_index < volumes:
        raise InputError(f"{name}: has no volume {volume_index}; expected --volume-index from 0 to {volumes - 1}")
    return range(volume_index, volume_index + 1)


def _skip(stream: Stream, size: int, name: str) -> None:
    for start in range(0, size, BLOCK):
        take(stream, min(BLOCK, size - start), name)
