"""The twelve 2-D sets of MedMNIST (Yang et al. 2023): what each holds, and reading their files."""

import contextlib
import functools
import itertools
import math
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvision.arrays import read_header, read_member
from shared_backbones.errors import InputError
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_files import SPLITS as SPLIT_NAMES
from shared_backbones.labelled_files import only_file
from shared_backbones.labelled_images import ImageSource, Layout, RowItem, with_bands

SPLITS = ("train", "val", "test")
_LARGEST = 2**28  # bytes of an image
_MOST_CLASSES = 1000  # of a set that is none of MedMNIST
_SEVERITIES = 5  # the files of MedMNIST-C hold every image so many times


@dataclass(frozen=True)
class MedMnistSet:
    """Facts of a set, as the package medmnist 3.0 states them.

    Attributes:
        name: such as `pneumoniamnist`, with which the names of its files begin.
        task: `binary`, `multi-class`, `multi-label` or `ordinal` (classes in order).
        channels: 1 (grey) or 3 (red, green, blue).
        classes: names, in the order of the labels.
        counts: published number of images of each split.
    """

    name: str
    task: str
    channels: int
    classes: tuple[str, ...]
    counts: dict[str, int]

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several classes, or none."""
        return self.task == "multi-label"


def _set(name: str, task: str, channels: int, counts: tuple[int, int, int], *classes: str) -> tuple[str, MedMnistSet]:
    return name, MedMnistSet(name, task, channels, classes, dict(zip(SPLITS, counts, strict=True)))


_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

SETS: dict[str, MedMnistSet] = dict([
    _set("pathmnist", "multi-class", 3, (89996, 10004, 7180), "adipose", "background", "debris", "lymphocytes", "mucus",
         "smooth muscle", "normal colon mucosa", "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    _set("chestmnist", "multi-label", 1, (78468, 11219, 22433), "atelectasis", "cardiomegaly", "effusion",
         "infiltration", "mass", "nodule", "pneumonia", "pneumothorax", "consolidation", "edema", "emphysema",
         "fibrosis", "pleural", "hernia"),
    _set("dermamnist", "multi-class", 3, (7007, 1003, 2005), "actinic keratoses and intraepithelial carcinoma",
         "basal cell carcinoma", "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
         "vascular lesions"),
    _set("octmnist", "multi-class", 1, (97477, 10832, 1000), "choroidal neovascularization", "diabetic macular edema",
         "drusen", "normal"),
    _set("pneumoniamnist", "binary", 1, (4708, 524, 624), "normal", "pneumonia"),
    _set("retinamnist", "ordinal", 3, (1080, 120, 400), "0", "1", "2", "3", "4"),
    _set("breastmnist", "binary", 1, (546, 78, 156), "malignant", "normal, benign"),
    _set("bloodmnist", "multi-class", 3, (11959, 1712, 3421), "basophil", "eosinophil", "erythroblast",
         "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte", "neutrophil",
         "platelet"),
    _set("tissuemnist", "multi-class", 1, (165466, 23640, 47280), "Collecting Duct, Connecting Tubule",
         "Distal Convoluted Tubule", "Glomerular endothelial cells", "Interstitial endothelial cells", "Leukocytes",
         "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb"),
    _set("organamnist", "multi-class", 1, (34561, 6491, 17778), *_ORGANS),
    _set("organcmnist", "multi-class", 1, (12975, 2392, 8216), *_ORGANS),
    _set("organsmnist", "multi-class", 1, (13932, 2452, 8827), *_ORGANS),
])  # fmt: skip
"""The sets, by name."""


@dataclass(frozen=True)
class MedMnistImages:
    """Images of one split, with what they show.

    Attributes:
        images: `(N, H, W)` uint8 of grey sets, `(N, H, W, 3)` of coloured ones.
        targets: `(N, K)` uint8: 1 for the classes that an image has, one of them unless the set is multi-label.
        facts: Facts of the set.
        notices: what a user should know, without names of files.
    """

    images: np.ndarray
    targets: np.ndarray
    facts: MedMnistSet
    notices: list[str]


def find_set(path: str | Path, name: str | None = None) -> MedMnistSet:
    """The set that a file is of: the one given, or that with which the file's name begins.

    Raises:
        InputError: there is no such set.
    """
    said = Path(path).stem if name is None else name
    match = re.match(r"[a-z]+mnist(?![a-z0-9])", said.lower())
    if match is None or match[0] not in SETS or (name is not None and match[0] != name.lower()):
        raise InputError(
            f"{printable(path)}: {printable(said)!r} names no 2-D set of MedMNIST; expected {', '.join(SETS)}, such as "
            "pneumoniamnist.npz or pneumoniamnist_224.npz"
        )
    return SETS[match[0]]


def set_for(path: str | Path, split: str, classes: Sequence[str], *, multi_label: bool) -> MedMnistSet:
    """The set that a file is of, whatever it is called: one of MedMNIST, or one of the file's own.

    The latter is described by its arrays; its classes are called as given where it has no others.

    Args:
        path: `.npz` file in the form of MedMNIST.
        split: `train`, `val` or `test`.
        classes: names of a model's classes.
        multi_label: whether an image can have several of these.

    Raises:
        InputError: it has no such arrays.
    """
    with contextlib.suppress(InputError):
        return find_set(path)
    path = Path(path)
    with _archive(path, split) as archive:
        (count, *rest), _ = _header(path, archive, f"{split}_images")
        shape, dtype = _header(path, archive, f"{split}_labels")
        several = len(shape) == 2 and shape[1] > 1
        number = shape[1] if several else len(classes)
        if shape == (count, 1) and dtype.kind in "iub":
            number = int(read_member(archive, f"{split}_labels", printable(path)).max(initial=0)) + 1
    number = min(max(number, 2), _MOST_CLASSES)
    ours = several == multi_label and (number == len(classes) if several else number <= len(classes))
    names = tuple(classes) if ours else tuple(map(str, range(number)))
    task, channels = "multi-label" if several else "multi-class", 3 if len(rest) == 3 else 1
    return MedMnistSet("unnamed set", task, channels, names, dict.fromkeys(SPLITS, count))


def read_medmnist(path: str | Path, split: str, name: str | MedMnistSet | None = None) -> MedMnistImages:
    """Read a split of a file of MedMNIST, of any size of image (28, 64, 128, 224).

    Of the file's arrays those of the split are read, after their headers were found to be as they should be; the
    other splits may be absent, as they are in the files of MedMNIST-C.

    Args:
        path: `.npz` file with arrays `<split>_images` and `<split>_labels`.
        split: `train`, `val` or `test`.
        name: Name of the set, or what is known of it (`set_for`); by default the file's name says it.

    Raises:
        InputError: the file cannot be read, or its arrays are not those of such a set.
    """
    path, facts = Path(path), name if isinstance(name, MedMnistSet) else find_set(path, name)
    with _archive(path, split) as archive:
        shape = _image_shape(path, archive, split, facts)
        labels = _read_labels(path, archive, split, facts, shape[0])
        images = read_member(archive, f"{split}_images", printable(path))
    return MedMnistImages(images, _as_targets(labels, facts), facts, _notices(facts, split, shape[0]))


def read_targets(path: str | Path, split: str) -> np.ndarray:
    """What the images of a split show, `(N, K)` as `MedMnistImages.targets`, without reading the images.

    Raises:
        InputError: as of `read_medmnist`, which reads the same file.
    """
    path, facts = Path(path), find_set(path)
    with _archive(path, split) as archive:
        shape = _image_shape(path, archive, split, facts)
        return _as_targets(_read_labels(path, archive, split, facts, shape[0]), facts)


def iter_images(path: str | Path, split: str) -> Iterator[np.ndarray]:
    """The images of a split one after the other, each as a row of `MedMnistImages.images`; no others are held.

    So a file may be larger than memory: the training split of a set at 224 px takes up to 13 GB.

    Raises:
        InputError: as of `read_medmnist`, which reads the same file; on the way: the file is damaged.
    """
    path, facts = Path(path), find_set(path)
    with _archive(path, split) as archive:
        shape = _image_shape(path, archive, split, facts)
        with archive.open(f"{split}_images.npy") as file:
            _, columns_first, _ = read_header(file)
            if columns_first:  # as MedMNIST never writes them: an image is all over the file
                yield from read_member(archive, f"{split}_images", printable(path))
                return
            size = math.prod(shape[1:])
            if size > _LARGEST:
                raise InputError(f"{printable(path)}: {split}_images is {shape}, expected smaller images; resize them")
            for _ in range(shape[0]):
                data = file.read(size)
                if len(data) != size:
                    raise EOFError("its images are cut short")
                yield np.frombuffer(data, np.uint8).reshape(shape[1:])


class MedMnist(Layout[RowItem]):
    """A 2-D set of MedMNIST with its splits: a `.npz` file, whose name begins with that of the set.

    Options: `file` (by default the only `.npz` file of the folder).
    """

    name = "medmnist"
    options = ("file",)
    takes_file = True

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[RowItem]:
        """List the images of all splits."""
        path = only_file(root, options, (".npz",), "MedMNIST")
        facts = find_set(path)
        if list(classes) != list(facts.classes):
            raise InputError(
                f"{printable(path)}: the {len(facts.classes)} classes of {facts.name} are {', '.join(facts.classes)}; "
                "give card.classes those, in that order"
            )
        items = []
        for split in SPLITS:
            for row, target in enumerate(read_targets(path, split)):
                labels = tuple(int(number) for number in np.flatnonzero(target))
                several = labels if facts.multi_label else None
                first = labels[0] if labels else 0
                items.append(RowItem(path, first, f"{split}-{row}", SPLIT_NAMES[split], labels=several, row=row))
        return items

    def read(self, source: ImageSource[RowItem], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read the rows on from those of the part before."""
        path, split = source.items[0].path, source.items[0].key.partition("-")[0]
        images = _rows_of(path, split, path.stat().st_mtime_ns).read([item.row for item in source.items])
        yield from enumerate(with_bands(image, source.bands, path) for image in images)

    def blocks(self, items: Sequence[RowItem]) -> Mapping[int, list[RowItem]]:
        """A block for each split of the file, in its order, by which the split's images are numbered."""
        parts: dict[str, list[RowItem]] = {}
        for item in sorted(items, key=lambda item: item.row):
            parts.setdefault(item.key.partition("-")[0], []).append(item)
        return dict(enumerate(parts[name] for name in SPLITS if name in parts))  # several where images are in folds


