"""Test images of a classifier, part by part: what it says of them, and small pictures for those who look at them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from pipelines.data.stored_images import StoredImages
from pipelines.evaluation.calibration import predict_all
from pipelines.report.results import Figures
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.classification.contract import Contract

_THUMBNAIL = 112  # side in pixels of the pictures that are kept


class TestedImages:
    """What a classifier says of test images; of the images themselves no more is kept than small pictures.

    Attributes:
        keys: Name of each image in the data set.
        pictures: Picture of each image, `(H, W, 3)` uint8.
    """

    __test__ = False  # no test of pytest's

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.pictures: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._outliers: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(
        self,
        keys: Sequence[str],
        images: StoredImages,
        classifier: ImageClassifier[Contract],
        picture: Callable[[np.ndarray], np.ndarray],
        *,
        embed: bool = False,
    ) -> None:
        """Add a part of the images.

        Args:
            keys: Names of the images.
            images: Images, with what the classifier sees of them.
            classifier: Classifier that is asked.
            picture: Makes an image `(C, H, W)` one for those who look at it.
            embed: Whether what the head sees of them is kept, too.
        """
        scores, outliers = predict_all(classifier, images)
        self.keys += keys
        self._scores.append(scores)
        self._targets.append(images.targets())
        if outliers is not None:
            self._outliers.append(outliers)
        if embed:
            self._features.append(features(classifier, images))
        self.pictures += [_small(picture(images.images([number])[0].numpy())) for number in range(len(images))]

    @property
    def scores(self) -> np.ndarray:
        """Probabilities `(N, K)`."""
        return np.concatenate(self._scores)

    @property
    def targets(self) -> np.ndarray:
        """1 for the classes that an image has, `(N, K)`."""
        return np.concatenate(self._targets)

    @property
    def features(self) -> np.ndarray:
        """What the head sees of each image, `(N, D)`; of images that were added so."""
        return np.concatenate(self._features)

    def outlier_figures(self) -> Figures:
        """The fraction of images that are called outliers; nothing where the model does not tell."""
        return {"called_outliers": float(np.concatenate(self._outliers).mean())} if self._outliers else {}


def features(classifier: ImageClassifier[Contract], images: StoredImages) -> np.ndarray:
    """What a classifier's head sees of images, `(N, D)`."""
    return np.concatenate([classifier.embed(images.seen(range(*part))) for part in _portions(len(images))])


def numbered(parts: Iterable[StoredImages], numbers: np.ndarray) -> np.ndarray:
    """The images of some numbers, in rising order, among those of all parts, `(n, C, H, W)`."""
    images, first = [], 0
    for part in parts:
        own = numbers[(numbers >= first) & (numbers < first + len(part))] - first
        if len(own):
            images.append(part.images([int(number) for number in own]).numpy())
        first += len(part)
    return np.concatenate(images)


def _portions(count: int) -> list[tuple[int, int]]:
    """Where portions of at most 64 images begin and end."""
    return [(start, min(start + 64, count)) for start in range(0, count, 64)]


def _small(picture: np.ndarray) -> np.ndarray:
    step = max(picture.shape[:2]) // _THUMBNAIL
    return np.asarray(Image.fromarray(picture).reduce(step)) if step > 1 else picture
