"""What both kinds of segmentation of volumes share: the network, its contract, and the loop."""

from pathlib import Path
from typing import Any

import numpy as np

from medvision.contract import InputContract
from medvision.models.catalogue import find_model
from pipelines.kinds.kind import Kind
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.volumes import SyntheticData, VolumeData
from pipelines.training.loop import Batches, Log, fit
from pipelines.training.tasks.segmentation import SegmentationTask


class SegmentationKind(Kind):
    """What both kinds of training data share: the network, its card, and the loop.

    Args:
        recipe: a segmentation recipe.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.contract = InputContract.from_card(self.card(), recipe.name)

    def find_model(self, name_or_folder: str) -> Path:
        """Folder of a bundled model, or of the user's."""
        return find_model(name_or_folder)

    def card(self) -> dict[str, Any]:
        """The trained model's card, but for what training adds."""
        raise NotImplementedError

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        data = self.recipe.data
        assert isinstance(data, SyntheticData | VolumeData)  # noqa: S101 - chosen by the data's kind
        return np.zeros((2, len(data.slices), data.size, data.size), np.float32)

    def _fit(self, batches: Batches, steps: int, epoch: int, folder: Path, log: Log | None) -> None:
        recipe = self.recipe
        fit(
            SegmentationTask(self.network(), recipe.train, steps, self.class_names()),
            batches,
            recipe.train,
            steps=steps,
            validate_every=recipe.train.validate_every or epoch,
            seed=recipe.seed,
            folder=folder,
            card=self.card(),
            origin=folder.name,
            log=log,
        )
