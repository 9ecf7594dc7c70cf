"""Scans that are found by the digest of their content, in every form that `medvision segment` reads."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.cli.medvision.scans import Scan, is_single
from medvision.dicom.files import holds_dicom
from medvision.dicom.series import Series, find_series
from medvision.volumes.channels import channel_groups
from medvision.volumes.names import SUFFIXES, is_scan_name, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import printable


@dataclass(frozen=True)
class KnownScans:
    """Scans of a folder that were asked for.

    Attributes:
        by_digest: the scans by the digest of their content.
        unread: a line for each input that cannot be read, and so may be one that was asked for.
    """

    by_digest: Mapping[str, Scan]
    unread: Sequence[str]


def find_by_content(folder: Path, digests: set[str], output: Path) -> KnownScans:
    """Scans at any depth of a folder, but for that of the output, by the digest of their content, as far as asked for.

    Files are looked at first, then those that are channels of one scan, then DICOM series: of each folder with such
    files, of each archive, and of all of them together. Damaged files beside the slices of a series are none of it.

    Raises:
        InputError: it is no folder, or contains no scan.
    """
    if not folder.is_dir():
        raise InputError(f"--inputs {printable(folder)}: no such folder; expected one with the scans")
    scans: dict[str, Scan] = {}
    unread: list[str] = []
    count = 0
    for scan in _scans_below(folder, unread, output):
        count += 1
        try:
            digest = scan.sha256()
        except InputError as error:
            unread.append(str(error))
            continue
        if digest in digests:
            scans.setdefault(digest, scan)
        if len(scans) == len(digests):
            break
    if not count and not unread:
        known = ", ".join(SUFFIXES)
        raise InputError(f"--inputs {printable(folder)}: contains no scan; expected {known}, or DICOM")
    return KnownScans(scans, list(dict.fromkeys(unread)))


def _scans_below(folder: Path, unread: list[str], output: Path) -> Iterator[Scan]:
    """Scans in every form; what cannot be looked into is added to `unread`."""
    files = list(_files_below(folder, unread, output))
    volumes = [[path for path in inside if is_scan_name(path)] for inside in files]
    for path in (path for inside in volumes for path in inside):
        yield Scan(path, scan_stem(path))
    for inside in volumes:
        for name, numbered in channel_groups(filter(is_single, inside)).items():
            first, *further = (numbered[number] for number in sorted(numbered))
            if further:
                yield Scan(first, name, further=tuple(further))
    archives = [path for inside in files for path in inside if path.suffix.lower() == ".zip"]
    places = [inside[0].parent for inside in files if any(map(_is_dicom, inside))]
    for place in [*places, *archives, *([folder] if len(places) > 1 else [])]:
        try:
            for each in _series_in(place, unread):
                yield Scan(place, place.stem, each)
        except InputError as error:
            unread.append(str(error))


def _series_in(place: Path, unread: list[str]) -> list[Series]:
    """The series in a place, without the files among their slices that cannot be read."""
    series = find_series(place)
    if all(each.refusal is None and each.problem is None for each in series):
        return series
    unread += [each.refusal for each in series if each.refusal is not None]
    return find_series(place, skip_unreadable=True)


def _files_below(folder: Path, unread: list[str], output: Path) -> Iterator[list[Path]]:
    """The files of each folder that has some, but for hidden folders and that of the output."""

    def note(error: OSError) -> None:
        unread.append(f"{printable(error.filename)}: cannot be listed ({error.strerror}); check its rights")

    for parent, children, names in os.walk(folder, onerror=note):  # does not walk into linked folders
        children[:] = sorted(
            child for child in children if not child.startswith(".") and Path(parent, child).resolve() != output
        )
        inside = [Path(parent, name) for name in sorted(names) if os.path.isfile(os.path.join(parent, name))]
        if inside:
            yield inside


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() != ".zip" and not path.name.startswith(".") and holds_dicom(path)
