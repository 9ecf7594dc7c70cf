"""The label maps that `medvision segment --reference` compares with."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.cli.medvision.scans import Scan
from apps.cli.medvision.segment import SegmentOptions
from medvision.dicom.files import holds_dicom
from medvision.dicom.segmentations import read_segmentation
from medvision.findings.sidecar import Comparison
from medvision.segmentation import Segmentation
from medvision.volumes.files import Volume, find_scans, read_labels, scan_stem
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.files import printable

NSD_TOLERANCE_MM = 1.0


def check_reference(options: SegmentOptions, batch: bool) -> None:
    """Refuse a reference that cannot be one of any scan, before any work is done.

    Raises:
        InputError: there is none, or it is a file where a folder is needed, or the reverse.
    """
    if options.reference is None:
        return
    name = printable(options.reference)
    if not os.path.exists(options.reference):
        raise InputError(f"--reference {name}: no such file or folder; check the path")
    if os.path.isdir(options.reference) != batch:
        expected = "a folder of label maps, as --input is a folder" if batch else "a label map, as --input is a file"
        raise InputError(f"--reference {name}: expected {expected}; give one")
    if batch:
        find_scans(options.reference)


def find_reference(options: SegmentOptions, scan: Scan) -> Path | None:
    """The reference's file for a scan: in a folder, that of the same stem.

    Raises:
        InputError: the folder contains none.
    """
    if options.reference is None or options.reference.is_file():
        return options.reference
    matches = [path for path in find_scans(options.reference) if scan_stem(path) == scan.stem]
    if not matches:
        raise InputError(
            f"{printable(scan.path.name)}: no reference of that name in {printable(options.reference)}; "
            "add it, or run without --reference"
        )
    return matches[0]


def read_reference(path: Path, volume: Volume, classes: Sequence[ClassEntry], options: SegmentOptions) -> Volume:
    """A label map to compare with, on the scan's grid: a file as scans are, or a DICOM segmentation.

    Segments whose labels are all names of the model's classes get these classes' ids; else their numbers are the ids.

    Raises:
        InputError: it cannot be read, or does not lie on the scan's grid.
    """
    if not holds_dicom(path):
        reference = read_labels(path, geometry=options.geometry, max_bytes=options.max_bytes)
        difference = reference.grid.differs_from(volume.grid)
        if difference:
            raise InputError(
                f"--reference {printable(path)}: not on the scan's grid: {difference}; resample it to the scan"
            )
        return reference
    reference, names = read_segmentation(path, grid=volume.grid, max_bytes=options.max_bytes)
    ids = {entry["name"]: entry["id"] for entry in classes}
    if set(names.values()) <= set(ids):
        table = np.zeros(max(names) + 1, reference.data.dtype)
        for number, name in names.items():
            table[number] = ids[name]
        reference.data = table[reference.data]
    return reference


def compare_with(reference: Volume, segmentation: Segmentation, kept: list[int] | None, sha256: str) -> Comparison:
    """Figures of a segmentation against its reference, as the side-car holds them.

    Args:
        reference: label map on the scan's grid.
        segmentation: gets a warning where the reference has labels that the model does not know.
        kept: ids of the classes to compare; None for all.
        sha256: digest of the reference's file.
    """
    from medvision.metrics.overlap import compare, summary

    classes = [entry for entry in segmentation.card["classes"] if kept is None or entry["id"] in kept]
    highest, last = int(reference.data.max()), segmentation.card["classes"][-1]["id"]
    if highest > last:
        segmentation.warnings.append(
            f"the reference holds labels up to {highest}, the model has 1 to {last}; the others were ignored"
        )
    rows = compare(segmentation.labels, reference.data, segmentation.volume.grid.spacing_mm, classes, NSD_TOLERANCE_MM)
    return {"sha256": sha256, "nsd_tolerance_mm": NSD_TOLERANCE_MM, "rows": rows, "summary": summary(rows)}
