"""What GDAL would open beside a raster: side files of known kinds in the same folder, and the sources of VRT files."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from geovision.files import archive_of, exists, member_beginning, text_of
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

RASTERS = (".ovr", ".msk", ".msk.ovr", ".ovr.msk")
"""Endings of side files that are rasters: overviews and masks."""
NOTES = ".aux.xml"
"""Ending of the side file with GDAL's own notes: statistics, colours, georeferences."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WORLD = (".tfw", ".tifw", ".wld", ".jgw", ".jpgw", ".pgw", ".pngw", ".j2w", ".jp2w", ".tab", ".rpb", ".prj")
_WORDS = (
    "vrtdataset vrtrasterband srs geotransform metadata mdi description nodatavalue colorinterp colortable entry "
    "simplesource complexsource averagedsource sourcefilename sourceband sourceproperties srcrect dstrect nodata "
    "scaleoffset scaleratio lut exponent srcmin srcmax dstmin dstmax scale offset unittype categorynames category "
    "maskband gcplist gcp hidenodatavalue usemaskband blockxsize blockysize histograms histitem histmin histmax "
    "bucketcount includeoutofrange approximate histcounts"
)
_ELEMENTS = frozenset(_WORDS.split())
"""Elements of VRT files that are read, in small letters as GDAL takes either; others run code or reach elsewhere."""
_DEPTH = 4  # of VRT files that name each other


def check_side_files(path: Path) -> None:
    """Refuse side files with which GDAL would open other files or addresses.

    Raises:
        InputError: a mask or overview is no TIFF file, or notes name another file.
    """
    for beside in side_files(path):
        ending = beside.name.lower()
        if ending.endswith(RASTERS) and not beginning_of(beside).startswith(_TIFF):
            raise InputError(f"{printable(beside)}: is no TIFF file, expected a mask or overviews as one; move it away")
        if ending.endswith(NOTES):
            text = text_of(beside)
            if _names_files(text):
                raise InputError(
                    f"{printable(beside)}: names another file, expected notes on {printable(path.name)} alone; move it "
                    "away"
                )


def check_tags(source: "DatasetReader", path: Path) -> None:
    """Refuse a raster whose tags name another file for its overviews.

    Raises:
        InputError: they do.
    """
    for number in range(source.count + 1):
        if source.tags(number, ns="OVERVIEWS"):
            raise InputError(f"{printable(path)}: its tags name another file for overviews; expected them in it")


def side_files(path: Path) -> list[Path]:
    """Files beside a raster that GDAL reads with it, sorted."""
    endings = [(path.name, ending) for ending in (*RASTERS, NOTES)]
    endings += [(path.stem, ending) for ending in (*_WORLD, NOTES, "_rpc.txt")]
    beside = {path.with_name(f"{start}{end}") for start, ending in endings for end in (ending, ending.upper())}
    return sorted(file for file in beside - {path} if exists(file))


def vrt_sources(path: Path, depth: int = 0, home: Path | None = None) -> Iterator[Path]:
    """The files that a VRT file is made of, all below its own folder.

    Raises:
        InputError: it has parts that run code or reach other places, or its sources are no plain files there.
    """
    home = home or path.parent
    for element in _elements(path):
        if element.tag.lower() != "sourcefilename":
            continue
        source = (element.text or "").strip()
        relative = {key.lower(): value for key, value in element.attrib.items()}.get("relativetovrt") == "1"
        named = path.parent / source
        plain = relative and not Path(source).is_absolute() and ".." not in Path(source).parts
        if not plain or depth >= _DEPTH or "://" in source or not exists(named) or not _is_below(named, home):
            raise InputError(
                f"{printable(path)}: names {printable(source)!r}; expected a VRT of files that are there, below its "
                "folder and relative to it: build it anew"
            )
        yield named
        if beginning_of(named).lstrip().startswith(b"<"):
            yield from vrt_sources(named, depth + 1, home)
        else:
            check_side_files(named)


def _elements(path: Path) -> list[ElementTree.Element]:
    text = text_of(path)
    if "<!DOCTYPE" in text.upper():
        raise InputError(f"{printable(path)}: a VRT with a document type, which is not read; convert it to GeoTIFF")
    try:
        elements = list(ElementTree.fromstring(text).iter())  # noqa: S314 - without a document type, no entities
    except ElementTree.ParseError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error}); expected a VRT file: build it anew") from None
    for element in elements:
        if element.tag.lower() not in _ELEMENTS or _names_overviews(element):
            raise InputError(
                f"{printable(path)}: a VRT with {printable(element.tag)[:60]}, which is not read; convert it to GeoTIFF"
            )
    return elements


def _names_overviews(element: ElementTree.Element) -> bool:
    return any(value.upper() in ("OVERVIEWS", "OVERVIEW_FILE") for value in element.attrib.values())


def _names_files(text: str) -> bool:
    upper = text.upper()
    return any(
        word in upper for word in ("OVERVIEW_FILE", "/VSI", "SOURCEFILENAME", "SOURCEDATASET", "<!DOCTYPE", "&#")
    )


def _is_below(path: Path, folder: Path) -> bool:
    if archive_of(path) is not None:
        return path.is_relative_to(folder)
    return path.resolve().is_relative_to(folder.resolve())


def beginning_of(path: Path) -> bytes:
    """The first 64 bytes of a file, in an archive, too."""
    if archive_of(path) is None:
        with path.open("rb") as file:
            return file.read(64)
    return member_beginning(path, 64)
