"""The label maps that `medvision segment --reference` compares with."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from apps.cli.medvision.label_maps import mapped
from apps.cli.medvision.scans import Inputs, Scan
from apps.cli.medvision.segment import SegmentOptions
from medvision.dicom.files import holds_dicom
from medvision.dicom.segmentations import read_segmentation
from medvision.findings.sidecar import Comparison
from medvision.segmentation import Segmentation
from medvision.volumes.files import Volume, find_scans, read_labels
from medvision.volumes.names import scan_stem
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.files import printable

NSD_TOLERANCE_MM = 1.0


def check_reference(options: SegmentOptions, inputs: Inputs) -> None:
    """Refuse a reference that cannot be one of any scan, before any work is done.

    Raises:
        InputError: there is none, or it is a file where a folder is needed, or the reverse.
    """
    if options.reference is None:
        return
    name, batch = printable(options.reference), inputs.batch
    if not os.path.exists(options.reference):
        raise InputError(f"--reference {name}: no such file or folder; check the path")
    if os.path.isdir(options.reference) != batch:
        expected = "a folder of label maps, as --input is a folder" if batch else "a label map, as --input is a file"
        raise InputError(f"--reference {name}: expected {expected}; give one")
    if batch and not options.recursive and not any(scan.bids for scan in inputs.scans):
        find_scans(options.reference)


def find_reference(options: SegmentOptions, scan: Scan) -> Path | None:
    """The reference's file for a scan: in a folder, or in its subfolder of the scan's, that of the same stem.

    Of an image of a BIDS data set it may be the label map `_dseg` of the same entities, too.

    Raises:
        InputError: the folder contains none, or several.
    """
    folder = options.reference
    if folder is None or folder.is_file():
        return folder
    for place in dict.fromkeys((folder / scan.place, folder)):
        matches = []
        with contextlib.suppress(InputError):  # it contains none, or is not there
            matches = [path for path in find_scans(place) if _is_of(scan, scan_stem(path))]
        if len(matches) > 1:
            raise InputError(
                f"{printable(scan.path.name)}: {len(matches)} files in {printable(folder)} may be its reference; "
                "expected one of that name; move the others"
            )
        if matches:
            return matches[0]
    raise InputError(
        f"{printable(scan.path.name)}: no reference of that name in {printable(folder)}; "
        "add it, or run without --reference"
    )


def _is_of(scan: Scan, stem: str) -> bool:
    """Whether a label map of that stem is a reference of the scan."""
    if scan.bids and stem.startswith(f"{scan.stem}_") and stem.endswith("_dseg"):
        return True
    return stem == scan_stem(scan.path) or (not scan.bids and stem == scan.stem)


def read_reference(
    path: Path,
    volume: Volume,
    classes: Sequence[ClassEntry],
    options: SegmentOptions,
    label_map: Mapping[int, int] | None = None,
) -> Volume:
    """A label map to compare with, on the scan's grid: a file as scans are, or a DICOM segmentation.

    Its ids are the model's, or become these by the `label_map`. Without one, segments whose labels are all names of the
    model's classes get these classes' ids; else their numbers are the ids.

    Raises:
        InputError: it cannot be read, or does not lie on the scan's grid.
    """
    if not holds_dicom(path):
        reference = read_labels(path, geometry=options.geometry)
        difference = reference.grid.differs_from(volume.grid)
        if difference:
            raise InputError(
                f"--reference {printable(path)}: not on the scan's grid: {difference}; resample it to the scan"
            )
        return _with_ids(reference, label_map)
    reference, names = read_segmentation(path, grid=volume.grid)
    if label_map is not None:
        return _with_ids(reference, label_map)
    ids = {entry["name"]: entry["id"] for entry in classes}
    if set(names.values()) <= set(ids):
        table = np.zeros(max(names) + 1, reference.data.dtype)
        for number, name in names.items():
            table[number] = ids[name]
        reference.data = table[reference.data]
    return reference


def _with_ids(reference: Volume, label_map: Mapping[int, int] | None) -> Volume:
    if label_map is not None:
        reference.data = mapped(reference.data, label_map)
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
