"""FITS cut-outs of one object each: files, or a file for each band, known by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from astrovision.tables import PACKED
from shared_backbones.errors import InputError
from shared_backbones.files import printable

FITS = (".fits", ".fit", ".fts")
"""Endings of FITS files; each may be followed by `.fz`, `.gz`, `.bz2` or `.xz`."""


@dataclass(frozen=True)
class ObjectFiles:
    """The files of one object.

    Attributes:
        key: name of the object: that of its file without ending and band, or of its folder.
        files: one with all bands, or one for each band in the order of the bands.
        bands: names of the bands where files are named by them; None where the headers name them.
    """

    key: str
    files: tuple[Path, ...]
    bands: tuple[str, ...] | None = None


def is_fits(path: Path) -> bool:
    """Whether a file's name is that of a FITS file."""
    return _stem(path) != path.name or path.name.lower().endswith(".fz")


def by_band(files: Sequence[Path], bands: Sequence[str]) -> list[ObjectFiles] | None:
    """Objects of files that are named by object and band, such as `m51_g.fits` or `m51/g.fits`.

    None where names do not have all of the bands, or where all files are of one object.

    Args:
        files: FITS files.
        bands: names of the model's bands.
    """
    groups: dict[str, dict[str, Path]] = {}
    folders = len({path.parent for path in files}) > 1
    for path in files:
        key, band = _split(_stem(path), bands)
        if folders:
            key = path.parent.name
        if band is None or band in groups.setdefault(key, {}):
            return None
        groups[key][band] = path
    if len(groups) < 2 or any(len(group) < len(bands) for group in groups.values()):
        return None
    return [
        ObjectFiles(key, tuple(group[band] for band in bands), tuple(bands)) for key, group in sorted(groups.items())
    ]


def by_file(files: Sequence[Path]) -> list[ObjectFiles]:
    """Objects of one file each.

    Raises:
        InputError: two files differ in their endings alone.
    """
    objects: dict[str, ObjectFiles] = {}
    for path in files:
        key = _stem(path)
        if key in objects:
            raise InputError(
                f"{printable(path)}: has the name of {printable(objects[key].files[0].name)} but for the ending; "
                "expected one file for each object: leave one of them out"
            )
        objects[key] = ObjectFiles(key, (path,))
    return list(objects.values())


def object_named(objects: Mapping[str, ObjectFiles], name: str, label: str) -> ObjectFiles:
    """The object that a table names by its key, or by its file.

    Raises:
        InputError: there is none.
    """
    match = objects.get(name) or objects.get(_stem(Path(name)))
    if match is None:
        raise InputError(
            f"{label}: names {printable(name)[:60]}, but there is no FITS file of that name; fetch it, or leave it out "
            "of the table"
        )
    return match


def _stem(path: Path) -> str:
    """A file's name without the ending of a FITS file."""
    name = path.name
    if Path(name).suffix.lower() in (".fz", *PACKED):
        name = Path(name).stem
    return Path(name).stem if Path(name).suffix.lower() in FITS else path.name


def _split(stem: str, bands: Sequence[str]) -> tuple[str, str | None]:
    """A name without its last word that is a band, and that band."""
    words = re.split(r"([-_. ]+)", stem)
    by_name = {band.lower(): band for band in bands}
    for place in range(len(words) - 1, -1, -2):
        band = words[place] if words[place] in bands else by_name.get(words[place].lower())
        if band is not None:
            rest = words[:place] + words[place + 1 :]
            return "".join(rest).strip("-_. "), band
    return stem, None
