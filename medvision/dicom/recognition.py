"""What a file of a folder or an archive is, from its first bytes, and what is said of those that are not read."""

import bz2
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath

HEAD = 1024
"""Bytes that `kind_of` needs of a file's beginning."""
_PREAMBLE = 128
_MAGIC = b"DICM"
_FIRST_GROUPS = (0x0002, 0x0008)  # of a data set, or of the header before it
_HIGHEST_ELEMENT = 0x1200  # of a first attribute
_REPRESENTATIONS = b"AE CS DA DT IS LO OB PN SH SQ ST TM UI UL UN US".split()
_KNOWN_SUFFIXES = {
    ".bmp", ".csv", ".db", ".doc", ".docx", ".exe", ".gif", ".gz", ".htm", ".html", ".inf", ".ini", ".jpeg", ".jpg",
    ".json", ".log", ".md", ".pdf", ".png", ".rtf", ".tif", ".tiff", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml",
    ".yml", ".zip", ".zst",
}  # fmt: skip
_LONGEST_FIRST = 64  # bytes of a first attribute, such as a UID


class Kind(Enum):
    """Why a file is not read; the value is how several are called."""

    EMPTY = "empty files"
    PACKED = "packed DICOM files"
    DAMAGED = "damaged DICOM files"
    DEAD_LINK = "links to files that are not there"
    OUTWARD_LINK = "links that lead out of the folder"
    IMAGELESS = "DICOM files without images"
    OTHER = "files that are no DICOM"

    @property
    def may_be_a_slice(self) -> bool:
        """Whether a slice may be lost with it."""
        return self in (Kind.EMPTY, Kind.PACKED, Kind.DAMAGED, Kind.DEAD_LINK)


@dataclass(frozen=True)
class Unread:
    """A file that is not read.

    Attributes:
        name: how errors call it, fit to be printed.
        folder: where it lies.
        kind: why.
        reason: the same in words, where there is more to say.
    """

    name: str
    folder: str
    kind: Kind
    reason: str | None = None


def kind_of(head: bytes) -> Kind | None:
    """Why a file is not read that begins with these bytes, up to `HEAD` of them; None for a DICOM file."""
    if not head:
        return Kind.EMPTY
    if _is_dicom(head):
        return None
    return Kind.PACKED if _is_dicom(_unpacked(head)) else Kind.OTHER


def has_preamble(head: bytes) -> bool:
    """Whether a file begins as the standard says: 128 bytes of anything, then DICM."""
    return head[_PREAMBLE : _PREAMBLE + 4] == _MAGIC


def counted(unread: Iterable[Unread]) -> str:
    """How many there are of each kind, as in "2 empty files, 3 files that are no DICOM (.txt)"."""
    by_kind = Counter(entry.kind for entry in unread)
    suffixes = sorted({_suffix(entry.name) for entry in unread if entry.kind is Kind.OTHER})
    listed = f" ({', '.join(suffixes)})"
    return ", ".join(
        f"{by_kind[kind]} {kind.value}{listed if kind is Kind.OTHER else ''}" for kind in Kind if by_kind[kind]
    )


def _suffix(name: str) -> str:
    """A suffix that tells nothing but a format; a name may have any."""
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in _KNOWN_SUFFIXES else "others"


def _is_dicom(head: bytes) -> bool:
    return has_preamble(head) or _begins_with_an_attribute(head)


def _begins_with_an_attribute(head: bytes) -> bool:
    """Whether a data set begins at once, without preamble: a low group and element, then a type or a small length."""
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[place : place + 2], order) for place in (0, 2))
        length = int.from_bytes(head[4:8], order)
        if group in _FIRST_GROUPS and element <= _HIGHEST_ELEMENT and len(head) > 8:
            return head[4:6] in _REPRESENTATIONS or (0 < length <= _LONGEST_FIRST and length % 2 == 0)
    return False


def _unpacked(head: bytes) -> bytes:
    """The first bytes of what a packed file contains; nothing where it is not packed, or cannot be unpacked."""
    starts: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda packed: zlib.decompressobj(31).decompress(packed, HEAD),
        b"BZh": lambda packed: bz2.BZ2Decompressor().decompress(packed, HEAD),
        b"\xfd7zXZ": lambda packed: lzma.LZMADecompressor(memlimit=2**26).decompress(packed, HEAD),
        b"PK\3\4": _first_member,
    }
    for magic, unpack in starts.items():
        if head.startswith(magic):
            with suppress(zlib.error, OSError, ValueError, lzma.LZMAError, EOFError):
                return unpack(head)
    return b""


def _first_member(head: bytes) -> bytes:
    """The first bytes of the first file in a zip archive."""
    method, start = (
        int.from_bytes(head[8:10], "little"),
        30 + sum(int.from_bytes(head[place : place + 2], "little") for place in (26, 28)),
    )
    return zlib.decompressobj(-15).decompress(head[start:], HEAD) if method == 8 else head[start:]
