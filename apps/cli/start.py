"""Entry points of the programs, which import nothing slow before SIGINT is heard."""

import importlib
import signal
import sys
from typing import NoReturn

from pipelines.runtime.stopping import leave_at_interrupt


def medvision() -> NoReturn:
    """Run `medvision`."""
    start("medvision")


def geovision() -> NoReturn:
    """Run `geovision`."""
    start("geovision")


def astrovision() -> NoReturn:
    """Run `astrovision`."""
    start("astrovision")


def start(program: str) -> NoReturn:
    """Run a program, and end the process with its exit code."""
    leave_at_interrupt()
    from apps.cli.shared.program import run

    code = run(importlib.import_module(f"apps.cli.{program}.program").app)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; what the interpreter does at its end is no news
    sys.exit(code)
