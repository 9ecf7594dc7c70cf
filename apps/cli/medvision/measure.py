"""The work of `medvision robustness`: what corruption does to a classifier's images, or to the scan of a segmenter."""

import functools

from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.program import find_model
from apps.cli.shared.robustness import write_measurement
from shared_backbones.card import read_card
from shared_backbones.errors import InputError

_OF_IMAGES = ("split", "corruptions", "images", "clean", "baseline", "batch_size", "seed")
_OF_VOLUMES = ("labels", "label_map", "modality", "severities")


def measure(options: RobustnessOptions) -> int:
    """Measure a model under corruption, write a folder of results, and return the exit code.

    Raises:
        InputError: model, data and options do not go together, or the results cannot be written.
    """
    folder = find_model(options.model, "medvision")
    segments = "spacing_mm" in (read_card(folder).get("input") or {})  # as every model of volumes has
    _check_options(options, segments)
    write = functools.partial(
        write_measurement, output=options.output, as_json=options.as_json, quiet=options.quiet, program="medvision"
    )
    if segments:
        from apps.cli.medvision.measure_scan import measure_scan
        from pipelines.evaluation.volume_robustness import STRIP_SIDE

        return write(functools.partial(measure_scan, options, folder), figure="dice", side=STRIP_SIDE)
    from apps.cli.medvision.measure_images import measure_images

    return write(functools.partial(measure_images, options, folder))


def _check_options(options: RobustnessOptions, segments: bool) -> None:
    """Refuse options that have no meaning for a model of this kind."""
    for name in _OF_IMAGES if segments else _OF_VOLUMES:
        if getattr(options, name) is not None:
            kind = "segments volumes" if segments else "classifies images"
            raise InputError(f"--{name.replace('_', '-')} means nothing for a model that {kind}; leave it out")
