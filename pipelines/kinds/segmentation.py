"""What all kinds of segmentation of volumes have in common: the network, its card and the task."""

from typing import Any, TypeVar

from medvision.contract import InputContract
from pipelines.kinds.kind import Kind, Prepared
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.volumes import PatchData, SyntheticData, VolumeData
from pipelines.training.tasks.segmentation import SegmentationTask
from shared_backbones.json_values import Document, Entries

Volumes = TypeVar("Volumes", SyntheticData, VolumeData, PatchData)


class SegmentationKind(Kind[Volumes, Prepared]):
    """What all kinds of volumes have in common: the network, its card and the task.

    Args:
        recipe: a segmentation recipe.
    """

    role = "segmenter"
    monitor = "validation_dice"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.contract = InputContract.from_card({**recipe.card, "input": self.input_section()}, recipe.name)

    def input_section(self, prepared: Any = None) -> Entries:
        """The card's `input`; the recipe alone decides it."""
        raise NotImplementedError

    def task(self, card: Document, steps: int) -> SegmentationTask:
        """The task of segmentation."""
        return SegmentationTask(self.network(), self.recipe.train, steps, self.class_names())
