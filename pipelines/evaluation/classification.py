"""What an evaluation of class probabilities leaves behind: figures, tables, a reliability diagram and galleries."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.bootstrap import Resampling, intervals
from pipelines.report.charts import reliability_diagram
from pipelines.report.sheets import picture_sheet
from shared_backbones.classification.figures import class_figures, class_rows, reliability
from shared_backbones.files import replacing

_PER_GALLERY = 8
_THUMBNAIL = 112  # side in pixels


def write_classification(
    folder: Path,
    scores: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    *,
    multi_label: bool = False,
    picture: Callable[[int], np.ndarray] | None = None,
    figures: Mapping[str, Any] | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `summary.json` (figures and tables) and pictures of a classification.

    Args:
        folder: of the evaluation.
        scores: probabilities `(N, K)`.
        targets: `(N, K)`, 1 for the classes that an image has.
        names: of the classes.
        multi_label: whether an image can have several.
        picture: gives the image of a number as `(H, W, 3)` uint8; without it there are no galleries.
        figures: more of them.
        tables: more of them, each with `title`, `columns` and `rows`.
        resamples: of the bootstrap intervals.
        seed: of the bootstrap.

    Returns:
        The figures.
    """
    found: dict[str, Any] = class_figures(scores, targets, multi_label=multi_label)
    found |= intervals(Resampling(targets, resamples, seed, multi_label=multi_label).figures(scores))
    rows = [
        [row["name"], *(row[part] for part in ("images", "recall", "precision", "f1"))]
        for row in class_rows(scores, targets, names, multi_label=multi_label)
    ]
    made: list[dict[str, Any]] = [
        {"title": "Classes", "columns": ["Class", "Images", "Recall", "Precision", "F1"], "rows": rows}
    ]
    if not multi_label:
        labels, best = targets.argmax(1), scores.argmax(1)
        counts = np.bincount(labels * len(names) + best, minlength=len(names) ** 2).reshape(len(names), -1)
        made.append(
            {
                "title": "Confusion: labels in rows, the network's answer in columns",
                "columns": ["Label", *names],
                "rows": [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)],
            }
        )
        bins = reliability(scores.max(1), best == labels)
        columns = ["Confidence", "Images", "Mean confidence", "Share right"]
        filled = [
            [f"{row['low']:.2f} to {row['high']:.2f}", *(row[part] for part in ("images", "confidence", "accuracy"))]
            for row in bins
            if row["images"]
        ]
        made.append({"title": "Reliability, 15 bins of equal width", "columns": columns, "rows": filled})
        with replacing(folder / "reliability.svg") as path:
            filled_bins = [(row["confidence"], row["accuracy"], row["images"]) for row in bins if row["images"]]
            path.write_text(reliability_diagram(filled_bins), encoding="utf-8")
        if picture is not None:
            _write_galleries(folder, scores, labels, names, picture)
    found |= figures or {}
    content = {"figures": found, "tables": [*made, *tables]}
    with replacing(folder / "summary.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return found


def merged_table(
    figures: dict[str, Any], scores: np.ndarray, targets: np.ndarray, names: Sequence[str], merged: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures with some classes taken as one; they are added to `figures` as `merged_<figure>`."""
    home = {part: whole for whole, parts in merged.items() for part in parts}
    wholes = list(dict.fromkeys(home.get(name, name) for name in names))
    matrix = np.zeros((len(names), len(wholes)))
    for number, name in enumerate(names):
        matrix[number, wholes.index(home.get(name, name))] = 1
    together, truth = scores @ matrix, targets @ matrix
    found = class_figures(together, truth, multi_label=False)
    kept = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll", "brier")
    figures |= {f"merged_{name}": found[name] for name in kept}
    best, labels = together.argmax(1), truth.argmax(1)
    rows = [
        [whole, *(int(((labels == i) & (best == j)).sum()) for j in range(len(wholes)))]
        for i, whole in enumerate(wholes)
    ]
    return {"title": "Confusion of the merged classes", "columns": ["Label", *wholes], "rows": rows}


def handedness(scores: np.ndarray, targets: np.ndarray, mirror: Sequence[int]) -> dict[str, Any]:
    """How often an image's class is more probable than its mirror image's; nothing where no class has another.

    Args:
        scores: probabilities `(N, K)`.
        targets: `(N, K)`, 1 for an image's class.
        mirror: for each class the one that its mirror image has.
    """
    labels = targets.argmax(1)
    mirrored = np.array(mirror)[labels]
    rows = np.flatnonzero(mirrored != labels)
    if not len(rows):
        return {}
    told = scores[rows, labels[rows]] > scores[rows, mirrored[rows]]
    return {"handedness": float(told.mean()), "handed_images": len(rows)}


def write_predictions(
    path: Path, keys: Sequence[str], targets: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> None:
    """Write a row for each image: `case`, from its key, its label, or labels with `|` between, and probabilities."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["case", "label", *(f"p_{name}" for name in names)])
    for key, target, row in zip(keys, targets, scores, strict=True):
        case = f"case-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        said = "|".join(name for name, there in zip(names, target, strict=True) if there)
        writer.writerow([case, said, *(f"{value:.5f}" for value in row)])
    with replacing(path) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8")


def _write_galleries(
    folder: Path,
    scores: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    picture: Callable[[int], np.ndarray],
) -> None:
    """Pictures of the images that were right and wrong with the highest confidence, and of those with the lowest."""
    best, confidence = scores.argmax(1), scores.max(1)
    order = np.argsort(-confidence, kind="stable")
    groups = {
        "gallery_1_right_and_most_certain": [i for i in order if best[i] == labels[i]],
        "gallery_2_wrong_and_most_certain": [i for i in order if best[i] != labels[i]],
        "gallery_3_least_certain": list(order[::-1]),
    }
    for name, members in groups.items():
        if members:
            shown = [int(i) for i in members[:_PER_GALLERY]]
            sheet = picture_sheet(
                [[picture(i) for i in shown]],
                size=(_THUMBNAIL, _THUMBNAIL),
                gap=(8, 0),
                smooth=True,
                below=[[str(names[labels[i]])[:22], f"> {names[best[i]]} {confidence[i]:.2f}"[:22]] for i in shown],
                font=10,
            )
            with replacing(folder / f"{name}.png") as path:
                sheet.save(path, "PNG")
