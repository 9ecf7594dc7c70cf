"""The errors that `medvision robustness --baseline` takes as the unit: published ones, or an earlier measurement's."""

import hashlib
from pathlib import Path

import numpy as np

from apps.cli.medvision.corrupted_images import CorruptedImages
from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.measured_images import Baseline, earlier_baseline
from medvision.corruptions.relative_errors import ALEXNET
from shared_backbones.errors import InputError

_ALEXNET_SIDE = 224  # pixels of the images that the published errors are of


def find_baseline(options: RobustnessOptions, source: CorruptedImages) -> Baseline | None:
    """The baseline that the options name; None for none.

    Raises:
        InputError: it is unknown, or does not fit the images.
    """
    if options.baseline in (None, "none"):
        return None
    if options.baseline == "alexnet":
        return _alexnet(source)
    known = "alexnet, none, or a folder that this wrote"
    return earlier_baseline(Path(options.baseline), source.names, digest(source.images), known)


def _alexnet(source: CorruptedImages) -> Baseline:
    if source.corruption_set != source.facts.name:
        raise InputError(
            f"--baseline alexnet: its errors on {source.facts.name} are under that set's own corruptions, not "
            f"those of {source.corruption_set}; leave --corruptions or --baseline out"
        )
    remarks = []
    if source.side != _ALEXNET_SIDE:
        remarks.append(
            f"AlexNet's published errors are at {_ALEXNET_SIDE} pixels, the images have {source.side}: BE and rBE "
            "do not compare with published ones"
        )
    if source.split != "test" or len(source.rows) != source.facts.counts["test"]:
        remarks.append("AlexNet's published errors are over the whole test split, these figures are not")
    if source.facts.multi_label:
        remarks.append(
            "AlexNet's published errors are at an operating point for each label, these at 0.5: BE and rBE do not "
            "compare with published ones"
        )
    label = f"AlexNet at {_ALEXNET_SIDE} pixels, as published"
    return Baseline(label, ALEXNET[source.facts.name], remarks=remarks)


def digest(images: np.ndarray) -> str:
    """The sha256 of images, by which measurements on the same ones are known."""
    return hashlib.sha256(images.tobytes()).hexdigest()
