"""The work of `geovision classify`: satellite images in; a table of classes and probabilities out, with a side-car."""

import functools
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from apps.cli.geovision.classify import ClassifyOptions
from apps.cli.shared.classified_images import ImageFiles, ReadImage, check_table, write_classes
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import find_model
from apps.cli.shared.sharding import part_of
from geovision.classification import SatelliteClassifier
from geovision.pictures import picture
from geovision.scenes import files_of, find_scenes, open_for_model
from shared_backbones.card import CARD
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.weights import WEIGHTS


def classify_images(options: ClassifyOptions, journal: Journal) -> tuple[Entries, int]:
    """Classify images and write the table, its side-car and maps; returns the side-car and the exit code.

    Raises:
        InputError: input, model, options and output do not go together, or nothing could be classified.
    """
    check_table(options.table, options.cam_folder)
    scenes = find_scenes(options.input)
    files = part_of(scenes, options.shard)
    model = find_model(options.model, "geovision")
    outputs = Outputs.table(options.table, options.overwrite)
    outputs.check([*(file for image in files for file in files_of(image)), model / CARD, model / WEIGHTS])
    classifier = SatelliteClassifier(model, batch_size=options.batch_size, **options.network.keywords())
    home = options.input if os.path.isdir(options.input) and scenes != [options.input] else options.input.parent
    open_source = functools.partial(
        ImageFiles,
        files,
        functools.partial(_read, classifier, options),
        classifier.batch_size,
        ids=[path.relative_to(home).as_posix() for path in files],
        skip_unreadable=options.skip_unreadable,
        journal=journal,
        inputs=len(scenes),
    )
    return write_classes(
        open_source,
        classifier,
        outputs,
        label=printable(options.input),
        cam_folder=options.cam_folder,
        quiet=options.quiet or options.as_json,
        settings={**asdict(options.reading), "any_resolution": options.any_resolution},
        packages=("domain-vision", "torch", "numpy", "rasterio"),
        shard=options.shard,
        picture=functools.partial(_picture, classifier),
    )


def _read(classifier: SatelliteClassifier, options: ClassifyOptions, path: Path) -> ReadImage:
    """What the network sees of an image."""
    with open_for_model(path, classifier.contract, **asdict(options.reading)) as scene:
        scene.check(classifier.contract, any_resolution=options.any_resolution)
        return ReadImage(classifier.prepare(classifier.read(scene)), bytes.fromhex(scene.sha256()))


def _picture(classifier: SatelliteClassifier, image: np.ndarray) -> np.ndarray:
    """What the network sees of an image in true colours where they are there, `(3, H, W)` uint8."""
    return picture(image, classifier.contract.bands).transpose(2, 0, 1)
