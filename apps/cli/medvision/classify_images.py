"""The work of `medvision classify`: medical images in; a table of classes and probabilities out, with a side-car."""

import contextlib
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.classify import ClassifyOptions
from apps.cli.medvision.image_sources import ImageSource, find_files, open_source
from apps.cli.shared.classification import check_parents, draw_maps, model_warnings, new_folder, side_car
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.program import find_model as find_registered
from medvision.classification import MedicalClassifier
from medvision.models.catalogue import find_model
from shared_backbones.card import CARD
from shared_backbones.classification.classifier import Prediction
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing, spreadsheet_safe

_PRESENT = 0.5  # probability above which an image is said to have a class, where it can have several


def classify_images(options: ClassifyOptions) -> tuple[dict[str, Any], int]:
    """Classify images and write the table, its side-car and maps; returns the side-car and the exit code.

    Raises:
        InputError: input, model, options and output do not go together, or nothing could be classified.
    """
    table = options.table
    if table.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{printable(table)}: ends in {printable(table.suffix)!r}; expected .csv or .parquet")
    if table.suffix.lower() == ".parquet":
        require("pyarrow", "train")
    check_parents(table, options.cam_folder)
    files = find_files(options)
    classifier = MedicalClassifier(
        find_model(find_registered(options.model)),
        batch_size=options.batch_size,
        device=options.network.device,
        threads=options.network.threads,
        precision=options.network.precision,
    )
    beside = table.with_suffix(".json")
    if beside.resolve() == (classifier.folder / CARD).resolve():
        raise InputError(f"{printable(beside)}: is the model's card and would be overwritten; choose another output")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(beside))
        pictures = stack.enter_context(new_folder(options.cam_folder)) if options.cam_folder is not None else None
        source = open_source(options, classifier, files)
        ids, prediction = _classify(source, classifier, pictures, options)
        content = _side_car(source, classifier, prediction)
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        meta = {
            "model": printable(str(classifier.card.get("name"))),
            "model_sha256": classifier.sha256,
            "input_sha256": content["input"]["sha256"],
            "software": f"domain-vision {content['versions']['domain-vision']}",
        }
        _write_table(table, _columns(ids, prediction, classifier), meta)
    return content, PARTLY_FAILED if source.failed else COMPLETE


def _classify(
    source: ImageSource, classifier: MedicalClassifier, pictures: Path | None, options: ClassifyOptions
) -> tuple[np.ndarray, Prediction]:
    """Ids `(N,)` and prediction of the images of a source that could be used, in their order."""
    from pipelines.runtime.progress import Meter

    quiet = options.quiet or options.as_json
    rows: list[int] = []
    parts: list[Prediction] = []
    with contextlib.closing(Meter("classify", None if quiet else 10.0)) as meter:
        for numbers, images in source.batches():
            prediction = classifier.predict(images)
            rows.extend(numbers)
            parts.append(prediction)
            if pictures is not None:
                draw_maps(pictures, source.ids, numbers, images, prediction.labels, classifier)
            if not quiet:
                meter(len(rows) + source.failed, len(source.ids))

    if not parts:
        raise InputError(f"{printable(options.input)}: none of {len(source.ids)} images can be used; give others")
    return source.ids[rows], Prediction(
        np.concatenate([part.probabilities for part in parts]),
        _joined([part.sets for part in parts]),
        _joined([part.outlier_score for part in parts]),
        _joined([part.is_outlier for part in parts]),
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Arrays one after another; None where the model gives none."""
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def _side_car(source: ImageSource, classifier: MedicalClassifier, prediction: Prediction) -> dict[str, Any]:
    figures, remarks = source.figures(prediction)
    return side_car(
        classifier,
        source.sha256(),
        source.described,
        {"multi_label": classifier.multi_label},
        {**_counts(prediction, classifier), **({"figures": figures} if figures else {})},
        failed=source.failed,
        warnings=[*source.warnings, *remarks, *model_warnings(classifier)],
        packages=("domain-vision", "torch", "numpy", "pillow"),
    )


def _columns(ids: np.ndarray, prediction: Prediction, classifier: MedicalClassifier) -> list[tuple[str, np.ndarray]]:
    """Names and values of the table's columns.

    Where an image can have several classes, its class is the most probable of those that it is said to have, and empty
    where it has none.
    """
    names, probabilities = [printable(name) for name in classifier.names], prediction.probabilities
    best = np.array(names, object)[prediction.labels]
    if classifier.multi_label:
        best[probabilities.max(1) <= _PRESENT] = ""
    columns = [("id", ids), ("class", best), ("confidence", prediction.confidence)]
    columns += [(f"p_{name}", probabilities[:, number]) for number, name in enumerate(names)]
    if classifier.multi_label:
        columns += [(f"is_{name}", probabilities[:, number] > _PRESENT) for number, name in enumerate(names)]
    if prediction.sets is not None:
        columns += [(f"in_set_{name}", prediction.sets[:, number]) for number, name in enumerate(names)]
        columns.append(("set_size", prediction.sets.sum(1)))
    if prediction.outlier_score is not None and prediction.is_outlier is not None:
        columns.append(("outlier_score", prediction.outlier_score.astype(np.float32)))
        columns.append(("is_outlier", prediction.is_outlier))
    titles = [title for title, _ in columns]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise InputError(f"model {printable(classifier.folder)}: its classes give two columns {twice[0]}; rename one")
    return columns


def _write_table(path: Path, columns: Sequence[tuple[str, np.ndarray]], meta: dict[str, str]) -> None:
    """Write a table whole or not at all; `meta` is in Parquet's schema, and nowhere in CSV.

    In CSV an apostrophe goes before text that a spreadsheet would take for a formula.
    """
    with replacing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            pyarrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
            names, values = zip(*columns, strict=True)
            arrays = [pyarrow.array(part.tolist() if part.dtype.kind in "OU" else part) for part in values]
            table = pyarrow.Table.from_arrays(arrays, names=list(names)).replace_schema_metadata(meta)
            parquet.write_table(table, temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(title for title, _ in columns)
            writer.writerows(zip(*(map(spreadsheet_safe, values) for _, values in columns), strict=True))


def _counts(prediction: Prediction, classifier: MedicalClassifier) -> dict[str, Any]:
    """Images of each class: where an image can have several, of those that have it."""
    if classifier.multi_label:
        present = prediction.probabilities > _PRESENT
    else:
        present = np.eye(len(classifier.names), dtype=bool)[prediction.labels]
    count = len(prediction.labels)
    outliers = prediction.is_outlier
    return {
        "rows": count,
        "classified": count,
        "classes": [{"name": name, "count": int(present[:, n].sum())} for n, name in enumerate(classifier.names)],
        "flags": {} if outliers is None else {"outlier": int(outliers.sum())},
    }
