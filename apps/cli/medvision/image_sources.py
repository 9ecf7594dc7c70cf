"""The images that `medvision classify` is given: image files, or the rows of a file of MedMNIST."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from apps.cli.medvision.classify import ClassifyOptions
from apps.cli.shared.classification import list_files
from apps.cli.shared.classified_images import ClassifyInput, ImageFiles, ReadImage
from apps.cli.shared.journal import Journal
from apps.cli.shared.sharding import part_of
from medvision.classification import MedicalClassifier
from medvision.dicom.files import holds_dicom
from pipelines.data.image_files import WITH_TIFF, read_image
from pipelines.report.results import Figures
from shared_backbones.classification.classifier import Prediction
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.json_values import Entries

if TYPE_CHECKING:  # files of MedMNIST and of DICOM are read by modules that others do without
    from medvision.datasets.medmnist import MedMnistSet

NO_CLASS = "no image has any of the classes; there are no figures"
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def open_source(
    options: ClassifyOptions, classifier: MedicalClassifier, files: Sequence[Path], journal: Journal
) -> ClassifyInput:
    """The images that the options name, or a shard of them; `files` are those of `find_files`.

    Raises:
        InputError: a file of MedMNIST cannot be read.
    """
    if holds_rows(options.input):
        return _MedMnist(options, classifier)
    part = part_of(files, options.shard)
    return ImageFiles(
        part,
        functools.partial(_read, classifier),
        classifier.batch_size,
        ids=[path.name for path in part],
        skip_unreadable=options.skip_unreadable,
        journal=journal,
        inputs=len(files),
    )


def holds_rows(path: Path) -> bool:
    """Whether an input is a file of MedMNIST."""
    return path.suffix.lower() == ".npz" and not path.is_dir()


def find_files(options: ClassifyOptions) -> list[Path]:
    """The files of an input.

    Raises:
        InputError: there is none, or `--split` has no meaning for it.
    """
    path, split = options.input, options.split
    name = printable(path)
    if path.is_dir():
        files = [file for file in list_files(path) if file.suffix.lower() in _IMAGES or _is_dicom(file)]
        if not files:
            raise InputError(f"{name}: contains no image; expected files ending in {', '.join(_IMAGES)}, or DICOM")
    elif not path.exists():
        raise InputError(f"{name}: no such file or folder; expected images or a .npz file of MedMNIST")
    elif path.suffix.lower() in (*_IMAGES, ".npz") or _is_dicom(path):
        files = [path]
    else:
        known = ", ".join((*_IMAGES, ".npz"))
        raise InputError(f"{name}: ends in {printable(path.suffix) or 'nothing'}; expected {known}, or DICOM")
    if split is not None and not holds_rows(path):
        raise InputError(f"{name}: is no .npz file of MedMNIST, so --split means nothing; leave it out")
    return files


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() != ".zip" and holds_dicom(path)


def _read(classifier: MedicalClassifier, path: Path) -> ReadImage:
    """What the network sees of an image file."""
    warnings: Sequence[str] = ()
    if _is_dicom(path):
        from medvision.dicom.projections import read_projection

        image, sha256, warnings = read_projection(path)
        digest = bytes.fromhex(sha256)
    else:
        image, digest = read_image(path, None, WITH_TIFF)
    try:
        return ReadImage(classifier.prepare(torch.from_numpy(image)[None]), digest, warnings)
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from None


class _MedMnist:
    """The images of a split of a file of MedMNIST, and what they show."""

    def __init__(self, options: ClassifyOptions, classifier: MedicalClassifier) -> None:
        from medvision.datasets.medmnist import read_medmnist, set_for

        self.path, self.classifier, self.failed = options.input, classifier, 0
        split = options.split or "test"
        facts = set_for(self.path, split, classifier.names, multi_label=classifier.multi_label)
        given = read_medmnist(self.path, split, facts)
        self.inputs = len(given.images)
        rows = range(self.inputs) if options.shard is None else options.shard.rows(self.inputs)
        part = slice(rows.start, rows.stop)
        self.given = replace(given, images=given.images[part], targets=given.targets[part])
        self.ids = np.array(rows)
        self.described: Entries = {
            "kind": "medmnist", "set": self.given.facts.name, "split": split, "shape": list(given.images.shape)
        }  # fmt: skip
        self.warnings = self.given.notices

    def batches(self) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Rows, and what the network sees of each, `(n, C, size, size)`."""
        images, size = self.given.images, self.classifier.batch_size
        for first in range(0, len(images), size):
            part = as_tensor(images[first : first + size])
            try:
                prepared = self.classifier.prepare(part)
            except InputError as error:
                raise InputError(f"{printable(self.path)}: {error}") from None
            yield range(first, first + len(part)), prepared

    def sha256(self) -> str:
        """Digest of the file."""
        return file_sha256(self.path)

    def facts(self) -> Entries:
        """What the images show, where the model has these classes."""
        if differing_classes(self.given.facts, self.classifier) is not None:
            return {}
        return {"targets": self.given.targets.tolist()}

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
        """What the probabilities are worth; None with the reason where that cannot be said."""
        facts = self.given.facts
        difference = differing_classes(facts, self.classifier)
        if difference is not None:
            return None, [f"{difference}; there are no figures"]
        return figures_of(prediction.probabilities, self.given.targets, multi_label=facts.multi_label)


def figures_of(
    probabilities: np.ndarray, targets: np.ndarray, *, multi_label: bool
) -> tuple[Figures | None, list[str]]:
    """What probabilities `(N, K)` are worth, and None with the reason where that cannot be said.

    Args:
        probabilities: `(N, K)`.
        targets: `(N, K)`, 1 for the classes that an image has.
        multi_label: Whether it can have several.
    """
    from shared_backbones.classification.figures import class_figures

    if not targets.any():
        return None, [NO_CLASS]
    try:
        return class_figures(probabilities, targets, multi_label=multi_label), []
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        return None, ['figures need scikit-learn; run: pip install "domain-vision[train]"']


def as_tensor(images: np.ndarray) -> Tensor:
    """Images of MedMNIST, `(N, H, W)` or `(N, H, W, 3)`, as classifiers take them, `(N, C, H, W)`."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return tensor[:, None] if images.ndim == 3 else tensor.permute(0, 3, 1, 2)


def differing_classes(facts: "MedMnistSet", classifier: MedicalClassifier) -> str | None:
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
