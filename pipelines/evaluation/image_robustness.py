"""What corruption does to a classifier: a matrix whose every cell can be computed alone, and what it says together."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypeAlias, TypedDict

import numpy as np

from pipelines.evaluation.bootstrap import INTERVALS, Resampling, intervals
from shared_backbones.classification.figures import balanced_accuracy, class_figures, class_rows
from shared_backbones.json_values import Document

SEVERITIES = (1, 2, 3, 4, 5)

State: TypeAlias = tuple[str | None, int]
"""Name of a corruption and its severity; None and 0 are the images as they are."""
Corruption: TypeAlias = Callable[[str, np.ndarray, int, int], np.ndarray]
"""Makes another image of a corruption's name, an image `(C, H, W)`, a severity and the image's number."""
Scored: TypeAlias = tuple[np.ndarray, str]
"""Probabilities `(N, K)` of all images in one state, and the sha256 of these images."""


class ImageState(TypedDict):
    """Figures of a classifier on images in one state, with the ends of their 95 % intervals."""

    accuracy: float | None
    balanced_accuracy: float
    auc: float | None
    ece: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    balanced_accuracy_low: float | None
    balanced_accuracy_high: float | None
    auc_low: float | None
    auc_high: float | None
    ece_low: float | None
    ece_high: float | None
    sha256: str


class ImageCell(ImageState):
    """Figures under a corruption; `lost` is the clean balanced accuracy less its own, with its paired interval."""

    corruption: str
    family: str
    severity: int
    lost: float
    lost_low: float
    lost_high: float


class Means(TypedDict):
    """Means of the figures of some cells."""

    accuracy: float | None
    balanced_accuracy: float | None
    auc: float | None
    ece: float | None
    lost: float | None


class Worst(TypedDict):
    """The cell of the lowest balanced accuracy."""

    corruption: str
    severity: int
    balanced_accuracy: float


class Recalls(TypedDict):
    """Recall of each class when clean, and its mean under each corruption."""

    classes: list[str]
    clean: list[float | None]
    corrupted: dict[str, list[float | None]]


class Right(TypedDict):
    """Whether each image's classes are all right, as hexadecimal bits: clean, and by corruption at each severity."""

    clean: str
    corrupted: dict[str, list[str]]


class PairedTest(TypedDict):
    """McNemar's exact test in one state of the images; `corruption` is None where they are clean.

    `only_here` and `only_there` count the images that one classifier alone is right on; `p_holm` is corrected for the
    number of tests (Holm 1979).
    """

    corruption: str | None
    severity: int
    only_here: int
    only_there: int
    p: float
    p_holm: float


class PairedTests(TypedDict):
    """Tests against a baseline."""

    baseline: str
    tests: list[PairedTest]


class ImageMeasurement(TypedDict):
    """A classifier under every corruption and severity.

    `corruptions` and `families` are means over cells; `model` describes the classifier in a file; `relative` holds
    errors in units of a baseline's (`medvision.corruptions.relative_errors`), and `paired` tests against it.
    """

    images: int
    clean: ImageState
    cells: list[ImageCell]
    corruptions: dict[str, Means]
    families: dict[str, Means]
    worst: Worst
    recalls: Recalls
    right: Right
    model: NotRequired[Document]
    relative: NotRequired[Document | None]
    paired: NotRequired[PairedTests | None]


@dataclass(frozen=True)
class Scorer:
    """Scores images in every state, and keeps a picture of the first of them.

    Attributes:
        batches: Gives the images of a state, so many at once.
        predict: Gives probabilities `(n, K)` of such images.
        picture: Makes an image one for those who look at it, `(H, W, 3)` uint8.
        pictures: Picture of the first image in each state that was scored.
    """

    batches: Callable[[str | None, int], Iterator[np.ndarray]]
    predict: Callable[[np.ndarray], np.ndarray]
    picture: Callable[[np.ndarray], np.ndarray]
    pictures: dict[State, np.ndarray] = field(default_factory=dict)

    def __call__(self, name: str | None, severity: int) -> Scored:
        """Probabilities of all images in a state, and their sha256."""
        digest, scores = hashlib.sha256(), []
        for part in self.batches(name, severity):
            self.pictures.setdefault((name, severity), self.picture(part[0]))
            digest.update(np.ascontiguousarray(part).tobytes())
            scores.append(self.predict(part))
        return np.concatenate(scores), digest.hexdigest()


