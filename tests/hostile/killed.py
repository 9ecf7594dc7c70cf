"""Run calls in processes of their own that are ended by signals, wherever they are."""

import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.runtime.stopping import leave_at_interrupt

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Killed:
    """How a process ended.

    Attributes:
        code: exit code, negative for a signal.
        err: what it printed as errors.
        seconds: how long it ran.
    """

    code: int
    err: str
    seconds: float


@contextlib.contextmanager
def working(call: Callable[[int], int]) -> Iterator[int]:
    """Id of a process that runs a call, from when the call writes a byte to the descriptor that it is given."""
    ready, tells = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            code = call(tells)
        finally:
            os._exit(code)
    os.close(tells)  # of this process: the read ends where the child does
    os.read(ready, 1)
    os.close(ready)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def killed(call: Callable[[], int], number: int | None = None, after: float = 0.0) -> Killed:
    """Run a call, and send its process a signal after some seconds, unless it has ended."""
    with tempfile.TemporaryFile("w+b") as err:

        def run(ready: int) -> int:
            os.dup2(err.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            leave_at_interrupt()  # as the entry points do
            if "torch" in sys.modules:  # a fork has none of the threads that its parent's torch may count on
                sys.modules["torch"].set_num_threads(1)
            os.write(ready, b"x")
            try:
                return call()
            except BaseException:  # the parent looks at it
                traceback.print_exc()
                sys.stderr.flush()
                return 1

        started = time.monotonic()
        with working(run) as child:
            ended, status = os.waitpid(child, 0 if number is None else os.WNOHANG)
            while not ended and time.monotonic() < started + after:
                time.sleep(0.005)
                ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and number is not None:
                os.kill(child, number)
                _, status = os.waitpid(child, 0)
        err.seek(0)
        return Killed(os.waitstatus_to_exitcode(status), err.read().decode(), time.monotonic() - started)
