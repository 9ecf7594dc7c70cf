"""A classifier under corruption of labelled images: what the verbs `robustness` of all programs measure and say."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from apps.cli.shared.classification import side_car
from apps.cli.shared.measurement import Measurement, words
from apps.cli.shared.robustness import Progress
from pipelines.evaluation.image_robustness import ImageMeasurement, PairedTests, Scorer, figures_of, measure
from pipelines.evaluation.paired_tests import check_same, paired_tests, read_measurement
from pipelines.evaluation.robustness_tables import image_tables
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.labelled_images import Item
from shared_backbones.memory import budget

Errors: TypeAlias = tuple[float, Mapping[str, float]]
"""Error without corruption, and mean error by corruption."""
Relative: TypeAlias = Callable[[Mapping[str, Sequence[float]], float, Errors], Entries]
"""Puts errors by corruption and severity, and the clean error, into units of a baseline's."""
RESAMPLES = 2000
"""Bootstrap samples behind each interval."""


@dataclass(frozen=True)
class MeasuredImages:
    """Labelled images, and what a classifier sees of them in every state.

    Attributes:
        batches: Gives the images under a corruption at a severity, so many at once; None and 0 are the clean ones.
        predict: Gives probabilities `(n, K)` of such images.
        picture: Makes an image one for those who look at it, `(H, W, 3)` uint8.
        targets: `(N, K)`, 1 for the classes that an image has.
        corruptions: Names of the corruptions, each with the family that it belongs to.
        sha256: Digest of the files.
        described: What a side-car says of the images, without their names.
        settings: Settings that decided the result, beyond the classifier's.
        warnings: What a user should know.
    """

    batches: Callable[[str | None, int], Iterator[np.ndarray]]
    predict: Callable[[np.ndarray], np.ndarray]
    picture: Callable[[np.ndarray], np.ndarray]
    targets: np.ndarray
    corruptions: Mapping[str, str]
    sha256: Callable[[], str]
    described: Entries
    settings: Entries
    warnings: Sequence[str] = ()

    def clean_sha256(self) -> str:
        """Digest of the images as they are, by which measurements on the same ones are known."""
        digest = hashlib.sha256()
        for part in self.batches(None, 0):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Baseline:
    """Errors of a classifier under corruption.

    Attributes:
        label: Name of the baseline.
        errors: Its clean error, and its mean error by corruption.
        measurement: `robustness.json` of an earlier measurement; None for published errors.
        remarks: What a user should know of the comparison.
    """

    label: str
    errors: Errors
    measurement: ImageMeasurement | None = None
    remarks: list[str] = field(default_factory=list)


def earlier_baseline(
    folder: Path, names: Sequence[str], sha256: str, known: str = "a folder that this wrote"
) -> Baseline:
    """The errors of an earlier measurement.

    Args:
        folder: Folder that `robustness` wrote.
        names: Names of the corruptions that are measured.
        sha256: Digest of the images as they are, which must be the earlier ones.
        known: What else could have been meant, for messages.

    Raises:
        InputError: it is none, lacks a corruption, or is of other images.
    """
    if not folder.is_dir():
        raise InputError(f"--baseline {printable(folder)}: expected {known}")
    earlier = read_measurement(folder)
    missing = [name for name in names if name not in earlier["corruptions"]]
    if missing:
        raise InputError(
            f"--baseline {printable(folder)}: has no {', '.join(missing)}; expected some of: "
            f"{', '.join(earlier['corruptions'])}; choose them with --only"
        )
    check_same(sha256, earlier["clean"]["sha256"], "without corruption")
    errors = {
        name: 1 - float(np.mean([cell["balanced_accuracy"] for cell in earlier["cells"] if cell["corruption"] == name]))
        for name in earlier["corruptions"]
    }
    model = earlier.get("model") or {}
    label = f"{printable(str(model.get('name')))} {str(model.get('sha256'))[:8]}"
    return Baseline(label, (1 - earlier["clean"]["balanced_accuracy"], errors), earlier)


def check_memory(size: int, count: int) -> None:
    """Refuse more images than memory has room for.

    Args:
        size: Bytes that all of them take.
        count: Number of images.

    Raises:
        InputError: they take more.
    """
    if size > budget():
        raise InputError(
            f"{count} images of {size // count:,} bytes take more than {budget() / 2**30:.3g} GiB; take fewer with "
            "--images, or raise --max-gigabytes"
        )


def items_of_split(items: Sequence[Item], split: str | None, label: str) -> tuple[list[Item], str]:
    """The images of a split, and its name: by default the test's, or all where the data set has no splits.

    Args:
        items: Images of a data set.
        split: `train`, `val` or `test`, as the user gives it; None by default.
        label: Name of the data set, for messages.

    Raises:
        InputError: there is no such split, or no image in it.
    """
    own = any(item.split for item in items)
    if split is not None and not own:
        raise InputError(f"--split means nothing for {label}, which has no folders of splits")
    name = split or ("test" if own else "all")
    wanted = {"val": "validation"}.get(name, name) if own else ""
    picked = [item for item in items if item.split == wanted]
    if not picked:
        raise InputError(f"{label}: contains no image of the split {name}; choose another --split")
    return picked, name


