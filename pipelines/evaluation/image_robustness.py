"""What corruption does to a classifier: a matrix whose every cell can be computed alone, and what it says together."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.bootstrap import INTERVALS, Resampling, intervals
from pipelines.report.charts import line_chart
from pipelines.report.results import ResultTable
from pipelines.report.sheets import picture_sheet
from shared_backbones.classification.figures import class_figures, class_rows
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

SEVERITIES = (1, 2, 3, 4, 5)

Scored = tuple[np.ndarray, str]
"""Probabilities `(N, K)` of all images in one state, and the sha256 of these images."""


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
        `clean` and `cells`, each with the figures `accuracy`, `balanced_accuracy`, `auc` and `ece`, their 95 %
        intervals (`..._low`, `..._high`), and the images' `sha256`; cells also `corruption`, `severity` and `lost`,
        the clean balanced accuracy less theirs, with its paired interval. `corruptions` and `families`: means over
        cells. `worst`: corruption and severity of the lowest balanced accuracy. `recalls`: of each class when clean,
        and its mean under each corruption. `right`: whether each image's classes are all right, as hexadecimal bits,
        when `clean` and, by corruption, at each severity: see `paired_tests`.
    """
    clean_scores, digest = score(None, 0)
    right: dict[str, Any] = {"clean": _right(clean_scores, targets, multi_label), "corrupted": {}}
    resampling = Resampling(targets, resamples, seed, multi_label=multi_label)
    clean, clean_draws = _cell(clean_scores, targets, digest, resampling)
    recall = [row["recall"] for row in class_rows(clean_scores, targets, names, multi_label=multi_label)]
    cells, recalls, total = [], {}, len(corruptions) * len(SEVERITIES)
    for name, family in corruptions.items():
        found = []
        for severity in SEVERITIES:
            scores, digest = score(name, severity)
            cell, drawn = _cell(scores, targets, digest, resampling)
            low, high = np.nanpercentile(clean_draws - drawn, [2.5, 97.5])
            lost = {
                "lost": clean["balanced_accuracy"] - cell["balanced_accuracy"],
                "lost_low": float(low),
                "lost_high": float(high),
            }
            cells.append({"corruption": name, "family": family, "severity": severity, **cell, **lost})
            found.append([row["recall"] for row in class_rows(scores, targets, names, multi_label=multi_label)])
            right["corrupted"].setdefault(name, []).append(_right(scores, targets, multi_label))
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
        "right": right,
    }


def paired_tests(found: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether two classifiers are right on the same images equally often: McNemar's exact test in every state.

    Args:
        found: of `measure`.
        other: likewise, of another classifier; with the corruptions of `found`, or more.

    Returns:
        For the clean images and each cell: `corruption` (None when clean), `severity`, the images that `only_here` and
        `only_there` are right, `p`, and `p_holm`, which is corrected for the number of tests (Holm 1979).

    Raises:
        InputError: the images are not the same ones.
    """
    from scipy.special import bdtr

    rows: list[dict[str, Any]] = []
    theirs = {(cell["corruption"], cell["severity"]): cell["sha256"] for cell in other["cells"]}
    check_same(found["clean"]["sha256"], other["clean"]["sha256"], "without corruption")
    for cell in found["cells"]:
        name, severity = cell["corruption"], cell["severity"]
        check_same(cell["sha256"], theirs[name, severity], f"under {name} at severity {severity}")
    for name, severity in [(None, 0), *((cell["corruption"], cell["severity"]) for cell in found["cells"])]:
        here, there = (_bits(part["right"], name, severity, found["images"]) for part in (found, other))
        gained, lost = int((here & ~there).sum()), int((there & ~here).sum())
        p = min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0
        rows.append({"corruption": name, "severity": severity, "only_here": gained, "only_there": lost, "p": p})
    largest = 0.0
    for rank, row in enumerate(sorted(rows, key=lambda row: row["p"])):
        largest = row["p_holm"] = max(largest, min(1.0, row["p"] * (len(rows) - rank)))
    return rows


def check_same(own: str, theirs: str, state: str) -> None:
    """Refuse to compare models on images of another sha256.

    Raises:
        InputError: they differ.
    """
    if own != theirs:
        raise InputError(
            f"the baseline's images {state} have the sha256 {theirs[:8]}, these {own[:8]}; measure both models on the "
            "same file, split and number of images"
        )


def read_measurement(folder: Path) -> dict[str, Any]:
    """What `write_robustness` wrote into a folder of a measurement that has `right`.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    path = folder / "robustness.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        states = [(None, 0, found["clean"])]
        states += [(cell["corruption"], cell["severity"], cell) for cell in found["cells"]]
        for name, severity, cell in states:
            _bits(found["right"], name, severity, found["images"])
            if not 0 <= cell["balanced_accuracy"] <= 1 or not isinstance(cell["sha256"], str):
                raise ValueError(f"{name} at {severity} has no balanced accuracy or sha256")
        if len(found["cells"]) != len(found["corruptions"]) * len(SEVERITIES):
            raise ValueError("severities are missing")
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be read ({error.strerror}); expected a folder that `robustness` wrote"
        ) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{printable(path)}: holds no matrix of a classifier's images; give a folder that `robustness` wrote of one"
        ) from None
    return found


