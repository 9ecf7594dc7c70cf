"""The side-car of a segmentation: every figure a program may want, and where the labels came from."""

import hashlib
import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from medvision.contract import Expectations, Setting, expectations, modality_conflict
from medvision.findings.changes import Changes
from medvision.findings.expected_dice import expected_dice
from medvision.findings.flags import Flag, scan_flags, structure_flags
from medvision.findings.statistics import StructureRow, structure_rows
from medvision.findings.tables import Measured
from medvision.pictures.keyslices import KeySlice, SlicePlan, plan_slices, uncertain_slices, wrong_slices

if TYPE_CHECKING:
    from medvision.metrics.overlap import OverlapRow, OverlapSummary
    from medvision.segmentation import Segmentation

SCHEMA_VERSION = 1
_PACKAGES = ("domain-vision", "torch", "numpy", "scipy", "nibabel")
_UNITS = {1: "m", 2: "mm", 3: "um"}
_CALIBRATED = ("min_confidence", "expected_dice")


class Comparison(TypedDict):
    """A segmentation against its reference.

    Attributes:
        sha256: digest of the reference's file.
        nsd_tolerance_mm: distance up to which surfaces count as agreeing.
        rows: overlap of each structure.
        summary: means over the structures.
    """

    sha256: str
    nsd_tolerance_mm: float
    rows: "list[OverlapRow]"
    summary: "OverlapSummary"


class CaseSummary(TypedDict):
    """Figures of a case as a whole; `intracranial_ml` where the model gives it."""

    structures: int
    structures_found: int
    mean_confidence: float | None
    lowest_confidence: float | None
    least_certain: str | None
    intracranial_ml: NotRequired[float | None]


class SidecarInput(TypedDict):
    """The scan that was segmented.

    Attributes:
        sha256: digest of its file, or of the files of its series or its channels together.
        shape: voxels along each stored axis.
        spacing_mm: voxel size along each stored axis.
        orientation: letters of the stored axes.
        qform_code: code of the qform.
        sform_code: code of the sform.
        units: unit of length in the header.
        modality: modality that the header says; None where it says none.
        expected_modality: modality that the model is made for.
        channels: names of its channels, where it has several; the first is shown and measured.
    """

    sha256: str
    shape: list[int]
    spacing_mm: list[float]
    orientation: str
    qform_code: int
    sform_code: int
    units: str
    modality: str | None
    expected_modality: str | None
    channels: NotRequired[list[str]]


class Sidecar(TypedDict):
    """Content of a side-car: plain values, without names of files or patients.

    Attributes:
        schema_version: version of this layout.
        case: `case-` and the first 8 hex digits of the input's hash.
        report: `id` and `sha256` of what a reviewer's verdict is about.
        created: time in UTC, ISO 8601.
        model: name, version, architecture, sha256 and licence of the model.
        input: hash, grid and modality of the scan.
        settings: what decides the result beside model and input.
        device: where the network ran.
        precision: `float32` or `bfloat16`.
        engine: engine that ran the network, and its version, where it was asked for.
        engine_agreement: share of the answers that were compared with torch's which were the same.
        packed_layers: layers that torch ran from packed weights, where there were some.
        summary: figures of the case as a whole.
        structures: figures of each structure.
        flags: quality flags.
        warnings: what a user should know.
        display: window and slices that the report shows.
        timings_s: seconds by step.
        versions: versions of the software.
        reference: comparison with a reference.
        earlier: what changed since an earlier result.
        outputs: sha256 of the other files of the result, by kind.
        earlier_outputs: the same of files of earlier runs into the same place.
        seal: digest of all the rest, by which a change is seen.
    """

    schema_version: int
    case: str
    report: dict[str, str]
    created: str
    model: dict[str, str | None]
    input: SidecarInput
    settings: dict[str, Setting]
    device: str
    precision: str
    engine: NotRequired[str]
    engine_agreement: NotRequired[float | None]
    packed_layers: NotRequired[int]
    summary: CaseSummary
    structures: list[StructureRow]
    flags: list[Flag]
    warnings: list[str]
    display: SlicePlan
    timings_s: dict[str, float]
    versions: dict[str, str]
    reference: NotRequired[Comparison]
    earlier: NotRequired[Changes]
    outputs: NotRequired[dict[str, dict[str, str]]]
    earlier_outputs: NotRequired[dict[str, dict[str, str]]]
    seal: NotRequired[str]


