"""What corruption does to a segmentation: overlap under every corruption and severity, and whether flags caught it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
from PIL import Image

from medvision.contract import Setting
from medvision.corruptions.volumes import corrupt_volume
from medvision.findings.sidecar import Sidecar, SidecarInput, build_sidecar
from medvision.metrics.overlap import compare, summary
from medvision.pictures.colours import class_colours
from medvision.pictures.overlays import outline
from medvision.segmentation import Segmentation, Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid, to_ras
from pipelines.evaluation.flag_usefulness import Usefulness, VolumeState, flag_usefulness
from shared_backbones.card import ClassEntry
from shared_backbones.errors import InputError

LOST = 0.05  # of the mean Dice, from which a flag is wanted
STRIP_SIDE = 132  # pixels of a slice in the strip
NSD_TOLERANCE_MM = 1.0

Pictures = dict[tuple[str | None, int], np.ndarray]
"""Slices with contours `(STRIP_SIDE, STRIP_SIDE, 3)` uint8, by corruption and severity; None and 0 are clean."""


class RaisedFlag(TypedDict):
    """A quality flag of a structure, or of the scan as a whole where that is None."""

    code: str
    structure: str | None


class VolumeCell(VolumeState):
    """A segmentation under a corruption.

    Attributes:
        corruption: Name of the corruption.
        severity: Its severity, 1 to 5.
        lost: Clean mean Dice less its own.
        caught: Whether there is a new flag or warning.
        new_flags: Flags that the clean scan does not raise.
        new_warnings: Warnings that the clean scan does not raise.
    """

    corruption: str
    severity: int
    lost: float
    caught: bool
    new_flags: list[RaisedFlag]
    new_warnings: list[str]


class VolumeMeans(TypedDict):
    """Means over the severities of a corruption; `caught` is the fraction of cells."""

    dice: float
    lost: float
    caught: float


class WorstVolume(TypedDict):
    """The cell of the lowest Dice."""

    corruption: str
    severity: int
    dice: float


class Caught(TypedDict):
    """How many cells were caught, of all cells and of those that lost more than `lost_more_than`."""

    cells: int
    caught: int
    lost_more_than: float
    cells_that_lost: int
    caught_that_lost: int


class VolumeMeasurement(TypedDict):
    """A model that segments a scan under every corruption and severity, with the side-car of the clean scan."""

    schema_version: int
    case: str
    created: str
    model: dict[str, str | None]
    input: SidecarInput
    settings: dict[str, Setting]
    device: str
    precision: str
    warnings: list[str]
    versions: dict[str, str]
    clean: VolumeState
    cells: list[VolumeCell]
    corruptions: dict[str, VolumeMeans]
    worst: WorstVolume
    caught: Caught
    usefulness: Usefulness


def measure_volume(
    segmenter: Segmenter,
    volume: Volume,
    reference: np.ndarray | None,
    corruptions: Sequence[str],
    severities: Sequence[int],
    *,
    modality: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[VolumeMeasurement, Pictures]:
    """Segment a scan under every corruption and severity.

    A cell can be computed alone: `corrupt_volume` with the case's name (`case-` and 8 hex digits) as its key.

    Args:
        segmenter: Segmenter of the model.
        volume: Scan, CT in HU.
        reference: Class ids `(X, Y, Z)` on the scan's grid, of which structures that it does not hold are not judged;
            None takes the segmentation of the clean scan.
        corruptions: Names of `medvision.corruptions.volumes.SCALES[modality]`.
        severities: Some of 1 to 5, rising.
        modality: `mr` or `ct`.
        on_progress: Called with the number of cells done and of all cells.

    Returns:
        The measurement, and slices with contours.

    Raises:
        InputError: The reference contains none of the model's structures, or the scan cannot be used.
    """
    run = _Run(segmenter, volume, reference)
    for name in corruptions:
        for severity in severities:
            data = corrupt_volume(
                name, volume.data, severity, spacing_mm=volume.grid.spacing_mm, modality=modality,
                seed_key=[volume.case_id],
            )  # fmt: skip
            run.add(name, severity, data)
            if on_progress is not None:
                on_progress(len(run.cells), len(corruptions) * len(severities))
    return run.measurement(), run.pictures


def severities_of(measurement: VolumeMeasurement) -> list[int]:
    """Severities that a measurement has, rising."""
    return sorted({cell["severity"] for cell in measurement["cells"]})


class _Run:
    """Cells of a measurement as they are segmented.

    Args:
        segmenter: Segmenter of the model.
        volume: Clean scan.
        reference: Class ids `(X, Y, Z)`; None takes the segmentation of the clean scan.

    Raises:
        InputError: The reference contains none of the model's structures, or the scan cannot be used.
    """

    def __init__(self, segmenter: Segmenter, volume: Volume, reference: np.ndarray | None) -> None:
        self.segmenter, self.volume = segmenter, volume
        plain = segmenter.segment(volume)
        self.truth = plain.labels if reference is None else reference
        if not self.truth.any():
            what = "the model finds nothing in it" if reference is None else "its labels hold no structure of the model"
            raise InputError(f"{volume.case_id}: {what}, so that nothing can be lost; give another scan or labels")
        self.judged = [
            entry
            for entry in plain.card["classes"]
            if entry["id"] and (reference is None or (self.truth == entry["id"]).any())
        ]
        self.sidecar = build_sidecar(plain, settings=segmenter.settings)
        self.clean = _state(plain, self.truth, self.judged, self.sidecar)
        self.known = _flags(self.sidecar)
        self.cells: list[VolumeCell] = []
        self.show = _Slice(volume, self.truth, segmenter.contract.classes)
        self.pictures: Pictures = {(None, 0): self.show(volume.data, plain.labels)}

    def add(self, corruption: str, severity: int, data: np.ndarray) -> None:
        """Segment the scan's voxels `(X, Y, Z)` under a corruption."""
        segmentation = self.segmenter.segment(replace(self.volume, data=data))
        sidecar = build_sidecar(segmentation, settings=self.segmenter.settings)
        state = _state(segmentation, self.truth, self.judged, sidecar)
        flags = [flag for flag in _flags(sidecar) if flag not in self.known]
        warnings = [line for line in sidecar["warnings"] if line not in self.sidecar["warnings"]]
        cell: VolumeCell = {
            "corruption": corruption,
            "severity": severity,
            **state,
            "lost": self.clean["dice"] - state["dice"],
            "caught": bool(flags or warnings),
            "new_flags": flags,
            "new_warnings": warnings,
        }
        self.cells.append(cell)
        self.pictures[corruption, severity] = self.show(data, segmentation.labels)

    def measurement(self) -> VolumeMeasurement:
        """What all cells say together."""
        sidecar, worst = self.sidecar, min(self.cells, key=lambda cell: cell["dice"])
        return {
            "schema_version": sidecar["schema_version"],
            "case": sidecar["case"],
            "created": sidecar["created"],
            "model": sidecar["model"],
            "input": sidecar["input"],
            "settings": sidecar["settings"],
            "device": sidecar["device"],
            "precision": sidecar["precision"],
            "warnings": sidecar["warnings"],
            "versions": sidecar["versions"],
            "clean": self.clean,
            "cells": self.cells,
            "corruptions": _means(self.cells),
            "worst": {"corruption": worst["corruption"], "severity": worst["severity"], "dice": worst["dice"]},
            "caught": _caught(self.cells),
            "usefulness": flag_usefulness([self.clean, *self.cells]),
        }


