"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a program without a terminal needs no rich
    from rich.progress import Progress, TaskID

_SECONDS = 10.0  # between lines


class Meter:
    """Progress of one piece of work; called with how much is done and how much there is in all.

    Args:
        what: Name of the work, shown before the numbers.
        lines: Whether there are lines, one in ten seconds, where there is no terminal.
    """

    def __init__(self, what: str, *, lines: bool = True) -> None:
        self.what, self.lines, self.said = what, lines, time.monotonic()
        self._bar: tuple[Progress, TaskID] | None = None

    def __call__(self, done: int, count: int) -> None:
        """Show the progress; the bar disappears when all is done."""
        if sys.stderr.isatty():
            self._show(done, count)
        elif self.lines and (done == count or time.monotonic() - self.said > _SECONDS):
            self.said = time.monotonic()
            print(f"{self.what}: {done}/{count}", flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def _show(self, done: int, count: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
            progress = Progress(*columns, console=Console(stderr=True), transient=True)
            progress.start()
            self._bar = progress, progress.add_task(self.what, total=count)
        progress, task = self._bar
        progress.update(task, completed=done, total=count)
        if done >= count:
            self.close()
