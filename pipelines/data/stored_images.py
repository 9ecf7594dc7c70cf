"""Stored images as a classifier's training sees them: rarer classes more often, mirrored and varied."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Draw = tuple[int, int]


class StoredImages(Dataset[Any]):
    """Stored images and targets of one split.

    Args:
        parts: arrays `image` `(N, C, S, S)` uint8 and `targets` `(N, K)` uint8; memory-mapped ones stay so.
        size: side in pixels of what is given, cut from the middle.
        augment: varies an image `(S, S, C)` uint8 by a seed, here that of its draw; None gives images as they are.
        mirror: for each class the one that its mirror image has: with `augment` half of the images are mirrored;
            nothing lets none be.
        seed: of the draws.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, np.ndarray]],
        size: int,
        *,
        augment: Callable[[np.ndarray, int], np.ndarray] | None = None,
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
        return self.targets().argmax(1)

    def targets(self) -> np.ndarray:
        """1 for the classes that an image has, `(N, K)` uint8."""
        return np.concatenate([part["targets"] for part in self.parts])

    def picture(self, index: int) -> np.ndarray:
        """An image as it is stored, `(S, S, 3)` uint8; of other than three bands their mean in grey."""
        home, place = self._find(index)
        bands = self.parts[home]["image"][place]
        shown = bands if len(bands) == 3 else np.repeat(bands.mean(0, keepdims=True).round().astype(np.uint8), 3, 0)
        return np.ascontiguousarray(shown.transpose(1, 2, 0))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, draws: Sequence[int] | Sequence[Draw]) -> dict[str, Tensor]:
        """A batch: `image` `(B, C, size, size)` uint8 and `target` `(B, K)`, of numbers or of draws (`DrawOrder`)."""
        images, targets = [], []
        for draw in draws:
            turn, index = draw if isinstance(draw, tuple) else (0, draw)
            home, place = self._find(index)
            target = self.parts[home]["targets"][place]
            image = self.parts[home]["image"][place].transpose(1, 2, 0)
            if self.augment is not None:
                random = np.random.default_rng((self.seed, turn))
                if self.mirror and random.random() < 0.5:
                    image, target = image[:, ::-1], target[self.mirror]
                image = self.augment(np.ascontiguousarray(image), int(random.integers(2**31)))
            start = (image.shape[0] - self.size) // 2
            images.append(image[start : start + self.size, start : start + self.size].transpose(2, 0, 1))
            targets.append(target)
        return {"image": torch.from_numpy(np.stack(images)), "target": torch.from_numpy(np.stack(targets))}

    def _find(self, index: int) -> tuple[int, int]:
        home = int(np.searchsorted(self.ends, index, side="right"))
        return home, int(index - self.ends[home] + len(self.parts[home]["image"]))


class DrawOrder(Sampler[list[Draw]]):
    """Batches of draws (turn and image) for every step from `start` on; any step's batch depends on nothing before it.

    Args:
        labels: class of each image, `(N,)`.
        batch_size: of all processes together; each has every `world_size`-th of its places.
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
            first = step * self.batch_size
            turns = range(first + self.rank, first + self.batch_size, self.world_size)
            yield [(turn, self._at(turn)) for turn in turns]

    def _at(self, turn: int) -> int:
        count = len(self.shares)
        lap, position = divmod(turn, count)
        if self._lap is None or self._lap[0] != lap:
            random = np.random.default_rng((self.seed, lap))
            order = random.choice(count, count, p=self.shares) if self.balance else random.permutation(count)
            self._lap = lap, order
        return int(self._lap[1][position])
