"""A classifier under corruption of its images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.baselines import Baseline, digest, find_baseline
from apps.cli.medvision.corrupted_images import CorruptedImages, FolderImages, PublishedImages, holds_class_folders
from apps.cli.medvision.image_sources import as_tensor, differing_classes
from apps.cli.medvision.measurement import Measurement, words
from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.classification import side_car
from medvision.classification import MedicalClassifier
from medvision.corruptions.medmnist_c import FOLDS
from medvision.corruptions.relative_errors import relative_errors
from pipelines.evaluation.image_robustness import ImageMeasurement, PairedTests, figures_of, measure
from pipelines.evaluation.paired_tests import paired_tests
from pipelines.evaluation.robustness_tables import image_tables
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable

RESAMPLES = 2000
"""Bootstrap samples behind each interval."""


def measure_images(options: RobustnessOptions, folder: Path, on_progress: Callable[[int, int], None]) -> Measurement:
    """Measure a classifier under every corruption and severity.

    Args:
        options: what the user asks for.
        folder: folder of the model.
        on_progress: called with the states done and their number.

    Raises:
        InputError: model, data and options do not go together.
    """
    source = _open(options, folder)
    baseline = find_baseline(options, source)
    network = options.network
    classifier = MedicalClassifier(
        folder,
        symmetries=False,
        batch_size=options.batch_size or 64,
        device=network.device,
        threads=network.threads,
        precision=network.precision,
    )
    difference = differing_classes(source.facts, classifier)
    if difference is not None:
        raise InputError(
            f"{printable(source.path)}: {difference}; give a model that was trained on {source.facts.name}"
        )
    scorer = _Scorer(source, classifier, options.data, {})
    folds = {name: fold for fold, names in FOLDS.items() for name in names}
    measured = measure(
        scorer.score,
        source.targets,
        classifier.names,
        {name: folds[name] for name in source.names},
        multi_label=classifier.multi_label,
        resamples=RESAMPLES,
        seed=options.seed or 0,
        on_progress=on_progress,
    )
    measured["relative"], measured["paired"] = _compared(measured, baseline)
    return Measurement(
        _content(options, source, classifier, measured, baseline),
        scorer.pictures,
        image_tables(measured),
        _facts(measured),
        _notes(measured),
        _lines(measured),
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


@dataclass(frozen=True)
class _Scorer:
    """Gives a classifier the images of a state, and keeps the first of them as a picture."""

    source: CorruptedImages
    classifier: MedicalClassifier
    data: Path
    pictures: dict[tuple[str | None, int], np.ndarray]

    def score(self, name: str | None, severity: int) -> tuple[np.ndarray, str]:
        """Probabilities `(N, K)` of the images under a corruption, None for none, and the images' sha256."""
        images, size = self.source.state(name, severity), self.classifier.batch_size
        self.pictures[name, severity] = images[0] if images.ndim == 4 else np.repeat(images[0][..., None], 3, 2)
        try:
            parts = [
                self.classifier.predict(self.classifier.prepare(as_tensor(images[start : start + size]))).probabilities
                for start in range(0, len(images), size)
            ]
        except InputError as error:
            raise InputError(f"{printable(self.data)}: {error}") from None
        return np.concatenate(parts), digest(images)


def _compared(
    measured: ImageMeasurement, baseline: Baseline | None
) -> tuple[dict[str, Any] | None, PairedTests | None]:
    """Errors in units of a baseline's, and paired tests where its answers are known."""
    if baseline is None:
        return None, None
    errors = {
        name: [1 - cell["balanced_accuracy"] for cell in measured["cells"] if cell["corruption"] == name]
        for name in measured["corruptions"]
    }
    clean_error = 1 - measured["clean"]["balanced_accuracy"]
    relative = {"baseline": baseline.label, **relative_errors(errors, clean_error, baseline.errors)}
    if baseline.measurement is None:
        return relative, None
    return relative, {"baseline": baseline.label, "tests": paired_tests(measured, baseline.measurement)}


def _content(
    options: RobustnessOptions,
    source: CorruptedImages,
    classifier: MedicalClassifier,
    figures: ImageMeasurement,
    baseline: Baseline | None,
) -> dict[str, Any]:
    described = {
        "kind": source.kind, "set": source.facts.name, "split": source.split, "shape": list(source.images.shape),
        "of_images": source.count,
    }  # fmt: skip
    settings = {
        "corruptions": source.corruption_set, "only": source.names if options.only else None,
        "multi_label": classifier.multi_label, "resamples": RESAMPLES, "seed": options.seed or 0,
    }  # fmt: skip
    remarks = baseline.remarks if baseline is not None else []
    return side_car(
        classifier,
        source.sha256(),
        described,
        settings,
        figures,
        failed=0,
        warnings=[*source.warnings, *remarks, *_calibration_warnings(classifier)],
        packages=("domain-vision", "torch", "numpy", "scipy", "pillow"),
    )


def _calibration_warnings(classifier: MedicalClassifier) -> list[str]:
    calibration = classifier.card.get("calibration") or {}
    if "temperature" not in calibration:
        return ["the model was not calibrated: ECE is that of its probabilities as they are"]
    if calibration.get("symmetries", classifier.default_symmetries):
        return ["figures are of single views, the model was calibrated for averages over symmetries: see ECE with care"]
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
