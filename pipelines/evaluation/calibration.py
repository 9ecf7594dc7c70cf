"""Calibration of a trained classifier: fitted on validation images, and kept with the model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipelines.data.stored_images import StoredImages
from pipelines.report.results import Figures
from pipelines.runtime.progress import Meter
from shared_backbones import weights
from shared_backbones.classification.calibration import (
    apply_temperature,
    conformal_quantile,
    coverage_of,
    fit_temperature,
    mean_coverage,
    prediction_sets,
)
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.classification.contract import Contract
from shared_backbones.classification.figures import class_figures
from shared_backbones.classification.outliers import Outliers
from shared_backbones.json_values import Json

_FALSE_ALARMS = 0.01  # fraction of validation images that are called outliers
_REFERENCE = 2000  # training images whose features outliers are measured against


def calibrate(
    model: Path, classifier: ImageClassifier[Contract], train_set: StoredImages, val_set: StoredImages, coverage: float
) -> None:
    """Fit temperature, prediction sets and outliers, and write them into a trained model.

    Args:
        model: Folder of the model.
        classifier: Classifier of that model without calibration, with the symmetries that it will be used with.
        train_set: Training images without augmentation, as the classifier sees them, whose features outliers are
            measured against.
        val_set: Validation images, which temperature, prediction sets and the outlier threshold are fitted on.
        coverage: Coverage of the prediction sets, where an image has one class.
    """
    scores, _ = predict_all(classifier, val_set)
    targets = val_set.targets()
    calibration: dict[str, Json] = {"symmetries": classifier.symmetries, "images": len(targets)}
    if classifier.multi_label:
        # each answer about a label is one of two classes
        pairs = np.stack([1 - scores, scores], -1).reshape(-1, 2)
        logits = np.log(np.clip(pairs, 1e-6, 1 - 1e-6))
        calibration["temperature"] = fit_temperature(logits, targets.ravel().astype(int))
    else:
        labels = targets.argmax(1)
        temperature = fit_temperature(np.log(np.clip(scores, 1e-12, 1)), labels)
        quantile = conformal_quantile(apply_temperature(scores, temperature), labels, coverage)
        calibration |= {"temperature": temperature, "coverage": coverage, "quantile": quantile}
    trained = weights.load(model)
    count = len(train_set)
    chosen = np.unique(np.linspace(0, count - 1, min(_REFERENCE, count)).round().astype(int))
    parts = (train_set, chosen), (val_set, np.arange(len(val_set)))
    features: list[list[np.ndarray]] = [[], []]
    contrasts: list[np.ndarray] = []
    for made, (images, numbers) in zip(features, parts, strict=True):
        for batch in _batches(images, numbers):
            made.append(classifier.features(batch))
            contrast = classifier.contrast(batch)
            contrasts += [] if contrast is None else [contrast]
    reference, validation = map(np.concatenate, features)
    outliers = Outliers.fit(reference).with_threshold(validation, _FALSE_ALARMS)
    if contrasts:
        outliers = outliers.with_faintest(np.concatenate(contrasts))
    weights.save(model, trained.module, {**trained.card, "calibration": calibration})
    outliers.save(model)


def predict_all(
    classifier: ImageClassifier[Contract], images: StoredImages, meter: Meter | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities `(N, K)` of all images, and whether each is called an outlier, if the model tells that."""
    scores, outliers, done = [], [], 0
    for batch in _batches(images, np.arange(len(images))):
        prediction = classifier.predict(batch)
        scores.append(prediction.probabilities)
        outliers.append(prediction.is_outlier)
        done += len(batch)
        if meter is not None:
            meter(done, len(images))
    return np.concatenate(scores), None if outliers[0] is None else np.concatenate(outliers)


def calibration_figures(
    classifier: ImageClassifier[Contract], scores: np.ndarray, targets: np.ndarray, coverage: float, seed: int
) -> Figures:
    """What calibration did for images of one class each, and what prediction sets cover.

    Args:
        classifier: Classifier that gave the scores.
        scores: Calibrated probabilities `(N, K)`.
        targets: `(N, K)`, 1 for an image's class.
        coverage: Nominal coverage.
        seed: Seed of the divisions that the mean coverage is over.
    """
    labels = targets.argmax(1)
    uncalibrated = class_figures(apply_temperature(scores, 1 / classifier.temperature), targets, multi_label=False)
    figures: Figures = {"temperature": classifier.temperature, "ece_uncalibrated": uncalibrated["ece"]}
    if classifier.quantile is not None:
        figures |= {
            "coverage_nominal": coverage,
            **coverage_of(prediction_sets(scores, classifier.quantile), labels),
            "coverage_over_divisions": mean_coverage(scores, labels, coverage, seed=seed),
        }
    return figures


def _batches(images: StoredImages, numbers: np.ndarray) -> Iterator[torch.Tensor]:
    for first in range(0, len(numbers), 64):
        yield images.seen([int(number) for number in numbers[first : first + 64]])
