"""DICOM series: which there are in a folder, an archive or a file, and one of them as a volume."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medvision.dicom.decoding import Decoder
from medvision.dicom.files import find_members
from medvision.dicom.headers import Frame, Instance, read_instance, read_whole
from medvision.dicom.pixels import decode
from medvision.dicom.stacks import arrange, straighten
from medvision.volumes import SMALLEST_AXIS, Grid, Volume
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_LISTED = 12  # series named in an error line; a study may have a hundred


@dataclass(frozen=True)
class Series:
    """The images of one series.

    Attributes:
        number: from 1, by which `choose` finds it; counted in the order of series numbers.
        uid: SeriesInstanceUID.
        name: how errors call it.
        instances: files with images, at least one.
        warnings: what a user should know about the input as a whole.
    """

    number: int
    uid: str
    name: str
    instances: tuple[Instance, ...]
    warnings: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Slices in all files."""
        return sum(max(1, instance.frame_count) for instance in self.instances)

    @property
    def modality(self) -> str | None:
        """Such as CT or MR; None where the header says nothing known."""
        return self.instances[0].modality

    @property
    def description(self) -> str:
        """What the header calls it, fit to be printed on a terminal; it may name the patient."""
        return printable(self.instances[0].description).strip()

    def describe(self) -> str:
        """One clause: number, modality, description, images and voxel size, fit to be printed on a terminal."""
        first = self.instances[0]
        text = self.description or "without description"
        clause = f"{self.number} {self.modality or 'unknown'} '{text}' {self.images} of {first.columns} x {first.rows}"
        try:
            stack = arrange(_frames_of(self, "")[0], "")
        except InputError:
            return f"{clause} (no volume)"
        gaps = np.diff(stack.distances)
        (rows, columns), between = stack.frames[0].spacing, float(np.median(gaps))
        return f"{clause}, {columns:.3g} x {rows:.3g} x {between:.3g} mm"

    def sha256(self) -> str:
        """Digest of the contents of its files, whatever their names and order."""
        return _digest_of(_file_sha256(instance) for instance in self.instances)


@dataclass
class DicomVolume(Volume):
    """A volume read from a DICOM series.

    Attributes:
        frames: the slices it was made of, in the order of its last axis unless it was resampled.
        resampled: whether it lies on a grid of its own, and not on the slices.
    """

    frames: tuple[Frame, ...] = ()
    resampled: bool = False


def find_series(path: str | os.PathLike[str], *, max_bytes: int = 4 * 2**30) -> list[Series]:
    """Every series with images in a folder (at any depth), a zip archive or a DICOM file.

    Files of the same content count once. Other DICOM files, such as a DICOMDIR, reports or segmentations, are left out.

    Raises:
        InputError: there is none, a file is damaged, or an archive unsafe.
    """
    members, warnings = find_members(path, max_bytes)
    by_uid: dict[str, dict[str, Instance]] = defaultdict(dict)
    for member in members:
        instance = read_instance(member, max_bytes)
        if instance is None:
            continue
        same = by_uid[instance.series_uid].setdefault(instance.uid or member.name, instance)
        if same is not instance and _file_sha256(same) != _file_sha256(instance):
            raise InputError(
                f"{member.name}: has the same SOPInstanceUID as {same.member.name} and other content; "
                "expected one file for each; remove one of them"
            )
    if not by_uid:
        raise InputError(
            f"{printable(path)}: holds {len(members)} DICOM files and no image among them; expected a series of images"
        )
    groups = sorted(by_uid.items(), key=lambda item: (_order(item[1]), item[0]))
    name = printable(path)
    return [
        Series(
            number, uid, f"{name}, series {number}" if len(groups) > 1 else name, tuple(found.values()), tuple(warnings)
        )
        for number, (uid, found) in enumerate(groups, 1)
    ]


def choose(series: Sequence[Series], wanted: str | None, name: str) -> Series:
    """The series of a number or UID; without one, the only series there is.

    Raises:
        InputError: no such series, or several to choose from; the line lists them.
    """
    if wanted is None and len(series) == 1:
        return series[0]
    for candidate in series:
        if wanted in (str(candidate.number), candidate.uid):
            return candidate
    listed = "; ".join(candidate.describe() for candidate in series[:_LISTED])
    more = f"; and {len(series) - _LISTED} more" if len(series) > _LISTED else ""
    found = f"has no series {wanted!r}" if wanted is not None else f"holds {len(series)} series"
    raise InputError(f"{name}: {found}; choose with --series NUMBER or UID, of {listed}{more}")


