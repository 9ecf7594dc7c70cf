"""A LightningModule that learns to find single objects in patches of scenes."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.detection import PanopticQuality

from geovision.contract import InputContract
from pipelines.recipe.recipe import TrainSection
from pipelines.training.tasks.mapping import Batch
from pipelines.training.tasks.task import Task
from shared_backbones.networks.mask_queries import MaskQueries, MaskTarget, matching_loss, panoptic

_POINTS = 12544  # of a mask that are compared, as in Mask2Former


class FindsObjects(Protocol):
    """A network of mask queries."""

    def predict(self, x: Tensor) -> list[MaskQueries]:
        """Classes and masks of all queries after each layer, of images `(B, C, H, W)`."""
        ...


class InstanceTask(Task):
    """Patches to objects.

    Args:
        model: A network with `predict`, as `FindsObjects` says.
        settings: Settings of the training.
        steps: Length of the schedule in optimiser steps.
        contract: Contract of the input.
        classes: Names of the classes.
        flip: Whether training patches are mirrored and turned.
        threshold: Smallest probability of an object's class, in validation.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        classes: Sequence[str],
        flip: bool,
        threshold: float,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.classes = contract, list(classes)
        self.flip, self.threshold = flip, threshold
        self.losses = MeanMetric().set_dtype(torch.float64)
        # what is of no object is a class of its own here, whose figures are not looked at
        self.quality = PanopticQuality(
            things=set(range(len(self.classes))),
            stuffs={len(self.classes)},
            return_sq_and_rq=True,
            return_per_class=True,
        )

    def predict_queries(self, images: Tensor) -> list[MaskQueries]:
        """The network's queries after each layer."""
        network: FindsObjects = self.model  # pyright: ignore[reportAssignmentType] - the kind has looked
        return network.predict(images)

    def rate_of(self, name: str) -> float:
        """Backbones learn at a rate of their own."""
        return self.settings.backbone_rate if name.startswith("encoder.") else 1.0

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Matching loss of one batch, over all layers."""
        images, codes = self._images_of(batch), batch["labels"].long()
        if self.flip:
            turns, mirror = torch.randint(0, 4, (1,)).item(), torch.rand(1).item() < 0.5
            images, codes = images.rot90(int(turns), (2, 3)), codes.rot90(int(turns), (1, 2))
            if mirror:
                images, codes = images.flip(3), codes.flip(2)
        targets = targets_of(codes, len(self.classes))
        loss = matching_loss(self.predict_queries(images), targets, points=_points(codes))
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.quality.reset()
        self.losses.reset()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Count a batch's objects, and add its loss, at points that are the same each time."""
        images, codes = self._images_of(batch), batch["labels"].long()
        layers = self.predict_queries(images)
        generator = torch.Generator(images.device).manual_seed(batch_index)
        targets = targets_of(codes, len(self.classes))
        loss = matching_loss(layers, targets, points=_points(codes), generator=generator)
        self.losses.update(loss, len(images))
        queries = MaskQueries(layers[-1].classes.float(), layers[-1].masks.float()).resized(images.shape[2:])
        things = range(len(self.classes))
        answers = panoptic(queries, things=things, object_threshold=self.threshold)
        codings = [
            torch.stack([self._kinds(answer.segments, answer.classes), answer.segments], -1) for answer in answers
        ]
        kinds = torch.where(codes > 0, (codes - 1) % len(self.classes), len(self.classes))
        self.quality.update(torch.stack(codings), torch.stack([kinds, codes], -1))

    def on_validation_epoch_end(self) -> None:
        """Log the loss, and panoptic, segmentation and recognition quality, means over the classes that occur."""
        self.log("validation_loss", self.losses.compute().nan_to_num().float())
        figures = self.quality.compute()[: len(self.classes)]  # (classes, 3)
        counts = (self.quality.true_positives + self.quality.false_positives + self.quality.false_negatives)[:-1]
        present = counts > 0
        for name, row in zip(("pq", "sq", "rq"), figures.unbind(1), strict=True):
            self.log(f"validation_{name}", (row[present].mean() if present.any() else row.sum() * 0).float())

    def _images_of(self, batch: Batch) -> Tensor:
        return self.contract.normalise(batch["image"], batch["valid"])

    def _kinds(self, segments: Tensor, classes: Tensor) -> Tensor:
        """Class of each pixel, the number of classes where it is of no object."""
        none = torch.full((1,), len(self.classes), dtype=torch.int64, device=segments.device)
        return torch.cat([none, classes])[segments]


def targets_of(codes: Tensor, classes: int) -> list[MaskTarget]:
    """The objects of patches.

    Args:
        codes: `(B, H, W)`, as `geovision.datasets.instance_labels.InstanceRaster` reads them.
        classes: How many classes there are.
    """
    targets = []
    for part in codes:
        known = part.unique()
        known = known[known > 0]
        targets.append(MaskTarget((known - 1) % classes, (part == known[:, None, None]).float()))
    return targets


def _points(codes: Tensor) -> int:
    """Points of a mask that are compared: no more than it has pixels."""
    return min(_POINTS, codes.shape[1] * codes.shape[2])
