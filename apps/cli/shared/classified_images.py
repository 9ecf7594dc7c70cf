"""Images in, a table of their classes and a side-car out: what the verbs `classify` for CSV and Parquet share."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from apps.cli.shared.classification import (
    check_parents,
    draw_maps,
    joint_sha256,
    model_warnings,
    read_in_batches,
    say_unusable,
    side_car,
)
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import Outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.sharding import Shard, part_facts
from pipelines.report.results import Figures
from pipelines.runtime.progress import Meter
from shared_backbones.classification.classifier import ImageClassifier, Prediction
from shared_backbones.errors import InputError, require
from shared_backbones.files import new_folder, printable, write_rows
from shared_backbones.json_values import Document, Entries

_PRESENT = 0.5  # probability above which an image is said to have a class, where it can have several


class ClassifyInput(Protocol):
    """Images to classify.

    Attributes:
        ids: `(N,)` what the table calls each image: a file's name, or a row's number.
        described: What the side-car says of the input.
        warnings: What a user should know.
        failed: Images that were left out so far.
        inputs: Number of images, of all shards together.
    """

    ids: np.ndarray
    described: Entries
    warnings: list[str]
    failed: int
    inputs: int

    def batches(self) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Rows, and what the network sees of each, `(n, C, size, size)`."""
        ...

    def sha256(self) -> str:
        """Digest of what was read."""
        ...

    def facts(self) -> Entries:
        """What the side-car of a shard says of its images, so that the whole one can be made of all."""
        ...

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
        """What the probabilities are worth, and what a user should know of it; None where that cannot be said."""
        ...


class ReadImage(NamedTuple):
    """An image that was read.

    Attributes:
        pixels: What the network sees of it, `(1, C, size, size)`.
        sha256: Digest of its file or files.
        warnings: What a user should know.
    """

    pixels: Tensor
    sha256: bytes
    warnings: Sequence[str] = ()


class ImageFiles:
    """Image files, or folders of one file for each band, each a case; nobody says what they show.

    Args:
        files: Files to read.
        read: Reads one.
        batch_size: Files that are read at once.
        ids: Names of the files in the table.
        skip_unreadable: Whether files that cannot be used are left out, and counted.
        journal: Notes which file is read.
        inputs: Number of files, of all shards together.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], ReadImage],
        batch_size: int,
        *,
        ids: Sequence[str],
        skip_unreadable: bool,
        journal: Journal,
        inputs: int,
    ) -> None:
        self.files, self.batch_size, self.skip_unreadable, self.inputs = files, batch_size, skip_unreadable, inputs
        self.read = journal.noting(read)
        self.ids = np.array([printable(name) for name in ids])
        self.described: Entries = {"kind": "images"}
        self.warnings: list[str] = []
        self.digests: list[bytes] = []
        self.failed = 0

    def batches(self) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Rows, and what the network sees of each, `(n, C, size, size)`."""
        for rows, images in read_in_batches(
            self.files, self.batch_size, self._read, self._fail, skip_unreadable=self.skip_unreadable
        ):
            yield rows, torch.cat(images)

    def sha256(self) -> str:
        """Digest of the files that were read."""
        return joint_sha256(self.digests)

    def facts(self) -> Entries:
        """Digests of the files that were read."""
        return {"digests": [digest.hex() for digest in self.digests]}

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
        """None, as nobody says what they show."""
        return None, []

    def _read(self, path: Path) -> Tensor:
        image = self.read(path)
        self.digests.append(image.sha256)
        self.warnings += [warning for warning in image.warnings if warning not in self.warnings]
        return image.pixels

    def _fail(self, reason: str) -> None:
        self.failed += 1
        say_unusable(reason)


def check_table(table: Path, *folders: Path | None) -> None:
    """Refuse tables of another format, and outputs whose folder is not there.

    Raises:
        InputError: one cannot be written.
    """
    if table.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{printable(table)}: ends in {printable(table.suffix)!r}; expected .csv or .parquet")
    if table.suffix.lower() == ".parquet":
        require("pyarrow", "train")
    check_parents(table, *folders)


