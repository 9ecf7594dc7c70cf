"""Lines for a terminal: whatever a card, catalogue or file says, it stays one line of visible characters."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from shared_backbones.files import printable


def say(line: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a line, with control characters, line breaks and marks of direction escaped.

    Args:
        line: Text without a line break of its own.
        file: Stream; by default the standard output.
        flush: Whether it is to be seen at once.
    """
    print(printable(line), file=file, flush=flush)


class Output:
    """A standard stream that takes any text, and goes on without its reader.

    Characters that its encoding lacks are escaped. Once it cannot be written, as whoever read it has left or the disk
    is full, what follows is dropped, so that work is not lost for want of someone to tell.

    Attributes:
        failure: Why it cannot be written; None where it can, or where its reader has left.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False
        self.failure: OSError | None = None
        with contextlib.suppress(AttributeError, ValueError):  # a stream that a test put there
            getattr(stream, "reconfigure")(errors="backslashreplace")  # noqa: B009

    def write(self, text: str) -> int:
        """Write, or drop, a text."""
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        self._lost = True
        if isinstance(error, OSError) and error.errno != errno.EPIPE:
            self.failure = error
        with contextlib.suppress(OSError, ValueError, AttributeError):  # else the last flush would complain again
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[list[Output]]:
    """Standard output and errors as `Output`s while the block runs; a closed one takes all and shows nothing."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        kept = [Output(stream or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))) for stream in before]
        sys.stdout, sys.stderr = kept  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield kept
        finally:
            for stream in kept:
                stream.flush()
            sys.stdout, sys.stderr = before
