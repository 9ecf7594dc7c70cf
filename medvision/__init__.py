"""Specialised vision models for medical images: from the scan to labels, figures and a report."""

from typing import TYPE_CHECKING

from shared_backbones.lazy import lazy

if TYPE_CHECKING:
    from medvision.classification import MedicalClassifier
    from medvision.datasets.medmnist import read_medmnist
    from medvision.dicom.segmentations import read_segmentation, write_segmentation
    from medvision.dicom.series import find_series, read_series
    from medvision.segmentation import Segmentation, Segmenter
    from medvision.volumes.files import Volume, read_labels, read_volume
    from medvision.volumes.writing import write_volume
    from shared_backbones.official import load_official

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
    "load_official": "shared_backbones.official",
    "read_labels": "medvision.volumes.files",
    "read_medmnist": "medvision.datasets.medmnist",
    "read_segmentation": "medvision.dicom.segmentations",
    "read_series": "medvision.dicom.series",
    "read_volume": "medvision.volumes.files",
    "write_segmentation": "medvision.dicom.segmentations",
    "write_volume": "medvision.volumes.writing",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
