"""`medvision robustness`: what corruption does to a classifier's images, or to the scan that a model segments."""

import contextlib
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.classify import as_tensor, differing_classes
from apps.cli.medvision.robustness_inputs import (
    CorruptedImages,
    FolderImages,
    Job,
    PublishedImages,
    chosen,
    holds_class_folders,
)
from apps.cli.shared.classification import check_parents, new_folder, side_car
from apps.cli.shared.program import COMPLETE
from apps.cli.shared.program import find_model as find_registered
from medvision.classification import MedicalClassifier
from medvision.corruptions.medmnist_c import FOLDS
from medvision.corruptions.relative_errors import ALEXNET, relative_errors
from medvision.corruptions.volumes import SCALES
from medvision.models.catalogue import find_model
from medvision.segmentation import Segmenter
from medvision.volumes.files import read_labels, read_volume
from pipelines.evaluation.image_robustness import (
    SEVERITIES,
    check_same,
    figures_of,
    measure,
    paired_tests,
    read_measurement,
    tables_of,
    write_robustness,
)
from pipelines.evaluation.volume_robustness import STRIP_SIDE, Pictures, measure_volume, volume_tables
from pipelines.report.robustness import robustness_report
from pipelines.report.verdicts import report_identity
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.weights import read_card

_RESAMPLES = 2000
_ALEXNET_SIDE = 224  # pixels of the images that the published errors are of
_OF_IMAGES = ("split", "corruptions", "images", "clean", "baseline", "batch_size", "seed")
_OF_VOLUMES = ("labels", "label_map", "modality", "severities")


