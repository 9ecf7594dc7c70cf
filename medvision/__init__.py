"""Specialised vision models for medical images: from the scan to labels, figures and a report."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvision.classification import MedicalClassifier
    from medvision.datasets.medmnist import read_medmnist
    from medvision.models.official import load_official
    from medvision.segmentation import Segmentation, Segmenter
    from medvision.volumes import Volume, read_labels, read_volume, write_volume

__all__ = [
    "MedicalClassifier",
    "Segmentation",
    "Segmenter",
    "Volume",
    "load_official",
    "read_labels",
    "read_medmnist",
    "read_volume",
    "write_volume",
]

_HOMES = {
    "MedicalClassifier": "medvision.classification",
    "Segmentation": "medvision.segmentation",
    "Segmenter": "medvision.segmentation",
    "Volume": "medvision.volumes",
    "load_official": "medvision.models.official",
    "read_labels": "medvision.volumes",
    "read_medmnist": "medvision.datasets.medmnist",
    "read_volume": "medvision.volumes",
    "write_volume": "medvision.volumes",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import medvision` itself imports neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
