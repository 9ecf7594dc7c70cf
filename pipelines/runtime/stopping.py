"""The end of a process by SIGINT, SIGTERM or SIGHUP, as an exception, so that what it has begun is taken away."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_INTERRUPTED = b"error: interrupted; nothing was left half-written\n"


class Terminated(BaseException):
    """A signal asks the process to end.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def leave_at_interrupt() -> None:
    """Let SIGINT end this process with one line and 130, unless it is ignored: nothing is begun yet."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


def leave_interrupts_to_parent() -> None:
    """Ignore SIGINT, which a terminal sends to all processes of a program: the one that started this one ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at SIGINT, and `Terminated` at SIGTERM and SIGHUP, once: what comes later is ignored.

    Signals that someone ignores or listens to are left alone.

    Raises:
        KeyboardInterrupt: SIGINT came.
        Terminated: another signal came.
    """
    owner, before = os.getpid(), {}

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child has nothing to take away
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _leave):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, _INTERRUPTED)
    os._exit(128 + number)
