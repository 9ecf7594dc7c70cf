"""A bar on a terminal that goes when the work is done or fails, and plain lines elsewhere."""

import contextlib
import io
import sys

import pytest

from pipelines.runtime import progress
from pipelines.runtime.progress import Meter

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From within a test: pytest sets its own streams after the fixtures."""
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_a_bar_shows_what_is_done_and_goes(capsys, monkeypatch):
    terminal = open_terminal(monkeypatch)
    meter = Meter("prepare")
    for done in range(1, 4):
        meter(done, 3)
    assert "prepare" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert terminal.getvalue().count(HIDE_CURSOR) == terminal.getvalue().count(SHOW_CURSOR) == 1
    assert capsys.readouterr().out == ""


def test_a_bar_goes_when_the_work_fails(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with pytest.raises(ZeroDivisionError), contextlib.closing(Meter("prepare")) as meter:
        meter(1, 3)
        assert SHOW_CURSOR not in terminal.getvalue()
        print(1 / 0)
    assert SHOW_CURSOR in terminal.getvalue()


def test_elsewhere_there_are_lines_from_time_to_time(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    meter, silent = Meter("evaluate"), Meter("train", lines=False)
    for done in range(1, 8):
        now[0] += 4
        meter(done, 7)
        silent(done, 7)
    assert capsys.readouterr().out.splitlines() == ["evaluate: 3/7", "evaluate: 6/7", "evaluate: 7/7"]
