"""What an evaluation of class probabilities leaves behind: figures, tables, a reliability diagram and galleries."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.evaluation.bootstrap import Resampling, intervals
from shared_backbones.classification.figures import class_figures, class_rows, reliability
from shared_backbones.files import replacing

_PER_GALLERY = 8
_THUMBNAIL = 112  # side in pixels
_CAPTION = 30


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
            path.write_text(reliability_diagram(bins), encoding="utf-8")
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


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    """An SVG picture of the share right against the confidence; a mark's area tells how many images are in the bin."""
    left, top, side = 46, 10, 240
    most = max((row["images"] for row in bins), default=1) or 1
    marks = "".join(
        f'<circle cx="{left + row["confidence"] * side:.1f}" cy="{top + (1 - row["accuracy"]) * side:.1f}" '
        f'r="{2 + 8 * (row["images"] / most) ** 0.5:.1f}" fill="#0b5a73" fill-opacity="0.7"/>'
        for row in bins
        if row["images"]
    )
    ticks = "".join(
        f'<text x="{left - 6}" y="{top + (1 - value) * side + 4:.0f}" text-anchor="end">{value:g}</text>'
        f'<text x="{left + value * side:.0f}" y="{top + side + 18}" text-anchor="middle">{value:g}</text>'
        for value in (0, 0.5, 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + side + 12} {top + side + 40}" width="300" '
        f'font-family="sans-serif" font-size="12" fill="#51606e"><path d="M{left} {top}v{side}h{side}" fill="none" '
        f'stroke="#9aa7b2"/><path d="M{left} {top + side}L{left + side} {top}" stroke="#9aa7b2" stroke-dasharray="4"/>'
        f'{marks}{ticks}<text x="{left + side / 2:.0f}" y="{top + side + 36}" text-anchor="middle">mean confidence; '
        f"up: share right</text></svg>\n"
    )


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
            cells = [
                (picture(int(i)), names[int(labels[i])], f"> {names[int(best[i])]} {confidence[i]:.2f}")
                for i in members[:_PER_GALLERY]
            ]
            with replacing(folder / f"{name}.png") as path:
                gallery(cells).save(path, "PNG")


def gallery(cells: Sequence[tuple[np.ndarray, str, str]]) -> Image.Image:
    """Images `(H, W, 3)` uint8 side by side, each over two lines of text."""
    width = _THUMBNAIL + 8
    sheet = Image.new("RGB", (width * len(cells), _THUMBNAIL + _CAPTION), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (image, *lines) in enumerate(cells):
        thumbnail = Image.fromarray(image).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BICUBIC)
        sheet.paste(thumbnail, (number * width, 0))
        for row, line in enumerate(lines):
            draw.text((number * width, _THUMBNAIL + 2 + 13 * row), line[:22], fill="#222", font=font)
    return sheet
