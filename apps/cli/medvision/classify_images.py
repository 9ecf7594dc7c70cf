"""The work of `medvision classify`: medical images in; a table of classes and probabilities out, with a side-car."""

import functools

from apps.cli.medvision.classify import ClassifyOptions
from apps.cli.medvision.image_sources import find_files, open_source
from apps.cli.shared.classified_images import check_table, write_classes
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import find_model
from medvision.classification import MedicalClassifier
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
    files, model = find_files(options), find_model(options.model, "medvision")
    outputs = Outputs.table(options.table, options.overwrite)
    outputs.check([options.input, *files, model / CARD, model / WEIGHTS])
    classifier = MedicalClassifier(
        model,
        batch_size=options.batch_size,
        **options.network.keywords(),
    )
    return write_classes(
        functools.partial(open_source, options, classifier, files, journal),
        classifier,
        outputs,
        label=printable(options.input),
        cam_folder=options.cam_folder,
        quiet=options.quiet or options.as_json,
        settings={},
        packages=("domain-vision", "torch", "numpy", "pillow"),
        shard=options.shard,
    )