def write_classes(
    open_source: Callable[[], ClassifyInput],
    classifier: ImageClassifier[Any],
    outputs: Outputs,
    *,
    label: str,
    cam_folder: Path | None,
    quiet: bool,
    settings: Entries,
    packages: Sequence[str],
    shard: Shard | None,
    picture: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Entries, int]:
    """Classify images and write the table, its side-car and maps; returns the side-car and the exit code.

    Args:
        open_source: Opens the images.
        classifier: Classifier that is asked.
        outputs: Table to write, as `check_table` lets it pass, and its side-car.
        label: Name of the input, for messages.
        cam_folder: New folder for maps of what speaks for the classes.
        quiet: Whether no progress is shown.
        settings: Settings that decided the result, beyond the classifier's.
        packages: Packages whose versions are noted.
        shard: Part of the input that the images are.
        picture: Makes of what the network sees an image `(3, H, W)` uint8 for those who look at the maps.

    Raises:
        InputError: nothing could be classified, or results cannot be written.
    """
    with contextlib.ExitStack() as stack:
        # placed last: a run that is killed meanwhile leaves a table, which is replaced, and no folder, which is not
        pictures = stack.enter_context(new_folder(cam_folder)) if cam_folder is not None else None
        staged = stack.enter_context(outputs.placing())
        source = open_source()
        ids, prediction = _classify(source, classifier, pictures, picture, quiet=quiet)
        if not len(ids) and shard is None:
            raise InputError(f"{label}: none of {len(source.ids)} images can be used; give others")
        figures, remarks = source.figures(prediction)
        content = side_car(
            classifier,
            source.sha256(),
            source.described,
            {"multi_label": classifier.multi_label, **settings},
            {**_counts(prediction, classifier), **({"figures": figures} if figures else {})},
            failed=source.failed,
            warnings=[*source.warnings, *remarks, *model_warnings(classifier)],
            packages=packages,
        )
        content |= part_facts(shard, source.inputs, source.facts())
        _write_table(staged["table"], _columns(ids, prediction, classifier), table_meta(content))
        content = outputs.finish(staged, content)
    return content, PARTLY_FAILED if source.failed else COMPLETE


def table_meta(content: Document) -> dict[str, str]:
    """What is said of a table in its schema, of its side-car."""
    return {
        "model": printable(str(content["model"]["name"])),
        "model_sha256": content["model"]["sha256"],
        "input_sha256": content["input"]["sha256"],
        "software": f"domain-vision {content['versions']['domain-vision']}",
    }


def _classify(
    source: ClassifyInput,
    classifier: ImageClassifier[Any],
    pictures: Path | None,
    picture: Callable[[np.ndarray], np.ndarray] | None,
    *,
    quiet: bool,
) -> tuple[np.ndarray, Prediction]:
    """Ids `(N,)` and prediction of the images of a source that could be used, in their order."""
    rows: list[int] = []
    parts: list[Prediction] = []
    with contextlib.closing(Meter("classify", lines=not quiet)) as meter:
        for numbers, images in source.batches():
            prediction = classifier.predict(images)
            rows.extend(numbers)
            parts.append(prediction)
            if pictures is not None:
                draw_maps(pictures, source.ids, numbers, images, prediction.labels, classifier, picture)
            if not quiet:
                meter(len(rows) + source.failed, len(source.ids))

    none = np.empty((0, len(classifier.names)), np.float32)
    return source.ids[rows], Prediction(
        np.concatenate([none, *(part.probabilities for part in parts)]),
        _joined([part.sets for part in parts]),
        _joined([part.outlier_score for part in parts]),
        _joined([part.is_outlier for part in parts]),
    )


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Arrays one after another; None where the model gives none."""
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def _columns(ids: np.ndarray, prediction: Prediction, classifier: ImageClassifier[Any]) -> list[tuple[str, np.ndarray]]:
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


def _write_table(path: Path, columns: Sequence[tuple[str, np.ndarray]], meta: Mapping[str, str]) -> None:
    """Write a table; `meta` is in Parquet's schema, and nowhere in CSV.

    In CSV an apostrophe goes before text that a spreadsheet would take for a formula.
    """
    if path.suffix.lower() == ".parquet":
        pyarrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
        names, values = zip(*columns, strict=True)
        arrays = [pyarrow.array(part.tolist() if part.dtype.kind in "OU" else part) for part in values]
        table = pyarrow.Table.from_arrays(arrays, names=list(names)).replace_schema_metadata(dict(meta))
        parquet.write_table(table, path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [[title for title, _ in columns]])
        write_rows(file, zip(*(values for _, values in columns), strict=True))


def _counts(prediction: Prediction, classifier: ImageClassifier[Any]) -> Entries:
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