@dataclass(frozen=True)
class CorruptedImages:
    """Images that are corrupted as they are asked for.

    Attributes:
        images: `(N, C, H, W)`.
        numbers: Number of each image, which its corruption is drawn by, `(N,)`.
        corrupt: Corrupts one of them.
    """

    images: np.ndarray
    numbers: np.ndarray
    corrupt: Corruption

    def batches(self, name: str | None, severity: int) -> Iterator[np.ndarray]:
        """Images `(n, C, H, W)` in a state, 64 at once."""
        for start in range(0, len(self.images), 64):
            part = self.images[start : start + 64]
            if name is not None:
                pairs = zip(part, self.numbers[start : start + 64], strict=True)
                part = np.stack([self.corrupt(name, image, severity, int(number)) for image, number in pairs])
            yield part


def spread(count: int, wanted: int | None) -> np.ndarray:
    """Numbers of so many images spread evenly over `count`; of all where none or too many are asked for."""
    return np.unique(np.linspace(0, count - 1, min(wanted or count, count)).round().astype(int))


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
) -> ImageMeasurement:
    """Score a classifier under every corruption and severity.

    Args:
        score: Gives the probabilities under a corruption at a severity; None and 0 stand for the clean images.
        targets: `(N, K)`, 1 for the classes that an image has.
        names: Names of the classes.
        corruptions: Names of the corruptions, each with the family that it belongs to.
        multi_label: Whether an image can have several classes.
        resamples: Number of bootstrap resamples over images; they are the same in every cell, so that differences of
            cells are paired.
        seed: Seed of the bootstrap.
        on_progress: Called with the number of cells done and of all cells.
    """
    matrix = _Matrix(targets, names, Resampling(targets, resamples, seed, multi_label=multi_label), *score(None, 0))
    for name, family in corruptions.items():
        for severity in SEVERITIES:
            matrix.add(name, family, severity, *score(name, severity))
            if on_progress is not None:
                on_progress(len(matrix.cells), len(corruptions) * len(SEVERITIES))
    return matrix.measurement()


