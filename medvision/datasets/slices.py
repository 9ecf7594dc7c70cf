"""Training slices cut from stored volumes: which ones, in what order, and how they are varied."""

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medvision.contract import AXIS_OF_VIEW


class Volumes(Protocol):
    """Normalised volumes with labels on the same grid; what `pipelines.data.store` gives."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `(X, Y, Z)`, or `(C, X, Y, Z)`, floating and labels `(X, Y, Z)` integer; views of files, not copies."""
        ...


class LabelledSlices(Dataset[tuple[Tensor, Tensor]]):
    """Slices of volumes, each with its neighbours as channels.

    Args:
        volumes: where they are cut from.
        offsets: offsets of the neighbouring slices that become channels; beyond the ends the last slice is repeated.
        views: planes to cut along.
        size: side of the square crop; smaller slices are padded with the volume's lowest value and background.
        augment: called with `{"image": (C, H, W), "label": (1, H, W)}` tensors and a seed; returns the same, varied.
    """

    def __init__(
        self,
        volumes: Volumes,
        *,
        offsets: Sequence[int],
        views: Sequence[str],
        size: int,
        augment: "Augment | None" = None,
    ) -> None:
        self.volumes, self.offsets, self.size, self.augment = volumes, np.asarray(offsets), size, augment
        rows, labelled, self.lowest = [], [], []
        for number in range(len(volumes)):
            image, labels = volumes[number]
            self.lowest.append(float(image.min()))
            for view in views:
                axis = AXIS_OF_VIEW[view]
                rows += [(number, axis, position) for position in range(labels.shape[axis])]
                labelled.append(labels.any(axis=tuple(a for a in range(3) if a != axis)))
        self.rows = np.array(rows, np.int32).reshape(-1, 3)
        """Volume, axis and position of every slice."""
        self.labelled = np.concatenate(labelled) if labelled else np.zeros(0, bool)
        """Which of them have a label."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image `(C, size, size)` float32 and labels `(size, size)` uint8 of a slice, or of `(slice, seed)`.

        Without a seed the crop is the middle one and nothing is varied.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        number, axis, position = (int(value) for value in self.rows[index])
        image, labels = self.volumes[number]
        image, labels = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
        at = np.clip(position + self.offsets, 0, len(image) - 1)
        random = np.random.default_rng(seed)
        starts = [
            (length - self.size) // 2
            if seed is None or length <= self.size
            else int(random.integers(length - self.size + 1))
            for length in image.shape[1:]
        ]
        channels = torch.from_numpy(_window(image[at].astype(np.float32), starts, self.size, self.lowest[number]))
        target = torch.from_numpy(_window(labels[position][None].astype(np.uint8), starts, self.size, 0))
        if self.augment is not None and seed is not None:
            channels, target = self.augment(channels, target, seed)
        return channels, target[0]


class SliceOrder(Sampler[list[tuple[int, int]]]):
    """Batches of `(slice, seed)` for every step from `start` on; any step's batch depends on nothing before it.

    So training goes on after an interruption exactly as it would have without one. An epoch draws `foreground` of its
    slices from those with a label and the rest from all, both without repetition until each has had its turn.

    Args:
        labelled: which slices have a label, `(N,)` bool.
        batch_size: slices in a batch of all processes together; each has every `world_size`-th of its places.
        steps: batches in all.
        foreground: fraction of labelled slices, in [0, 1).
        seed: seed of the order and of all variation.
        rest: numbers that the others are drawn from; by default all.
        start: first batch.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        labelled: np.ndarray,
        *,
        batch_size: int,
        steps: int,
        foreground: float,
        seed: int,
        rest: np.ndarray | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.pools = [np.flatnonzero(labelled), np.arange(len(labelled)) if rest is None else rest]
        self.batch_size, self.steps, self.foreground = batch_size, steps, foreground
        self.seed, self.start, self.rank, self.world_size = seed, start, rank, world_size
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        """Batches in all, those before `start` included: Lightning counts on from there."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            yield [self._draw(step, place) for place in range(self.rank, self.batch_size, self.world_size)]

    def _draw(self, step: int, place: int) -> tuple[int, int]:
        # Labelled slices take the first places of every batch, so that each pool is walked through evenly.
        labelled = round(self.batch_size * self.foreground) if len(self.pools[0]) else 0
        pool = 0 if place < labelled else 1
        width = labelled if pool == 0 else self.batch_size - labelled
        within = place if pool == 0 else place - labelled
        turn = step * width + within
        lap, position = divmod(turn, len(self.pools[pool]))
        seed = zlib.crc32(f"{self.seed}:{step}:0:{place}".encode())  # the 0 keeps the variation of earlier trainings
        return int(self._order(pool, lap)[position]), seed

    def _order(self, pool: int, lap: int) -> np.ndarray:
        if (pool, lap) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != pool or key[1] == lap - 1}
            random = np.random.default_rng((self.seed, pool, lap))
            self._orders[pool, lap] = random.permutation(self.pools[pool])
        return self._orders[pool, lap]


class Augment:
    """Random variation of a slice or a patch with MONAI's transforms, the same for the same seed.

    Args:
        settings: fields of `pipelines.recipe.volumes.Augmentation`.
        size: sides of the slices or patches, in voxels.
        channels: number of channels whose intensities are varied each on its own; 1 varies all channels alike, as
            neighbouring slices must be.
        mirror_axes: axes along which half of them are mirrored; all of them where the settings say `flip`.
    """

    def __init__(
        self, settings: Mapping[str, float], size: Sequence[int], channels: int = 1, mirror_axes: Sequence[int] = ()
    ) -> None:
        transforms = importlib.import_module("monai.transforms")
        self.images = [f"channel {number}" for number in range(channels)] if channels > 1 else ["image"]
        s, both, dimensions = settings, [*self.images, "label"], len(size)
        modes = {"mode": (*["bilinear"] * channels, "nearest"), "padding_mode": "border"}
        steps = [
            transforms.RandAffined(
                both,
                prob=0.8,
                rotate_range=[np.deg2rad(s["rotation_degrees"])] * (1 if dimensions == 2 else 3),
                scale_range=[s["scaling"]] * dimensions,
                translate_range=[s["shift"] * side for side in size],
                **modes,
            )
        ]
        if s["elastic"]:
            reach = {"magnitude_range": (0, s["elastic"]), **modes}
            steps.append(
                transforms.Rand2DElasticd(both, prob=0.3, spacing=(16, 16), **reach)
                if dimensions == 2
                else transforms.Rand3DElasticd(both, prob=0.3, sigma_range=(5, 8), **reach)
            )
        mirrored = range(dimensions) if s["flip"] else mirror_axes
        steps += [transforms.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in mirrored]
        for name in self.images:
            steps += _intensity_steps(transforms, s, name, dimensions)
        self.transform = transforms.Compose([*steps, transforms.EnsureTyped(both, track_meta=False)])

    def __call__(self, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Vary image `(C, ...)` and label `(1, ...)` alike."""
        self.transform.set_random_state(seed)
        channels = image.chunk(len(self.images))
        varied = self.transform({**dict(zip(self.images, channels, strict=True)), "label": label})
        return torch.cat([varied[name] for name in self.images]).float(), varied["label"].to(torch.uint8)


