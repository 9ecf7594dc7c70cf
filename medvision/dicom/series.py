"""DICOM series: which there are in a folder, an archive or a file, and one of them as a volume."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medvision.dicom.completeness import end_notes
from medvision.dicom.files import Member, find_members
from medvision.dicom.frames import Frame
from medvision.dicom.headers import Instance, read_instance
from medvision.dicom.reading import file_digest
from medvision.dicom.recognition import Kind, Unread, counted
from medvision.dicom.splitting import split_volumes
from medvision.dicom.stacks import Stack, arrange, straighten
from medvision.dicom.voxels import read_voxels
from medvision.volumes.files import SMALLEST_AXIS, Accept, Volume
from medvision.volumes.geometry import Grid
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.memory import limit

_DIRECTORY = "DICOMDIR"  # a table of contents; it is left out without a warning
_LISTED = 12  # series named in an error line; a study may have a hundred


@dataclass(frozen=True)
class Series:
    """The images of one series; or, where that holds several volumes, those of one of them.

    Attributes:
        number: from 1, by which `choose` finds it; counted in the order of series numbers.
        uid: SeriesInstanceUID.
        part: number of the volume in its series, from 1; 0 where the series is one.
        distinction: what tells the volume from the others of its series, such as "echo time 4.9".
        name: Name of the series in messages.
        instances: files with images, at least one.
        frames: the slices; empty where there is a `problem`.
        problem: Reason why there are none, in one line.
        warnings: what a user should know about the input as a whole.
        refusal: why it is not to be read though its slices are a volume, as one line: files that cannot be read.
    """

    number: int
    uid: str
    part: int
    distinction: str
    name: str
    instances: tuple[Instance, ...]
    frames: tuple[Frame, ...]
    problem: str | None
    warnings: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def id(self) -> str:
        """The UID, and behind a colon the number of the volume where there are several; `choose` finds it by this."""
        return f"{self.uid}:{self.part}" if self.part else self.uid

    @property
    def advice(self) -> str | None:
        """The refusal, with the option of `segment` that helps."""
        return self.refusal and f"{self.refusal}, or use --skip-unreadable to leave them out"

    @property
    def images(self) -> int:
        """Slices in all files."""
        return len(self.frames) or len(self.instances)

    @property
    def modality(self) -> str | None:
        """Such as CT or MR; None where the header says nothing known."""
        return self.instances[0].modality

    @property
    def description(self) -> str:
        """What the header calls it, fit to be printed on a terminal; it may name the patient."""
        return printable(self.instances[0].description).strip()

    def stack(self) -> Stack:
        """The slices in order.

        Raises:
            InputError: they make no volume.
        """
        if self.problem is not None:
            raise InputError(self.problem)
        return arrange(self.frames, self.name)

    def is_aside(self) -> bool:
        """Whether it is of no use for segmentation: localizers, screenshots, colour images, or a single slice."""
        return self.instances[0].aside or len(self.frames) == 1

    def describe(self) -> str:
        """One clause: number, modality, description, images and voxel size, fit to be printed on a terminal."""
        first = self.instances[0]
        text = ", ".join(part for part in (self.description, printable(self.distinction)) if part)
        clause = (
            f"{self.number} {self.modality or 'unknown'} '{text or 'without description'}' {self.images} of "
            f"{first.columns} x {first.rows}"
        )
        try:
            stack = self.stack()
        except InputError:
            return f"{clause} (no volume)"
        gaps = np.diff(stack.distances)
        (rows, columns), between = stack.frames[0].spacing, float(np.median(gaps))
        return f"{clause}, {columns:.3g} x {rows:.3g} x {between:.3g} mm"

    def sha256(self) -> str:
        """Digest of the contents of its files, whatever their names and order."""
        return self.digest_of({instance.member: file_digest(instance.member) for instance in self.instances})

    def digest_of(self, digests: Mapping[Member, str]) -> str:
        """The digest, from those of its files; of a file with several volumes, its own frames count."""
        used: dict[Member, list[int]] = defaultdict(list)
        for frame in self.frames:
            used[frame.member].append(frame.index)
        entries = set()
        for instance in self.instances:
            own = sorted(used[instance.member])
            some = len(own) < len(instance.frames)
            entries.add(f"{digests[instance.member]}:{own}" if some else digests[instance.member])
        return hashlib.sha256("".join(sorted(entries)).encode()).hexdigest()


@dataclass
class DicomVolume(Volume):
    """A volume read from a DICOM series.

    Attributes:
        frames: the slices it was made of, in the order of its last axis unless it was resampled.
        resampled: whether it lies on a grid of its own, and not on the slices.
    """

    frames: tuple[Frame, ...] = ()
    resampled: bool = False


def find_series(
    path: str | os.PathLike[str], *, skip_unreadable: bool = False, max_bytes: int | None = None
) -> list[Series]:
    """Every series with images in a folder (at any depth), a zip archive or a DICOM file.

    Files of the same content count once. Other DICOM files, such as a DICOMDIR, reports or segmentations, are left out,
    and so is what is no DICOM; they are counted. Empty, damaged or packed files in the folder of a series may be slices
    of it: it is refused when it is read.

    Args:
        path: where to look.
        skip_unreadable: leave such files out instead, with a warning.
        max_bytes: most that an archive may unpack to.

    Raises:
        InputError: there is none, a single file is damaged, or an archive is unsafe.
    """
    max_bytes = limit(max_bytes)
    members, unread = find_members(path, max_bytes)
    by_uid, more = _instances_of(members, max_bytes)
    unread += more
    name = printable(path)
    if not by_uid:
        reason = next((entry.reason for entry in unread if entry.reason), None)
        raise InputError(
            reason
            or f"{name}: contains {len(members)} DICOM files, none of which is an image; expected a series of images"
        )
    groups = sorted(by_uid.items(), key=lambda item: (_order(item[1]), item[0]))
    parts = [part for uid, instances in groups for part in _parts_of(uid, instances, skip_unreadable)]
    listed = [
        Series(
            number=number,
            uid=part.uid,
            part=part.part,
            distinction=part.distinction,
            name=f"{name}, series {number}" if len(parts) > 1 else name,
            instances=part.instances,
            frames=part.frames,
            problem=part.problem,
            warnings=part.warnings,
        )
        for number, part in enumerate(parts, 1)
    ]
    notes = end_notes([(part.instances, part.frames) for part in parts])
    folders = {instance.member.folder for series in listed for instance in series.instances}
    concerned = []
    for series, ends in zip(listed, notes, strict=True):
        elsewhere = folders - {instance.member.folder for instance in series.instances}
        beside = [entry for entry in unread if entry.folder not in elsewhere]
        concerned.append(_with_unread(replace(series, warnings=(*series.warnings, *ends)), beside, skip_unreadable))
    return concerned


def _with_unread(series: Series, beside: Sequence[Unread], skip: bool) -> Series:
    """The series, and what is said of the files that are not read, in its folders and in those of no series."""
    lost = [entry for entry in beside if entry.kind.may_be_a_slice]
    other = [entry for entry in beside if skip or not entry.kind.may_be_a_slice]
    refusal = None
    if lost and not skip:
        first = next((entry.reason for entry in lost if entry.reason), None) or f"{lost[0].name} is the first"
        refusal = (
            f"{series.name}: {counted(lost)} among the slices cannot be read ({first}); copy or unpack them, or move "
            "them away"
        )
    warnings = (f"{counted(other)} were left out",) if other else ()
    return replace(series, warnings=(*warnings, *series.warnings), refusal=refusal)


def _instances_of(members: Sequence[Member], max_bytes: int) -> tuple[dict[str, tuple[Instance, ...]], list[Unread]]:
    """Files with images by SeriesInstanceUID, and the files without, or damaged."""
    by_uid: dict[str, dict[str | Member, Instance]] = defaultdict(dict)
    unread = []
    for member in members:
        try:
            instance = read_instance(member, max_bytes)
        except InputError as error:
            unread.append(Unread(member.name, member.folder, Kind.DAMAGED, str(error)))
            continue
        if instance is None:
            if not member.name.endswith(_DIRECTORY):
                unread.append(Unread(member.name, member.folder, Kind.IMAGELESS))
            continue
        same = by_uid[instance.series_uid].setdefault(instance.uid or member, instance)
        if same is not instance and file_digest(same.member) != file_digest(member):
            raise InputError(
                f"{member.name}: has the same SOPInstanceUID as {same.member.name} and other content; "
                "expected one file for each; remove one of them"
            )
    return {uid: tuple(instances.values()) for uid, instances in by_uid.items()}, unread


def choose(series: Sequence[Series], wanted: str | None, name: str) -> Series:
    """The series of a number or UID, of a volume among several of its series as `UID:2`.

    Without one, the only series there is, or the only one beside localizers, screenshots and single slices.

    Raises:
        InputError: no such series, or several to choose from; the line lists them.
    """
    if wanted is None:
        if len(series) == 1:
            return series[0]
        likely = [candidate for candidate in series if not candidate.is_aside()]
        if len(likely) == 1:
            note = f"{len(series) - 1} other series, of localizers, screenshots or single slices, were left out"
            return replace(likely[0], warnings=(*likely[0].warnings, note))
    for candidate in series:
        if wanted in (str(candidate.number), candidate.id):
            return candidate
    offered = [candidate for candidate in series if candidate.uid == wanted] or series
    listed = "; ".join(candidate.describe() for candidate in offered[:_LISTED])
    more = f"; and {len(offered) - _LISTED} more" if len(offered) > _LISTED else ""
    count = len({candidate.uid for candidate in offered})
    problem = (
        f"has no series {printable(wanted)!r}" if wanted is not None and offered is series
        else f"holds {count} series" if count == len(offered)
        else f"holds {len(offered)} volumes in {count} series"
    )  # fmt: skip
    raise InputError(f"{name}: {problem}; choose with --series NUMBER or UID, of {listed}{more}")


def read_series(
    path: str | os.PathLike[str] | Series,
    *,
    series: str | None = None,
    resample_irregular: bool = False,
    skip_unreadable: bool = False,
    max_bytes: int | None = None,
    smallest_axis: int = SMALLEST_AXIS,
    accept: Accept | None = None,
) -> DicomVolume:
    """Read a DICOM series as a volume.

    Args:
        path: a folder, a zip archive or a DICOM file; or a series that was found in one.
        series: number or UID, where there are several.
        resample_irregular: bring tilted, missing or irregular slices to a regular grid instead of refusing them.
        skip_unreadable: leave out files that cannot be read instead of refusing the series.
        max_bytes: largest size that the headers may claim, counting 4 bytes a voxel.
        smallest_axis: voxels that there must be along each axis.
        accept: called with the grid, and the series' name for messages, before a pixel is read; it may raise an
            InputError.

    Returns:
        The volume with `data` (columns, rows, slices) float32, after slope and intercept (HU for CT); pixels of padding
        have its lowest value. Its `sha256` is of the files' contents, whatever their names and order.

    Raises:
        InputError: no such series, or not a volume that can be used.
    """
    max_bytes = limit(max_bytes)
    if isinstance(path, Series):
        chosen = path
    else:
        listed = find_series(path, skip_unreadable=skip_unreadable, max_bytes=max_bytes)
        chosen = choose(listed, series, printable(path))
    if chosen.advice is not None:
        raise InputError(chosen.advice)
    stack = _checked_stack(chosen, resample_irregular, max_bytes, smallest_axis)
    if accept is not None and len(stack.frames) > 1:
        accept(Grid.from_affine(stack.shape, stack.affine()), chosen.name)
    data, digests, lost = read_voxels(stack, chosen.name, max_bytes, skip_unreadable=skip_unreadable)
    if lost:
        rest = _without(chosen, lost)
        return read_series(
            rest, resample_irregular=resample_irregular, max_bytes=max_bytes, smallest_axis=smallest_axis
        )
    affine, warnings = stack.affine(), list(chosen.warnings)
    if stack.problems:
        data, affine = straighten(data, stack, max_bytes, chosen.name)
        problems = "; ".join(problem.removeprefix("its ") for problem in stack.problems)
        warnings.append(f"{problems}: voxels were interpolated on a regular grid at right angles")
    return DicomVolume(
        data=data,
        grid=Grid.from_affine(data.shape, affine),
        sha256=chosen.digest_of(digests),
        warnings=[*warnings, *stack.warnings],
        modality=chosen.modality,
        frames=stack.frames,
        resampled=bool(stack.problems),
    )


def _without(series: Series, lost: Sequence[Member]) -> Series:
    """The series without files whose pixels cannot be decoded, and a warning."""
    instances = tuple(instance for instance in series.instances if instance.member not in lost)
    frames = tuple(frame for frame in series.frames if frame.member not in lost)
    note = f"{len(lost)} {Kind.DAMAGED.value} were left out"
    return replace(series, instances=instances, frames=frames, warnings=(*series.warnings, note))


def _checked_stack(series: Series, resample_irregular: bool, max_bytes: int, smallest_axis: int) -> Stack:
    stack = series.stack()
    _check_stack(stack, series.name, max_bytes, smallest_axis)
    if stack.problems and not resample_irregular:
        problems = "; ".join(stack.problems)
        raise InputError(f"{series.name}: {problems}; add missing files, or use --resample-irregular to interpolate")
    return stack


def _check_stack(stack: Stack, name: str, max_bytes: int, smallest_axis: int) -> None:
    size = 4 * np.prod(stack.shape, dtype=float)
    if size > max_bytes:
        raise InputError(
            f"{name}: its headers claim {size / 2**30:.3g} GB of voxels; the limit is {max_bytes / 2**30:.3g} GB; "
            "raise it with --max-gigabytes if the files can be trusted"
        )
    if min(stack.shape) < smallest_axis:
        raise InputError(
            f"{name}: has {' x '.join(map(str, stack.shape))} voxels; expected at least {smallest_axis} along each "
            "axis; give the whole series"
        )


def _order(instances: Sequence[Instance]) -> int:
    return min((i.series_number for i in instances if i.series_number is not None), default=2**31)


@dataclass(frozen=True)
class _Part:
    """One volume of a series; the attributes are those of `Series`."""

    uid: str
    part: int
    distinction: str
    instances: tuple[Instance, ...]
    frames: tuple[Frame, ...]
    problem: str | None
    warnings: tuple[str, ...]


def _parts_of(uid: str, instances: tuple[Instance, ...], skip_unreadable: bool) -> list[_Part]:
    """The volumes in the files of one series."""
    kept = tuple(instance for instance in instances if not instance.aside) or instances
    left_out = len(instances) - len(kept)
    warnings = (f"{left_out} localizer, screen or colour images in the series were left out",) if left_out else ()
    if any(instance.inverted for instance in kept):
        warnings += ("the series is to be shown dark for high (MONOCHROME1): its values were taken as stored",)
    usable = tuple(instance for instance in kept if not instance.problem)
    if skip_unreadable and usable and len(usable) < len(kept):
        warnings += (f"{len(kept) - len(usable)} {Kind.DAMAGED.value} were left out",)
        kept = usable
    problem = next((instance.problem for instance in kept if instance.problem), None)
    if problem is not None:
        return [_Part(uid, 0, "", kept, (), problem, warnings)]
    volumes = split_volumes([frame for instance in kept for frame in instance.frames])
    parts = []
    for number, (clauses, frames) in enumerate(volumes, 1):
        files = {frame.member for frame in frames}
        own = tuple(instance for instance in kept if instance.member in files)
        part = number if len(volumes) > 1 else 0
        parts.append(_Part(uid, part, ", ".join(clauses), own, tuple(frames), None, warnings))
    return parts