class _Rows:
    """Images of a split of MedMNIST, which the file is read on for while its parts are asked for in turn."""

    def __init__(self, path: Path, split: str) -> None:
        self._begin = functools.partial(iter_images, path, split)
        self._images, self._next = self._begin(), 0

    def read(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Images of rising rows; for one that was passed the file is read anew."""
        for row in rows:
            if row < self._next:
                self._images, self._next = self._begin(), 0
            passed, self._next = row - self._next, sys.maxsize  # until it is there: nothing comes after damage
            image = next(itertools.islice(self._images, passed, None))
            self._next = row + 1
            yield image


@functools.lru_cache(maxsize=1)
def _rows_of(path: Path, split: str, changed_ns: int) -> _Rows:
    """The rows of a file that is not changed."""
    return _Rows(path, split)


@contextlib.contextmanager
def _archive(path: Path, split: str) -> Iterator[zipfile.ZipFile]:
    """A file's arrays; whatever is wrong with them is one line."""
    if split not in SPLITS:
        raise InputError(f"{printable(path)}: split {split!r} is unknown; expected one of {', '.join(SPLITS)}")
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; expected a .npz file of MedMNIST") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes zipfile and NumPy raise errors of every kind
        reason = brief(error)
        raise InputError(f"{printable(path)}: cannot be read as .npz ({reason}); fetch it again") from None


def _as_targets(labels: np.ndarray, facts: MedMnistSet) -> np.ndarray:
    targets = labels if facts.multi_label else np.eye(len(facts.classes), dtype=np.uint8)[labels[:, 0]]
    return targets.astype(np.uint8)


def _image_shape(path: Path, archive: zipfile.ZipFile, split: str, facts: MedMnistSet) -> tuple[int, ...]:
    """Shape of the images that a header promises, if they are of the set's kind and as large as MedMNIST's at most."""
    shape, dtype = _header(path, archive, f"{split}_images")
    expected = "(N, H, W)" if facts.channels == 1 else "(N, H, W, 3)"
    if dtype != np.uint8:
        raise InputError(f"{printable(path)}: {split}_images is {dtype}, expected uint8; fetch it again")
    if len(shape) != (3 if facts.channels == 1 else 4) or (facts.channels == 3 and shape[-1] != 3):
        raise InputError(
            f"{printable(path)}: {split}_images is {shape}, expected {expected} for {facts.name}; fetch it again"
        )
    if min(shape) < 1:
        raise InputError(f"{printable(path)}: {split} holds no image ({shape}); expected one or more")
    most = _SEVERITIES * max(facts.counts.values())
    if shape[0] > most:
        raise InputError(
            f"{printable(path)}: {split}_images claims {shape[0]} images, {facts.name} has at most "
            f"{max(facts.counts.values())} and MedMNIST-C {most}; fetch it again"
        )
    return shape


def _read_labels(path: Path, archive: zipfile.ZipFile, split: str, facts: MedMnistSet, count: int) -> np.ndarray:
    """Labels `(N, 1)`, or `(N, K)` of a multi-label set, if they are of the set's classes."""
    shape, dtype = _header(path, archive, f"{split}_labels")
    columns, classes = (len(facts.classes) if facts.multi_label else 1), len(facts.classes)
    if dtype.kind not in "iub":
        raise InputError(f"{printable(path)}: {split}_labels is {dtype}, expected whole numbers; fetch it again")
    if shape != (count, columns):
        raise InputError(
            f"{printable(path)}: {split}_labels is {shape}, expected {(count, columns)} for the {count} images of "
            f"{facts.name}; fetch it again"
        )
    labels = read_member(archive, f"{split}_labels", printable(path))
    last = 1 if facts.multi_label else classes - 1
    if not 0 <= labels.min() <= labels.max() <= last:
        raise InputError(
            f"{printable(path)}: {split}_labels runs from {labels.min()} to {labels.max()}, expected 0 to {last} of "
            f"{facts.name}; give the file of that set"
        )
    return labels.astype(np.int64)


def _header(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, of which nothing else is read."""
    members = archive.namelist()
    if f"{name}.npy" not in members:
        present = ", ".join(printable(member.removesuffix(".npy")) for member in members[:8]) or "nothing"
        raise InputError(f"{printable(path)}: has no {name}, found {present}; fetch it again, or take another split")
    with archive.open(f"{name}.npy") as file:
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError(f"{printable(path)}: {name} holds Python objects, which are not read; fetch it again")
    return shape, dtype


def _notices(facts: MedMnistSet, split: str, count: int) -> list[str]:
    published = facts.counts[split]
    if count == published:
        return []
    return [f"{split} holds {count} images, {facts.name} was published with {published}; figures do not compare"]
