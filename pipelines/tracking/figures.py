"""Figures on their way to a tracking store: kept in a file at once, and sent by a thread, so that nothing waits."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mlflow import MlflowClient

Figure: TypeAlias = tuple[str, float, int, int]  # name, value, time in ms, step

_BATCH = 500  # figures in a message
_SECONDS, _SECONDS_AWAY = 15.0, 60.0  # between messages; where the last one was not taken
_SECONDS_TO_END = 60.0


class Sender:
    """Sends the figures of one run; what is not sent stays in a file, for the next start of the run.

    Args:
        client: Client of the store.
        run_id: Id of the run.
        spool: File of what is not sent; one that a killed process left is sent, too.
        resumed: Whether another process has written to the run: what the store has then is not sent again.
        on_failure: Function that is called with the error where the store does not take figures.

    Attributes:
        away: Whether the store did not take the last message.
    """

    def __init__(
        self, client: "MlflowClient", run_id: str, spool: Path, resumed: bool, on_failure: Callable[[Exception], None]
    ) -> None:
        self.client, self.run_id, self.on_failure = client, run_id, on_failure
        self.away = False
        self._spool = spool
        self._waiting = _read(spool)
        self._unsure = resumed
        self._known: dict[str, set[tuple[str, int, float]]] = {}
        self._changing, self._sending, self._ending = threading.Lock(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._send_from_time_to_time, name="figures", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def add(self, figures: Sequence[Figure]) -> None:
        """Keep figures in the file, to be sent."""
        with self._changing:
            with self._spool.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in figures)
            self._waiting += figures

    def flush(self) -> None:
        """Send what waits, now."""
        with self._sending:
            try:
                while part := self._waiting[:_BATCH]:
                    self._send(part)
                    with self._changing:
                        del self._waiting[: len(part)]
                        if not self._waiting:
                            self._spool.unlink(missing_ok=True)
                self.away = False
            except Exception as problem:  # whatever it is, training goes on
                self.away = self._unsure = True  # the store may have taken what it did not answer to
                self._known.clear()
                self.on_failure(problem)

    def close(self) -> int:
        """Send the rest, for a while at most.

        Returns:
            How many figures are left.
        """
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_SECONDS_TO_END)
        else:
            self.flush()
        return len(self._waiting)

    def _send_from_time_to_time(self) -> None:
        while not self._ending.wait(_SECONDS_AWAY if self.away else _SECONDS):
            if self._waiting:
                self.flush()
        self.flush()

    def _send(self, figures: Sequence[Figure]) -> None:
        from mlflow.entities import Metric

        part = {(name, step, value): at for name, value, at, step in figures}
        new = [key for key in part if key not in self._sent(key[0])]
        if new:
            metrics = [Metric(name, value, part[name, step, value], step) for name, step, value in new]
            self.client.log_batch(self.run_id, metrics=metrics)
        if self._unsure:
            for key in new:
                self._known[key[0]].add(key)

    def _sent(self, name: str) -> set[tuple[str, int, float]]:
        """Steps and values of a figure that the store has; it is asked only where they may be there already."""
        if self._unsure and name not in self._known:
            history = self.client.get_metric_history(self.run_id, name)
            self._known[name] = {(name, noted.step, noted.value) for noted in history}
        return self._known.get(name, set())


def now() -> int:
    """The time in ms, as MLflow counts it."""
    return int(time.time() * 1000)


def _read(path: Path) -> list[Figure]:
    """Figures of a file; a line that was cut off is left out."""
    figures: list[Figure] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            name, value, at, step = json.loads(line)
            figures.append((name, value, at, step))
    return figures
