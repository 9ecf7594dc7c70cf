"""A classifier of galaxies under corruption of their images."""

import hashlib

import numpy as np
import torch

from apps.cli.astrovision.robustness import RobustnessOptions
from apps.cli.shared.measured_images import MeasuredImages, check_memory, items_of_split, measure_classifier
from apps.cli.shared.measurement import Measurement
from apps.cli.shared.program import find_model
from apps.cli.shared.robustness import Progress, chosen
from astrovision.classification import GalaxyClassifier
from astrovision.corruptions import CORRUPTIONS, FAMILIES, corrupt
from pipelines.data.image_layouts import find_layout
from pipelines.data.stored_images import as_picture
from pipelines.evaluation.image_robustness import CorruptedImages, spread
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.labelled_images import ImageSource, find_items, targets_of


def measure_images(options: RobustnessOptions, on_progress: Progress) -> Measurement:
    """Measure a classifier under every corruption and severity.

    Args:
        options: What the user asks for.
        on_progress: Called with the states done and their number.

    Raises:
        InputError: model, data and options do not go together.
    """
    classifier = GalaxyClassifier(
        find_model(options.model, "astrovision"),
        symmetries=False,
        batch_size=options.batch_size,
        **options.network.keywords(),
    )
    if not classifier.contract.takes_colours:
        raise InputError(
            f"--model {printable(options.model)}: takes fluxes of mosaics, expected a model of colour images; measure "
            "it with data.corruption_images of its recipe"
        )
    images = _images(options, classifier)
    return measure_classifier(images, classifier, on_progress, seed=options.seed, baseline=options.baseline)


def _images(options: RobustnessOptions, classifier: GalaxyClassifier) -> MeasuredImages:
    """What the network sees of the images, corrupted so."""
    names, label = chosen(options.only, list(CORRUPTIONS), "galaxies"), printable(options.data)
    layout = find_layout("folders" if options.data.is_dir() else "galaxy10")
    items, split = items_of_split(find_items(layout, options.data, classifier.names), options.split, label)
    rows, size, bands = spread(len(items), options.images), classifier.contract.size, classifier.contract.bands
    check_memory(len(rows) * len(bands) * size**2 * 4, len(rows))
    source, digest = ImageSource(tuple(items[row] for row in rows), split, layout, bands), hashlib.sha256()
    images = np.empty((len(rows), len(bands), size, size), np.float32)
    for number, image in layout.read(source, size):
        digest.update(image.tobytes())
        images[number] = classifier.prepare(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None])[0]

    def corrupted(name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        return corrupt(name, image, severity, seed_key=[options.seed, number])

    states = CorruptedImages(images, rows, corrupted)
    return MeasuredImages(
        states.batches,
        lambda part: classifier.predict(torch.from_numpy(part)).probabilities,
        as_picture,
        targets_of(source.items, len(classifier.names)),
        {name: FAMILIES[name] for name in names},
        digest.hexdigest,
        {"kind": layout.name, "split": split, "shape": list(images.shape), "of_images": len(items)},
        {"only": names if options.only else None},
    )
