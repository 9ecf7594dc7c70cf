"""Change sound files of every format at random, and read them with limits: `make fuzz`, for ten minutes.

    python -m tests.hostile.fuzz [SECONDS] [FORMAT ...]

What it finds is kept in a folder, whose name it prints; make a damage or a bomb of it in the corpus.
"""

import functools
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared_backbones.memory import set_budget
from tests.hostile.confined import confined
from tests.hostile.formats import FORMATS
from tests.hostile.test_corpus import BUDGET, check

_ROUND = 30  # examples of a format before the next one's
_PLACES = st.one_of(st.integers(0, 400), st.integers(0, 2**20))
_VALUES = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 255]))
_EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _PLACES, st.lists(_VALUES, min_size=1, max_size=8)),
        st.tuples(st.just("cut"), _PLACES, st.just([])),
        st.tuples(st.just("insert"), _PLACES, st.lists(_VALUES, min_size=1, max_size=64)),
        st.tuples(st.just("double"), _PLACES, st.just([])),
    ),
    min_size=1,
    max_size=6,
)
Edit = tuple[str, int, list[int]]


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """Content after edits, each at a place counted around from the beginning."""
    for kind, place, values in edits:
        at, new = place % max(1, len(content)), bytes(values)
        if kind == "set":
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        else:
            content = content[:at] if kind == "cut" else content[:at] + content[at:] + content[at : at + 4096]
    return content


def fuzz_format(name: str) -> Path | None:
    """Read some changed files of a format; where one does more than end in a line, the folder that it is in."""
    make, readers = FORMATS[name]
    home = Path(tempfile.mkdtemp(prefix="fuzz-"))
    path = make(home)
    sound, found = path.read_bytes(), home / "found"

    @settings(
        max_examples=_ROUND, database=None, deadline=None, derandomize=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(_EDITS)
    def one(edits: list[Edit]) -> None:
        path.write_bytes(edited(sound, edits))
        for reader in readers:
            try:
                check(confined(functools.partial(reader, path), home / "out"))
            except AssertionError:
                found.write_bytes(path.read_bytes())
                raise

    try:
        one()
    except AssertionError as error:
        print(f"{name}: {found}\n{str(error)[-2000:]}", flush=True)
        return found
    shutil.rmtree(home)
    return None


def main(arguments: list[str]) -> int:
    """Fuzz until the time is over; 1 where something was found."""
    end = time.monotonic() + float(arguments[0] if arguments else 600)
    set_budget(BUDGET)
    findings, rounds = 0, 0
    for name in itertools.cycle(arguments[1:] or FORMATS):
        if time.monotonic() > end:
            break
        findings, rounds = findings + (fuzz_format(name) is not None), rounds + 1
    print(f"{rounds} rounds of {_ROUND} files, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
