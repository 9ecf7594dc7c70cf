"""Specialised vision models for astronomy: from the image to classes, catalogues and figures."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astrovision.models.official import load_official

__all__ = ["load_official"]

_HOMES = {"load_official": "astrovision.models.official"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import astrovision` itself imports neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
