"""The images that `medvision robustness` measures a classifier on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.cli.medvision.robustness import RobustnessOptions
from apps.cli.shared.classification import joint_sha256, list_files
from apps.cli.shared.measured_images import check_memory, items_of_split
from apps.cli.shared.robustness import chosen
from medvision.corruptions.medmnist_c import SETS, corrupt
from medvision.corruptions.published import read_corrupted
from medvision.datasets.medmnist import MedMnistSet, find_set, read_medmnist
from pipelines.data.image_files import WITH_TIFF, read_image
from pipelines.data.image_layouts import Folders
from pipelines.evaluation.image_robustness import SEVERITIES, spread
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.labelled_images import find_items


class CorruptedImages:
    """Images of a split of a file of MedMNIST, spread evenly over it, which are corrupted as they are asked for.

    They are corrupted as they are stored, and brought to the network's size then: so all networks see the same ones.
    """

    kind = "medmnist"

    def __init__(self, options: RobustnessOptions) -> None:
        self.path = options.clean or options.data
        self.facts = find_set(self.path)
        self.names = self._names(options)
        self.split = options.split or "test"
        given = read_medmnist(self.path, self.split)
        self.count, self.warnings = len(given.images), list(given.notices)
        self.rows = self._spread(options)
        self.images, self.targets = given.images[self.rows], given.targets[self.rows]
        if not self.targets.any():
            raise InputError(f"{printable(self.path)}: no image chosen has any of the classes; raise --images")

    @property
    def side(self) -> int:
        """Shorter side of the images, in pixels."""
        return min(self.images.shape[1:3])

    def state(self, name: str | None, severity: int) -> np.ndarray:
        """Images `(N, H, W)` or `(N, H, W, 3)` uint8 under a corruption, or as they are."""
        if name is None:
            return self.images
        pairs = zip(self.images, self.rows, strict=True)
        return np.stack(
            [corrupt(self.corruption_set, name, image, severity, seed_key=[int(row)]) for image, row in pairs]
        )

    def sha256(self) -> str:
        """Digest of the file."""
        return file_sha256(self.path)

    def _spread(self, options: RobustnessOptions) -> np.ndarray:
        """Rows of as many images as are asked for, evenly over all."""
        return spread(self.count, options.images)

    def _names(self, options: RobustnessOptions) -> list[str]:
        self.corruption_set = options.corruptions or self.facts.name
        if self.corruption_set not in SETS:
            raise InputError(f"--corruptions is {printable(self.corruption_set)!r}, expected one of: {', '.join(SETS)}")
        return chosen(options.only, list(SETS[self.corruption_set]), self.corruption_set)


class PublishedImages(CorruptedImages):
    """Images as MedMNIST-C publishes them, in a file for each corruption, beside the clean ones."""

    kind = "medmnist-c"

    def __init__(self, options: RobustnessOptions) -> None:
        if options.clean is None:
            raise InputError(
                f"{printable(options.data)}: is a folder, as of MedMNIST-C; give the images without corruption by "
                "--clean, such as pneumoniamnist_224.npz"
            )
        if options.corruptions is not None or options.split not in (None, "test"):
            option = "--split" if options.corruptions is None else "--corruptions"
            raise InputError(f"{option} means nothing for files of MedMNIST-C, which hold a test split; leave it out")
        self.files = {path.stem: path for path in list_files(options.data) if path.suffix.lower() == ".npz"}
        super().__init__(options)
        missing = [name for name in SETS[self.facts.name] if name not in self.files]
        if missing and options.only is None:
            self.warnings.append(f"there are no files of {', '.join(missing)}: means are over the other corruptions")

    def state(self, name: str | None, severity: int) -> np.ndarray:
        """As the files have them; the severities of a corruption are asked for in their order."""
        if name is None:
            return self.images
        if severity == SEVERITIES[0]:
            self._reading = read_corrupted(self.files[name])
        images, labels = next(self._reading)
        path = printable(self.files[name])
        if len(images) != self.count:
            raise InputError(
                f"{path}: holds {len(images)} images 5 times, --clean has {self.count}; give files of one set"
            )
        there = self.targets if self.facts.multi_label else self.targets.argmax(1)[:, None]
        if labels.shape[1:] != there.shape[1:] or (labels[self.rows] != there).any():
            raise InputError(f"{path}: its labels are not those of --clean; give files of one set, in their order")
        return images[self.rows]

    def sha256(self) -> str:
        """Digest of all files."""
        paths = [self.path, *(self.files[name] for name in self.names)]
        return joint_sha256([bytes.fromhex(file_sha256(path)) for path in paths])

    def _names(self, options: RobustnessOptions) -> list[str]:
        self.corruption_set = self.facts.name
        there = [name for name in SETS[self.facts.name] if name in self.files]
        if not there:
            raise InputError(
                f"{printable(options.data)}: contains no file of a corruption of {self.facts.name}; expected "
                f"{', '.join(f'{name}.npz' for name in list(SETS[self.facts.name])[:3])} and so on"
            )
        return chosen(options.only, there, f"{self.facts.name} in {printable(options.data)}")


class FolderImages(CorruptedImages):
    """Image files of one size in folders by class, or by split and class; an image's row is its place among all.

    Args:
        options: What the user asks for.
        classes: Names of the model's classes, which the folders have.
    """

    kind = "folders"

    def __init__(self, options: RobustnessOptions, classes: Sequence[str]) -> None:
        self.path = options.data
        if options.corruptions is None:
            raise InputError(
                f"{printable(options.data)}: images in folders have no corruptions of their own; name a set whose they "
                f"get with --corruptions: {', '.join(SETS)}"
            )
        items, self.split = items_of_split(
            find_items(Folders(), options.data, classes), options.split, printable(options.data)
        )
        self.count, self.warnings = len(items), []
        self.rows = self._spread(options)
        picked = [items[row] for row in self.rows]
        self.images = self._read([item.path for item in picked])
        self.targets = np.eye(len(classes), dtype=np.uint8)[[item.label for item in picked]]
        self.facts = MedMnistSet("folders", "multi-class", 3 if self.images.ndim == 4 else 1, tuple(classes), {})
        self.names = self._names(options)

    def sha256(self) -> str:
        """Digest of the files that were read."""
        return joint_sha256(self.digests)

    def _read(self, paths: Sequence[Path]) -> np.ndarray:
        """Images `(N, H, W)` or `(N, H, W, 3)`."""
        self.digests: list[bytes] = []
        images = np.empty((0, 0, 0, 0), np.uint8)
        for number, path in enumerate(paths):
            image, digest = read_image(path, None, WITH_TIFF)
            if not number:
                check_memory(image.nbytes * len(paths), len(paths))
                shape: tuple[int, ...] = (len(paths), *image.shape)
                images = np.empty(shape, np.uint8)
            if image.shape != images.shape[1:]:
                own, first = (" x ".join(map(str, part)) for part in (image.shape, images.shape[1:]))
                raise InputError(
                    f"{printable(path)}: is {own} (bands, rows, columns), {printable(paths[0])} is {first}; expected "
                    "images of one size: resize them"
                )
            images[number] = image
            self.digests.append(digest)
        return images[:, 0] if np.size(images, 1) == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def holds_class_folders(folder: Path) -> bool:
    """Whether a folder is one of images in folders, and not of files of MedMNIST-C."""
    published = any(path.suffix.lower() == ".npz" for path in list_files(folder))
    return not published and any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())
