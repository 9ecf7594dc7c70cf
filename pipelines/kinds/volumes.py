"""Segmentation of volumes by a network of slices, learned from volumes with label maps."""

import functools
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medvision.datasets.slices import Augment, LabelledSlices, SliceOrder
from pipelines.data.store import Store
from pipelines.kinds.kind import TrainingData
from pipelines.kinds.labelled_volumes import LabelledVolumesKind, StoredVolumes
from pipelines.recipe.volumes import VolumeData
from shared_backbones.json_values import Entries


class VolumeSegmentation(LabelledVolumesKind[VolumeData]):
    """A network of slices learns from volumes with label maps."""

    section = VolumeData

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.data.slices), self.data.size, self.data.size), np.float32)

    def batch_settings(self) -> Entries:
        """How batches are drawn."""
        return self.data.model_dump(include={"slices", "views", "size", "foreground", "augmentation"})

    def input_section(self, prepared: Any = None) -> Entries:
        """The contract that the recipe's section of the data gives."""
        data = self.data
        return {
            **self.recipe.card.get("input", {}),
            "spacing_mm": data.spacing_mm,
            "normalisation": data.normalisation,
            "slices": data.slices,
            "views": data.views,
            "smallest_slice": data.size,
        }

    def training_data(self, prepared: Store) -> TrainingData:
        """Slices of the store: varied ones to train on, and those of the validation split."""
        data, settings = self.data, self.recipe.train
        slices = functools.partial(LabelledSlices, offsets=data.slices, views=data.views, size=data.size)
        augment = Augment(data.augmentation.model_dump(), (data.size, data.size))
        train_set = slices(StoredVolumes(prepared, "train"), augment=augment)
        val_set = slices(StoredVolumes(prepared, "validation"))

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            order = SliceOrder(
                train_set.labelled,
                batch_size=settings.batch_size,
                steps=batches,
                foreground=data.foreground,
                seed=self.recipe.seed,
                start=start,
                rank=rank,
                world_size=world_size,
            )
            return DataLoader(train_set, batch_sampler=order)

        validation = DataLoader(val_set, batch_size=2 * settings.batch_size) if len(val_set) else None
        return TrainingData(loader, len(train_set), validation)