def figures_of(found: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of a measurement that a run notes."""
    mean = {name: _mean([cell[name] for cell in found["cells"]]) for name in INTERVALS}
    noted = {
        "corrupted_clean_accuracy": found["clean"]["accuracy"],
        "corrupted_clean_balanced_accuracy": found["clean"]["balanced_accuracy"],
        **{f"corrupted_{name}": value for name, value in mean.items()},
        "corrupted_worst_balanced_accuracy": found["worst"]["balanced_accuracy"],
    }
    return {name: float(value) for name, value in noted.items() if value is not None}


def tables_of(found: Mapping[str, Any]) -> list[ResultTable]:
    """Tables of a measurement for a report: the matrix, means by corruption, and what each class lost.

    Where it has them, there are also `relative` errors, of `medvision.corruptions.relative_errors`, and `paired` tests.
    """
    matrix = []
    for name in found["corruptions"]:
        row = [cell for cell in found["cells"] if cell["corruption"] == name]
        matrix.append([_words(name), found["clean"]["balanced_accuracy"], *(_with_interval(cell) for cell in row)])
    means = [
        [_words(name), *(values[figure] for figure in INTERVALS), values["lost"]]
        for part in ("corruptions", "families")
        for name, values in found[part].items()
        if part == "corruptions" or len(found["families"]) > 1
    ]
    clean = [found["clean"][figure] for figure in INTERVALS]
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
        *([_relative_table(found["relative"])] if found.get("relative") else []),
        *([_paired_table(found["paired"])] if found.get("paired") else []),
    ]


def write_robustness(
    folder: Path,
    found: Mapping[str, Any],
    strip: Callable[[str | None, int], np.ndarray] | None = None,
    *,
    figure: str = "balanced_accuracy",
    side: int = 88,
) -> None:
    """Write `robustness.json`, `robustness.csv` (a row for each cell), `robustness.svg` (curves) and a strip of images.

    Args:
        folder: exists.
        found: of `measure`, or of another measurement with `clean`, `cells` and `corruptions`.
        strip: gives one image `(H, W, 3)` uint8 under a corruption at a severity; without it there are no pictures.
        figure: of the cells, from 0 to 1, that the curves show.
        side: in pixels of a picture in the strip.
    """
    table = io.StringIO(newline="")
    rows = [_flat(cell) for cell in found["cells"]]
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    severities = severities_of(found)
    curves = {
        _words(name): [found["clean"][figure]] + [cell[figure] for cell in found["cells"] if cell["corruption"] == name]
        for name in found["corruptions"]
    }
    texts = {
        "robustness.json": json.dumps(found, indent=2, allow_nan=False) + "\n",
        "robustness.csv": table.getvalue(),
        "robustness.svg": line_chart(curves, "severity", _words(figure), (0, *severities)),
    }
    for name, text in texts.items():
        with replacing(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    if strip is not None:
        sheet = picture_sheet(
            [
                [strip(name if severity else None, severity) for severity in (0, *severities)]
                for name in found["corruptions"]
            ],
            size=(side, side),
            above=["clean", *map(str, severities)],
            beside=[_words(name) for name in found["corruptions"]],
        )
        with replacing(folder / "robustness_strip.png") as path:
            sheet.save(path, "PNG")


def severities_of(found: Mapping[str, Any]) -> list[int]:
    """Severities that a measurement has, rising."""
    return sorted({cell["severity"] for cell in found["cells"]})


def _cell(
    scores: np.ndarray, targets: np.ndarray, digest: str, resampling: Resampling
) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of one state of the images with their intervals, and its balanced accuracy over the resamples."""
    figures, resampled = class_figures(scores, targets, multi_label=resampling.multi_label), resampling.figures(scores)
    cell = {**{name: figures[name] for name in INTERVALS}, **intervals(resampled), "sha256": digest}
    return cell, resampled["balanced_accuracy"]


def _means(cells: Sequence[Mapping[str, Any]], by: str) -> dict[str, dict[str, float | None]]:
    groups = dict.fromkeys(cell[by] for cell in cells)
    return {
        group: {name: _mean([cell[name] for cell in cells if cell[by] == group]) for name in (*INTERVALS, "lost")}
        for group in groups
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _right(scores: np.ndarray, targets: np.ndarray, multi_label: bool) -> str:
    """Whether each image's classes are all right, packed into hexadecimal digits."""
    hits = ((scores > 0.5) == (targets > 0)).all(1) if multi_label else scores.argmax(1) == targets.argmax(1)
    return np.packbits(hits).tobytes().hex()


def _bits(right: Mapping[str, Any], name: str | None, severity: int, count: int) -> np.ndarray:
    """What `_right` packed, of a state, `(N,)` bool."""
    packed = right["clean"] if name is None else right["corrupted"][name][severity - 1]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))
    if not 0 <= len(bits) - count < 8:
        raise ValueError(f"{len(bits)} bits for {count} images")
    return bits[:count].astype(bool)


