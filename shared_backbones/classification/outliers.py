"""How unlike the images of its training an image is to a network: a star field or a blank cut-out is no galaxy."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

FILE = "outliers.safetensors"
_VARIANCE = 0.95  # of the features, that the leading axes hold
_MOST_LACKING = 100.0
_FAINTEST = "faintest"
_NAMES = ("mean", "axes", "variances", "rest", "threshold")


@dataclass(frozen=True)
class Outliers:
    """Distribution of a network's features: Gaussian along the leading axes, of one variance across the others.

    Attributes:
        mean: `(D,)`.
        axes: leading principal axes, `(M, D)`.
        variances: along them, `(M,)`.
        rest: variance across the other axes, each.
        threshold: score above which an image is called an outlier.
        faintest: contrast of an image's middle below which there is nothing in it; None where that tells nothing.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: float
    threshold: float = float("inf")
    faintest: float | None = None

    @classmethod
    def fit(cls, features: np.ndarray) -> "Outliers":
        """Fit to the features `(N, D)` of training images; D may be more than N.

        No axis gets less than the mean variance of those left out, nor that less than a thousandth of the mean of all:
        where there are few images, what they happen not to vary in tells nothing.

        Raises:
            ValueError: there are fewer than two images, or features are not finite.
        """
        if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
            raise ValueError(f"features are {features.shape}, expected finite ones of two or more images")
        centred = features - features.mean(0)
        _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        variances = singular**2 / max(1, len(features) - 1)
        total = max(float(variances.sum()), 1e-12)
        count = int(np.searchsorted(np.cumsum(variances) / total, _VARIANCE)) + 1
        others = max(1, features.shape[1] - count)
        rest = max(float(variances[count:].sum()) / others, total / features.shape[1] * 1e-3)
        return cls(features.mean(0), axes[:count], np.maximum(variances[:count], rest), rest)

    def with_threshold(self, features: np.ndarray, false_alarms: float = 0.01) -> "Outliers":
        """The same with a threshold that a share `false_alarms` of images `(N, D)` it was not fit to lies above."""
        return replace(self, threshold=float(np.quantile(self.score(features), 1 - false_alarms)))

    def with_faintest(self, contrasts: np.ndarray, false_alarms: float = 0.001) -> "Outliers":
        """The same with a least contrast that a share `false_alarms` of images with contrasts `(N,)` lies below."""
        return replace(self, faintest=max(0.0, float(np.quantile(contrasts, false_alarms))))

    def score(self, features: np.ndarray, contrasts: np.ndarray | None = None) -> np.ndarray:
        """Squared Mahalanobis distance of features `(N, D)`, divided by D: about 1 for training images.

        Where the contrast `(N,)` of an image's middle is below the faintest one, the score is at least the threshold
        times the quotient of both, a hundred at most.
        """
        distances = self._distances(features)
        if contrasts is None or not self.faintest or not np.isfinite(self.threshold):
            return distances
        lacking = self.faintest / np.maximum(contrasts, self.faintest / _MOST_LACKING)
        return np.where(lacking > 1, np.maximum(distances, self.threshold * lacking), distances)

    def _distances(self, features: np.ndarray) -> np.ndarray:
        centred = (features - self.mean).astype(np.float64)
        along = centred @ self.axes.T
        across = np.maximum(np.square(centred).sum(1) - np.square(along).sum(1), 0)
        return (np.square(along) / self.variances).sum(1) / len(self.mean) + across / self.rest / len(self.mean)

    def save(self, folder: str | Path) -> None:
        """Write `outliers.safetensors` into the folder of a trained model."""
        from safetensors.numpy import save_file

        names = [*_NAMES, *([] if self.faintest is None else [_FAINTEST])]
        parts = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in names}
        with replacing(Path(folder) / FILE) as path:
            save_file({name: np.atleast_1d(value) for name, value in parts.items()}, path)

    @classmethod
    def load(cls, folder: str | Path, width: int | None = None) -> "Outliers | None":
        """Read what `save` wrote; None where a model has no such file.

        Args:
            folder: folder of the trained model.
            width: number D of the network's features; by default any.

        Raises:
            InputError: the file is damaged, or of another width.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            parts = load_file(path)
            mean, axes, variances, rest, threshold = (parts[name].astype(np.float64) for name in _NAMES)
            faintest = float(parts[_FAINTEST].item()) if _FAINTEST in parts else None
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise InputError(f"{printable(path)}: cannot be read ({type(error).__name__}); remove it") from None
        count, width = len(axes) if axes.ndim else 0, mean.size if width is None else width
        shapes = mean.shape, axes.shape, variances.shape, rest.shape, threshold.shape
        if shapes != ((width,), (count, width), (count,), (1,), (1,)) or count > width:
            raise InputError(f"{printable(path)}: does not fit the network's {width} features; remove it")
        finite = all(np.isfinite(part).all() for part in (mean, axes, variances, rest))
        limits = not np.isnan(threshold[0]) and (faintest is None or 0 <= faintest < np.inf)
        if not (finite and limits and (variances > 0).all() and rest[0] > 0):
            raise InputError(f"{printable(path)}: holds values that no features have; remove it")
        return cls(mean, axes, variances, float(rest[0]), float(threshold[0]), faintest)