def build_sidecar(
    segmentation: "Segmentation",
    *,
    settings: Mapping[str, Setting],
    kept: Collection[int] | None = None,
    reference: Comparison | None = None,
    reference_labels: np.ndarray | None = None,
) -> Sidecar:
    """Describe a segmentation in plain values.

    It names no file, no path and no text of the input's header; the case is known by the hash of its content.

    Args:
        segmentation: its labels are measured as they are.
        settings: everything but model and input that decides the result.
        kept: ids of the classes that have a row; by default all.
        reference: comparison with a reference.
        reference_labels: (X, Y, Z), integer, on the scan's grid: the reference itself.

    Returns:
        Valid JSON: no NaN, no infinity. Figures that would mislead are None, with a reason.
    """
    volume, card = segmentation.volume, segmentation.card
    expected = _expectations(segmentation)
    rows, flags = measure(segmentation, kept)
    scattered = expected.get("attached", ())
    key_slices: list[KeySlice] = []
    if reference is not None and reference_labels is not None:
        key_slices += wrong_slices(segmentation.labels, reference_labels, volume.grid, reference["rows"])
    key_slices += uncertain_slices(rows, flags, segmentation.weakest_slices, scattered)
    content: Sidecar = {
        "schema_version": SCHEMA_VERSION,
        "case": volume.case_id,
        "report": _report_identity(segmentation),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            **{key: card.get(key) for key in ("name", "version", "architecture")},
            "sha256": segmentation.model_sha256,
            "license": card.get("license"),
        },
        "input": _input(segmentation),
        "settings": dict(settings),
        "device": segmentation.device,
        "precision": segmentation.precision,
        **segmentation.engine,
        "summary": _summary(rows, scattered, segmentation.intracranial_ml),
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
        content["reference"] = reference
    return content


def measure(segmentation: "Segmentation", kept: Collection[int] | None = None) -> tuple[list[StructureRow], list[Flag]]:
    """Figures of each structure, or of those that are `kept`, and quality flags."""
    expected = _expectations(segmentation)
    rows = _structures(segmentation, expected, kept)
    return rows, _flags(segmentation, rows, expected)


def measured(sidecar: Sidecar) -> Measured:
    """What a table of volumes needs of a side-car."""
    return {
        "case": sidecar["case"],
        "structures": sidecar["structures"],
        "flags": sidecar["flags"],
        "intracranial_ml": sidecar["summary"].get("intracranial_ml"),
    }


def _expectations(segmentation: "Segmentation") -> Expectations:
    """What the card says of scans and structures, as far as it holds for these settings."""
    expected = expectations(segmentation.card.get("input", {}))
    settings = segmentation.settings
    if not settings.get("fast") and settings.get("views") == expected.get("views"):
        return expected
    # what a confidence stands for was measured with the model's own views at its own spacing
    kept: Expectations = expected.copy()
    for key in _CALIBRATED:
        kept.pop(key, None)
    return kept


def _structures(
    segmentation: "Segmentation", expected: Expectations, kept: Collection[int] | None
) -> list[StructureRow]:
    volume = segmentation.volume
    classes = [entry for entry in segmentation.card["classes"] if not kept or entry["id"] in kept]
    rows = structure_rows(segmentation.labels, volume.data, volume.grid.affine, classes, segmentation.confidence)
    for row in rows:
        dice = row["expected_dice"] = expected_dice(expected, row["name"], row["mean_confidence"])
        if dice is None:
            row["reasons"]["expected_dice"] = row["reasons"].get("mean_confidence", "not_calibrated")
        sides = segmentation.sides_ml.get(row["id"])
        if sides is not None:  # of a structure that is cut off, they are as misleading as the whole
            row["left_ml"], row["right_ml"] = sides if row["volume_ml"] is not None else (None, None)
    return rows


def _flags(segmentation: "Segmentation", rows: Sequence[StructureRow], expected: Expectations) -> list[Flag]:
    volume, modality = segmentation.volume, expected.get("modality")
    conflict = modality_conflict(modality, volume.modality)
    other: list[Flag] = []
    if conflict:
        other.append({"code": "other_modality", "structure": None, "rule": conflict, "value": True})
    return [
        *other,
        *scan_flags(
            volume.data, volume.grid, modality, segmentation.fallbacks, segmentation.outside_share, segmentation.is_cut
        ),
        *structure_flags(rows, expected),
    ]


def _input(segmentation: "Segmentation") -> SidecarInput:
    volume = segmentation.volume
    grid, header = volume.grid, volume.grid.header
    content: SidecarInput = {
        "sha256": volume.sha256,
        "shape": list(grid.shape),
        "spacing_mm": [round(step, 6) for step in grid.spacing_mm],
        "orientation": grid.orientation,
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        "units": _UNITS.get(int(header["xyzt_units"]) & 7, "unknown"),
        "modality": volume.modality,
        "expected_modality": segmentation.card["input"].get("modality"),
    }
    if volume.further:
        content["channels"] = list(segmentation.card["input"]["channels"])
    return content


def _summary(rows: Sequence[StructureRow], scattered: Collection[int], intracranial_ml: float | None) -> CaseSummary:
    """Figures of the case as a whole; the confidence of structures that are scattered by nature says nothing."""
    judged = [
        (row["mean_confidence"], row["name"])
        for row in rows
        if row["mean_confidence"] is not None and row["id"] not in scattered
    ]
    lowest, name = min(judged, key=lambda pair: pair[0], default=(None, None))
    summary: CaseSummary = {
        "structures": len(rows),
        "structures_found": sum(row["voxels"] > 0 for row in rows),
        "mean_confidence": sum(confidence for confidence, _ in judged) / len(judged) if judged else None,
        "lowest_confidence": lowest,
        "least_certain": name,
    }
    if intracranial_ml is not None:
        summary["intracranial_ml"] = intracranial_ml
    return summary


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
