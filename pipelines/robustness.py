"""What corruption does to a classifier: a matrix whose every cell can be computed alone, and what it says together."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.report.curves import line_chart
from shared_backbones.files import replacing
from shared_backbones.probabilities import balanced_accuracy, class_figures, class_rows

SEVERITIES = (1, 2, 3, 4, 5)
_FIGURES = ("accuracy", "balanced_accuracy", "auc", "ece")
_CHUNK = 100  # resamples that are held at once

Scored = tuple[np.ndarray, str]
"""Probabilities `(N, K)` of all images in one state, and the sha256 of what the network saw."""


def measure(
    score: Callable[[str | None, int], Scored],
    targets: np.ndarray,
    names: Sequence[str],
    corruptions: Mapping[str, str],
    *,
    multi_label: bool = False,
    resamples: int = 2000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a classifier under every corruption and severity.

    Args:
        score: gives the probabilities of a corruption at a severity; of None and 0 those of the images as they are.
        targets: `(N, K)`, 1 for the classes that an image has.
        names: of the classes.
        corruptions: their names, each with the family that it belongs to.
        multi_label: whether an image can have several classes.
        resamples: of the bootstrap over images, the same in every cell: differences of cells are paired.
        seed: of the bootstrap.
        on_progress: called with the cells done and their number.

    Returns:
        `clean` and `cells`, each with the figures `accuracy`, `balanced_accuracy`, `auc` and `ece`, 95 % intervals of
        the first two (`..._low`, `..._high`), and the images' `sha256`; cells also `corruption`, `severity` and `lost`,
        the clean balanced accuracy less theirs, with its paired interval. `corruptions` and `families`: means over
        cells. `worst`: corruption and severity of the lowest balanced accuracy. `recalls`: of each class when clean,
        and its mean under each corruption.
    """
    clean_scores, digest = score(None, 0)
    draw = _Resampling(targets, resamples, seed, multi_label)
    clean, clean_draws = _cell(clean_scores, targets, digest, draw, multi_label)
    recall = [row["recall"] for row in class_rows(clean_scores, targets, names)]
    cells, recalls, total = [], {}, len(corruptions) * len(SEVERITIES)
    for name, family in corruptions.items():
        found = []
        for severity in SEVERITIES:
            scores, digest = score(name, severity)
            cell, drawn = _cell(scores, targets, digest, draw, multi_label)
            low, high = np.nanpercentile(clean_draws - drawn, [2.5, 97.5])
            lost = {
                "lost": clean["balanced_accuracy"] - cell["balanced_accuracy"],
                "lost_low": float(low),
                "lost_high": float(high),
            }
            cells.append({"corruption": name, "family": family, "severity": severity, **cell, **lost})
            found.append([row["recall"] for row in class_rows(scores, targets, names)])
            if on_progress is not None:
                on_progress(len(cells), total)
        recalls[name] = [_mean(column) for column in zip(*found, strict=True)]
    worst = min(cells, key=lambda cell: cell["balanced_accuracy"])
    return {
        "images": len(targets),
        "clean": clean,
        "cells": cells,
        "corruptions": _means(cells, "corruption"),
        "families": _means(cells, "family"),
        "worst": {key: worst[key] for key in ("corruption", "severity", "balanced_accuracy")},
        "recalls": {"classes": list(names), "clean": recall, "corrupted": recalls},
    }


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of a measurement that a run notes."""
    mean = {name: _mean([cell[name] for cell in found["cells"]]) for name in _FIGURES}
    noted = {
        "corrupted_clean_accuracy": found["clean"]["accuracy"],
        "corrupted_clean_balanced_accuracy": found["clean"]["balanced_accuracy"],
        **{f"corrupted_{name}": value for name, value in mean.items()},
        "corrupted_worst_balanced_accuracy": found["worst"]["balanced_accuracy"],
    }
    return {name: float(value) for name, value in noted.items() if value is not None}


def tables_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables of a measurement for a report: the matrix, means by corruption, and what each class lost."""
    matrix = []
    for name in found["corruptions"]:
        row = [cell for cell in found["cells"] if cell["corruption"] == name]
        matrix.append([_words(name), found["clean"]["balanced_accuracy"], *(_with_interval(cell) for cell in row)])
    means = [
        [_words(name), *(values[figure] for figure in _FIGURES), values["lost"]]
        for part in ("corruptions", "families")
        for name, values in found[part].items()
        if part == "corruptions" or len(found["families"]) > 1
    ]
    clean = [found["clean"][figure] for figure in _FIGURES]
    recalls = found["recalls"]
    lost = [
        [_words(name), *(None if a is None or b is None else a - b for a, b in zip(recalls["clean"], row, strict=True))]
        for name, row in recalls["corrupted"].items()
    ]
    return [
        {
            "title": f"Balanced accuracy of {found['images']} images under corruption, with 95 % intervals",
            "columns": ["Corruption", "Clean", *(f"Severity {severity}" for severity in SEVERITIES)],
            "rows": matrix,
        },
        {
            "title": "Means over the severities, by corruption and by family",
            "columns": ["Corruption", "Accuracy", "Balanced accuracy", "AUC", "ECE", "Balanced accuracy lost"],
            "rows": [["clean", *clean, 0.0], *means],
        },
        {
            "title": "Recall that each class lost, mean over the severities",
            "columns": ["Corruption", *recalls["classes"]],
            "rows": lost,
        },
    ]


