"""The images that `medvision classify` is given: image files, or the rows of a file of MedMNIST."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from apps.cli.medvision.classify import ClassifyOptions
from apps.cli.shared.classification import joint_sha256, list_files, read_in_batches, say_unusable
from apps.cli.shared.sharding import part_of
from medvision.classification import MedicalClassifier
from medvision.datasets.medmnist import MedMnistSet, read_medmnist
from pipelines.data.image_files import WITH_TIFF, read_image
from shared_backbones.classification.classifier import Prediction
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

Figures = dict[str, Any]


class ImageSource(Protocol):
    """Images to classify.

    Attributes:
        ids: `(N,)` what the table calls each image: a file's name, or a row's number.
        described: what the side-car says of the input.
        warnings: what a user should know.
        failed: images that were left out so far.
    """

    ids: np.ndarray
    described: dict[str, Any]
    warnings: list[str]
    failed: int

    def batches(self) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Rows, and what the network sees of each, `(n, C, size, size)`."""
        ...

    def sha256(self) -> str:
        """Digest of what was read."""
        ...

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
        """What the probabilities are worth, and what a user should know of it; None where that cannot be said."""
        ...


def open_source(options: ClassifyOptions, classifier: MedicalClassifier, files: Sequence[Path]) -> ImageSource:
    """The images that the options name; `files` are those of `find_files`.

    Raises:
        InputError: a file of MedMNIST cannot be read.
    """
    if holds_rows(options.input):
        return _MedMnist(options, classifier)
    return _Files(files, classifier, say_unusable if options.skip_unreadable else None)


def holds_rows(path: Path) -> bool:
    """Whether an input is a file of MedMNIST."""
    return path.suffix.lower() == ".npz" and not path.is_dir()


def find_files(options: ClassifyOptions) -> list[Path]:
    """The files of an input, or of a shard of it.

    Raises:
        InputError: there is none, or `--split` has no meaning for it.
    """
    path, split = options.input, options.split
    name = printable(path)
    if path.is_dir():
        files = [file for file in list_files(path) if file.suffix.lower() in _IMAGES]
        if not files:
            raise InputError(f"{name}: contains no image; expected files ending in {', '.join(_IMAGES)}")
    elif not path.exists():
        raise InputError(f"{name}: no such file or folder; expected images or a .npz file of MedMNIST")
    elif path.suffix.lower() in (*_IMAGES, ".npz"):
        files = [path]
    else:
        known = ", ".join((*_IMAGES, ".npz"))
        raise InputError(f"{name}: ends in {printable(path.suffix) or 'nothing'}; expected {known}")
    if split is not None and not holds_rows(path):
        raise InputError(f"{name}: is no .npz file of MedMNIST, so --split means nothing; leave it out")
    return files if holds_rows(path) else part_of(files, options.shard)  # else rows are shared out


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

    def batches(self) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Rows, and what the network sees of each, `(n, C, size, size)`."""
        on_failure = self._fail if self.on_failure else None
        for rows, images in read_in_batches(self.files, self.classifier.batch_size, self._read, on_failure):
            yield rows, torch.cat(images)

    def sha256(self) -> str:
        """Digest of the files that were read."""
        return joint_sha256(self.digests)

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
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

    def __init__(self, options: ClassifyOptions, classifier: MedicalClassifier) -> None:
        self.path, self.classifier, self.failed = options.input, classifier, 0
        split = options.split or "test"
        given = read_medmnist(self.path, split, max_gigabytes=options.max_gigabytes)
        count = len(given.images)
        rows = range(count) if options.shard is None else options.shard.rows(count)
        part = slice(rows.start, rows.stop)
        self.given = replace(given, images=given.images[part], targets=given.targets[part])
        self.ids = np.array(rows)
        self.described: dict[str, Any] = {
            "kind": "medmnist", "set": self.given.facts.name, "split": split, "shape": list(self.given.images.shape)
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

    def figures(self, prediction: Prediction) -> tuple[Figures | None, list[str]]:
        """What the probabilities are worth; None with the reason where that cannot be said."""
        from shared_backbones.classification.figures import class_figures

        facts = self.given.facts
        difference = differing_classes(facts, self.classifier)
        if difference is not None:
            return None, [f"{difference}; there are no figures"]
        if not self.given.targets.any():
            return None, ["no image has any of the classes; there are no figures"]
        try:
            return class_figures(prediction.probabilities, self.given.targets, multi_label=facts.multi_label), []
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "sklearn":
                raise
            return None, ['figures need scikit-learn; run: pip install "domain-vision[train]"']


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
