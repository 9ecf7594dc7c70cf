"""Scans that are found by the digest of their content, in every form that `medvision segment` reads."""

import os
from collections.abc import Iterator
from pathlib import Path

from apps.cli.medvision.scans import Scan
from medvision.dicom.files import holds_dicom
from medvision.dicom.series import find_series
from medvision.volumes.channels import channel_groups
from medvision.volumes.files import SUFFIXES, is_scan_name, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def find_by_content(folder: Path, digests: set[str]) -> dict[str, Scan]:
    """Scans at any depth of a folder by the digest of their content, as far as that is asked for.

    Files are looked at first, then those that are channels of one scan, then DICOM series: of each folder with such
    files, of each archive, and of all of them together.

    Raises:
        InputError: it is no folder, or contains no scan.
    """
    if not folder.is_dir():
        raise InputError(f"--inputs {printable(folder)}: no such folder; expected one with the scans")
    scans: dict[str, Scan] = {}
    count = 0
    for scan in _scans_below(folder):
        count += 1
        try:
            digest = scan.sha256()
        except InputError:  # it cannot be the one that was read
            continue
        if digest in digests:
            scans.setdefault(digest, scan)
        if len(scans) == len(digests):
            break
    if not count:
        known = ", ".join(SUFFIXES)
        raise InputError(f"--inputs {printable(folder)}: contains no scan; expected {known}, or DICOM")
    return scans


def _scans_below(folder: Path) -> Iterator[Scan]:
    folders = [Path(parent) for parent in _below(folder)]
    files = [[path for path in sorted(parent.iterdir()) if path.is_file()] for parent in folders]
    volumes = [[path for path in inside if is_scan_name(path)] for inside in files]
    for path in (path for inside in volumes for path in inside):
        yield Scan(path, scan_stem(path))
    for inside in volumes:
        for name, numbered in channel_groups(inside).items():
            first, *further = (numbered[number] for number in sorted(numbered))
            if further:
                yield Scan(first, name, further=tuple(further))
    archives = [path for inside in files for path in inside if path.suffix.lower() == ".zip"]
    places = [parent for parent, inside in zip(folders, files, strict=True) if any(map(_is_dicom, inside))]
    for place in [*places, *archives, *([folder] if len(places) > 1 else [])]:
        try:
            series = find_series(place)
        except InputError:  # what cannot be read is not what was segmented
            continue
        for each in series:
            yield Scan(place, place.stem, each)


def _below(folder: Path) -> Iterator[str]:
    for parent, children, _ in os.walk(folder):  # does not walk into linked folders
        children[:] = sorted(child for child in children if not child.startswith("."))
        yield parent


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() != ".zip" and not path.name.startswith(".") and holds_dicom(path)
