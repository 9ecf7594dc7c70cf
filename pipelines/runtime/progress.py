"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any


class Meter:
    """Called with what is done and what there is in all.

    Args:
        what: shown before the numbers.
        every: seconds between lines where there is no terminal; None for no lines.
    """

    def __init__(self, what: str, every: float | None = 10.0) -> None:
        self.what, self.every, self.said = what, every, time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, count: int) -> None:
        """Show it; the bar goes when all is done."""
        if sys.stderr.isatty():
            self._show(done, count)
        elif self.every is not None and (done == count or time.monotonic() - self.said > self.every):
            self.said = time.monotonic()
            print(f"{self.what}: {done}/{count}", flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, done: int, count: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=count)
        self._bar.update(self._task, completed=done, total=count)
        if done >= count:
            self.close()
