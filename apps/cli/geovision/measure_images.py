"""A classifier of satellite images under corruption of them."""

from dataclasses import asdict

import numpy as np
import torch

from apps.cli.geovision.robustness import RobustnessOptions
from apps.cli.shared.measured_images import MeasuredImages, check_memory, items_of_split, measure_classifier
from apps.cli.shared.measurement import Measurement
from apps.cli.shared.program import find_model
from apps.cli.shared.robustness import Progress, chosen
from geovision.classification import SatelliteClassifier
from geovision.corruptions import CORRUPTIONS, FAMILIES, corruption_of
from geovision.datasets.images import read_images
from geovision.datasets.layouts import SatelliteLayout
from geovision.datasets.patches import Cutting
from geovision.pictures import picture
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.evaluation.image_robustness import CorruptedImages, spread
from shared_backbones.files import printable
from shared_backbones.labelled_images import ImageSource, find_items


def measure_images(options: RobustnessOptions, on_progress: Progress) -> Measurement:
    """Measure a classifier under every corruption and severity.

    Args:
        options: What the user asks for.
        on_progress: Called with the states done and their number.

    Raises:
        InputError: model, data and options do not go together.
    """
    classifier = SatelliteClassifier(
        find_model(options.model, "geovision"),
        symmetries=False,
        batch_size=options.batch_size,
        **options.network.keywords(),
    )
    return measure_classifier(
        _images(options, classifier),
        classifier,
        on_progress,
        seed=options.seed,
        baseline=options.baseline,
        packages=("domain-vision", "torch", "numpy", "scipy", "rasterio"),
    )


def _images(options: RobustnessOptions, classifier: SatelliteClassifier) -> MeasuredImages:
    """The images, of the size that the training's had and corrupted so."""
    names = chosen(options.only, list(CORRUPTIONS), "satellite images")
    layout: SatelliteLayout = find_layout(options.layout, SATELLITE_LAYOUTS)
    label, contract = printable(options.data), classifier.contract
    items, split = items_of_split(find_items(layout, options.data, classifier.names), options.split, label)
    rows, cutting = spread(len(items), options.images), _cutting(options, classifier, layout)
    check_memory(len(rows) * len(contract.bands) * cutting.patch**2 * 4, len(rows))
    source = ImageSource(tuple(items[row] for row in rows), split, layout, contract.bands)
    arrays, record = read_images(source, cutting, len(classifier.names))
    images = np.where(arrays["valid"][:, None], arrays["image"].astype(np.float32), np.float32(np.nan))
    states = CorruptedImages(images, rows, corruption_of(images, contract.sensor.name, contract.bands, options.seed))
    return MeasuredImages(
        states.batches,
        lambda part: classifier.predict(classifier.prepare(torch.from_numpy(part))).probabilities,
        lambda image: picture(image, contract.bands),
        arrays["targets"],
        {name: FAMILIES[name] for name in names},
        lambda: record["sha256"],
        {"kind": layout.name, "split": split, "shape": list(images.shape), "of_images": len(items)},
        {"only": names if options.only else None, **asdict(options.reading)},
    )


def _cutting(options: RobustnessOptions, classifier: SatelliteClassifier, layout: SatelliteLayout) -> Cutting:
    """How the files are read: in the model's bands and numbers, with what the user says of them."""
    contract, reading = classifier.contract, options.reading
    known = layout.file_bands if contract.sensor.name.startswith("sentinel2") else None
    side = contract.stored or contract.size
    return Cutting(
        sensor=reading.sensor or contract.sensor.name,
        bands=contract.bands,
        scale=contract.scale,
        patch=side,
        stride=side,
        min_valid=0.0,
        options={
            "bands": reading.bands or (list(known) if known else None),
            "scale": reading.scale,
            "offset": reading.offset,
            "crs": reading.crs,
            "georeference": reading.georeference,
            "mask_clouds": reading.mask_clouds,
            "reproject": True,
        },
    )