def _means(cells: Sequence[VolumeCell]) -> dict[str, VolumeMeans]:
    groups: dict[str, list[VolumeCell]] = {}
    for cell in cells:
        groups.setdefault(cell["corruption"], []).append(cell)
    return {
        name: {
            "dice": float(np.mean([cell["dice"] for cell in members])),
            "lost": float(np.mean([cell["lost"] for cell in members])),
            "caught": float(np.mean([cell["caught"] for cell in members])),
        }
        for name, members in groups.items()
    }


def _caught(cells: Sequence[VolumeCell]) -> Caught:
    serious = [cell for cell in cells if cell["lost"] > LOST]
    return {
        "cells": len(cells),
        "caught": sum(cell["caught"] for cell in cells),
        "lost_more_than": LOST,
        "cells_that_lost": len(serious),
        "caught_that_lost": sum(cell["caught"] for cell in serious),
    }


def _state(
    segmentation: Segmentation, truth: np.ndarray, judged: Sequence[ClassEntry], sidecar: Sidecar
) -> VolumeState:
    """Overlap of a segmentation with the reference, and figures of its side-car."""
    volume, structures, means = segmentation.volume, sidecar["structures"], sidecar["summary"]
    rows = compare(segmentation.labels, truth, volume.grid.spacing_mm, judged, NSD_TOLERANCE_MM)
    overlap = summary(rows)
    flagged = Counter(flag["structure"] for flag in sidecar["flags"])
    return {
        "dice": overlap["dice"] or 0.0,  # the reference holds a structure, so that there is one
        "nsd": overlap["nsd"],
        "dice_of": {row["name"]: row["dice"] for row in rows},
        "flags": flagged.total(),
        "flags_of": {row["name"]: flagged[row["name"]] for row in structures},
        "mean_confidence": means["mean_confidence"],
        "lowest_confidence": means["lowest_confidence"],
        "confidence_of": {row["name"]: row["mean_confidence"] for row in structures},
        "sha256": hashlib.sha256(volume.data.tobytes()).hexdigest(),
    }


