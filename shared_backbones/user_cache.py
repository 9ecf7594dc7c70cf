"""The user's cache: models that were fetched, and networks that were compiled for this machine."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.work_folders import PREFIX

ENGINES = "engines"
"""Folder of the cache with networks that an engine converted."""


@dataclass(frozen=True)
class Kept:
    """A folder of the cache.

    Attributes:
        kind: `model`, or `engine` for a network that an engine converted.
        path: the folder.
        size: bytes in it.
        used: when it was used last, in seconds since 1970.
    """

    kind: str
    path: Path
    size: int
    used: float


def cache_folder() -> Path:
    """The folder `domain-vision` in the user's cache, be it there or not.

    Raises:
        InputError: this user has no home; the line names `XDG_CACHE_HOME`.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "domain-vision"
    except RuntimeError:
        raise InputError("this user has no home to keep models in; name a folder in XDG_CACHE_HOME") from None


def kept() -> list[Kept]:
    """What the cache holds, what was used last first."""
    folder = cache_folder()
    kinds = ((folder, "model"), (folder / ENGINES, "engine"))
    entries = [
        Kept(kind, path, folder_size(path), path.stat().st_mtime)
        for parent, kind in kinds
        if parent.is_dir()
        for path in parent.iterdir()
        if path.is_dir() and not path.is_symlink() and path.name != ENGINES and not path.name.startswith(PREFIX)
    ]
    return sorted(entries, key=lambda entry: -entry.used)


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drop(entry: Kept) -> None:
    """Remove a folder of the cache, which is made or fetched anew when it is needed.

    Raises:
        OSError: it cannot be removed.
    """
    shutil.rmtree(entry.path)
