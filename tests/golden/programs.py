"""The installed programs, run in this process by their names: what they are made of may move as it likes."""

import contextlib
import io
import sys
from importlib.metadata import entry_points
from unittest.mock import patch


def run_program(program: str, *arguments: object) -> str:
    """Run a program as the shell would, and return what it printed on stdout.

    Raises:
        AssertionError: it ended with an exit code other than 0; the message holds its last lines.
    """
    (script,) = entry_points(group="console_scripts", name=program)
    main, out, err = script.load(), io.StringIO(), io.StringIO()
    command = patch.object(sys, "argv", [program, *map(str, arguments)])
    with command, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as leave:
            code = leave.code
    assert not code, f"{program} ended with {code}: {out.getvalue()[-1000:]}{err.getvalue()[-1000:]}"
    return out.getvalue()