def write_robustness(
    folder: Path, found: Mapping[str, Any], strip: Callable[[str | None, int], np.ndarray] | None = None
) -> None:
    """Write `robustness.json`, `robustness.csv` (a row for each cell), `robustness.svg` (curves) and a strip of images.

    Args:
        folder: exists.
        found: of `measure`.
        strip: gives one image `(H, W, 3)` uint8 under a corruption at a severity; without it there are no pictures.
    """
    table = io.StringIO(newline="")
    columns = [name for name in found["cells"][0]]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found["cells"])
    curves = {
        _words(name): [found["clean"]["balanced_accuracy"]]
        + [cell["balanced_accuracy"] for cell in found["cells"] if cell["corruption"] == name]
        for name in found["corruptions"]
    }
    texts = {
        "robustness.json": json.dumps(found, indent=2, allow_nan=False) + "\n",
        "robustness.csv": table.getvalue(),
        "robustness.svg": line_chart(curves, "severity", "balanced accuracy"),
    }
    for name, text in texts.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    if strip is not None:
        with replacing(folder / "robustness_strip.png") as path:
            _strip(list(found["corruptions"]), strip).save(path, "PNG")


class _Resampling:
    """Accuracy and balanced accuracy of resampled images; the same images are drawn for every cell."""

    def __init__(self, targets: np.ndarray, resamples: int, seed: int, multi_label: bool) -> None:
        self.targets, self.multi_label = targets.astype(np.float64), multi_label
        count = len(targets)
        random = np.random.default_rng(seed)
        self.draws = [
            random.multinomial(count, np.full(count, 1 / count), min(_CHUNK, resamples - start)).astype(np.float32)
            for start in range(0, resamples, _CHUNK)
        ]

    def __call__(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both figures for every resample, `(R,)` each."""
        if self.multi_label:
            hits = (scores >= 0.5) == (self.targets > 0)
            kinds = np.concatenate([self.targets, 1 - self.targets], 1)
            hits_of = np.concatenate([hits * self.targets, hits * (1 - self.targets)], 1)
        else:
            hits = scores.argmax(1) == self.targets.argmax(1)
            kinds, hits_of = self.targets, hits[:, None] * self.targets
        right = hits.reshape(len(hits), -1).mean(1)
        parts = []
        with np.errstate(invalid="ignore"):
            for draw in self.draws:
                shares = (draw @ hits_of) / np.where(draw @ kinds > 0, draw @ kinds, np.nan)
                if self.multi_label:  # of each label, the mean of sensitivity and specificity
                    shares = (shares[:, : self.targets.shape[1]] + shares[:, self.targets.shape[1] :]) / 2
                there = ~np.isnan(shares)
                balanced = np.where(there, shares, 0).sum(1) / np.maximum(there.sum(1), 1)
                parts.append((draw @ right / len(hits), balanced))
        accuracy, balanced = (np.concatenate(part) for part in zip(*parts, strict=True))
        return accuracy, balanced


def _cell(
    scores: np.ndarray, targets: np.ndarray, digest: str, draw: _Resampling, multi_label: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of one state of the images, and its balanced accuracy over the resamples."""
    figures = class_figures(scores, targets, multi_label=multi_label)
    cell: dict[str, Any] = {name: figures[name] for name in _FIGURES if name in figures}
    cell["balanced_accuracy"] = balanced_accuracy(scores, targets, multi_label=multi_label)
    accuracy, balanced = draw(scores)
    for name, values in (("accuracy", accuracy), ("balanced_accuracy", balanced)):
        cell[f"{name}_low"], cell[f"{name}_high"] = map(float, np.percentile(values, [2.5, 97.5]))
    return {**cell, "sha256": digest}, balanced


def _means(cells: Sequence[Mapping[str, Any]], by: str) -> dict[str, dict[str, float | None]]:
    groups = dict.fromkeys(cell[by] for cell in cells)
    return {
        group: {name: _mean([cell[name] for cell in cells if cell[by] == group]) for name in (*_FIGURES, "lost")}
        for group in groups
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _with_interval(cell: Mapping[str, Any]) -> str:
    low, high = cell["balanced_accuracy_low"], cell["balanced_accuracy_high"]
    return f"{cell['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _strip(names: Sequence[str], picture: Callable[[str | None, int], np.ndarray], side: int = 88) -> Any:
    """A row for each corruption: an image as it is, and at every severity."""
    from PIL import Image, ImageDraw, ImageFont

    left, step = 130, side + 4
    sheet = Image.new("RGB", (left + step * (len(SEVERITIES) + 1), 18 + step * len(names)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column in range(len(SEVERITIES) + 1):
        draw.text((left + column * step + 4, 3), f"{column}" if column else "clean", fill="#222", font=font)
    for row, name in enumerate(names):
        draw.text((4, 18 + row * step + side // 2 - 6), _words(name), fill="#222", font=font)
        for column in range(len(SEVERITIES) + 1):
            image = Image.fromarray(picture(name if column else None, column))
            cell = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(cell, (left + column * step, 18 + row * step))
    return sheet
