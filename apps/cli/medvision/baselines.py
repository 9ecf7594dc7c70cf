"""The errors that `medvision robustness --baseline` takes as the unit: published ones, or an earlier measurement's."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from apps.cli.medvision.corrupted_images import CorruptedImages
from apps.cli.medvision.robustness import RobustnessOptions
from medvision.corruptions.relative_errors import ALEXNET
from pipelines.evaluation.image_robustness import ImageMeasurement
from pipelines.evaluation.paired_tests import check_same, read_measurement
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_ALEXNET_SIDE = 224  # pixels of the images that the published errors are of


@dataclass(frozen=True)
class Baseline:
    """Errors of a classifier under corruption.

    Attributes:
        label: name of the baseline.
        errors: its clean error, and its mean error by corruption.
        measurement: `robustness.json` of an earlier measurement; None for published errors.
        remarks: what a user should know of the comparison.
    """

    label: str
    errors: tuple[float, Mapping[str, float]]
    measurement: ImageMeasurement | None = None
    remarks: list[str] = field(default_factory=list)


def find_baseline(options: RobustnessOptions, source: CorruptedImages) -> Baseline | None:
    """The baseline that the options name; None for none.

    Raises:
        InputError: it is unknown, or does not fit the images.
    """
    if options.baseline in (None, "none"):
        return None
    if options.baseline == "alexnet":
        return _alexnet(source)
    return _measured(Path(options.baseline), source)


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


def _measured(folder: Path, source: CorruptedImages) -> Baseline:
    if not folder.is_dir():
        raise InputError(f"--baseline {printable(folder)}: expected alexnet, none, or a folder that this wrote")
    earlier = read_measurement(folder)
    missing = [name for name in source.names if name not in earlier["corruptions"]]
    if missing:
        raise InputError(
            f"--baseline {printable(folder)}: has no {', '.join(missing)}; expected some of: "
            f"{', '.join(earlier['corruptions'])}; choose them with --only"
        )
    check_same(digest(source.images), earlier["clean"]["sha256"], "without corruption")
    errors = {
        name: 1 - float(np.mean([cell["balanced_accuracy"] for cell in earlier["cells"] if cell["corruption"] == name]))
        for name in earlier["corruptions"]
    }
    model = earlier.get("model") or {}
    label = f"{printable(str(model.get('name')))} {str(model.get('sha256'))[:8]}"
    return Baseline(label, (1 - earlier["clean"]["balanced_accuracy"], errors), earlier)


def digest(images: np.ndarray) -> str:
    """The sha256 of images, by which measurements on the same ones are known."""
    return hashlib.sha256(images.tobytes()).hexdigest()
