"""An endless stream of training slices, cut from volumes that are synthesised as they are needed."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from medvision.datasets.synthetic import LabelMapSynthesizer, extent, integer, uniform


class SyntheticSlices(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless stream of training slices, reproducible from its seed.

    Volume number `i` depends on the seed and on `i` alone, so a stream can go on at any volume. Slices wait in a
    buffer from which they leave in random order: a batch mixes many volumes.

    Args:
        synthesizer: draws the volumes.
        context: offsets of the neighbouring slices that become channels.
        size: side of the square crops in voxels.
        slices_per_volume: slices taken from each volume.
        buffer: slices that wait.
        seed: seed of all random choices.
        start: number of the first volume.
        rank: number of this process among the `world_size` that divide the volumes.
        world_size: number of processes that divide the volumes.
    """

    def __init__(
        self,
        synthesizer: LabelMapSynthesizer,
        *,
        context: Sequence[int],
        size: int,
        slices_per_volume: int,
        buffer: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.synthesizer, self.context, self.size = synthesizer, tuple(context), size
        self.slices_per_volume, self.buffer = slices_per_volume, buffer
        self.seed, self.start = seed, start
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        offset, stride = self.rank * workers + index, self.world_size * workers
        waiting: list[tuple[Tensor, Tensor]] = []
        for number in itertools.count(self.start + offset, stride):
            generator = torch.Generator().manual_seed((self.seed << 32) + number)
            image, labels = self.synthesizer(generator)
            fresh = slices_of(
                image,
                labels,
                context=self.context,
                size=self.size,
                count=self.slices_per_volume,
                generator=generator,
            )
            for item in fresh:
                waiting.append(item)
                if len(waiting) > self.buffer:
                    at = int(integer(len(waiting), generator))
                    waiting[at], waiting[-1] = waiting[-1], waiting[at]
                    yield waiting.pop()


def slices_of(
    image: Tensor, labels: Tensor, *, context: Sequence[int], size: int, count: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random slices along random axes: most through the brain and cropped around it, some anywhere in the image.

    Args:
        image: `(X, Y, Z)` float32.
        labels: `(X, Y, Z)` uint8, 0 is background.
        context: offsets of the neighbouring slices that become channels, for example `(-1, 0, 1)`.
        size: side of the square crops in voxels.
        count: number of slices.
        generator: source of all random choices.

    Yields:
        slice `(len(context), size, size)` float32 and target `(size, size)` uint8.
    """
    brain = extent((labels > 0) & (labels != 6))
    whole = [(0, n - 1) for n in image.shape]
    for _ in range(count):
        axis = int(integer(3, generator))
        n = image.shape[axis]
        first, last = (whole if uniform(0, 1, generator) < 0.15 else brain)[axis]
        at = min(max(first - 3 + int(integer(last - first + 7, generator)), 0), n - 1)
        plane = [d for d in range(3) if d != axis]
        planes = [min(max(at + offset, 0), n - 1) for offset in context]
        x = image.index_select(axis, torch.tensor(planes)).movedim(axis, 0)
        y = labels.select(axis, at)
        anywhere = uniform(0, 1, generator) < 0.2
        starts = []
        for d in plane:
            n = image.shape[d]
            centre = int(integer(n, generator)) if anywhere else sum(brain[d]) // 2 + int(integer(31, generator)) - 15
            starts.append(centre - size // 2)
        yield _crop(x, starts, size), _crop(y, starts, size)


def _crop(x: Tensor, starts: Sequence[int], size: int) -> Tensor:
    """Crop the last two axes, zero outside."""
    out = x.new_zeros((*x.shape[:-2], size, size))
    source, target = [], []
    for start, n in zip(starts, x.shape[-2:], strict=True):
        a, b = max(start, 0), min(start + size, n)
        source.append(slice(a, max(a, b)))
        target.append(slice(a - start, max(a, b) - start))
    out[(..., *target)] = x[(..., *source)]
    return out
