"""LightningModules that learn from patches of scenes; normalisation and augmentation run on the device."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.contract import InputContract
from geovision.datasets.patches import IGNORED
from geovision.pretraining import central_views, evaluation_views, pyramid, random_crops, removed_pixels
from pipelines.recipe.recipe import TrainSection
from pipelines.recipe.scenes import LabelledImageData
from pipelines.training.tasks.task import Task
from shared_backbones.classification.figures import class_figures


class PretrainingTask(Task):
    """A masked autoencoder learns to reconstruct, at its own and at higher resolutions.

    Args:
        model: `geovision.models.satmae_pp.MaskedAutoencoder` or `GroupMaskedAutoencoder`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        mask_ratio: share of tokens removed.
        crop: smallest and largest share of a patch's area in a training view.
        seed: of the masks of the validation.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        mask_ratio: float,
        crop: tuple[float, float],
        seed: int,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.mask_ratio, self.crop, self.seed = contract, mask_ratio, crop, seed
        network: Any = model
        self.scales = len(network.multiscale.blocks)
        self.size = network.trunk.img_size[0]
        self.errors = torch.zeros(2, dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch of patches."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        *targets, inputs = pyramid(random_crops(images, self.size << self.scales, self.crop), self.scales)
        found = self.model(inputs, *reversed(targets), mask_ratio=self.mask_ratio)
        self.log("loss", found.loss.detach())
        return found.loss

    def on_validation_epoch_start(self) -> None:
        """Sum anew."""
        self.errors = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add the squared errors of removed pixels; the masks are the same in every validation."""
        images, found, removed = reconstruct(
            self.model, self.contract, batch, self.mask_ratio, seed=self.seed * 1_000_003 + batch_index
        )
        errors = (found - images).square()[removed.expand_as(images)].double()
        self.errors += torch.stack([errors.sum(), torch.full_like(errors.sum(), errors.numel())])

    def on_validation_epoch_end(self) -> None:
        """Log the peak signal-to-noise ratio over removed pixels, in dB."""
        total, count = self.trainer.strategy.reduce(self.errors, reduce_op="sum")
        span = span_of(self.contract)
        value = 10 * torch.log10(span**2 / (total / count.clamp(min=1)).clamp(min=1e-12))
        self.log("validation_psnr", value.float())


class MappingTask(Task):
    """Patches to label maps.

    Args:
        model: maps `(B, C, H, W)` to logits `(B, classes, H, W)`.
        settings: of the recipe.
        steps: length of the schedule in optimiser steps.
        contract: of the input.
        classes: names of the classes.
        flip: mirror and turn training patches.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSection,
        steps: int,
        contract: InputContract,
        classes: Sequence[str],
        flip: bool,
    ) -> None:
        super().__init__(model, settings, steps)
        self.contract, self.classes, self.flip = contract, list(classes), flip
        self.counts = torch.zeros(3, len(self.classes), dtype=torch.float64)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Cross-entropy of one batch over its labelled pixels."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        labels = batch["labels"].long()
        if self.flip:
            turns, mirror = torch.randint(0, 4, (1,)).item(), torch.rand(1).item() < 0.5
            images, labels = images.rot90(int(turns), (2, 3)), labels.rot90(int(turns), (1, 2))
            if mirror:
                images, labels = images.flip(3), labels.flip(2)
        # reduced by hand: a batch without a labelled pixel has loss 0, not NaN
        losses = F.cross_entropy(self.model(images), labels, ignore_index=IGNORED, reduction="sum")
        loss = losses / (labels != IGNORED).sum().clamp(min=1)
        self.log("loss", loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.counts = torch.zeros(3, len(self.classes), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Add a batch's pixels to the counts."""
        images = self.contract.normalise(batch["image"].float(), batch["valid"])
        known = batch["labels"] != IGNORED
        labels, found = batch["labels"][known].long(), self.model(images).argmax(1)[known]
        for row, values in enumerate((found[found == labels], found, labels)):
            self.counts[row] += torch.bincount(values, minlength=len(self.classes))

    def on_validation_epoch_end(self) -> None:
        """Log the mean intersection over union of the classes that occur, and the accuracy."""
        both, found, there = self.trainer.strategy.reduce(self.counts, reduce_op="sum")
        present = there > 0
        unions = both / (found + there - both).clamp(min=1)
        self.log("validation_accuracy", (both.sum() / there.sum().clamp(min=1)).float())
        self.log("validation_miou", (unions[present].mean() if present.any() else both.sum() * 0).float())


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
        if settings.learnt == "head":
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
        images = random_crops(images, self.contract.size, self.data.crop)
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
        if self.settings.learnt == "all" and len(images) > 1:
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


def reconstruct(
    model: Any, contract: InputContract, batch: dict[str, Tensor], mask_ratio: float, *, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What an autoencoder makes of a batch.

    Args:
        model: the autoencoder.
        contract: of its input.
        batch: `image` and `valid`, on the model's device.
        mask_ratio: share of tokens removed.
        seed: of the masks, which are drawn on the CPU and thus alike everywhere.

    Returns:
        Normalised images `(B, C, H, W)`, their reconstruction, and the removed pixels `(B, C or 1, H, W)`.
    """
    trunk = model.trunk
    images = contract.normalise(batch["image"].float(), batch["valid"])
    images = evaluation_views(images, trunk.img_size[0])
    places = math.prod(trunk.grid) * (1 if trunk.groups is None or model.spatial_mask else len(trunk.groups))
    noise = torch.rand(len(images), places, generator=torch.Generator().manual_seed(seed)).to(images.device)
    answer = model(images, mask_ratio=mask_ratio, noise=noise)
    found = model.to_images(answer.prediction.float())
    groups = None if trunk.groups is None else [list(group) for group in trunk.groups]
    return images, found, removed_pixels(answer.mask, trunk.patch_size, trunk.grid, groups)


def span_of(contract: InputContract) -> float:
    """Range of normalised values to which reconstruction errors are compared: from mean - 2 std to mean + 2 std."""
    return 1.0 if contract.normalisation == "satmae" else 4.0