def read_series(
    path: str | os.PathLike[str] | Series,
    *,
    series: str | None = None,
    resample_irregular: bool = False,
    max_bytes: int = 4 * 2**30,
    smallest_axis: int = SMALLEST_AXIS,
) -> DicomVolume:
    """Read a DICOM series as a volume.

    Args:
        path: a folder, a zip archive or a DICOM file; or a series that was found in one.
        series: number or UID, where there are several.
        resample_irregular: bring tilted, missing or irregular slices to a regular grid instead of refusing them.
        max_bytes: largest size that the headers may claim, counting 4 bytes a voxel.
        smallest_axis: voxels that there must be along each axis.

    Returns:
        The volume with `data` (columns, rows, slices) float32, after slope and intercept (HU for CT). Its `sha256` is
        of the files' contents, whatever their names and order.

    Raises:
        InputError: no such series, or not a volume that can be used.
    """
    chosen = (
        path if isinstance(path, Series) else choose(find_series(path, max_bytes=max_bytes), series, printable(path))
    )
    name = chosen.name
    frames, warnings = _frames_of(chosen, name)
    stack = arrange(frames, name)
    if 4 * np.prod(stack.shape, dtype=float) > max_bytes:
        raise InputError(
            f"{name}: its headers claim {4 * np.prod(stack.shape, dtype=float) / 2**30:.3g} GB of voxels; the limit is "
            f"{max_bytes / 2**30:.3g} GB; raise it with --max-gigabytes if the files can be trusted"
        )
    if min(stack.shape) < smallest_axis:
        raise InputError(
            f"{name}: has {' x '.join(map(str, stack.shape))} voxels; expected at least {smallest_axis} along each "
            "axis; give the whole series"
        )
    if stack.problems and not resample_irregular:
        raise InputError(
            f"{name}: {'; '.join(stack.problems)}; add missing files, or use --resample-irregular to interpolate"
        )
    data, sha256 = _read_pixels(chosen, stack.frames, stack.shape, max_bytes)
    low, high = float(data.min()), float(data.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name}: its slope and intercept give infinite values; expected finite ones; export it again")
    if low == high:
        raise InputError(f"{name}: every voxel is {low:g}; expected an image; check how the series was exported")
    affine = stack.affine()
    if stack.problems:
        data, affine = straighten(data, stack, max_bytes, name)
        problems = "; ".join(problem.removeprefix("its ") for problem in stack.problems)
        warnings.append(f"{problems}: voxels were interpolated on a regular grid at right angles")
    return DicomVolume(
        data=data,
        grid=Grid.from_affine(data.shape, affine),
        sha256=sha256,
        warnings=[*chosen.warnings, *warnings, *stack.warnings],
        modality=chosen.modality,
        frames=stack.frames,
        resampled=bool(stack.problems),
    )


def _order(instances: dict[str, Instance]) -> int:
    return min((i.series_number for i in instances.values() if i.series_number is not None), default=2**31)


def _frames_of(series: Series, name: str) -> tuple[list[Frame], list[str]]:
    """Slices of a series; localizers among other images are left out."""
    localizers = [instance for instance in series.instances if instance.localizer]
    kept = [instance for instance in series.instances if not instance.localizer] or localizers
    left_out = len(series.instances) - len(kept)
    warnings = [f"{left_out} localizer images in the series were left out"] if left_out else []
    return [frame for instance in kept for frame in instance.frames()], warnings


def _read_pixels(
    series: Series, frames: Sequence[Frame], shape: tuple[int, int, int], max_bytes: int
) -> tuple[np.ndarray, str]:
    """Voxels (columns, rows, slices) and the digest of the series; every file is read once, one at a time."""
    data = np.empty(shape, np.float32, order="F")
    places: dict[str, list[tuple[int, Frame]]] = defaultdict(list)
    for place, frame in enumerate(frames):
        places[frame.member.name].append((place, frame))
    digests = []
    with Decoder() as decoder:
        for instance in series.instances:
            wanted = places.get(instance.member.name)
            if wanted is None:
                digests.append(_file_sha256(instance))
                continue
            dataset, digest = read_whole(instance.member, max_bytes)
            digests.append(digest)
            decoded = decode(dataset, [frame for _, frame in wanted], instance.member.name, decoder)
            for (place, _), (_, values) in zip(wanted, decoded, strict=True):
                data[:, :, place] = values
    return data, _digest_of(digests)


def _file_sha256(instance: Instance) -> str:
    with instance.member.open() as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _digest_of(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(set(digests))).encode()).hexdigest()
