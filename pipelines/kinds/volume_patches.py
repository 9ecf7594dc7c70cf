"""Segmentation of volumes by a 3-D network, learned from patches of volumes with label maps."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medvision.datasets.slices import Augment, SliceOrder
from medvision.datasets.volume_patches import CoveringPatches, RandomPatches
from pipelines.data.store import Store
from pipelines.kinds.kind import TrainingData
from pipelines.kinds.labelled_volumes import LabelledVolumesKind, StoredVolumes
from pipelines.recipe.volumes import PatchData
from shared_backbones.json_values import Entries


class VolumePatchSegmentation(LabelledVolumesKind[PatchData]):
    """A 3-D network learns from patches of volumes with label maps."""

    section = PatchData

    def preparation_settings(self) -> Entries:
        """What decides the stored volumes."""
        channels = {"channels": self.data.channels} if self.data.channels else {}
        return {**super().preparation_settings(), **channels}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, X, Y, Z)` float32."""
        return np.zeros((2, self.contract.channel_count, *self.data.patch), np.float32)

    def batch_settings(self) -> Entries:
        """How batches are drawn."""
        return self.data.model_dump(include={"patch", "foreground", "augmentation", "mirror_axes"})

    def input_section(self, prepared: Any = None) -> Entries:
        """The contract that the recipe's section of the data gives."""
        data = self.data
        return {
            **self.recipe.card.get("input", {}),
            **({"channels": data.channels} if data.channels else {}),
            "spacing_mm": data.spacing_mm,
            "normalisation": data.normalisation,
            "patch": list(data.patch),
            "overlap": data.overlap,
            "mirror_axes": data.mirror_axes,
        }

    def training_data(self, prepared: Store) -> TrainingData:
        """Patches of the store: drawn and varied ones to train on, and those that cover the validation split."""
        data, settings = self.data, self.recipe.train
        variation = data.augmentation.model_dump()
        augment = Augment(variation, data.patch, self.contract.channel_count, data.mirror_axes)
        train_set = RandomPatches(StoredVolumes(prepared, "train"), data.patch, augment)
        val_set = CoveringPatches(StoredVolumes(prepared, "validation"), data.patch)

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            order = SliceOrder(
                train_set.labelled,
                rest=train_set.anywhere,
                batch_size=settings.batch_size,
                steps=batches,
                foreground=data.foreground,
                seed=self.recipe.seed,
                start=start,
                rank=rank,
                world_size=world_size,
            )
            return DataLoader(train_set, batch_sampler=order)

        validation = DataLoader(val_set, batch_size=1) if len(val_set) else None
        return TrainingData(loader, len(train_set.anywhere), validation)
