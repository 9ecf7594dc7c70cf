"""Medical images with masks as they are stored, and as a segmenter's training sees them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medvision.datasets.masked_images import MaskedItem
from medvision.image_segmentation import fitted
from pipelines.data.augmentation import Augmentation
from pipelines.data.image_files import open_image, read_mask
from pipelines.data.image_reading import Stored
from pipelines.data.stored_images import Draw
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.labelled_images import COLORS, ImageSource


def read_pair(item: MaskedItem) -> tuple[np.ndarray, np.ndarray]:
    """An image `(H, W, 3)` uint8 and its mask `(H, W)` bool.

    Raises:
        InputError: a file cannot be read, or the two have different sizes.
    """
    image, mask = open_image(item.path, COLORS, True), read_mask(item.mask)
    if image.shape[:2] != mask.shape:
        raise InputError(
            f"{printable(item.mask)}: has {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.shape[1]} x "
            f"{image.shape[0]}; give masks of the images' size"
        )
    return image, mask


def read_masked(source: ImageSource[MaskedItem], size: int) -> Stored:
    """Images and masks of one part of a data set, `size` pixels a side.

    Returns:
        Arrays: `image` `(N, 3, size, size)` uint8, and `labels` `(N, size, size)` uint8, 1 where the mask is. And a
        record: sha256 of images and masks, their number, the mask's pixels, and per band sums and sums of squares.

    Raises:
        InputError: an image or a mask cannot be read, or they do not go together.
    """
    images = np.empty((len(source.items), len(COLORS), size, size), np.uint8)
    labels = np.empty((len(source.items), size, size), np.uint8)
    digest = hashlib.sha256()
    for number, item in enumerate(source.items):
        image, mask = read_pair(item)
        digest.update(image.tobytes() + mask.tobytes())
        images[number] = fitted(image, size).transpose(2, 0, 1)
        labels[number] = fitted(mask.astype(np.uint8) * 255, size) > 127
    values = images.astype(np.float64)
    return {"image": images, "labels": labels}, {
        "sha256": digest.hexdigest(),
        "images": len(images),
        "marked": int(labels.sum()),
        "pixels": len(images) * size * size,
        "sums": values.sum((0, 2, 3)).tolist(),
        "squares": (values**2).sum((0, 2, 3)).tolist(),
    }


class StoredMasks(Dataset[tuple[Tensor, Tensor]]):
    """Stored images and masks of one split.

    Args:
        parts: Arrays `image` and `labels` as `read_masked` gives them; memory-mapped ones stay so.
        normalise: From images `(B, 3, S, S)` uint8 to the network's input.
        augment: What varies an image and its mask by a seed; None gives them as they are.
        mirrored: Whether half of the varied images are mirrored.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, np.ndarray]],
        normalise: Callable[[Tensor], Tensor],
        *,
        augment: Augmentation | None = None,
        mirrored: bool = False,
        seed: int = 0,
    ) -> None:
        self.parts = [part for part in parts if len(part["image"])]
        self.ends = np.cumsum([len(part["image"]) for part in self.parts])
        self.normalise, self.augment, self.mirrored, self.seed = normalise, augment, mirrored, seed

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, draws: Sequence[int] | Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """Images `(B, 3, S, S)` float32 and labels `(B, S, S)` uint8, by numbers or draws (`DrawOrder`)."""
        pairs = [self._pair(*(draw if isinstance(draw, tuple) else (0, draw))) for draw in draws]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return self.normalise(images), labels

    def _pair(self, turn: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        home = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[home]
        place = int(index - self.ends[home] + len(part["image"]))
        image, label = part["image"][place], part["labels"][place]
        if self.augment is None:
            return image, label
        random = np.random.default_rng((self.seed, turn))
        image = image.transpose(1, 2, 0)
        if self.mirrored and random.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        seed = int(random.integers(2**31))
        image, label = self.augment.with_mask(np.ascontiguousarray(image), np.ascontiguousarray(label), seed)
        return image.transpose(2, 0, 1), label
