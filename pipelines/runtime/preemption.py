"""Being told to leave, by a scheduler or a user: SIGUSR1 and SIGTERM are noted, and obeyed where nothing is lost.

Imports next to nothing, as handlers must stand before the slow imports of a training.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

EXIT_CODE = 128 + signal.SIGTERM
LEFT = "DOMAIN_VISION_LEFT"
"""Variable with the path of a file that is made on leaving: it tells a batch script that the job wants to go on."""

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_listening = _asked = _at_once = False


class Preempted(BaseException):
    """The process was told to leave; what is done is kept, and the same command goes on from there."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Note SIGUSR1 and SIGTERM, in place of ending at once."""
    global _listening, _asked
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _listening, _asked = True, False
    listen_again()
    try:
        yield
    finally:
        _listening = _asked = False
        for number, handler in before.items():
            signal.signal(number, handler)


def listen_again() -> None:
    """Take the signals back from a library that has put handlers of its own there; nothing outside `listening`."""
    if _listening:
        for number in _SIGNALS:
            signal.signal(number, _note)


def asked() -> bool:
    """Whether the process was told to leave."""
    return _asked


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Work that goes on by itself when it is begun again: it is left the moment the signal comes.

    Raises:
        Preempted: the process was told to leave, before or now. So is whatever fails because helpers were told, too.
    """
    global _at_once
    _at_once = True
    try:
        if _asked:
            raise Preempted
        yield
    except Exception as error:
        if _asked:
            raise Preempted from error
        raise
    finally:
        _at_once = False


def goodbye() -> str:
    """What to say on leaving; also makes the file that a batch script waits for."""
    if os.environ.get(LEFT):
        Path(os.environ[LEFT]).touch()
    return "told to leave; the same command goes on from here"


def _note(number: int, frame: object) -> None:
    global _asked
    if _at_once and not _asked:
        _asked = True
        raise Preempted  # once: while leaving, more signals change nothing
    _asked = True