def _relative_table(relative: Mapping[str, Any]) -> ResultTable:
    rows = [
        [
            _words(name), row["mean_error"], row["baseline_error"], row["be"], row["rbe"], row["rbe_denominator"],
            "rBE says nothing: less than 0.01" if row["flagged"] else "",
        ]
        for name, row in relative["corruptions"].items()
    ]  # fmt: skip
    clean, theirs = relative["clean_error"], relative["baseline_clean_error"]
    means = ["mean", None, None, relative["be"], relative["rbe"], None, ""]
    unflagged = ["mean without flagged", None, None, None, relative["rbe_unflagged"], None, ""]
    return {
        "title": f"Errors (1 - balanced accuracy) in units of those of {relative['baseline']}",
        "columns": ["Corruption", "Error", "Its error", "BE", "rBE", "Denominator of rBE", "Flag"],
        "rows": [["clean", clean, theirs, None, None, None, ""], *rows, means, unflagged],
    }


def _paired_table(paired: Mapping[str, Any]) -> ResultTable:
    rows = [
        [
            _words(row["corruption"] or "clean"), row["severity"] or "", row["only_here"], row["only_there"],
            f"{row['p']:.2g}", f"{row['p_holm']:.2g}",
        ]
        for row in paired["tests"]
    ]  # fmt: skip
    return {
        "title": f"Images that only one is right on, against {paired['baseline']} (McNemar's exact test)",
        "columns": ["Corruption", "Severity", "Only this one", "Only the baseline", "p", "p after Holm"],
        "rows": rows,
    }


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell for a table: lists are left out, and what is in a mapping has a column of its own."""
    row: dict[str, Any] = {}
    for name, value in cell.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{key}": inner for key, inner in value.items()}
        elif not isinstance(value, list):
            row[name] = value
    return row


def _with_interval(cell: Mapping[str, Any]) -> str:
    low, high = cell["balanced_accuracy_low"], cell["balanced_accuracy_high"]
    return f"{cell['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _words(name: str) -> str:
    return name.replace("_", " ")
