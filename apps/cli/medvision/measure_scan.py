"""A model that segments under corruption of a scan."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.label_maps import mapped, read_label_map
from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.measurement import Measurement, words
from apps.cli.shared.robustness import chosen
from medvision.corruptions.volumes import SCALES
from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume, read_labels, read_volume
from pipelines.evaluation.image_robustness import SEVERITIES
from pipelines.evaluation.robustness_tables import volume_tables
from pipelines.evaluation.volume_robustness import VolumeMeasurement, measure_volume
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def measure_scan(options: RobustnessOptions, folder: Path, on_progress: Callable[[int, int], None]) -> Measurement:
    """Measure a model that segments under every corruption and severity.

    Args:
        options: what the user asks for.
        folder: folder of the model.
        on_progress: called with the cells done and their number.

    Raises:
        InputError: model, data and options do not go together.
    """
    if options.data.is_dir():
        raise InputError(f"{printable(options.data)}: is a folder; expected one scan (.nii, .nii.gz, .mgz, .mgh)")
    if options.label_map is not None and options.labels is None:
        raise InputError("--label-map is of --labels, which are not given; give both or none")
    severities = _severities(options.severities)
    card = read_card(folder)
    channels = card["input"].get("channels", ())
    if channels:
        raise InputError(
            f"model {folder}: takes {len(channels)} channels; expected a model of one, as corruptions are of one image"
        )
    modality = _modality(options.modality, str(card["input"].get("modality")))
    names = chosen(options.only, list(SCALES[modality]), modality)
    volume = read_volume(options.data)
    reference, labels_sha256 = _reference(options, volume, card["classes"])
    segmenter = Segmenter(folder, **options.network.keywords())
    try:
        measured, pictures = measure_volume(
            segmenter, volume, reference, names, severities, modality=modality, on_progress=on_progress
        )
    except InputError as error:  # the engine knows the case, the user knows the file
        raise InputError(str(error).replace(volume.case_id, printable(options.data))) from error
    measured["settings"] |= {
        "modality": modality, "severities": severities, "only": names if options.only else None,
        "reference": "the segmentation of the scan as it is" if reference is None else "labels",
        "labels_sha256": labels_sha256,
    }  # fmt: skip
    return Measurement(
        {**measured}, pictures, volume_tables(measured), _facts(measured), _notes(measured), _lines(measured)
    )


def _facts(content: VolumeMeasurement) -> list[tuple[str, str]]:
    caught, worst = content["caught"], content["worst"]
    mean = float(np.mean([cell["dice"] for cell in content["cells"]]))
    return [
        ("Mean Dice, clean", f"{content['clean']['dice']:.3f}"),
        ("Under corruption", f"{mean:.3f}"),
        ("Worst", f"{worst['dice']:.3f}, {words(worst['corruption'])} {worst['severity']}"),
        ("Losses that were flagged", f"{caught['caught_that_lost']} of {caught['cells_that_lost']}"),
    ]


def _notes(content: VolumeMeasurement) -> list[str]:
    caught, notes = content["caught"], []
    if content["settings"]["labels_sha256"] is None:
        notes.append("There are no labels: Dice is with the segmentation of the scan as it is, not with the truth.")
    notes.append(
        f"Quality flags or warnings that the clean scan does not raise were there in {caught['caught']} of "
        f"{caught['cells']} cells; of those that lost more than {caught['lost_more_than']:g} of the mean Dice, in "
        f"{caught['caught_that_lost']} of {caught['cells_that_lost']}."
    )
    return notes


def _lines(content: VolumeMeasurement) -> list[str]:
    return [
        f"{'corruption':<20}{'mean Dice':>10}{'lost':>9}",
        f"{'clean':<20}{content['clean']['dice']:>10.4f}",
        *(
            f"{words(name):<20}{means['dice']:>10.4f}{means['lost']:>9.4f}"
            for name, means in content["corruptions"].items()
        ),
    ]


def _reference(
    options: RobustnessOptions, volume: Volume, classes: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray | None, str | None]:
    """Class ids `(X, Y, Z)` uint8 on the scan's grid, and the sha256 of their file; None where none are given."""
    if options.labels is None:
        return None, None
    labels = read_labels(options.labels)
    difference = labels.grid.differs_from(volume.grid)
    if difference:
        raise InputError(
            f"--labels {printable(options.labels)}: not on the scan's grid: {difference}; resample it to the scan"
        )
    known = {int(entry["id"]) for entry in classes}
    if options.label_map is not None:
        return mapped(labels.data, read_label_map(options.label_map, known)), labels.sha256
    unknown = sorted(set(np.unique(labels.data).tolist()) - known)
    if unknown:
        raise InputError(
            f"--labels {printable(options.labels)}: holds {', '.join(map(str, unknown[:5]))}, expected ids 0 to "
            f"{max(known)} of the model; say what they are by --label-map"
        )
    return labels.data.astype(np.uint8), labels.sha256


def _modality(asked: str | None, card_modality: str) -> str:
    if asked is not None and asked not in SCALES:
        raise InputError(f"--modality is {printable(asked)!r}, expected one of: {', '.join(SCALES)}")
    for modality, pattern in (("mr", r"\bMRI?\b"), ("ct", r"\bCT\b")):
        if asked is None and re.search(pattern, card_modality):
            return modality
    if asked is None:
        raise InputError(f"the model's card does not say its modality; give --modality, one of: {', '.join(SCALES)}")
    return asked


def _severities(asked: list[str] | None) -> list[int]:
    known = {str(severity): severity for severity in SEVERITIES}
    wrong = [text for text in asked or [] if text not in known]
    if wrong or asked == []:
        raise InputError(
            f"--severities has {printable(wrong[0]) if wrong else 'nothing'!r}, expected some of 1 to 5: 1,3,5"
        )
    return sorted({known[text] for text in asked}) if asked else list(SEVERITIES)
