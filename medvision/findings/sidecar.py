"""The side-car of a segmentation: every figure a program may want, and where the labels came from."""

import hashlib
import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from medvision.contract import modality_conflict
from medvision.findings.expected_dice import expected_dice
from medvision.findings.flags import scan_flags, structure_flags
from medvision.findings.statistics import structure_rows
from medvision.pictures.keyslices import plan_slices, uncertain_slices, wrong_slices

if TYPE_CHECKING:
    from medvision.segmentation import Segmentation

SCHEMA_VERSION = 1
_PACKAGES = ("domain-vision", "torch", "numpy", "scipy", "nibabel")
_UNITS = {1: "m", 2: "mm", 3: "um"}


def build_sidecar(
    segmentation: "Segmentation",
    *,
    settings: Mapping[str, Any],
    reference: Mapping[str, Any] | None = None,
    reference_labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Describe a segmentation in plain values.

    It names no file, no path and no text of the input's header; the case is known by the hash of its content.

    Args:
        segmentation: whose labels are measured as they are; classes that `settings["labels"]` leaves out have no row.
        settings: everything but model and input that decides the result.
        reference: of the comparison with a reference: `sha256`, `nsd_tolerance_mm`, `rows`, `summary`.
        reference_labels: (X, Y, Z), integer, on the scan's grid: the reference itself.

    Returns:
        A mapping that is valid JSON: no NaN, no infinity. Figures that would mislead are None, with a reason.
    """
    volume, card = segmentation.volume, segmentation.card
    wanted = settings.get("labels")
    classes = [entry for entry in card["classes"] if not wanted or entry["id"] in wanted]
    rows = structure_rows(segmentation.labels, volume.data, volume.grid.affine, classes, segmentation.confidence)
    expected = card["input"]
    if segmentation.settings.get("fast") or segmentation.settings.get("views") != expected.get("views"):
        # what a confidence stands for was measured with the model's own views at its own spacing
        expected = {key: value for key, value in expected.items() if key not in ("min_confidence", "expected_dice")}
    for row in rows:
        row["expected_dice"] = expected_dice(expected, row["name"], row["mean_confidence"])
        if row["expected_dice"] is None:
            row["reasons"]["expected_dice"] = row["reasons"].get("mean_confidence", "not_calibrated")
    scattered = expected.get("attached", ())
    conflict = modality_conflict(card["input"].get("modality"), volume.modality)
    flags = [
        *([{"code": "other_modality", "structure": None, "rule": conflict, "value": True}] if conflict else []),
        *scan_flags(volume.data, volume.grid, expected.get("modality"), segmentation.fallbacks),
        *structure_flags(rows, expected),
    ]
    key_slices = uncertain_slices(rows, flags, segmentation.weakest_slices, scattered)
    if reference is not None and reference_labels is not None:
        key_slices = [
            *wrong_slices(segmentation.labels, reference_labels, volume.grid, reference["rows"]),
            *key_slices,
        ]
    header = volume.grid.header
    content = {
        "schema_version": SCHEMA_VERSION,
        "case": volume.case_id,
        "report": _report_identity(segmentation),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": card.get("name"),
            "version": card.get("version"),
            "architecture": card["architecture"],
            "sha256": segmentation.model_sha256,
            "license": card.get("license"),
        },
        "input": {
            "sha256": volume.sha256,
            "shape": list(volume.grid.shape),
            "spacing_mm": [round(edge, 6) for edge in volume.grid.spacing_mm],
            "orientation": volume.grid.orientation,
            "qform_code": int(header["qform_code"]),
            "sform_code": int(header["sform_code"]),
            "units": _UNITS.get(int(header["xyzt_units"]) & 7, "unknown"),
            "modality": card["input"].get("modality"),
            **({"header_modality": volume.modality} if volume.modality else {}),
        },
        "settings": dict(settings),
        "device": segmentation.device,
        "precision": segmentation.precision,
        "summary": _summary(rows, scattered),
        "structures": rows,
        "flags": flags,
        "warnings": segmentation.warnings,
        "display": plan_slices(
            volume.data, segmentation.labels, volume.grid, reference=reference_labels, also=key_slices
        ),
        "timings_s": segmentation.timings_s,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
    }
    if reference is not None:
        content["reference"] = dict(reference)
    return content


def _summary(rows: Sequence[Mapping[str, Any]], scattered: Collection[int]) -> dict[str, Any]:
    """Figures of the case as a whole; the confidence of structures that are scattered by nature says nothing."""
    judged = [row for row in rows if row["mean_confidence"] is not None and row["id"] not in scattered]
    unsure = min(judged, key=lambda row: row["mean_confidence"], default=None)
    return {
        "structures": len(rows),
        "structures_found": sum(row["voxels"] > 0 for row in rows),
        "mean_confidence": sum(row["mean_confidence"] for row in judged) / len(judged) if judged else None,
        "lowest_confidence": unsure and unsure["mean_confidence"],
        "least_certain": unsure and unsure["name"],
    }


def _report_identity(segmentation: "Segmentation") -> dict[str, str]:
    """What a reviewer's verdict is about: these labels, of this input, by this model.

    Side-car and page both hold it, so it cannot be a hash of either.
    """
    volume, labels = segmentation.volume, segmentation.labels
    about = f"{volume.sha256} {segmentation.model_sha256} {labels.shape} {labels.dtype.name}"
    digest = hashlib.sha256(about.encode())
    for index in range(labels.shape[2]):
        digest.update(labels[:, :, index].tobytes("F"))
    return {"id": f"{volume.case_id}-{digest.hexdigest()[:8]}", "sha256": digest.hexdigest()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
