"""Where the DICOM files of an input are: a folder at any depth, a zip archive, or a single file."""

import io
import mmap
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from medvision.dicom.recognition import HEAD, Kind, Unread, counted, kind_of
from medvision.volumes.names import is_dead_link, is_scan_name
from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable

MOST_FILES = 100_000  # in a folder or an archive; a study has a few thousand
MOST_EXPANSION = 200  # bytes unpacked for one packed; images compress to a tenth at best, bombs to a thousandth
_SMALL = 64 * 2**20  # bytes unpacked below which any expansion is harmless
_NAMES = (".dcm", ".ima", ".zip")
_CONTAINERS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes before the first byte is out


Stream = io.BytesIO | mmap.mmap
"""A file's bytes, in memory or mapped."""


@dataclass(frozen=True)
class Member:
    """A DICOM file of an input; a key of its own in a mapping, as names may be alike once they are printable.

    Attributes:
        name: how errors call it, fit to be printed.
        folder: where it lies.
        size: bytes, unpacked.
        open: gives a stream of exactly these bytes, for a `with` block.
    """

    name: str
    folder: str
    size: int
    open: Callable[[], Stream]


def holds_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a path is to be read as DICOM: a file that begins like one, named `.dcm` or `.zip`, or a folder of such.

    A folder that holds scans in other formats (`.nii.gz` and so on) directly is a folder of scans; its subfolders are
    not looked into.

    Raises:
        InputError: a folder that holds both directly, or too many files.
    """
    path = Path(path)
    if not os.path.isdir(path):  # and not Path's own method, which raises for names that cannot be
        return os.path.isfile(path) and (path.suffix.lower() in _NAMES or _looks_dicom(path))
    others = _volumes_in(path)
    if not others:
        return any(kind in (None, Kind.PACKED) for _, kind in _files_below(path))
    direct = next((file for file in sorted(path.iterdir()) if file.is_file() and _looks_dicom(file)), None)
    if direct is None:
        return False
    raise InputError(
        f"{printable(path)}: holds both DICOM files ({printable(direct.name)}) and other scans "
        f"({printable(others[0])}); expected one kind; move one of them to a folder of its own"
    )


def find_members(path: str | os.PathLike[str], max_bytes: int) -> tuple[list[Member], list[Unread]]:
    """The DICOM files of an input, sorted by name, and the other files there.

    Args:
        path: a folder, a zip archive or a DICOM file.
        max_bytes: most that an archive may unpack to, and that a file may have.

    Raises:
        InputError: none there, or an archive that is damaged, unsafe or too large.
    """
    path, name = Path(path), printable(path)
    unread: list[Unread] = []
    try:
        if os.path.isdir(path):
            members = []
            for file, kind in sorted(_files_below(path)):
                if kind is None:
                    members.append(_local(file, printable(file)))
                else:
                    unread.append(Unread(printable(file), str(file.parent), kind))
        elif _is_zip(path):
            members, unread = _in_archive(path, name, max_bytes)
        else:
            members = [_local(path, name)] if kind_of(_head(path)) is None else []
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    if not members:
        raise InputError(
            f"{name}: contains no DICOM file{_instead(unread)}; expected files with DICM at byte 128; check the path"
        )
    largest = max(members, key=lambda member: member.size)
    if largest.size > max_bytes:
        raise InputError(
            f"{largest.name}: has {largest.size / 2**30:.3g} GB; the limit is {max_bytes / 2**30:.3g} GB; "
            "raise it with --max-gigabytes if the file can be trusted"
        )
    return members, unread


def _instead(unread: list[Unread]) -> str:
    """What there is where no DICOM file is."""
    if not unread:
        return ""
    annexed = ", as in a DataLad data set before `datalad get`" if any(e.kind is Kind.DEAD_LINK for e in unread) else ""
    return f", but {counted(unread)}{annexed}"


def _head(path: Path) -> bytes:
    check_regular(path)  # a pipe would never end
    with path.open("rb") as file:
        return file.read(HEAD)


def _looks_dicom(path: Path) -> bool:
    try:
        return kind_of(_head(path)) is None
    except OSError:
        return False


def _is_zip(path: Path) -> bool:
    check_regular(path)
    return path.suffix.lower() == ".zip" and (zipfile.is_zipfile(path) or _head(path).startswith(b"PK\3\4"))


def _volumes_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file() and is_scan_name(entry))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); expected a folder") from None


def _files_below(folder: Path) -> Iterator[tuple[Path, Kind | None]]:
    """Files at any depth, and why each is not read: None for DICOM files. Hidden ones are left out.

    A DICOMDIR is a DICOM file like others, and contains no image: where its records point to is never followed.
    """
    inside, seen = folder.resolve(), 0

    def refuse(error: OSError) -> NoReturn:
        where = printable(error.filename or folder)
        raise InputError(f"{where}: cannot be read ({error.strerror}); check its rights, or move it away") from None

    for parent, folders, names in os.walk(folder, onerror=refuse):  # does not walk into linked folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > MOST_FILES:
                raise InputError(
                    f"{printable(folder)}: holds more than {MOST_FILES} files; expected a study; give its own folder"
                )
            file = Path(parent, name)
            if name.startswith("."):
                continue
            try:
                if is_dead_link(file):
                    yield file, Kind.DEAD_LINK
                elif file.is_symlink() and not file.resolve().is_relative_to(inside):
                    yield file, Kind.OUTWARD_LINK
                elif file.is_file():
                    yield file, kind_of(_head(file))
            except OSError as error:  # it may be a slice, so that it cannot be left out
                refuse(error)


def _local(path: Path, name: str) -> Member:
    def open_mapped() -> Stream:
        # a map never allocates what a hostile length asks for, as a buffered read does
        try:
            with path.open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # gone, closed to the user, or emptied since
            reason = getattr(error, "strerror", None) or "it is empty"
            raise InputError(f"{name}: cannot be read ({reason}); check the file and its rights") from None

    return Member(name, str(path.parent), path.stat().st_size, open_mapped)


def _in_archive(path: Path, name: str, max_bytes: int) -> tuple[list[Member], list[Unread]]:
    """DICOM members of a zip archive, and the others. Nothing is extracted: each is read into memory when needed."""
    members, unread = [], []
    try:
        archive = zipfile.ZipFile(path)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_entries(entries, path.stat().st_size, name, max_bytes)
        for entry in sorted(entries, key=lambda entry: entry.filename):
            file = PurePosixPath(entry.filename)
            if file.name.startswith("."):
                continue
            with archive.open(entry) as stream:
                kind = kind_of(stream.read(HEAD))
            where = f"{name}: {printable(entry.filename)}"
            if kind is None:
                members.append(_packed(archive, entry, where))
            else:
                unread.append(Unread(where, str(file.parent), kind))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise InputError(f"{name}: is a damaged zip archive; copy or pack it again") from None
    return members, unread


def _packed(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Member:
    def unpack() -> Stream:
        try:
            return io.BytesIO(archive.read(entry))  # no more than the size that was checked; its CRC is checked here
        except Exception:  # zlib's, zipfile's and the system's errors for damaged bytes make no closed list
            raise InputError(f"{name}: is damaged in the archive; copy or pack it again") from None

    return Member(name, str(PurePosixPath(entry.filename).parent), entry.file_size, unpack)


def _check_entries(entries: list[zipfile.ZipInfo], packed: int, name: str, max_bytes: int) -> None:
    if len(entries) > MOST_FILES:
        raise InputError(f"{name}: holds {len(entries)} files; expected at most {MOST_FILES}; unpack what is needed")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputError(f"{name}: holds two members of one name; expected one of each; unpack what is needed")
    for entry in entries:
        file = entry.filename.replace("\\", "/")
        kind = entry.external_attr >> 16
        odd = (
            "an absolute path" if file.startswith("/") or file[1:2] == ":"
            else "a path that leaves the archive" if ".." in file.split("/")
            else "a link" if stat.S_ISLNK(kind)
            else "a special file" if stat.S_IFMT(kind) and not stat.S_ISREG(kind)
            else "encrypted" if entry.flag_bits & 1
            else "packed in an unusual way" if entry.compress_type not in _CONTAINERS
            else None
        )  # fmt: skip
        if odd:
            raise InputError(
                f"{name}: its member {printable(entry.filename)} is {odd}; expected plain files; "
                "unpack it with a program you trust, and give the folder"
            )
    total = sum(entry.file_size for entry in entries)
    if total > _SMALL and total > MOST_EXPANSION * packed:
        raise InputError(
            f"{name}: {packed / 2**20:.3g} MB unpack to {total / 2**20:.3g} MB; expected at most {MOST_EXPANSION} "
            "times as much; unpack it yourself if it can be trusted, and give the folder"
        )
    if total > max_bytes:
        raise InputError(
            f"{name}: unpacks to {total / 2**30:.3g} GB; the limit is {max_bytes / 2**30:.3g} GB; "
            "raise it with --max-gigabytes if the file can be trusted"
        )
