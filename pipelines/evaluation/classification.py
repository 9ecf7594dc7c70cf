"""What an evaluation of class probabilities leaves behind: figures, tables, a reliability diagram and galleries."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.evaluation.bootstrap import Resampling, intervals
from pipelines.report.charts import reliability_diagram
from pipelines.report.results import Figures, FigureSummary, ResultTable, Value
from pipelines.report.sheets import picture_sheet
from shared_backbones.classification.figures import class_figures, class_rows, reliability
from shared_backbones.files import replacing, write_rows

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
    figures: Mapping[str, float | None] | None = None,
    tables: Sequence[ResultTable] = (),
    resamples: int = 2000,
    seed: int = 0,
) -> Figures:
    """Write `summary.json` (figures and tables) and pictures of a classification.

    Args:
        folder: Folder of the evaluation.
        scores: Probabilities `(N, K)`.
        targets: `(N, K)`, 1 for the classes that an image has.
        names: Names of the classes.
        multi_label: Whether an image can have several classes.
        picture: Gives the image of a number as `(H, W, 3)` uint8; without it there are no galleries.
        figures: Further figures.
        tables: Further tables.
        resamples: Number of bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        The figures.
    """
    noted: Figures = class_figures(scores, targets, multi_label=multi_label)
    noted |= intervals(Resampling(targets, resamples, seed, multi_label=multi_label).figures(scores))
    made = [_class_table(scores, targets, names, multi_label)]
    if not multi_label:
        labels = targets.argmax(1)
        bins = [row for row in reliability(scores.max(1), scores.argmax(1) == labels) if row["images"]]
        title = "Confusion: labels in rows, the network's answer in columns"
        made += [confusion_table(title, scores, targets, names), _reliability_table(bins)]
        with replacing(folder / "reliability.svg") as path:
            marks = [(row["confidence"], row["accuracy"], row["images"]) for row in bins]
            path.write_text(reliability_diagram(marks), encoding="utf-8")
        if picture is not None:
            _write_galleries(folder, scores, labels, names, picture)
    noted |= figures or {}
    summary: FigureSummary = {"figures": noted, "tables": [*made, *tables]}
    with replacing(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return noted


def confusion_table(title: str, scores: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> ResultTable:
    """How many images of each label, in rows, have which answer, in columns.

    Args:
        title: Title of the table.
        scores: Probabilities `(N, K)`.
        targets: `(N, K)`, 1 for an image's class.
        names: Names of the classes.
    """
    labels, best = targets.argmax(1), scores.argmax(1)
    counts = np.bincount(labels * len(names) + best, minlength=len(names) ** 2).reshape(len(names), -1)
    rows: list[list[Value]] = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    return {"title": title, "columns": ["Label", *names], "rows": rows}


def merged_table(
    figures: dict[str, float | None],
    scores: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    merged: Mapping[str, Sequence[str]],
) -> ResultTable:
    """Confusion with some classes taken as one; figures of it are added to `figures` as `merged_<figure>`.

    Args:
        figures: Figures that are added to.
        scores: Probabilities `(N, K)`.
        targets: `(N, K)`, 1 for an image's class.
        names: Names of the classes.
        merged: Names of the classes that are taken as one, by the name that they get.
    """
    home = {part: whole for whole, parts in merged.items() for part in parts}
    wholes = list(dict.fromkeys(home.get(name, name) for name in names))
    matrix = np.zeros((len(names), len(wholes)))
    for number, name in enumerate(names):
        matrix[number, wholes.index(home.get(name, name))] = 1
    together, truth = scores @ matrix, targets @ matrix
    figures_together = class_figures(together, truth, multi_label=False)
    kept = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll", "brier")
    figures |= {f"merged_{name}": figures_together[name] for name in kept}
    return confusion_table("Confusion of the merged classes", together, truth, wholes)


def handedness(scores: np.ndarray, targets: np.ndarray, mirror: Sequence[int]) -> Figures:
    """How often an image's class is more probable than its mirror image's; nothing where no class has another.

    Args:
        scores: Probabilities `(N, K)`.
        targets: `(N, K)`, 1 for an image's class.
        mirror: For each class the one that its mirror image has.
    """
    labels = targets.argmax(1)
    mirrored = np.array(mirror)[labels]
    rows = np.flatnonzero(mirrored != labels)
    if not len(rows):
        return {}
    right = scores[rows, labels[rows]] > scores[rows, mirrored[rows]]
    return {"handedness": float(right.mean()), "handed_images": len(rows)}


def write_predictions(
    path: Path, keys: Sequence[str], targets: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> None:
    """Write a row for each image: `case`, from its key, its label, or labels with `|` between, and probabilities."""
    table = io.StringIO(newline="")
    rows: list[list[str]] = [["case", "label", *(f"p_{name}" for name in names)]]
    for key, target, row in zip(keys, targets, scores, strict=True):
        case = f"case-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        label = "|".join(name for name, present in zip(names, target, strict=True) if present)
        rows.append([case, label, *(f"{value:.5f}" for value in row)])
    write_rows(table, rows)
    with replacing(path) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8")


def _class_table(scores: np.ndarray, targets: np.ndarray, names: Sequence[str], multi_label: bool) -> ResultTable:
    rows: list[list[Value]] = [
        [row["name"], *(row[part] for part in ("images", "recall", "precision", "f1"))]
        for row in class_rows(scores, targets, names, multi_label=multi_label)
    ]
    return {"title": "Classes", "columns": ["Class", "Images", "Recall", "Precision", "F1"], "rows": rows}


def _reliability_table(bins: Sequence[Mapping[str, float]]) -> ResultTable:
    rows: list[list[Value]] = [
        [f"{row['low']:.2f} to {row['high']:.2f}", *(row[part] for part in ("images", "confidence", "accuracy"))]
        for row in bins
    ]
    columns = ["Confidence", "Images", "Mean confidence", "Share right"]
    return {"title": "Reliability, 15 bins of equal width", "columns": columns, "rows": rows}


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
