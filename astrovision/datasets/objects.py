"""FITS cut-outs of one object each: files, or a file for each band, known by their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from astrovision.bands import wavelength
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
    """Objects of files that are named by object and band, such as `m51_g.fits`, `m51/g.fits` or `g/m51.fits`.

    Files of other bands are passed over. None where names do not have bands, or where all files are of one object.

    Args:
        files: FITS files.
        bands: names of the model's bands.

    Raises:
        InputError: objects lack a band.
    """
    for name_of in (_by_name, _by_folder):
        named = [(path, *name_of(path, bands)) for path in files]
        ours = [(path, key, band) for path, key, band in named if band is not None and band in bands]
        groups: dict[str, dict[str, Path]] = {}
        for path, key, band in ours:
            groups.setdefault(key, {})[band] = path
        if any(band is None for _, _, band in named) or sum(map(len, groups.values())) < len(ours):
            continue
        if len(groups) < 2 or all(len(group) == 1 < len(bands) for group in groups.values()):
            continue
        for key, group in groups.items():
            if lacking := [band for band in bands if band not in group]:
                raise InputError(
                    f"{printable(next(iter(group.values())))}: {printable(key)[:60]} has no file of band "
                    f"{', '.join(lacking)}; expected one for each of {', '.join(bands)}: add it, or leave "
                    "the object out"
                )
        return [ObjectFiles(key, tuple(groups[key][band] for band in bands), tuple(bands)) for key in sorted(groups)]
    return None


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


def _by_name(path: Path, bands: Sequence[str]) -> tuple[str, str | None]:
    """Object and band of a file, the object by the folder where the name is that of a band alone."""
    key, band = _split(_stem(path), bands)
    return key or path.parent.name, band


def _by_folder(path: Path, bands: Sequence[str]) -> tuple[str, str | None]:
    """Object and band of a file in a folder that is named by the one or the other."""
    key, band = _split(_stem(path), bands)
    rest, of_folder = _split(path.parent.name, bands)
    return (path.parent.name, band) if rest or of_folder is None else (key or _stem(path), of_folder)


def _split(stem: str, bands: Sequence[str]) -> tuple[str, str | None]:
    """A name without its last word that is a band, of the model or another one, and that band."""
    words = re.split(r"([-_. ]+)", stem)
    by_name = {band.lower(): band for band in bands}
    places = range(len(words) - 1, -1, -2)
    own = [place for place in places if words[place].lower() in by_name]
    for place in own or [place for place in places if wavelength(words[place]) is not None]:
        rest = "".join(words[:place] + words[place + 1 :]).strip("-_. ")
        return rest, by_name.get(words[place].lower(), words[place])
    return stem, None
