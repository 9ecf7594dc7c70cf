"""Scans whose channels are files of their own, named as nnU-Net names them: NAME_0000, NAME_0001, and so on."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medvision.volumes.files import SMALLEST_AXIS, Accept, Volume, joined_sha256, read_volume
from medvision.volumes.names import scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_NUMBERED = re.compile(r"(.+)_(\d{4})")


def channel_groups(files: Iterable[Path]) -> dict[str, dict[int, Path]]:
    """Files `NAME_0000`, `NAME_0001`, ... by `NAME` and number; those that are named otherwise are left out."""
    groups: dict[str, dict[int, Path]] = {}
    for path in sorted(files):
        match = _NUMBERED.fullmatch(scan_stem(path))
        if match:
            groups.setdefault(match[1], {})[int(match[2])] = path
    return groups


def missing_channel(files: Mapping[int, Path], count: int) -> str | None:
    """What is wrong with the channels of a case that should have `count`, in one clause; None where nothing is."""
    some = next(iter(files.values()))
    for number in range(count):
        if number not in files:
            return f"{printable(some)}: has no channel {number:04} beside it, expected {count} channels; add its file"
    if len(files) > count:
        return f"{printable(files[max(files)])}: is one channel too many, expected {count}; move it"
    return None


def read_channels(
    paths: Sequence[str | os.PathLike[str]],
    *,
    geometry: str | None = None,
    allow_nonfinite: bool = False,
    max_bytes: int | None = None,
    smallest_axis: int = SMALLEST_AXIS,
    accept: Accept | None = None,
) -> Volume:
    """Read a scan whose channels are files of their own.

    Args:
        paths: a 3-D file for each channel, in order.
        geometry: as `read_volume` takes it.
        allow_nonfinite: as `read_volume` takes it.
        max_bytes: largest size of one file.
        smallest_axis: voxels that there must be along each axis.
        accept: as `read_volume` takes it.

    Returns:
        The volume on the grid of the first file. Its sha256 is that of all of theirs.

    Raises:
        InputError: as `read_volume`, or the files lie on different grids.
    """
    first, *others = (
        read_volume(
            path,
            geometry=geometry,
            allow_nonfinite=allow_nonfinite,
            max_bytes=max_bytes,
            smallest_axis=smallest_axis,
            accept=accept,
        )
        for path in paths
    )
    for path, other in zip(paths[1:], others, strict=True):
        difference = first.grid.differs_from(other.grid, tolerance_mm=1e-2)
        if difference:
            raise InputError(
                f"{printable(path)}: lies on another grid than {printable(Path(paths[0]).name)} ({difference}); "
                "resample it to that one"
            )
        first.warnings += [warning for warning in other.warnings if warning not in first.warnings]
    first.sha256 = joined_sha256(volume.sha256 for volume in (first, *others))
    first.further = tuple(other.data for other in others)
    return first
