"""Where the files of a scene lie: in a folder, or in a zip or tar archive that is read in place."""

import lzma
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable

ARCHIVES = {".zip": "vsizip", ".tar": "vsitar", ".tgz": "vsitar", ".gz": "vsitar"}
"""Endings of archives, with the names under which GDAL reads into them; of `.gz` only `.tar.gz`."""
_LARGEST_TEXT = 8 * 2**20  # of a metadata file
_DEPTH = 6  # of folders below a product's
_MOST_FILES = 100_000
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in an archive.

    Attributes:
        root: the folder, or the archive; GDAL's name of it.
        names: paths of the files below it, with slashes.
    """

    root: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Path of a file, which `open_raster` takes."""
        return self.root / name

    def text(self, name: str) -> str:
        """A metadata file, up to 8 MiB of it.

        Raises:
            InputError: it cannot be read.
        """
        return text_of(self.path(name))

    def inside(self, folder: str) -> "Tree":
        """The files below a folder of the tree."""
        start = f"{folder}/"
        kept = tuple(name.removeprefix(start) for name in self.names if name.startswith(start))
        return Tree(self.root / folder, kept)


def is_archive(path: Path) -> bool:
    """Whether a path has the ending of an archive and is a file."""
    ending = path.suffix.lower()
    return ending in ARCHIVES and (ending != ".gz" or path.stem.lower().endswith(".tar")) and os.path.isfile(path)


def located(path: Path) -> Path:
    """A path as GDAL is given it: what a user writes as `/vsizip/a.zip/b.tif` names the archive in braces.

    Raises:
        InputError: another of GDAL's virtual file systems, such as one that reaches into a network; or no archive.
    """
    text = path.as_posix()
    if not text.startswith("/vsi") or "{" in text:
        return path
    kind, _, rest = text[1:].partition("/")
    if kind not in set(ARCHIVES.values()):
        raise InputError(
            f"{printable(path)}: no such file or folder; of GDAL's virtual file systems, /vsizip/ and /vsitar/ are read"
        )
    for start in (rest, f"/{rest}"):
        parts = PurePosixPath(start).parts
        for count in range(1, len(parts) + 1):
            archive = Path(*parts[:count])
            if archive.is_file():
                return Path(f"/{kind}/{{{archive.absolute().as_posix()}}}", *parts[count:])
    raise InputError(f"{printable(path)}: no such file or folder; expected an archive that is there, and a file in it")


def archive_of(path: Path) -> Path | None:
    """The archive that a path of GDAL's reads into; None for a plain file."""
    text = path.as_posix()
    return Path(text.partition("{")[2].partition("}")[0]) if text.startswith("/vsi") and "}" in text else None


def exists(path: Path) -> bool:
    """Whether there is such a file, in an archive, too."""
    archive = archive_of(path)
    return os.path.isfile(path) if archive is None else _inside(path) in _members(archive)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, in an archive, too."""
    return os.path.isdir(path) if archive_of(path) is None else bool(tree_of(path).names)


def files_in(folder: Path) -> list[str]:
    """Names of the files in a folder, in an archive, too; none where it cannot be read."""
    if archive_of(folder) is not None:
        return [name for name in tree_of(folder).names if "/" not in name]
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return []


def tree_of(path: Path) -> Tree:
    """The files below a folder or in an archive.

    Raises:
        InputError: the archive is damaged.
    """
    if os.path.isdir(path):
        listed: list[str] = []
        folders = [(path, 0)]
        while folders and len(listed) < _MOST_FILES:
            folder, depth = folders.pop()
            for entry in sorted(folder.iterdir()):
                if entry.is_dir() and not entry.is_symlink() and depth < _DEPTH:
                    folders.append((entry, depth + 1))
                elif entry.is_file():
                    listed.append(entry.relative_to(path).as_posix())
        return Tree(path, tuple(sorted(listed)))
    archive, folder = archive_of(path) or path, _inside(path)
    names = tuple(sorted(_members(archive)))
    root = Path(f"/{ARCHIVES[archive.suffix.lower()]}/{{{archive.absolute().as_posix()}}}")
    if folder:
        return Tree(root, names).inside(folder)
    tops = {name.partition("/")[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):  # a product's folder, packed as a whole
        return Tree(root, names).inside(tops.pop())
    return Tree(root, names)


def text_of(path: Path) -> str:
    """A text file, up to 8 MiB of it, in an archive, too.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if archive_of(path) is None:
            check_regular(path)
            with path.open("rb") as file:
                return file.read(_LARGEST_TEXT).decode("utf-8", "replace")
        return member_beginning(path, _LARGEST_TEXT).decode("utf-8", "replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{printable(path)}: cannot be read ({reason}); use a complete copy of the product") from None


def member_beginning(path: Path, count: int) -> bytes:
    """The first bytes of a file in an archive.

    Raises:
        OSError: it cannot be read.
    """
    archive, name = archive_of(path) or path, _inside(path)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed, packed.open(name) as member:
                return member.read(count)
        with tarfile.open(archive) as packed:
            known = {entry.name.removeprefix("./"): entry for entry in packed if entry.isfile()}
            member = packed.extractfile(known[name])
            return member.read(count) if member else b""
    except (KeyError, RuntimeError, NotImplementedError, *_DAMAGE) as error:
        raise OSError(str(error)) from None


def _inside(path: Path) -> str:
    """Where a path of GDAL's leads to in its archive."""
    return path.as_posix().partition("}/")[2]


def _members(archive: Path) -> frozenset[str]:
    """Names of the files in an archive.

    Raises:
        InputError: it is damaged, or no archive.
    """
    about = archive.stat()
    return _listed(archive, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=8)
def _listed(archive: Path, _time: int, _size: int) -> frozenset[str]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                return frozenset(entry.filename for entry in packed.infolist() if not entry.is_dir())
        with tarfile.open(archive) as packed:
            return frozenset(entry.name.removeprefix("./") for entry in packed if entry.isfile())
    except (OSError, *_DAMAGE) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise InputError(
            f"{printable(archive)}: cannot be read ({reason}); expected a whole zip or tar archive"
        ) from None