class _Matrix:
    """Cells of a measurement as they are scored.

    Args:
        targets: `(N, K)`, 1 for the classes that an image has.
        names: Names of the classes.
        resampling: Bootstrap of all cells.
        scores: Probabilities `(N, K)` of the clean images.
        sha256: Hash of the clean images.
    """

    def __init__(
        self, targets: np.ndarray, names: Sequence[str], resampling: Resampling, scores: np.ndarray, sha256: str
    ) -> None:
        self.targets, self.names, self.resampling = targets, list(names), resampling
        self.clean, self.clean_draws = self._state(scores, sha256)
        self.clean_recalls = self._recalls(scores)
        self.cells: list[ImageCell] = []
        self.recalls: dict[str, list[list[float | None]]] = {}
        self.right: Right = {"clean": self._right(scores), "corrupted": {}}

    def add(self, corruption: str, family: str, severity: int, scores: np.ndarray, sha256: str) -> None:
        """Note the probabilities of the images under a corruption."""
        state, draws = self._state(scores, sha256)
        low, high = np.nanpercentile(self.clean_draws - draws, [2.5, 97.5])
        cell: ImageCell = {
            "corruption": corruption,
            "family": family,
            "severity": severity,
            **state,
            "lost": self.clean["balanced_accuracy"] - state["balanced_accuracy"],
            "lost_low": float(low),
            "lost_high": float(high),
        }
        self.cells.append(cell)
        self.recalls.setdefault(corruption, []).append(self._recalls(scores))
        self.right["corrupted"].setdefault(corruption, []).append(self._right(scores))

    def measurement(self) -> ImageMeasurement:
        """What all cells say together."""
        worst = min(self.cells, key=lambda cell: cell["balanced_accuracy"])
        means = {name: [mean_of(column) for column in zip(*rows, strict=True)] for name, rows in self.recalls.items()}
        return {
            "images": len(self.targets),
            "clean": self.clean,
            "cells": self.cells,
            "corruptions": _means(self.cells, "corruption"),
            "families": _means(self.cells, "family"),
            "worst": {
                "corruption": worst["corruption"],
                "severity": worst["severity"],
                "balanced_accuracy": worst["balanced_accuracy"],
            },
            "recalls": {"classes": self.names, "clean": self.clean_recalls, "corrupted": means},
            "right": self.right,
        }

    def _state(self, scores: np.ndarray, sha256: str) -> tuple[ImageState, np.ndarray]:
        """Figures of one state of the images, and its balanced accuracy over the resamples."""
        multi_label, resampled = self.resampling.multi_label, self.resampling.figures(scores)
        figures, ends = class_figures(scores, self.targets, multi_label=multi_label), intervals(resampled)
        state: ImageState = {
            "accuracy": figures["accuracy"],
            "balanced_accuracy": balanced_accuracy(scores, self.targets, multi_label=multi_label),
            "auc": figures["auc"],
            "ece": figures["ece"],
            "accuracy_low": ends["accuracy_low"],
            "accuracy_high": ends["accuracy_high"],
            "balanced_accuracy_low": ends["balanced_accuracy_low"],
            "balanced_accuracy_high": ends["balanced_accuracy_high"],
            "auc_low": ends["auc_low"],
            "auc_high": ends["auc_high"],
            "ece_low": ends["ece_low"],
            "ece_high": ends["ece_high"],
            "sha256": sha256,
        }
        return state, resampled["balanced_accuracy"]

    def _recalls(self, scores: np.ndarray) -> list[float | None]:
        rows = class_rows(scores, self.targets, self.names, multi_label=self.resampling.multi_label)
        return [row["recall"] for row in rows]

    def _right(self, scores: np.ndarray) -> str:
        """Whether each image's classes are all right, packed into hexadecimal digits."""
        if self.resampling.multi_label:
            hits = ((scores > 0.5) == (self.targets > 0)).all(1)
        else:
            hits = scores.argmax(1) == self.targets.argmax(1)
        return np.packbits(hits).tobytes().hex()


def figures_of(measurement: ImageMeasurement) -> dict[str, float]:
    """The few figures of a measurement that a run notes."""
    clean = measurement["clean"]
    noted = {
        "corrupted_clean_accuracy": clean["accuracy"],
        "corrupted_clean_balanced_accuracy": clean["balanced_accuracy"],
        **{f"corrupted_{name}": mean_of([cell[name] for cell in measurement["cells"]]) for name in INTERVALS},
        "corrupted_worst_balanced_accuracy": measurement["worst"]["balanced_accuracy"],
    }
    return {name: float(value) for name, value in noted.items() if value is not None}


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are defined; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _means(cells: Sequence[ImageCell], by: Literal["corruption", "family"]) -> dict[str, Means]:
    groups: dict[str, list[ImageCell]] = {}
    for cell in cells:
        groups.setdefault(cell[by], []).append(cell)
    return {
        group: {
            "accuracy": mean_of([cell["accuracy"] for cell in members]),
            "balanced_accuracy": mean_of([cell["balanced_accuracy"] for cell in members]),
            "auc": mean_of([cell["auc"] for cell in members]),
            "ece": mean_of([cell["ece"] for cell in members]),
            "lost": mean_of([cell["lost"] for cell in members]),
        }
        for group, members in groups.items()
    }
