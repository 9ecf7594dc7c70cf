"""Change sound files of every format at random, and read them with limits: `make fuzz`, for ten minutes.

    python -m tests.hostile.fuzz [SECONDS] [FORMAT ...]

A changed file that reaches lines of ours which none before it reached is changed further. What is found is kept in a
folder, whose name is printed; make a damage or a bomb of it in the corpus.
"""

import functools
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from shared_backbones.memory import set_budget
from tests.hostile.confined import confined
from tests.hostile.formats import FORMATS
from tests.hostile.test_corpus import BUDGET, check
from tests.test_words import SOURCES

_ROUND = 30  # changed files of a format before the next one's
_LONGEST = 2**20  # bytes of a file that is changed further
_OURS = frozenset(map(str, SOURCES))
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF)  # at which lengths and signs turn over


def edited(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Content after a few edits, of which half are near its beginning, where headers are; one takes from another's."""
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(min(len(content), chance.choice((400, 2**30))) or 1)
        size = chance.choice((1, 2, 4, 8, 64))
        noise = chance.choice((chance.randbytes(size), bytes([chance.choice(_NUMBERS)]) * size))
        content = chance.choice(
            (
                content[:at] + noise + content[at + size :],
                content[:at] + noise + content[at:],
                content[:at] + content[at + size :],
                content[:at],
                content[:at] + content[at:] + content[at : at + 4096],
                content[:at] + other[at:],
            )
        )
    return content[:_LONGEST]


def lines_reached(read: Callable[[Path], Any], path: Path, notes: Path) -> None:
    """Read a file, and note which lines of ours ran."""
    lines: set[str] = set()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in _OURS:
            return None
        lines.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    sys.settrace(trace)
    try:
        read(path)
    finally:
        sys.settrace(None)
        notes.write_text("\n".join(lines))


@dataclass
class Fuzzed:
    """A format, with the files that reached something new.

    Attributes:
        name: one of `FORMATS`.
        chance: where edits come from.
        contents: what changed files hold that reached new lines, and the sound one.
        lines: all that were reached.
    """

    name: str
    chance: random.Random
    contents: list[bytes] = field(default_factory=list)
    lines: set[str] = field(default_factory=set)

    def round(self, files: int = _ROUND) -> Path | None:
        """Read some changed files; where one does more than end in a line, the file."""
        make, readers = FORMATS[self.name]
        home = Path(tempfile.mkdtemp(prefix="fuzz-"))
        path, notes = make(home), home / "out/lines"
        notes.parent.mkdir()
        sound = path.read_bytes()
        for number in range(files):
            content, other = (self.chance.choice([sound, *self.contents]) for _ in range(2))
            content = sound if not self.contents and number == 0 else edited(content, other, self.chance)
            path.write_bytes(content)
            for reader in readers:
                notes.unlink(missing_ok=True)
                try:
                    check(confined(functools.partial(lines_reached, reader, path, notes), home / "out"))
                except AssertionError as error:
                    print(f"{self.name}: {path}\n{str(error)[-2000:]}", flush=True)
                    return path
                reached = set(notes.read_text().splitlines())
                if not reached <= self.lines:
                    self.lines |= reached
                    self.contents.append(content)
        for folder in sorted(home.rglob("*"), reverse=True):
            folder.rmdir() if folder.is_dir() else folder.unlink()
        home.rmdir()
        return None


def main(arguments: list[str]) -> int:
    """Fuzz until the time is over; 1 where something was found."""
    end = time.monotonic() + float(arguments[0] if arguments else 600)
    set_budget(BUDGET)
    chance = random.Random()  # noqa: S311 - no secret
    formats = [Fuzzed(name, chance) for name in arguments[1:] or FORMATS]
    findings, rounds = 0, 0
    for fuzzed in itertools.cycle(formats):
        if time.monotonic() > end:
            break
        findings, rounds = findings + (fuzzed.round() is not None), rounds + 1
    for fuzzed in formats:
        print(f"{fuzzed.name}: {len(fuzzed.contents)} files reached {len(fuzzed.lines)} lines")
    print(f"{rounds} rounds of {_ROUND} files, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