def run_robustness(job: Job, *, as_json: bool, quiet: bool) -> int:
    """Measure a model under corruption, write a folder of results, and return the exit code.

    Raises:
        InputError: model, data and options do not go together, or the results cannot be written.
    """
    require("sklearn", "train")
    folder = find_model(find_registered(job.model))
    segments = "slices" in (read_card(folder).get("input") or {})
    for name in _OF_IMAGES if segments else _OF_VOLUMES:
        if getattr(job, name) is not None:
            kind = "segments volumes" if segments else "classifies images"
            raise InputError(f"--{name.replace('_', '-')} means nothing for a model that {kind}; leave it out")
    check_parents(job.output)
    started = time.perf_counter()
    with (
        new_folder(job.output) as target,
        contextlib.closing(Meter("corrupt", None if quiet or as_json else 10.0)) as m,
    ):
        meter = (lambda done, count: None) if quiet or as_json else m
        found, pictures, page = (_of_volume if segments else _of_images)(job, folder, meter)
        judged = [found["model"]["sha256"], found["input"]["sha256"], found["settings"], found["clean"], found["cells"]]
        found["report"] = report_identity(found["case"], judged)
        found["runtime_s"] = round(time.perf_counter() - started, 1)
        side = {"figure": "dice", "side": STRIP_SIDE} if segments else {}
        write_robustness(target, found, lambda name, severity: pictures[name, severity], **side)
        shown = [target / "robustness.svg", target / "robustness_strip.png"]
        text = robustness_report(found, page.tables, page.facts, page.notes, shown)
        (target / "report.html").write_text(text, encoding="utf-8")
    if as_json:
        print(json.dumps({name: part for name, part in found.items() if name != "right"}, indent=2))
        return COMPLETE
    for warning in found["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if not quiet:
        for line in [*page.lines, *page.notes]:
            print(f"  {line}")
        print(f"{printable(job.output)}: {len(found['cells'])} cells in {found['runtime_s']:.1f} s")
    return COMPLETE


@dataclass(frozen=True)
class _Page:
    """What is told beside the measurement itself: for the report, and lines for the terminal."""

    tables: list[dict[str, Any]]
    facts: list[tuple[str, str]]
    notes: list[str]
    lines: list[str]


Meters = Callable[[int, int], None]
Outcome = tuple[dict[str, Any], Pictures, _Page]


def _of_images(job: Job, folder: Path, meter: Meters) -> Outcome:
    """Measure a classifier."""
    if job.clean is not None and not job.data.is_dir():
        raise InputError(f"--clean is for a folder of MedMNIST-C, --data {printable(job.data)} is none; leave it out")
    if not job.data.is_dir():
        source = CorruptedImages(job)
    elif holds_class_folders(job.data):
        source = FolderImages(job, [str(entry["name"]) for entry in read_card(folder).get("classes", ())])
    else:
        source = PublishedImages(job)
    baseline = _baseline(job, source)
    classifier = MedicalClassifier(folder, symmetries=False, batch_size=job.batch_size or 64, **job.network)
    differing = differing_classes(source.facts, classifier)
    if differing is not None:
        raise InputError(f"{printable(source.path)}: {differing}; give a model that was trained on {source.facts.name}")
    pictures: Pictures = {}

    def score(name: str | None, severity: int) -> tuple[np.ndarray, str]:
        images, size = source.state(name, severity), classifier.batch_size
        pictures[name, severity] = images[0] if images.ndim == 4 else np.repeat(images[0][..., None], 3, 2)
        try:
            parts = [
                classifier.predict(classifier.prepare(as_tensor(images[start : start + size]))).probabilities
                for start in range(0, len(images), size)
            ]
        except InputError as error:
            raise InputError(f"{printable(job.data)}: {error}") from None
        return np.concatenate(parts), _digest(images)

    folds = {name: fold for fold, names in FOLDS.items() for name in names}
    found = measure(
        score,
        source.targets,
        classifier.names,
        {name: folds[name] for name in source.names},
        multi_label=classifier.multi_label,
        resamples=_RESAMPLES,
        seed=job.seed or 0,
        on_progress=meter,
    )
    relative = paired = None
    warnings = list(source.warnings)
    if baseline is not None:
        label, errors, other, remarks = baseline
        warnings += remarks
        by_name = {
            name: [1 - cell["balanced_accuracy"] for cell in found["cells"] if cell["corruption"] == name]
            for name in found["corruptions"]
        }
        clean_error = 1 - found["clean"]["balanced_accuracy"]
        relative = {"baseline": label, **relative_errors(by_name, clean_error, errors)}
        if other is not None:
            paired = {"baseline": label, "tests": paired_tests(found, other)}
    described = {
        "kind": source.kind, "set": source.facts.name, "split": source.split, "shape": list(source.images.shape),
        "of_images": source.count,
    }  # fmt: skip
    settings = {
        "corruptions": source.corruption_set, "only": source.names if job.only else None,
        "multi_label": classifier.multi_label, "resamples": _RESAMPLES, "seed": job.seed or 0,
    }  # fmt: skip
    content = side_car(
        classifier, source.sha256(), described, settings, {**found, "relative": relative, "paired": paired},
        failed=0, warnings=[*warnings, *_calibration_warnings(classifier)],
        packages=("domain-vision", "torch", "numpy", "scipy", "pillow"),
    )  # fmt: skip
    return content, pictures, _page_of_images(content)


def _page_of_images(found: Mapping[str, Any]) -> _Page:
    figures, worst, relative = figures_of(found), found["worst"], found["relative"]
    facts = [
        ("Images", f"{found['images']:,}"),
        ("Balanced accuracy, clean", f"{found['clean']['balanced_accuracy']:.3f}"),
        ("Under corruption", f"{figures['corrupted_balanced_accuracy']:.3f}"),
        ("Worst", f"{worst['balanced_accuracy']:.3f}, {_words(worst['corruption'])} {worst['severity']}"),
    ]
    notes = [
        "Lost: the clean balanced accuracy less that under corruption. Intervals hold 95 % of bootstrap figures over "
        f"the same images. Lowest: {_words(worst['corruption'])} at severity {worst['severity']}."
    ]
    header = f"{'corruption':<20}{'bal. acc.':>10}{'lost':>9}"
    lines = [header + (f"{'BE':>8}{'rBE':>8}{'denominator':>13}" if relative else "")]
    lines.append(f"{'clean':<20}{found['clean']['balanced_accuracy']:>10.4f}")
    for name, means in found["corruptions"].items():
        line = f"{_words(name):<20}{means['balanced_accuracy']:>10.4f}{means['lost']:>9.4f}"
        if relative:
            row = relative["corruptions"][name]
            flag = " flagged" if row["flagged"] else ""
            line += f"{_number(row['be']):>8}{_number(row['rbe']):>8}{row['rbe_denominator']:>13.4f}{flag}"
        lines.append(line)
    if relative:
        said = (
            f"Against {relative['baseline']}: BE {_number(relative['be'])}, rBE {_number(relative['rbe'])}, without "
            f"flagged corruptions {_number(relative['rbe_unflagged'])}"
        )
        flagged = ", ".join(map(_words, relative["flagged"])) or "none"
        notes.append(f"{said}. Flagged, as their denominators are less than 0.01: {flagged}.")
        facts.append(("BE", _number(relative["be"])))
        facts.append(("rBE, unflagged", _number(relative["rbe_unflagged"])))
    if found["paired"]:
        tests = found["paired"]["tests"]
        better = sum(row["p_holm"] < 0.05 and row["only_here"] > row["only_there"] for row in tests)
        worse = sum(row["p_holm"] < 0.05 and row["only_here"] < row["only_there"] for row in tests)
        notes.append(
            f"Paired tests on the same images: right more often than the baseline in {better} of {len(tests)} states, "
            f"less often in {worse} (McNemar's exact test, p < 0.05 after Holm)."
        )
    return _Page(tables_of(found), facts, notes, lines)


def _calibration_warnings(classifier: MedicalClassifier) -> list[str]:
    calibration = classifier.card.get("calibration") or {}
    if "temperature" not in calibration:
        return ["the model was not calibrated: ECE is that of its probabilities as they are"]
    if calibration.get("symmetries", classifier.default_symmetries):
        return ["figures are of single views, the model was calibrated for averages over symmetries: see ECE with care"]
    return []


def _baseline(job: Job, source: CorruptedImages) -> tuple[str, Any, dict[str, Any] | None, list[str]] | None:
    """A baseline's name, its errors as `relative_errors` takes them, its measurement, and what to know of it."""
    if job.baseline in (None, "none"):
        return None
    if job.baseline == "alexnet":
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
        return f"AlexNet at {_ALEXNET_SIDE} pixels, as published", ALEXNET[source.facts.name], None, remarks
    if not Path(job.baseline).is_dir():
        raise InputError(f"--baseline {printable(job.baseline)}: expected alexnet, none, or a folder that this wrote")
    other = read_measurement(Path(job.baseline))
    missing = [name for name in source.names if name not in other["corruptions"]]
    if missing:
        raise InputError(
            f"--baseline {printable(job.baseline)}: has no {', '.join(missing)}; expected some of: "
            f"{', '.join(other['corruptions'])}; choose them with --only"
        )
    check_same(_digest(source.images), other["clean"]["sha256"], "without corruption")
    errors = {
        name: 1 - float(np.mean([c["balanced_accuracy"] for c in other["cells"] if c["corruption"] == name]))
        for name in other["corruptions"]
    }
    model = other.get("model") or {}
    label = f"{printable(str(model.get('name')))} {str(model.get('sha256'))[:8]}"
    return label, (1 - other["clean"]["balanced_accuracy"], errors), other, []


def _of_volume(job: Job, folder: Path, meter: Meters) -> Outcome:
    """Measure a model that segments volumes."""
    if job.data.is_dir():
        raise InputError(f"{printable(job.data)}: is a folder; expected one scan (.nii, .nii.gz, .mgz, .mgh)")
    if job.label_map is not None and job.labels is None:
        raise InputError("--label-map is of --labels, which are not given; give both or none")
    severities = _severities(job.severities)
    card = read_card(folder)
    modality = _modality(job.modality, str(card["input"].get("modality")))
    names = chosen(job.only, list(SCALES[modality]), modality)
    most = int(job.max_gigabytes * 2**30)
    volume = read_volume(job.data, max_bytes=most)
    reference, labels_sha256 = None, None
    if job.labels is not None:
        labels = read_labels(job.labels, max_bytes=most)
        difference = labels.grid.differs_from(volume.grid)
        if difference:
            raise InputError(
                f"--labels {printable(job.labels)}: not on the scan's grid: {difference}; resample it to the scan"
            )
        reference, labels_sha256 = _class_ids(labels.data, job, card["classes"]), labels.sha256
    segmenter = Segmenter(folder, **job.network)
    try:
        found, pictures = measure_volume(
            segmenter, volume, reference, names, severities, modality=modality, on_progress=meter
        )
    except InputError as error:  # the engine knows the case, the user knows the file
        raise InputError(str(error).replace(volume.case_id, printable(job.data))) from error
    of = "the segmentation of the scan as it is" if reference is None else "labels"
    found["settings"] |= {
        "modality": modality, "severities": severities, "only": names if job.only else None, "reference": of,
        "labels_sha256": labels_sha256,
    }  # fmt: skip
    return found, pictures, _page_of_volume(found)


def _page_of_volume(found: Mapping[str, Any]) -> _Page:
    caught, worst, mean = found["caught"], found["worst"], float(np.mean([cell["dice"] for cell in found["cells"]]))
    notes = []
    if found["settings"]["labels_sha256"] is None:
        notes.append("There are no labels: Dice is with the segmentation of the scan as it is, not with the truth.")
    notes.append(
        f"Quality flags or warnings that the clean scan does not raise were there in {caught['caught']} of "
        f"{caught['cells']} cells; of those that lost more than {caught['lost_more_than']:g} of the mean Dice, in "
        f"{caught['caught_that_lost']} of {caught['cells_that_lost']}."
    )
    facts = [
        ("Mean Dice, clean", f"{found['clean']['dice']:.3f}"),
        ("Under corruption", f"{mean:.3f}"),
        ("Worst", f"{worst['dice']:.3f}, {_words(worst['corruption'])} {worst['severity']}"),
        ("Losses that were flagged", f"{caught['caught_that_lost']} of {caught['cells_that_lost']}"),
    ]
    lines = [f"{'corruption':<20}{'mean Dice':>10}{'lost':>9}", f"{'clean':<20}{found['clean']['dice']:>10.4f}"]
    lines += [
        f"{_words(name):<20}{means['dice']:>10.4f}{means['lost']:>9.4f}" for name, means in found["corruptions"].items()
    ]
    return _Page(volume_tables(found), facts, notes, lines)


def _class_ids(labels: np.ndarray, job: Job, classes: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Labels as the model's class ids, `(X, Y, Z)` uint8."""
    known = {int(entry["id"]) for entry in classes}
    name = printable(str(job.labels))
    if job.label_map is None:
        others = sorted(set(np.unique(labels).tolist()) - known)
        if others:
            raise InputError(
                f"--labels {name}: holds {', '.join(map(str, others[:5]))}, expected ids 0 to {max(known)} of the "
                "model; say what they are by --label-map"
            )
        return labels.astype(np.uint8)
    shown = printable(job.label_map)
    try:
        pairs = {int(key): int(value) for key, value in json.loads(job.label_map.read_text(encoding="utf-8")).items()}
    except OSError as error:
        raise InputError(f"--label-map {shown}: cannot be read ({error.strerror}); check the path") from None
    except (AttributeError, TypeError, ValueError):
        raise InputError(f'--label-map {shown}: expected JSON such as {{"17": 4, "53": 4}}, ids to class ids') from None
    unknown = sorted(set(pairs.values()) - known)
    if unknown:
        raise InputError(f"--label-map {shown}: names class {unknown[0]}, expected the model's ids 0 to {max(known)}")
    found = np.zeros(labels.shape, np.uint8)
    for source, target in pairs.items():
        found[labels == source] = target
    return found


def _modality(asked: str | None, said: str) -> str:
    if asked is not None and asked not in SCALES:
        raise InputError(f"--modality is {printable(asked)!r}, expected one of: {', '.join(SCALES)}")
    for modality, words in (("mr", r"\bMRI?\b"), ("ct", r"\bCT\b")):
        if asked is None and re.search(words, said):
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


def _digest(images: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
