"""A folder that scans come into one by one: which of them are there whole."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from medvision.dicom.files import holds_dicom
from medvision.volumes.names import is_scan_name
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_LONGEST_PAUSE = 2.0  # seconds between two looks
State: TypeAlias = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of change of the files of a scan."""


@dataclass
class _Seen:
    """What was there at the last look, and since when it has not changed."""

    state: State
    since: float
    is_taken: bool = False


@dataclass(frozen=True)
class Watch:
    """Looks into a folder again and again.

    Attributes:
        folder: the folder; files with names of scans and folders of DICOM files that lie directly in it are taken.
        without: a folder in it that is not looked into.
        settle: seconds for which something must not have changed before it is taken.
        idle: seconds without a change after which there is nothing more to come; None for ever.
    """

    folder: Path
    without: Path
    settle: float
    idle: float | None

    def arrivals(self) -> Iterator[Path]:
        """What is there whole, in the order of names; what is replaced later comes again.

        Raises:
            InputError: the folder cannot be listed any more.
        """
        seen: dict[Path, _Seen] = {}
        changed = time.monotonic()
        while True:
            now = time.monotonic()
            there = self._states()
            for path, state in there.items():
                if path not in seen or seen[path].state != state:
                    seen[path] = _Seen(state, now)
                    changed = now
            seen = {path: about for path, about in seen.items() if path in there}
            ready = [path for path, about in seen.items() if not about.is_taken and now - about.since >= self.settle]
            for path in ready:
                seen[path].is_taken = True
                if path.is_file() or self._is_series(path):
                    yield path
            if ready:
                changed = time.monotonic()
            elif self.idle is not None and now - changed >= max(self.idle, self.settle):
                return
            time.sleep(min(_LONGEST_PAUSE, self.settle / 2))

    def _states(self) -> dict[Path, State]:
        """What lies in the folder now, by name; what goes away meanwhile does not count."""
        try:
            entries = sorted(self.folder.iterdir())
        except OSError as error:
            raise InputError(
                f"{printable(self.folder)}: cannot be listed ({error.strerror}); check its rights"
            ) from None
        states = {path: _state(path) for path in entries if self._counts(path)}
        return {path: state for path, state in states.items() if state}

    def _counts(self, path: Path) -> bool:
        if path.name.startswith(".") or path.is_symlink():
            return False
        return path.resolve() != self.without.resolve() if path.is_dir() else is_scan_name(path)

    def _is_series(self, folder: Path) -> bool:
        """Whether a folder is one of DICOM files; others are none of ours."""
        try:
            return holds_dicom(folder)
        except InputError:
            return False


def _state(path: Path) -> State:
    """Names, sizes and times of a file, or of all files below a folder."""
    files = [path]
    if path.is_dir():
        files = sorted(Path(parent, name) for parent, _, names in os.walk(path) for name in names)
    state = []
    for file in files:
        try:
            about = file.stat()
        except OSError:  # it has just gone
            continue
        state.append((file.relative_to(path).as_posix(), about.st_size, about.st_mtime_ns))
    return tuple(state)
