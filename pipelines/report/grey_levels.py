"""The grey levels of a display copy of a scan."""

import re
from dataclasses import dataclass

import numpy as np

_LEVELS = 255
_HU_LOW, _HU_STEP = -1024, 8  # up to 1016 HU
_WINDOWS_HU = {"soft tissue": (400, 40), "lung": (1500, -600), "bone": (1800, 400), "brain": (80, 40)}  # width, level


@dataclass(frozen=True)
class GreyLevels:
    """How intensities become bytes: an intensity is `low` plus a byte times `step`, in `unit`."""

    unit: str
    low: float
    step: float

    @classmethod
    def of(cls, image: np.ndarray, modality: str) -> "GreyLevels":
        """The levels of a scan of a modality, as the model's card says it."""
        low, high = np.percentile(_sample(image), (0, 99.95))
        if re.search(r"\bCT\b", modality) and high - low > 200:  # CT scaled to 0 to 1 is not in HU
            return cls("HU", float(_HU_LOW), float(_HU_STEP))
        return cls("", float(low), float(high - low) / _LEVELS or 1.0)

    @property
    def high(self) -> float:
        """The highest intensity."""
        return self.low + _LEVELS * self.step

    @property
    def description(self) -> str:
        """Which intensities there are, in words."""
        unit = self.unit or "intensities"
        return f"{unit} in steps of {self.step:.3g}, cut off at {self.low:.4g} and {self.high:.4g}".replace("-", "−")

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Intensities as bytes."""
        codes = (np.nan_to_num(values, nan=self.low).clip(self.low, self.high) - self.low) / self.step
        return np.rint(np.clip(codes, 0, _LEVELS)).astype(np.uint8)

    def windows(self, image: np.ndarray) -> dict[str, tuple[float, float]]:
        """(black, white) of the usual windows of a scan, by name."""
        if self.unit:
            return {name: (level - width / 2, level + width / 2) for name, (width, level) in _WINDOWS_HU.items()}
        sample = _sample(image)
        bright = sample[sample > self.low + 0.02 * (self.high - self.low)]
        low, high = np.percentile(bright if bright.size else sample, (5, 95))
        narrow = (float(low), float(high) if high > low else float(low) + self.step)
        return {"percentiles 5 to 95": narrow, "full range": (self.low, self.high)}


def _sample(image: np.ndarray) -> np.ndarray:
    """About a million finite voxels, or one 0 where there are none."""
    step = max(1, round((image.size / 1e6) ** (1 / 3)))
    sample = image[::step, ::step, ::step].astype(np.float32)
    finite = sample[np.isfinite(sample)]
    return finite if finite.size else np.zeros(1, np.float32)