def _flags(sidecar: Sidecar) -> list[RaisedFlag]:
    return [{"code": flag["code"], "structure": flag["structure"]} for flag in sidecar["flags"]]


class _Slice:
    """Pictures of the axial slice that holds most of the reference, the patient's right on the left."""

    def __init__(self, volume: Volume, truth: np.ndarray, classes: Sequence[ClassEntry]) -> None:
        self.grid: Grid = volume.grid
        upright, self.spacing, _ = to_ras(truth, volume.grid)
        self.place = int((upright != 0).sum((0, 1)).argmax())
        shown = self._cut(volume.data)
        self.low, self.high = np.percentile(shown, [1, 99.5])
        palette = np.zeros((256, 3), np.uint8)
        for number, colour in class_colours(classes).items():
            palette[number] = colour
        self.palette = palette

    def __call__(self, data: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """`(STRIP_SIDE, STRIP_SIDE, 3)` uint8 of a volume `(X, Y, Z)`, with contours of its labels."""
        scaled = np.clip((self._cut(data) - self.low) / max(float(self.high - self.low), 1e-12), 0, 1)
        grey = self._resized((scaled * 255).round().astype(np.uint8), Image.Resampling.BILINEAR)
        classes = self._resized(self._cut(labels).astype(np.uint8), Image.Resampling.NEAREST)
        picture = np.repeat(grey[..., None], 3, 2)
        line = outline(classes)
        picture[line] = self.palette[classes[line]]
        return picture

    def _cut(self, data: np.ndarray) -> np.ndarray:
        return to_ras(data, self.grid)[0][::-1, ::-1, self.place].T

    def _resized(self, plane: np.ndarray, how: Image.Resampling) -> np.ndarray:
        """A plane on a black square, its longer side in mm filling it."""
        extent = np.array(plane.shape) * (self.spacing[1], self.spacing[0])
        height, width = np.maximum(1, (extent / extent.max() * STRIP_SIDE).round().astype(int)).tolist()
        square = np.zeros((STRIP_SIDE, STRIP_SIDE), np.uint8)
        top, left = (STRIP_SIDE - height) // 2, (STRIP_SIDE - width) // 2
        resized = Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), how)
        square[top : top + height, left : left + width] = np.asarray(resized)
        return square
