"""Specialised vision models for medical images: from the scan to labels, figures and a report."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvision.classification import MedicalClassifier
    from medvision.datasets.medmnist import read_medmnist
    from medvision.dicom.segmentations import read_segmentation, write_segmentation
    from medvision.dicom.series import find_series, read_series
    from medvision.models.official import load_official
    from medvision.segmentation import Segmentation, Segmenter
    from medvision.volumes.files import Volume, read_labels, read_volume, write_volume

__all__ = [
    "MedicalClassifier",
    "Segmentation",
    "Segmenter",
    "Volume",
    "find_series",
    "load_official",
    "read_labels",
    "read_medmnist",
    "read_segmentation",
    "read_series",
    "read_volume",
    "write_segmentation",
    "write_volume",
]

_HOMES = {
    "MedicalClassifier": "medvision.classification",
    "Segmentation": "medvision.segmentation",
    "Segmenter": "medvision.segmentation",
    "Volume": "medvision.volumes.files",
    "find_series": "medvision.dicom.series",
    "load_official": "medvision.models.official",
    "read_labels": "medvision.volumes.files",
    "read_medmnist": "medvision.datasets.medmnist",
    "read_segmentation": "medvision.dicom.segmentations",
    "read_series": "medvision.dicom.series",
    "read_volume": "medvision.volumes.files",
    "write_segmentation": "medvision.dicom.segmentations",
    "write_volume": "medvision.volumes.files",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import medvision` itself imports neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
