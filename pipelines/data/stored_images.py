"""Stored images as a classifier's training sees them: rarer classes more often, mirrored and varied."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Draw: TypeAlias = tuple[int, int]
Batch: TypeAlias = dict[str, Tensor]


class StoredImages(Dataset[Batch]):
    """Stored images and targets of one split.

    Args:
        parts: Arrays `image` `(N, C, S, S)`, `targets` `(N, K)` uint8 and, where pixels can be without data, `valid`
            `(N, S, S)` bool; memory-mapped ones stay so.
        size: Side in pixels of what is given, cut from the middle.
        augment: Varies an image `(S, S, C)` uint8 by a seed, here that of its draw; None gives images as they are.
        mirror: For each class the one that its mirror image has: with `augment` half of the images are mirrored;
            nothing lets none be.
        seed: Seed of the draws.
        view: What a trained classifier sees of images as `images` gives them; None for the images themselves.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, np.ndarray]],
        size: int,
        *,
        augment: Callable[[np.ndarray, int], np.ndarray] | None = None,
        mirror: Sequence[int] = (),
        seed: int = 0,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.parts = [part for part in parts if len(part["image"])]
        self.ends = np.cumsum([len(part["image"]) for part in self.parts])
        self.size, self.augment, self.mirror, self.seed, self.view = size, augment, list(mirror), seed, view

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def labels(self) -> np.ndarray:
        """Numbers of the classes, `(N,)`."""
        return self.targets().argmax(1)

    def targets(self) -> np.ndarray:
        """1 for the classes that an image has, `(N, K)` uint8."""
        return np.concatenate([part["targets"] for part in self.parts])

    def images(self, numbers: Sequence[int]) -> Tensor:
        """Images `(n, C, size, size)` as they are stored; where pixels can be without data, float32 with NaN there."""
        batch = self.__getitems__(numbers)
        if "valid" not in batch:
            return batch["image"]
        return batch["image"].float().masked_fill(~batch["valid"][:, None], torch.nan)

    def seen(self, numbers: Sequence[int]) -> Tensor:
        """What a trained classifier sees of these images, `(n, C, ...)`."""
        images = self.images(numbers)
        return images if self.view is None else self.view(images)

    def __getitem__(self, index: int) -> Batch:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, draws: Sequence[int] | Sequence[Draw]) -> Batch:
        """A batch of images by numbers or draws (`DrawOrder`).

        It has `image` `(B, C, size, size)` as stored, `target` `(B, K)`, and `valid` `(B, size, size)` where that is
        stored.
        """
        columns: dict[str, list[np.ndarray]] = {}
        for draw in draws:
            turn, index = draw if isinstance(draw, tuple) else (0, draw)
            for name, values in self._item(turn, index).items():
                columns.setdefault(name, []).append(values)
        return {name: torch.from_numpy(np.stack(values)) for name, values in columns.items()}

    def _item(self, turn: int, index: int) -> dict[str, np.ndarray]:
        """An image, its target and its mask, as a turn sees them."""
        home = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[home]
        place = int(index - self.ends[home] + len(part["image"]))
        image, target = part["image"][place], part["targets"][place]
        if self.augment is not None:
            image = image.transpose(1, 2, 0)
            random = np.random.default_rng((self.seed, turn))
            if self.mirror and random.random() < 0.5:
                image, target = image[:, ::-1], target[self.mirror]
            image = self.augment(np.ascontiguousarray(image), int(random.integers(2**31))).transpose(2, 0, 1)
        start = (image.shape[1] - self.size) // 2
        middle = slice(start, start + self.size)
        item = {"image": image[:, middle, middle], "target": target}
        return {**item, "valid": part["valid"][place][middle, middle]} if "valid" in part else item


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image `(C, H, W)` for those who look at it, `(H, W, 3)` uint8; of other than three bands their mean in grey.

    Args:
        image: uint8, or floating point from 0 to 1.
    """
    values = image if image.dtype == np.uint8 else (image * 255 + 0.5).astype(np.uint8)
    shown = values if len(values) == 3 else np.repeat(values.mean(0, keepdims=True).round().astype(np.uint8), 3, 0)
    return np.ascontiguousarray(shown.transpose(1, 2, 0))


class DrawOrder(Sampler[list[Draw]]):
    """Batches of draws (turn and image) for every step from `start` on; any step's batch depends on nothing before it.

    Args:
        labels: Class of each image, `(N,)`.
        batch_size: Images in a batch of all processes together; each has every `world_size`-th of its places.
        steps: Batches in all.
        seed: Seed of the order.
        balance: 0 draws every image once an epoch; 1 every class equally often; between, classes in proportion to the
            power 1 - balance of their numbers.
        start: First batch.
        rank: Rank of this process.
        world_size: Number of processes.
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
        self.probabilities = weights / weights.sum()
        self._lap: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in all, those before `start` included: Lightning counts on from there."""
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start, self.steps):
            first = step * self.batch_size
            turns = range(first + self.rank, first + self.batch_size, self.world_size)
            yield [(turn, self._at(turn)) for turn in turns]

    def _at(self, turn: int) -> int:
        count = len(self.probabilities)
        lap, position = divmod(turn, count)
        if self._lap is None or self._lap[0] != lap:
            random = np.random.default_rng((self.seed, lap))
            order = random.choice(count, count, p=self.probabilities) if self.balance else random.permutation(count)
            self._lap = lap, order
        return int(self._lap[1][position])