def measure_classifier(
    images: MeasuredImages,
    classifier: ImageClassifier[Any],
    on_progress: Progress,
    *,
    seed: int,
    baseline: Baseline | Path | None = None,
    relative: Relative | None = None,
    packages: Sequence[str] = ("domain-vision", "torch", "numpy", "scipy"),
) -> Measurement:
    """Measure a classifier under every corruption and severity.

    Args:
        images: Labelled images.
        classifier: Classifier that is measured.
        on_progress: Called with the states done and their number.
        seed: Seed of the bootstrap.
        baseline: Errors of another classifier on the same images, or the folder of an earlier measurement.
        relative: Puts errors into units of a baseline's; None leaves that out.
        packages: Packages whose versions are noted.

    Raises:
        InputError: an image cannot be used.
    """
    if isinstance(baseline, Path):
        baseline = earlier_baseline(baseline, list(images.corruptions), images.clean_sha256())
    scorer = Scorer(images.batches, images.predict, images.picture)
    measured = measure(
        scorer,
        images.targets,
        classifier.names,
        images.corruptions,
        multi_label=classifier.multi_label,
        resamples=RESAMPLES,
        seed=seed,
        on_progress=on_progress,
    )
    measured["relative"], measured["paired"] = _compared(measured, baseline, relative)
    content = side_car(
        classifier,
        images.sha256(),
        images.described,
        {**images.settings, "multi_label": classifier.multi_label, "resamples": RESAMPLES, "seed": seed},
        measured,
        failed=0,
        warnings=[*images.warnings, *(baseline.remarks if baseline else []), *_calibration_warnings(classifier)],
        packages=packages,
    )
    return Measurement(
        content, scorer.pictures, image_tables(measured), _facts(measured), _notes(measured), _lines(measured)
    )


def _compared(
    measured: ImageMeasurement,
    baseline: Baseline | None,
    relative: Relative | None,
) -> tuple[Entries | None, PairedTests | None]:
    """Errors in units of a baseline's, and paired tests where its answers are known."""
    if baseline is None:
        return None, None
    units = None
    if relative is not None:
        errors = {
            name: [1 - cell["balanced_accuracy"] for cell in measured["cells"] if cell["corruption"] == name]
            for name in measured["corruptions"]
        }
        clean_error = 1 - measured["clean"]["balanced_accuracy"]
        units = {"baseline": baseline.label, **relative(errors, clean_error, baseline.errors)}
    if baseline.measurement is None:
        return units, None
    return units, {"baseline": baseline.label, "tests": paired_tests(measured, baseline.measurement)}


def _calibration_warnings(classifier: ImageClassifier[Any]) -> list[str]:
    calibration = classifier.card.get("calibration") or {}
    if "temperature" not in calibration:
        return ["the model was not calibrated: ECE is that of its probabilities as they are"]
    if calibration.get("symmetries", classifier.default_symmetries):
        return ["figures are of single views, but the calibration is of averages over symmetries: mind the ECE"]
    return []


def _facts(content: ImageMeasurement) -> list[tuple[str, str]]:
    worst, relative = content["worst"], content.get("relative")
    facts = [
        ("Images", f"{content['images']:,}"),
        ("Balanced accuracy, clean", f"{content['clean']['balanced_accuracy']:.3f}"),
        ("Under corruption", f"{figures_of(content)['corrupted_balanced_accuracy']:.3f}"),
        ("Worst", f"{worst['balanced_accuracy']:.3f}, {words(worst['corruption'])} {worst['severity']}"),
    ]
    if relative:
        facts.append(("BE", _number(relative["be"])))
        facts.append(("rBE, unflagged", _number(relative["rbe_unflagged"])))
    return facts


def _notes(content: ImageMeasurement) -> list[str]:
    worst, relative = content["worst"], content.get("relative")
    notes = [
        "Lost: the clean balanced accuracy less that under corruption. Intervals hold 95 % of bootstrap figures over "
        f"the same images. Lowest: {words(worst['corruption'])} at severity {worst['severity']}."
    ]
    if relative:
        flagged = ", ".join(map(words, relative["flagged"])) or "none"
        notes.append(
            f"Against {relative['baseline']}: BE {_number(relative['be'])}, rBE {_number(relative['rbe'])}, without "
            f"flagged corruptions {_number(relative['rbe_unflagged'])}. Flagged, as their denominators are less than "
            f"0.01: {flagged}."
        )
    paired = content.get("paired")
    if paired:
        tests = paired["tests"]
        better = sum(row["p_holm"] < 0.05 and row["only_here"] > row["only_there"] for row in tests)
        worse = sum(row["p_holm"] < 0.05 and row["only_here"] < row["only_there"] for row in tests)
        notes.append(
            f"Paired tests on the same images: right more often than the baseline in {better} of {len(tests)} states, "
            f"less often in {worse} (McNemar's exact test, p < 0.05 after Holm)."
        )
    return notes


def _lines(content: ImageMeasurement) -> list[str]:
    relative = content.get("relative")
    header = f"{'corruption':<20}{'bal. acc.':>10}{'lost':>9}"
    lines = [header + (f"{'BE':>8}{'rBE':>8}{'denominator':>13}" if relative else "")]
    lines.append(f"{'clean':<20}{content['clean']['balanced_accuracy']:>10.4f}")
    for name, means in content["corruptions"].items():
        line = f"{words(name):<20}{means['balanced_accuracy']:>10.4f}{means['lost']:>9.4f}"
        if relative:
            row = relative["corruptions"][name]
            flag = " flagged" if row["flagged"] else ""
            line += f"{_number(row['be']):>8}{_number(row['rbe']):>8}{row['rbe_denominator']:>13.4f}{flag}"
        lines.append(line)
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
