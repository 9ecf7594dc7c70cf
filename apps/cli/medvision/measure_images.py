"""A classifier of medical images under corruption of them."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from apps.cli.medvision.baselines import find_baseline
from apps.cli.medvision.corrupted_images import CorruptedImages, FolderImages, PublishedImages, holds_class_folders
from apps.cli.medvision.image_sources import as_tensor, differing_classes
from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.measured_images import MeasuredImages, measure_classifier
from apps.cli.shared.measurement import Measurement
from apps.cli.shared.robustness import Progress
from medvision.classification import MedicalClassifier
from medvision.corruptions.medmnist_c import FOLDS
from medvision.corruptions.relative_errors import relative_errors
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def measure_images(options: RobustnessOptions, folder: Path, on_progress: Progress) -> Measurement:
    """Measure a classifier under every corruption and severity.

    Args:
        options: What the user asks for.
        folder: Folder of the model.
        on_progress: Called with the states done and their number.

    Raises:
        InputError: model, data and options do not go together.
    """
    source = _open(options, folder)
    baseline = find_baseline(options, source)
    classifier = MedicalClassifier(
        folder,
        symmetries=False,
        batch_size=options.batch_size or 64,
        **options.network.keywords(),
    )
    difference = differing_classes(source.facts, classifier)
    if difference is not None:
        raise InputError(
            f"{printable(source.path)}: {difference}; give a model that was trained on {source.facts.name}"
        )
    return measure_classifier(
        _images(options, source, classifier),
        classifier,
        on_progress,
        seed=options.seed or 0,
        baseline=baseline,
        relative=lambda *errors: {**relative_errors(*errors)},
        packages=("domain-vision", "torch", "numpy", "scipy", "pillow"),
    )


def _open(options: RobustnessOptions, folder: Path) -> CorruptedImages:
    if options.clean is not None and not options.data.is_dir():
        name = printable(options.data)
        raise InputError(f"--clean is for a folder of MedMNIST-C, --data {name} is none; leave it out")
    if not options.data.is_dir():
        return CorruptedImages(options)
    if holds_class_folders(options.data):
        return FolderImages(options, [str(entry["name"]) for entry in read_card(folder).get("classes", ())])
    return PublishedImages(options)


def _images(options: RobustnessOptions, source: CorruptedImages, classifier: MedicalClassifier) -> MeasuredImages:
    """The images, corrupted as they are stored and brought to the network's size then."""
    folds = {name: fold for fold, names in FOLDS.items() for name in names}
    return MeasuredImages(
        functools.partial(_batches, source, classifier.batch_size),
        functools.partial(_predict, classifier, options.data),
        lambda image: image if image.ndim == 3 else np.repeat(image[..., None], 3, 2),
        source.targets,
        {name: folds[name] for name in source.names},
        source.sha256,
        {
            "kind": source.kind, "set": source.facts.name, "split": source.split, "shape": list(source.images.shape),
            "of_images": source.count,
        },
        {"corruptions": source.corruption_set, "only": source.names if options.only else None},
        source.warnings,
    )  # fmt: skip


def _batches(source: CorruptedImages, size: int, name: str | None, severity: int) -> Iterator[np.ndarray]:
    images = source.state(name, severity)
    return (images[start : start + size] for start in range(0, len(images), size))


def _predict(classifier: MedicalClassifier, data: Path, images: np.ndarray) -> np.ndarray:
    try:
        return classifier.predict(classifier.prepare(as_tensor(images))).probabilities
    except InputError as error:
        raise InputError(f"{printable(data)}: {error}") from None
