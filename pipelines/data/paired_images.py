"""Stored images of galaxies, some of which become pairs."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from astrovision.datasets.pairs import add_galaxy
from pipelines.data.stored_images import StoredImages


class PairedImages(StoredImages):
    """Stored images, over some of which a galaxy of another one is laid.

    Half of those show two galaxies that overlap, and get the class of a pair; of the others the second galaxy lies at
    the border, and they keep their class: what makes a pair is how near the two are, not that an image was made of two.

    Args:
        parts: As for `StoredImages`.
        size: As for `StoredImages`.
        pairs: Share of the images, less those that show a pair already.
        label: Number of the class of pairs.
        augment: As for `StoredImages`.
        mirror: As for `StoredImages`.
        seed: As for `StoredImages`.
    """

    def __init__(
        self,
        parts: Sequence[Mapping[str, np.ndarray]],
        size: int,
        *,
        pairs: float,
        label: int,
        augment: Callable[[np.ndarray, int], np.ndarray],
        mirror: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(parts, size, augment=augment, mirror=mirror, seed=seed)
        self.pairs, self.label = pairs, label
        self.singles = np.flatnonzero(self.labels() != label)

    def drawn(self, index: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """An image and its target, or the pair that it becomes."""
        image, target = super().drawn(index, random)
        if target[self.label] or random.random() >= self.pairs:
            return image, target
        second, _ = super().drawn(int(random.choice(self.singles)), random)
        near = bool(random.random() < 0.5)
        both = add_galaxy(image, second, random, near=near)
        return both, np.eye(len(target), dtype=target.dtype)[self.label] if near else target
