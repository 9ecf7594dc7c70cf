"""What the two kinds of volume segmentation have in common: the network, its card and the task."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medvision.contract import InputContract
from medvision.models.catalogue import find_model
from pipelines.kinds.kind import Kind, Prepared
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.volumes import SyntheticData, VolumeData
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones.json_values import Document, Entries

Slices = TypeVar("Slices", SyntheticData, VolumeData)


class SegmentationKind(Kind[Slices, Prepared]):
    """What synthetic and labelled volumes have in common: the network, its card and the task.

    Args:
        recipe: a segmentation recipe.
    """

    role = "segmenter"
    monitor = "validation_dice"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.contract = InputContract.from_card({**recipe.card, "input": self.input_section()}, recipe.name)

    def find_model(self, name_or_folder: str) -> Path:
        """Folder of a bundled model, or of the user's."""
        return find_model(name_or_folder)

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.data.slices), self.data.size, self.data.size), np.float32)

    def input_section(self, prepared: Any = None) -> Entries:
        """The card's `input`; the recipe alone decides it."""
        raise NotImplementedError

    def task(self, card: Document, steps: int) -> SegmentationTask:
        """The task of segmentation."""
        return SegmentationTask(self.network(), self.recipe.train, steps, self.class_names())
