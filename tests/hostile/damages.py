"""Ways in which any file goes wrong, each a change of a sound one; all are harmless."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.hostile.sound_files import fifo


def _cut(share: float) -> Callable[[Path], Path]:
    def damage(path: Path) -> Path:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return damage


def _flipped(seed: int, share: float = 0.02) -> Callable[[Path], Path]:
    def damage(path: Path) -> Path:
        content, chance = bytearray(path.read_bytes()), random.Random(seed)  # noqa: S311 - no secret
        for _ in range(max(1, int(len(content[:4096]) * share))):
            content[chance.randrange(min(len(content), 4096))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        return path

    return damage


def _of(content: bytes) -> Callable[[Path], Path]:
    def damage(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return damage


def _begun(path: Path) -> Path:
    """The beginning is there, and zeros in place of the rest."""
    content = path.read_bytes()
    path.write_bytes(content[:64].ljust(len(content), b"\0"))
    return path


def _folder(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def _dead_link(path: Path) -> Path:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))
    return path


def _loop(path: Path) -> Path:
    path.unlink()
    path.symlink_to(path)
    return path


def _odd_name(path: Path) -> Path:
    """The name has an escape sequence, a line break and a mark of direction in it, and the file is cut short."""
    target = path.with_name(f"\x1b[2Ja\nb\u202ec{''.join(path.suffixes)}")
    os.replace(_cut(0.4)(path), target)
    return target


def _absent(path: Path) -> Path:
    path.unlink()
    return path


def _long_name(path: Path) -> Path:
    """A name beyond what a system takes."""
    return path.with_name(f"{'a' * 300}{''.join(path.suffixes)}")


DAMAGES: dict[str, Callable[[Path], Path]] = {
    "empty": _cut(0),
    "cut at a tenth": _cut(0.1),
    "cut in the middle": _cut(0.5),
    "cut at the end": _cut(0.97),
    "bits flipped": _flipped(1),
    "many bits flipped": _flipped(2, 0.2),
    "zeros": _begun,
    "noise": _of(bytes(random.Random(3).randbytes(3000))),  # noqa: S311 - no secret
    "text": _of(b"<html><body>404 Not Found</body></html>\n"),
    "deep brackets": _of(b"[" * 200_000),
    "a folder": _folder,
    "a dead link": _dead_link,
    "a link to itself": _loop,
    "a pipe": fifo,
    "an odd name": _odd_name,
    "absent": _absent,
    "a long name": _long_name,
}
"""By name: what changes a sound file in place, and gives its path."""
