"""Panoptic quality of maps of segments (Kirillov et al., arXiv 1801.00868)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ClassQuality:
    """How well the segments of a class were found.

    Attributes:
        matched: segments found, which share more than half of their union with one that is there.
        overlap: sum of the shares.
        false: segments found that are not there.
        missed: segments that are there and were not found.
    """

    matched: int = 0
    overlap: float = 0.0
    false: int = 0
    missed: int = 0

    @property
    def present(self) -> bool:
        """Whether there was a segment of the class, found or to be found."""
        return bool(self.matched + self.false + self.missed)

    @property
    def segmentation(self) -> float:
        """Mean share of the matched segments, in [0, 1]; NaN without any."""
        return self.overlap / self.matched if self.matched else float("nan")

    @property
    def recognition(self) -> float:
        """F1 of the segments, in [0, 1]; NaN where the class is not present."""
        return self._per_segment(self.matched)

    @property
    def quality(self) -> float:
        """Panoptic quality, in [0, 1]: product of the two; NaN where the class is not present."""
        return self._per_segment(self.overlap)

    def _per_segment(self, value: float) -> float:
        return value / (self.matched + (self.false + self.missed) / 2) if self.present else float("nan")


@dataclass
class PanopticQuality:
    """Panoptic quality over images, class by class.

    Attributes:
        classes: names; segments have their numbers.
        counts: so far, class by class.
    """

    classes: Sequence[str]
    counts: list[ClassQuality] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [ClassQuality() for _ in self.classes]

    def update(
        self,
        prediction: np.ndarray,
        prediction_classes: Sequence[int],
        truth: np.ndarray,
        truth_classes: Sequence[int],
        ignored: np.ndarray | None = None,
    ) -> None:
        """Count the segments of an image.

        Args:
            prediction: number of each pixel's segment `(H, W)`, from 1; 0 is none.
            prediction_classes: class of each segment, segment 1 first.
            truth: the same of what is there; its 0 belongs to no class, and what is found there counts as false.
            truth_classes: their classes.
            ignored: pixels that count for nothing, `(H, W)` bool. A segment found that lies in them for more than half
                is not counted as false.

        Raises:
            ValueError: the maps differ in shape.
        """
        if prediction.shape != truth.shape or (ignored is not None and ignored.shape != truth.shape):
            raise ValueError(f"maps of {prediction.shape} and {truth.shape} pixels: expected the same shape")
        void = np.zeros(truth.shape, bool) if ignored is None else ignored
        there = np.where(void, 0, truth)
        columns = len(truth_classes) + 1
        pairs = np.bincount(
            (np.where(void, 0, prediction) * columns + there).ravel(), minlength=(len(prediction_classes) + 1) * columns
        ).reshape(-1, columns)
        whole = np.bincount(prediction.ravel(), minlength=len(prediction_classes) + 1)
        in_void = np.bincount(prediction[void], minlength=len(prediction_classes) + 1)
        areas, matched = pairs.sum(1), set()
        sizes = np.bincount(there.ravel(), minlength=columns)
        hits = []
        for i, j in np.argwhere(pairs[1:, 1:]) + 1:
            fraction = pairs[i, j] / (areas[i] + sizes[j] - pairs[i, j])
            if prediction_classes[i - 1] == truth_classes[j - 1] and fraction > 0.5:
                hits.append((int(prediction_classes[i - 1]), float(fraction)))
                matched |= {("found", i), ("truth", j)}
        for name, fraction in hits:
            self._add(name, matched=1, overlap=fraction)
        for j, name in enumerate(truth_classes, 1):
            if sizes[j] and ("truth", j) not in matched:
                self._add(name, missed=1)
        for i, name in enumerate(prediction_classes, 1):
            if whole[i] and ("found", i) not in matched and in_void[i] <= whole[i] / 2:
                self._add(name, false=1)

    def mean(self) -> float:
        """Mean quality of the classes that are present; NaN without any."""
        values = [count.quality for count in self.counts if count.present]
        return float(np.mean(values)) if values else float("nan")

    def _add(self, index: int, *, matched: int = 0, overlap: float = 0.0, false: int = 0, missed: int = 0) -> None:
        old = self.counts[index]
        self.counts[index] = ClassQuality(
            old.matched + matched, old.overlap + overlap, old.false + false, old.missed + missed
        )
