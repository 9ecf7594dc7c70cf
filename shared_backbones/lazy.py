"""Public names that a package imports when they are asked for (PEP 562), so that it is light itself."""

import importlib
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import TypeAlias

Public: TypeAlias = type | FunctionType | ModuleType
"""What a package makes public."""


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Public], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Args:
        package: Name of the package.
        homes: For each public name, the module that defines it.
    """

    def find(name: str) -> Public:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, names
