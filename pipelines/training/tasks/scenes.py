"""LightningModules that learn to classify satellite images; normalisation and augmentation run on the device."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.contract import InputContract
from geovision.pretraining import central_views, random_crops
from pipelines.recipe.recipe import TrainSection
from pipelines.recipe.scenes import LabelledImageData
from pipelines.training.tasks.task import Task
from shared_backbones.classification.figures import class_figures


class ClassificationTask(Task):
    """Images to classes, as SatMAE++ is fine-tuned: crops, mixup or cutmix, layer-wise decay; or a linear probe.

    Args:
        model: a vision transformer of `geovision.models.satmae_pp`, or any classifier with a `head`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        data: of the recipe: crop, mixup, cutmix, smoothing.
        classes: how many there are.
        multi_label: whether an image can have several.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        data: LabelledImageData,
        classes: int,
        multi_label: bool,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.data, self.classes, self.multi_label = contract, data, classes, multi_label
        if settings.trainable == "head":
            model.requires_grad_(False)
            head: Any = model.get_submodule("head")
            head.requires_grad_(True)
        trunk = getattr(model, "trunk", None)
        self.depth = len(trunk.blocks) if trunk is not None else 0
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        images = random_crops(images, self.contract.size, self.data.resized_crop)
        targets = batch["targets"].float()
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(self.model(images), targets)
        else:
            images, targets = self._mixed(images, targets)
            loss = F.cross_entropy(self.model(images), targets, label_smoothing=self.data.smoothing)
        self.log("loss", loss.detach())
        return loss

    def _mixed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch mixed with itself, by mixup or by cutmix."""
        from torchvision.transforms import v2

        ways = []
        if self.settings.trainable == "all" and len(images) > 1:
            ways += [v2.MixUp(alpha=self.data.mixup, num_classes=self.classes)] if self.data.mixup else []
            ways += [v2.CutMix(alpha=self.data.cutmix, num_classes=self.classes)] if self.data.cutmix else []
        if not ways:
            return images, targets
        return ways[int(torch.randint(0, len(ways), (1,)))](images, targets.argmax(1))

    def on_validation_epoch_start(self) -> None:
        """Collect anew."""
        self.scores, self.targets = [], []

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Keep a batch's probabilities."""
        self.scores.append(probabilities(self.model, self.contract, batch, self.multi_label))
        self.targets.append(batch["targets"])

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy, or the macro mean average precision."""
        gather: Any = self.all_gather
        gathered = [gather(torch.cat(part)).reshape(-1, self.classes) for part in (self.scores, self.targets)]
        scores, targets = (part.cpu().numpy() for part in gathered)
        figures = class_figures(scores, targets, multi_label=self.multi_label)
        name = "map_macro" if self.multi_label else "accuracy"
        self.log(f"validation_{name}", torch.tensor(figures[name], dtype=torch.float32))

    def rate_of(self, name: str) -> float:
        """Layer-wise decay: the embedding learns most slowly, what stands above the blocks at the full rate.

        The tables of groups learn at the full rate, as the released list of embeddings leaves them out.
        """
        decay, depth = self.settings.layer_decay, self.depth
        if name.startswith(("trunk.class_token", "trunk.positions", "trunk.patch_embeddings")):
            return decay ** (depth + 1)
        if name.startswith("trunk.blocks."):
            return decay ** (depth - int(name.split(".")[2]))
        return 1.0


def probabilities(model: Any, contract: InputContract, batch: dict[str, Tensor], multi_label: bool) -> Tensor:
    """Class probabilities `(B, K)` of the published view of an evaluation."""
    logits = model(_central(contract, batch)).float()
    return logits.sigmoid() if multi_label else logits.softmax(1)


def features(model: Any, contract: InputContract, batch: dict[str, Tensor]) -> Tensor:
    """What the classifier's head sees, `(B, D)`."""
    return model.forward_head(model.forward_features(_central(contract, batch)), pre_logits=True).float()


def _central(contract: InputContract, batch: dict[str, Tensor]) -> Tensor:
    return central_views(contract.normalise(batch["image"].float(), batch["valid"]), contract.size)
