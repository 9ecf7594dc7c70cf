"""Preemption by a scheduler, a user or a closed terminal: its signals are noted, and obeyed where nothing is lost.

Imports almost nothing, because the handlers must be set before the slow imports of a training.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

EXIT_CODE = 128 + signal.SIGTERM
LEFT = "DOMAIN_VISION_LEFT"
"""Variable with the path of a file that is made on preemption: it tells a batch script to queue the job again."""

_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP)
_heard: tuple[signal.Signals, ...] = ()
_asked = _at_once = False


class Preempted(BaseException):
    """The process was preempted; what is done is kept, and the same command goes on from there."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Note SIGUSR1, SIGTERM and SIGHUP instead of ending at once.

    A batch job ignores the first two until they are heard here; SIGHUP that is ignored, as by `nohup`, stays so.
    """
    global _heard, _asked
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    _heard, _asked = tuple(before), False
    listen_again()
    try:
        yield
    finally:
        _heard, _asked = (), False
        for number, handler in before.items():
            signal.signal(number, handler)


def listen_again() -> None:
    """Set our handlers again after a library has set its own; does nothing outside `listening`."""
    for number in _heard:
        signal.signal(number, _note)


def asked() -> bool:
    """Whether the process was asked to stop."""
    return _asked


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """For work that can be restarted at any point: it is left as soon as the signal comes.

    Raises:
        Preempted: the process was asked to stop, before or now; also where a helper process failed because of that.
    """
    global _at_once
    before, _at_once = _at_once, True
    try:
        if _asked:
            raise Preempted
        yield
    except Exception as error:
        if _asked:
            raise Preempted from error
        raise
    finally:
        _at_once = before


def goodbye() -> str:
    """The last line of a preempted process; also makes the file that a batch script waits for."""
    if os.environ.get(LEFT):
        Path(os.environ[LEFT]).touch()
    return "preempted; the same command goes on from here"


def _note(number: int, frame: object) -> None:
    global _asked
    if _at_once and not _asked:
        _asked = True
        raise Preempted  # once: later signals change nothing
    _asked = True
