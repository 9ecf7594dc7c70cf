"""`medvision classify`: medical images in; a table of classes and probabilities out, with a side-car."""

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.cli.shared.classification import (
    check_parents,
    draw_maps,
    joint_sha256,
    list_files,
    model_warnings,
    new_folder,
    read_in_batches,
    say_unusable,
    side_car,
)
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.program import find_model as find_registered
from apps.cli.shared.sharding import Shard, share
from medvision.classification import MedicalClassifier
from medvision.datasets.medmnist import MedMnistImages, MedMnistSet, read_medmnist
from medvision.models.catalogue import find_model
from pipelines.data.image_files import WITH_TIFF, read_image
from shared_backbones.errors import InputError, require
from shared_backbones.files import file_sha256, printable, replacing, spreadsheet_safe
from shared_backbones.weights import CARD

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_PRESENT = 0.5  # probability above which an image is said to have a class, where it can have several

Batches = Iterator[tuple[Sequence[int], Tensor]]


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of the images that could be used, in their order; see `image_classifier.Prediction`."""

    ids: np.ndarray
    scores: np.ndarray
    sets: np.ndarray | None
    strange: np.ndarray | None
    called: np.ndarray | None

    @property
    def best(self) -> np.ndarray:
        """Number of the most probable class, `(N,)`."""
        return self.scores.argmax(1)


def classify_images(
    path: Path,
    output: Path,
    model: str,
    *,
    split: str | None,
    cam_folder: Path | None,
    batch_size: int,
    skip_unreadable: bool,
    max_gigabytes: float,
    quiet: bool,
    shard: Shard | None,
    network: dict[str, Any],
) -> tuple[dict[str, Any], int]:
    """Classify images and write the table, its side-car and maps; returns the side-car and the exit code.

    Args:
        path: of an image, a folder of images, or a `.npz` file of MedMNIST.
        output: of the table, `.csv` or `.parquet`. The side-car lies beside it.
        model: folder or URI of a trained model.
        split: of a file of MedMNIST; None is `test`.
        cam_folder: new folder for pictures of Grad-CAM; None for none.
        batch_size: images that the network sees at once.
        skip_unreadable: leave out image files that cannot be used.
        max_gigabytes: that the images of a file of MedMNIST may take.
        quiet: show no progress.
        shard: part of the images, and of the rows of a file; None for all.
        network: `device`, `threads` and `precision`.

    Raises:
        InputError: input, model, options and output do not go together, or nothing could be classified.
    """
    if output.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{printable(output)}: ends in {printable(output.suffix)!r}; expected .csv or .parquet")
    if output.suffix.lower() == ".parquet":
        require("pyarrow", "train")
    check_parents(output, cam_folder)
    files = _find(path, split)
    if not _holds_rows(path):  # else rows are shared out
        files = share(files, shard)
    classifier = MedicalClassifier(find_model(find_registered(model)), batch_size=batch_size, **network)
    beside = output.with_suffix(".json")
    if beside.resolve() == (classifier.folder / CARD).resolve():
        raise InputError(f"{printable(beside)}: is the model's card and would be overwritten; choose another output")
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(beside))
        pictures = stack.enter_context(new_folder(cam_folder)) if cam_folder is not None else None
        source: _Files | _MedMnist
        if _holds_rows(path):
            source = _MedMnist(path, split or "test", max_gigabytes, classifier, shard)
        else:
            source = _Files(files, classifier, say_unusable if skip_unreadable else None)
        found = _classify(source, classifier, pictures, quiet, printable(path))
        figures, noted = source.figures(found)
        content = side_car(
            classifier,
            source.sha256(),
            source.described,
            {"multi_label": classifier.multi_label},
            {**_counts(found, classifier), **({"figures": figures} if figures else {})},
            failed=source.failed,
            warnings=[*source.warnings, *noted, *model_warnings(classifier)],
            packages=("domain-vision", "torch", "numpy", "pillow"),
        )
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        meta = {
            "model": printable(str(classifier.card.get("name"))),
            "model_sha256": classifier.sha256,
            "input_sha256": content["input"]["sha256"],
            "software": f"domain-vision {content['versions']['domain-vision']}",
        }
        _write_table(output, _columns(found, classifier), meta)
    return content, PARTLY_FAILED if source.failed else COMPLETE


class _Files:
    """Image files, each a case."""

    def __init__(
        self, files: Sequence[Path], classifier: MedicalClassifier, on_failure: Callable[[str], None] | None
    ) -> None:
        self.files, self.classifier, self.on_failure = files, classifier, on_failure
        self.ids = np.array([printable(path.name) for path in files])
        self.described: dict[str, Any] = {"kind": "images"}
        self.warnings: list[str] = []
        self.digests: list[bytes] = []
        self.failed = 0

    def batches(self) -> Batches:
        """Rows, and what the network sees of each `(n, C, size, size)`."""
        on_failure = self._fail if self.on_failure else None
        for rows, images in read_in_batches(self.files, self.classifier.batch_size, self._read, on_failure):
            yield rows, torch.cat(images)

    def sha256(self) -> str:
        """Of the files that were read."""
        return joint_sha256(self.digests)

    def figures(self, found: Predictions) -> tuple[dict[str, Any] | None, list[str]]:
        """None, as nobody says what they show."""
        return None, []

    def _read(self, path: Path) -> Tensor:
        image, digest = read_image(path, None, WITH_TIFF)
        try:
            prepared = self.classifier.prepare(torch.from_numpy(image)[None])
        except InputError as error:
            raise InputError(f"{printable(path)}: {error}") from None
        self.digests.append(digest)
        return prepared

    def _fail(self, reason: str) -> None:
        self.failed += 1
        if self.on_failure:
            self.on_failure(reason)


class _MedMnist:
    """The images of a split of a file of MedMNIST, and what they show."""

    failed = 0

    def __init__(
        self, path: Path, split: str, max_gigabytes: float, classifier: MedicalClassifier, shard: Shard | None
    ) -> None:
        self.path, self.classifier = path, classifier
        given: MedMnistImages = read_medmnist(path, split, max_gigabytes=max_gigabytes)
        rows = range(len(given.images)) if shard is None else shard.rows(len(given.images))
        part = slice(rows.start, rows.stop)
        self.given = replace(given, images=given.images[part], targets=given.targets[part])
        self.ids = np.array(rows)
        self.described: dict[str, Any] = {
            "kind": "medmnist", "set": self.given.facts.name, "split": split, "shape": list(self.given.images.shape)
        }  # fmt: skip
        self.warnings = self.given.notices

    def batches(self) -> Batches:
        """Rows, and what the network sees of each `(n, C, size, size)`."""
        images, size = self.given.images, self.classifier.batch_size
        for first in range(0, len(images), size):
            part = as_tensor(images[first : first + size])
            try:
                prepared = self.classifier.prepare(part)
            except InputError as error:
                raise InputError(f"{printable(self.path)}: {error}") from None
            yield range(first, first + len(part)), prepared

    def sha256(self) -> str:
        """Of the file."""
        return file_sha256(self.path)

    def figures(self, found: Predictions) -> tuple[dict[str, Any] | None, list[str]]:
        """What the probabilities are worth; None with the reason where that cannot be said."""
        from shared_backbones.classification.figures import class_figures

        facts = self.given.facts
        said = differing_classes(facts, self.classifier)
        if said is not None:
            return None, [f"{said}; there are no figures"]
        if not self.given.targets.any():
            return None, ["no image has any of the classes; there are no figures"]
        try:
            return class_figures(found.scores, self.given.targets, multi_label=facts.multi_label), []
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "sklearn":
                raise
            return None, ['figures need scikit-learn; run: pip install "domain-vision[train]"']


def _holds_rows(path: Path) -> bool:
    """Whether an input is a file of MedMNIST."""
    return path.suffix.lower() == ".npz" and not path.is_dir()


def _find(path: Path, split: str | None) -> list[Path]:
    """Files of an input."""
    name = printable(path)
    if path.is_dir():
        files = [file for file in list_files(path) if file.suffix.lower() in _IMAGES]
        if not files:
            raise InputError(f"{name}: holds no image; expected files ending in {', '.join(_IMAGES)}")
    elif not path.exists():
        raise InputError(f"{name}: no such file or folder; expected images or a .npz file of MedMNIST")
    elif path.suffix.lower() in (*_IMAGES, ".npz"):
        files = [path]
    else:
        known = ", ".join((*_IMAGES, ".npz"))
        raise InputError(f"{name}: ends in {printable(path.suffix) or 'nothing'}; expected {known}")
    if split is not None and not _holds_rows(path):
        raise InputError(f"{name}: is no .npz file of MedMNIST, so --split means nothing; leave it out")
    return files


def _classify(
    source: Any, classifier: MedicalClassifier, pictures: Path | None, quiet: bool, label: str
) -> Predictions:
    """Classify all images of a source."""
    from pipelines.runtime.progress import Meter

    rows, parts = [], []
    with contextlib.closing(Meter("classify", None if quiet else 10.0)) as meter:
        for numbers, images in source.batches():
            found = classifier.predict(images)
            rows.extend(numbers)
            parts.append(found)
            if pictures is not None:
                draw_maps(pictures, source.ids, numbers, images, found.labels, classifier)
            if not quiet:
                meter(len(rows) + source.failed, len(source.ids))

    if not parts:
        raise InputError(f"{label}: none of {len(source.ids)} images can be used; give others")

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    names = ("probabilities", "sets", "outlier_score", "is_outlier")
    return Predictions(source.ids[rows], *map(joined, names))


def _columns(found: Predictions, classifier: MedicalClassifier) -> list[tuple[str, Any]]:
    """Names and values of the table's columns.

    Where an image can have several classes, its class is the most probable of those that it is said to have, and empty
    where it has none.
    """
    names, scores = [printable(name) for name in classifier.names], found.scores
    named = np.array(names, object)[found.best]
    if classifier.multi_label:
        named[scores.max(1) <= _PRESENT] = ""
    columns = [("id", found.ids), ("class", named), ("confidence", scores.max(1))]
    columns += [(f"p_{name}", scores[:, number]) for number, name in enumerate(names)]
    if classifier.multi_label:
        columns += [(f"is_{name}", scores[:, number] > _PRESENT) for number, name in enumerate(names)]
    if found.sets is not None:
        columns += [(f"in_set_{name}", found.sets[:, number]) for number, name in enumerate(names)]
        columns.append(("set_size", found.sets.sum(1)))
    if found.strange is not None:
        columns += [("outlier_score", found.strange.astype(np.float32)), ("is_outlier", found.called)]
    titles = [title for title, _ in columns]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise InputError(f"model {printable(classifier.folder)}: its classes give two columns {twice[0]}; rename one")
    return columns


def _write_table(path: Path, columns: Sequence[tuple[str, Any]], meta: dict[str, str]) -> None:
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


def _counts(found: Predictions, classifier: MedicalClassifier) -> dict[str, Any]:
    """Images of each class: where an image can have several, of those that have it."""
    has = found.scores > _PRESENT if classifier.multi_label else np.eye(len(classifier.names))[found.best] > 0
    return {
        "rows": len(found.ids),
        "classified": len(found.ids),
        "classes": [{"name": name, "count": int(has[:, n].sum())} for n, name in enumerate(classifier.names)],
        "flags": {} if found.called is None else {"outlier": int(found.called.sum())},
    }


def as_tensor(images: np.ndarray) -> Tensor:
    """Images of MedMNIST, `(N, H, W)` or `(N, H, W, 3)`, as classifiers take them, `(N, C, H, W)`."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return tensor[:, None] if images.ndim == 3 else tensor.permute(0, 3, 1, 2)


def differing_classes(facts: MedMnistSet, classifier: MedicalClassifier) -> str | None:
    """What to say where a set's classes are not the model's, in case, spaces and signs apart; else None."""

    def plain(names: Sequence[str]) -> list[str]:
        return [re.sub(r"[^a-z0-9]", "", name.lower()) for name in names]

    names = classifier.names
    if facts.multi_label == classifier.multi_label and plain(facts.classes) == plain(names):
        return None
    return f"the classes of {facts.name} ({_listed(facts.classes)}) are not the model's ({_listed(names)})"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name)[:60] for name in names[:4])
    return f"{shown}, ... {len(names)}" if len(names) > 4 else shown
