"""Specialised vision models for Earth observation: from the scene to embeddings, maps and figures."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geovision.models.official import load_official

__all__ = ["load_official"]

_HOMES = {"load_official": "geovision.models.official"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import geovision` itself imports neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
