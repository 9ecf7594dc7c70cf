"""Errors that a user can fix."""

import importlib
from types import ModuleType


class InputError(Exception):
    """Something a user can fix; its text is the one line a program prints before it exits with 2.

    The line names the file or argument, what was found, what was expected, and the way out.
    """


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of the distribution brings it.

    Raises:
        InputError: the module is not installed; the line names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise InputError(f'{module} is not installed; run: pip install "domain-vision[{extra}]"') from None
