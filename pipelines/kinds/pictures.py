"""What the kinds of labelled pictures share: images of 8 bits that are stored larger than the network sees them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelines.data.augmentation import Augmentation
from pipelines.data.image_reading import read_images
from pipelines.data.store import Store
from pipelines.data.stored_images import StoredImages
from pipelines.kinds.classification import ClassifierKind, Reader
from pipelines.recipe.images import LabelledPictures
from pipelines.recipe.recipe import Recipe
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries

Pictures = TypeVar("Pictures", bound=LabelledPictures)


class PictureKind(ClassifierKind[Pictures]):
    """A network learns to classify pictures.

    Args:
        recipe: Recipe of data of a kind of labelled pictures.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        channels = recipe.model.arguments.get("in_chans", 3)
        if channels != len(self.bands):
            raise InputError(
                f"recipe {recipe.name}: model.arguments.in_chans is {channels}, the images have {len(self.bands)} "
                f"bands ({', '.join(self.bands)}); give model.arguments.in_chans={len(self.bands)}"
            )

    def check_settings(self) -> None:
        """Refuse merged classes that the card lacks, and sizes that contradict one another."""
        super().check_settings()
        recipe, data = self.recipe, self.data
        if data.size > data.stored:
            raise InputError(
                f"recipe {recipe.name}: data.size is {data.size}, more than data.stored of {data.stored}; lower it"
            )
        size = recipe.model.arguments.get("img_size")
        if size is not None and size != data.size:
            raise InputError(
                f"recipe {recipe.name}: model.arguments.img_size is {size}, data.size {data.size}; give both the same"
            )

    def reader(self) -> Reader:
        """Images of 8 bits."""
        data = self.data
        classes = len(self.class_names())
        return functools.partial(read_images, size=data.stored, crop=data.crop, classes=classes, detail=data.detail)

    def stored_images(
        self, parts: Sequence[Mapping[str, np.ndarray]], view: Callable[[Tensor], Tensor] | None = None
    ) -> StoredImages:
        """The middle of the stored images."""
        return StoredImages(parts, self.data.size, view=view)

    def training_images(self, parts: Sequence[Mapping[str, np.ndarray]]) -> StoredImages:
        """Images that are mirrored and varied."""
        mirror = self.mirror if self.data.augmentation.mirrored else ()
        return StoredImages(parts, self.data.size, augment=self.augmentation(), mirror=mirror, seed=self.recipe.seed)

    def augmentation(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """How training images are varied, by a seed."""
        settings = self.data.augmentation.model_dump(exclude={"mirrored"})
        return Augmentation(self.data.size, bands=len(self.bands), **settings)

    def contract_section(self, mean: Sequence[float], std: Sequence[float]) -> Entries:
        """The card's `input`: what the domain's contract holds.

        Args:
            mean: Mean of each band of the training images, in values from 0 to 1.
            std: Standard deviation of each band, in the same unit.
        """
        data = self.data
        crop = data.crop * data.size / data.stored
        section = {"bands": list(self.bands), "size": data.size, "crop": crop, "mean": list(mean), "std": list(std)}
        # the middle that the network sees has as much less of it
        return section | ({"detail": max(1, round(data.detail * data.size / data.stored))} if data.detail else {})

    def preparation_settings(self) -> Entries:
        """What decides the stored images."""
        return {
            "crop": self.data.crop,
            "stored": self.data.stored,
            "classes": self.class_names(),
            "bands": list(self.bands),
            **({"detail": self.data.detail} if self.data.detail else {}),
        }

    def input_section(self, prepared: Store) -> Entries:
        """The domain's contract, with mean and standard deviation of each band of the training images."""
        records = [case["record"] for case in prepared.measured_cases()]
        count = sum(record["pixels"] for record in records)
        mean = np.sum([record["sums"] for record in records], 0) / count
        variance = np.sum([record["squares"] for record in records], 0) / count - mean**2
        std = np.sqrt(np.maximum(variance, 1e-6))
        section = self.contract_section((mean / 255).tolist(), (std / 255).tolist())
        return {**self.recipe.card.get("input", {}), **section}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.bands), self.data.size, self.data.size), np.float32)

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Take a trained classifier's weights; tables of another size are resampled, a head of other classes is new."""
        own, state = network.state_dict(), dict(trained.module.state_dict())
        set_size: Callable[[int], None] | None = getattr(trained.module, "set_input_size", None)
        if set_size is not None and getattr(trained.module, "arguments", {}).get("img_size") != self.data.size:
            set_size(self.data.size)
            state = dict(trained.module.state_dict())
        head = str(getattr(network, "classifier", "head"))
        for name in own:
            if name.startswith(f"{head}.") and name in state and state[name].shape != own[name].shape:
                state[name] = own[name]
        weights.fill(network, state, label)
