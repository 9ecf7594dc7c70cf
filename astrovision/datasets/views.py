"""Stored galaxy images as training sees them: rarer classes more often, turned, mirrored and varied."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from shared_backbones.errors import require

Draw = tuple[int, int]


class Galaxies(Dataset[Any]):
    """Stored images and targets of one split.

    Args:
        parts: arrays `image` `(N, 3, S, S)` uint8 and `targets` `(N, K)` uint8; memory-mapped ones stay so.
        size: side in pixels of what is given, cut from the middle.
        augment: varies an image by the seed of its draw; None gives images as they are.
        mirror: for each class the one that its mirror image has; with `augment` half of the images are mirrored.
        seed: of the draws.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, np.ndarray]],
        size: int,
        *,
        augment: "Augmentation | None" = None,
        mirror: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self.parts = [part for part in parts if len(part["image"])]
        self.ends = np.cumsum([len(part["image"]) for part in self.parts])
        self.size, self.augment, self.mirror, self.seed = size, augment, list(mirror), seed

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def labels(self) -> np.ndarray:
        """Numbers of the classes, `(N,)`."""
        return np.concatenate([part["targets"].argmax(1) for part in self.parts])

    def picture(self, index: int) -> np.ndarray:
        """An image as it is stored, `(S, S, 3)` uint8."""
        home, place = self._find(index)
        return np.ascontiguousarray(self.parts[home]["image"][place].transpose(1, 2, 0))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, draws: Sequence[int] | Sequence[Draw]) -> dict[str, Tensor]:
        """A batch: `image` `(B, 3, size, size)` uint8 and `label` `(B,)`, of numbers or of draws (`DrawOrder`)."""
        images, labels = [], []
        for draw in draws:
            turn, index = draw if isinstance(draw, tuple) else (0, draw)
            home, place = self._find(index)
            label = int(self.parts[home]["targets"][place].argmax())
            image = self.parts[home]["image"][place].transpose(1, 2, 0)
            if self.augment is not None:
                random = np.random.default_rng((self.seed, turn))
                if random.random() < 0.5:
                    image, label = image[:, ::-1], self.mirror[label] if self.mirror else label
                image = self.augment(np.ascontiguousarray(image), int(random.integers(2**31)))
            start = (image.shape[0] - self.size) // 2
            images.append(image[start : start + self.size, start : start + self.size].transpose(2, 0, 1))
            labels.append(label)
        return {"image": torch.from_numpy(np.stack(images)), "label": torch.tensor(labels)}

    def _find(self, index: int) -> tuple[int, int]:
        home = int(np.searchsorted(self.ends, index, side="right"))
        return home, int(index - self.ends[home] + len(self.parts[home]["image"]))


class Augmentation:
    """What albumentations does to an image, by a seed; where an image is turned or moved, its border is continued.

    Args:
        size: side in pixels of what the network sees.
        resized_crop: smallest and largest share of the area that is cut out at random and resized to `size`, or None.
        rotation_degrees: largest angle.
        scaling: largest relative change of size.
        shift: largest shift, as a share of the side.
        brightness: largest relative change of brightness and contrast.
        color: largest relative change of saturation, and a tenth of it of hue.
        noise: largest standard deviation of added noise, in values from 0 to 1.
        blur: largest sigma of a Gaussian blur, in pixels.
    """

    def __init__(
        self,
        size: int,
        *,
        resized_crop: tuple[float, float] | None = None,
        rotation_degrees: float = 180,
        scaling: float = 0.15,
        shift: float = 0.05,
        brightness: float = 0.15,
        color: float = 0.15,
        noise: float = 0.02,
        blur: float = 0.0,
    ) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network on import
        a = require("albumentations", "train")
        steps: list[Any] = []
        if rotation_degrees or scaling or shift:
            steps.append(
                a.Affine(
                    rotate=(-rotation_degrees, rotation_degrees), scale=(1 - scaling, 1 + scaling),
                    translate_percent=(-shift, shift), border_mode=2, p=1,
                )
            )  # fmt: skip
        if resized_crop:
            steps.append(a.RandomResizedCrop((size, size), scale=resized_crop, interpolation=2))
        if brightness or color:
            steps.append(
                a.ColorJitter(
                    brightness=(1 - brightness, 1 + brightness), contrast=(1 - brightness, 1 + brightness),
                    saturation=(1 - color, 1 + color), hue=(-color / 10, color / 10), p=0.8,
                )
            )  # fmt: skip
        if blur:
            steps.append(a.GaussianBlur(blur_limit=0, sigma_limit=(0.1, blur), p=0.3))
        if noise:
            steps.append(a.GaussNoise(std_range=(0, noise), p=0.5))
        self.transform = a.Compose(steps)

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        """A view of an image `(S, S, 3)` uint8, of its shape or of `size`; the same for the same seed."""
        self.transform.set_random_seed(seed)
        return self.transform(image=image)["image"]


class DrawOrder(Sampler[list[Draw]]):
    """Batches of draws (turn and image) for every step from `start` on; any step's batch depends on nothing before it.

    Args:
        labels: class of each image, `(N,)`.
        batch_size: of one process.
        steps: batches in all.
        seed: of the order.
        balance: 0 draws every image once an epoch; 1 every class equally often; between, classes in proportion to the
            power 1 - balance of their numbers.
        start: first batch.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        balance: float = 0.0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch_size, self.steps, self.seed, self.balance = batch_size, steps, seed, balance
        self.start, self.rank, self.world_size = start, rank, world_size
        weights = np.bincount(labels)[labels].astype(float) ** -balance
        self.shares = weights / weights.sum()
        self._lap: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in all, those before `start` included: Lightning counts on from there."""
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start, self.steps):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield [(turn, self._at(turn)) for turn in range(first, first + self.batch_size)]

    def _at(self, turn: int) -> int:
        count = len(self.shares)
        lap, position = divmod(turn, count)
        if self._lap is None or self._lap[0] != lap:
            random = np.random.default_rng((self.seed, lap))
            order = random.choice(count, count, p=self.shares) if self.balance else random.permutation(count)
            self._lap = lap, order
        return int(self._lap[1][position])