def _intensity_steps(
    transforms: ModuleType, s: Mapping[str, float], name: str, dimensions: int
) -> list[Callable[..., object]]:
    """MONAI's transforms of the intensities of one image."""
    steps: list[Callable[..., object]] = []
    if s["blur"]:
        sigmas = {f"sigma_{axis}": (0.0, s["blur"]) for axis in "xyz"[:dimensions]}
        steps.append(transforms.RandGaussianSmoothd([name], prob=0.2, **sigmas))
    if s["intensity"]:
        steps.append(transforms.RandScaleIntensityd([name], prob=0.7, factors=s["intensity"]))
        steps.append(transforms.RandShiftIntensityd([name], prob=0.7, offsets=s["intensity"]))
    if s["gamma"]:
        gamma = (float(np.exp(-s["gamma"])), float(np.exp(s["gamma"])))
        steps.append(transforms.RandAdjustContrastd([name], prob=0.5, gamma=gamma))
    if s["noise"]:
        steps.append(transforms.RandGaussianNoised([name], prob=0.5, std=s["noise"]))
    return steps


def _window(stack: np.ndarray, starts: Sequence[int], size: int, fill: float) -> np.ndarray:
    """The square `[start, start + size)` along both axes of `(C, H, W)`; what lies outside is `fill`."""
    out = np.full((len(stack), size, size), fill, stack.dtype)
    inner, outer = [slice(None)], [slice(None)]
    for start, length in zip(starts, stack.shape[1:], strict=True):
        low, high = max(start, 0), min(start + size, length)
        inner.append(slice(low, high))
        outer.append(slice(low - start, high - start))
    out[tuple(outer)] = stack[tuple(inner)]
    return out
