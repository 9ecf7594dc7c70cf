"""What corruption does to a segmentation: overlap under every corruption and severity, and whether flags caught it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from medvision.contract import StructureClass
from medvision.corruptions.volumes import corrupt_volume
from medvision.findings.sidecar import build_sidecar
from medvision.metrics.overlap import compare, summary
from medvision.pictures.overlays import class_colours, outline
from medvision.segmentation import Segmentation, Segmenter
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid, to_ras
from pipelines.evaluation.flag_usefulness import flag_usefulness
from pipelines.evaluation.image_robustness import severities_of
from pipelines.report.results import ResultTable
from shared_backbones.errors import InputError

LOST = 0.05  # of the mean Dice, from which a flag is wanted
STRIP_SIDE = 132  # pixels of a slice in the strip
NSD_TOLERANCE_MM = 1.0
_KEPT = (
    "schema_version", "case", "created", "model", "input", "settings", "device", "precision", "warnings", "versions",
)  # fmt: skip

Pictures = dict[tuple[str | None, int], np.ndarray]


def measure_volume(
    segmenter: Segmenter,
    volume: Volume,
    reference: np.ndarray | None,
    corruptions: Sequence[str],
    severities: Sequence[int],
    *,
    modality: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], Pictures]:
    """Segment a scan under every corruption and severity.

    A cell can be computed alone: `corrupt_volume` with the case's name (`case-` and 8 hex digits) as its key.

    Args:
        segmenter: of the model.
        volume: the scan, CT in HU.
        reference: class ids `(X, Y, Z)` on its grid, structures that it does not hold are not judged; None takes the
            segmentation of the scan as it is.
        corruptions: their names, of `medvision.corruptions.volumes.SCALES[modality]`.
        severities: of 1 to 5, rising.
        modality: `mr` or `ct`.
        on_progress: called with the cells done and their number.

    Returns:
        What a side-car says of the scan as it is, with

        - `clean` and `cells`: mean `dice` and `nsd`, Dice of each structure (`dice_of`), number of quality `flags`, and
          of those of each structure (`flags_of`), `mean_confidence`, `lowest_confidence` and that of each structure
          (`confidence_of`), `sha256` of the voxels; cells also `corruption`, `severity`, `lost` (clean Dice less
          theirs), `new_flags` and `new_warnings`, those that the scan as it is does not raise, and `caught`, whether
          there are any;
        - `corruptions`: means over cells; `worst`: the cell of the lowest Dice; `caught`: how many cells were, of all,
          and of those that lost more than `LOST`; `usefulness`: of `pipelines.evaluation.flag_usefulness`.

        And slices with contours, by corruption and severity.

    Raises:
        InputError: the reference holds none of the model's structures, or the scan cannot be used.
    """
    plain = segmenter.segment(volume)
    truth = plain.labels if reference is None else reference
    if not truth.any():
        what = "the model finds nothing in it" if reference is None else "its labels hold no structure of the model"
        raise InputError(f"{volume.case_id}: {what}, so that nothing can be lost; give another scan or labels")
    sidecar = build_sidecar(plain, settings=segmenter.settings)
    show = _Slice(volume, truth, segmenter.contract.classes)
    judged = [
        entry for entry in plain.card["classes"] if entry["id"] and (reference is None or (truth == entry["id"]).any())
    ]
    clean = _state(plain, truth, judged, sidecar)
    known, warned = _flags(sidecar), set(sidecar["warnings"])
    pictures: Pictures = {(None, 0): show(volume.data, plain.labels)}
    cells: list[dict[str, Any]] = []
    for name in corruptions:
        for severity in severities:
            data = corrupt_volume(
                name, volume.data, severity, spacing_mm=volume.grid.spacing_mm, modality=modality,
                seed_key=[volume.case_id],
            )  # fmt: skip
            found = segmenter.segment(replace(volume, data=data))
            said = build_sidecar(found, settings=segmenter.settings)
            state = _state(found, truth, judged, said)
            flags = [dict(zip(("code", "structure"), flag, strict=True)) for flag in _flags(said) if flag not in known]
            warnings = [line for line in said["warnings"] if line not in warned]
            cells.append(
                {
                    "corruption": name,
                    "severity": severity,
                    **state,
                    "lost": clean["dice"] - state["dice"],
                    "caught": bool(flags or warnings),
                    "new_flags": flags,
                    "new_warnings": warnings,
                }
            )
            pictures[name, severity] = show(data, found.labels)
            if on_progress is not None:
                on_progress(len(cells), len(corruptions) * len(severities))
    worst = min(cells, key=lambda cell: cell["dice"])
    serious = [cell for cell in cells if cell["lost"] > LOST]
    return {
        **{key: sidecar[key] for key in _KEPT},
        "clean": clean,
        "cells": cells,
        "corruptions": {
            name: {
                figure: float(np.mean([cell[figure] for cell in cells if cell["corruption"] == name]))
                for figure in ("dice", "lost", "caught")
            }
            for name in corruptions
        },
        "worst": {key: worst[key] for key in ("corruption", "severity", "dice")},
        "caught": {
            "cells": len(cells),
            "caught": sum(cell["caught"] for cell in cells),
            "lost_more_than": LOST,
            "cells_that_lost": len(serious),
            "caught_that_lost": sum(cell["caught"] for cell in serious),
        },
        "usefulness": flag_usefulness([clean, *cells]),
    }, pictures


def volume_tables(found: Mapping[str, Any]) -> list[ResultTable]:
    """Tables of a measurement for a report: the matrix, what each structure lost, and what the flags said."""
    severities, clean = severities_of(found), found["clean"]
    cells = {(cell["corruption"], cell["severity"]): cell for cell in found["cells"]}
    steps = [f"Severity {severity}" for severity in severities]
    structures = [name for name, dice in clean["dice_of"].items() if dice is not None]
    lost = []
    for name in found["corruptions"]:
        row: list[Any] = [name.replace("_", " ")]
        for structure in structures:
            there = [cells[name, severity]["dice_of"][structure] for severity in severities]
            drops = [clean["dice_of"][structure] - dice for dice in there if dice is not None]
            row.append(float(np.mean(drops)) if drops else None)
        lost.append(row)

    def matrix(title: str, of_clean: list[Any], cell_of: Callable[[Mapping[str, Any]], Any]) -> ResultTable:
        rows = [
            [name.replace("_", " "), *of_clean, *(cell_of(cells[name, severity]) for severity in severities)]
            for name in found["corruptions"]
        ]
        return {"title": title, "columns": ["Corruption", *["Clean" for _ in of_clean], *steps], "rows": rows}

    return [
        matrix("Mean Dice under corruption", [clean["dice"]], lambda cell: cell["dice"]),
        matrix(f"Mean NSD at {NSD_TOLERANCE_MM:g} mm", [clean["nsd"]], lambda cell: cell["nsd"]),
        {
            "title": "Dice that each structure lost, mean over the severities",
            "columns": ["Corruption", *(name.replace("_", " ") for name in structures)],
            "rows": lost,
        },
        matrix("Quality flags and warnings that the clean scan does not raise", [], _said),
        *_usefulness_tables(found["usefulness"]),
    ]


def _usefulness_tables(useful: Mapping[str, Any]) -> list[ResultTable]:
    """AUROC of flags and confidence, where there are both poor and other ones."""
    parts = {part: useful[part] for part in ("cases", "structures")}
    if not any(figure is not None for part in parts.values() for figure in part["auroc"].values()):
        return []
    signals = list(parts["cases"]["auroc"])
    return [
        {
            "title": f"AUROC of what can be seen without labels, against Dice below {useful['dice_below']:g}",
            "columns": ["Signal", *(f"{part}: {says['poor']} of {says['count']} poor" for part, says in parts.items())],
            "rows": [[signal, *(part["auroc"].get(signal) for part in parts.values())] for signal in signals],
        }
    ]


def _said(cell: Mapping[str, Any]) -> str:
    codes = [flag["code"].replace("_", " ") for flag in cell["new_flags"]]
    counts = [f"{code} {codes.count(code)}" for code in dict.fromkeys(codes)]
    return ", ".join([*counts, *(["warnings"] if cell["new_warnings"] else [])]) or "none"


def _state(
    found: Segmentation, truth: np.ndarray, judged: Sequence[StructureClass], said: Mapping[str, Any]
) -> dict[str, Any]:
    """Overlap of a segmentation with the reference, what its side-car says, and the sha256 of what was segmented."""
    volume = found.volume
    rows = compare(found.labels, truth, volume.grid.spacing_mm, judged, NSD_TOLERANCE_MM)
    means = summary(rows)
    flagged = Counter(flag["structure"] for flag in said["flags"])
    return {
        "dice": means["dice"],
        "nsd": means["nsd"],
        "dice_of": {row["name"]: row["dice"] for row in rows},
        "flags": flagged.total(),
        "flags_of": {row["name"]: flagged[row["name"]] for row in said["structures"]},
        "mean_confidence": said["summary"]["mean_confidence"],
        "lowest_confidence": said["summary"]["lowest_confidence"],
        "confidence_of": {row["name"]: row["mean_confidence"] for row in said["structures"]},
        "sha256": hashlib.sha256(volume.data.tobytes()).hexdigest(),
    }


def _flags(sidecar: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    return [(flag["code"], flag["structure"]) for flag in sidecar["flags"]]


class _Slice:
    """Pictures of the axial slice that holds most of the reference, the patient's right on the left."""

    def __init__(self, volume: Volume, truth: np.ndarray, classes: Sequence[StructureClass]) -> None:
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
        found = self._resized(self._cut(labels).astype(np.uint8), Image.Resampling.NEAREST)
        picture = np.repeat(grey[..., None], 3, 2)
        line = outline(found)
        picture[line] = self.palette[found[line]]
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
