"""What the stages do for labelled satellite images: fine-tuning and probing a classifier."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geovision.contract import InputContract
from geovision.datasets.patches import Patches
from geovision.metrics import nearest_neighbours
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.evaluation.classification import write_classification
from pipelines.kinds.scenes import ScenesKind, find_all_images, shown_bands, to_sample
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import LabelledImageData
from pipelines.report.scenes import stretched
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.scenes import ClassificationTask, features, probabilities
from shared_backbones import weights
from shared_backbones.classification.figures import class_figures
from shared_backbones.errors import InputError


class SatelliteClassification(ScenesKind[LabelledImageData]):
    """A network learns to classify images; its features are judged by their neighbours, too."""

    section = LabelledImageData
    role = "classifier"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.monitor = "validation_map_macro" if self.multi_label else "validation_accuracy"

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return find_layout(self.data.layout, SATELLITE_LAYOUTS).multi_label

    def find_all(self) -> list[Any]:
        """The images of the data set."""
        return find_all_images(self)

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Take a pretrained encoder's weights, or a classifier's; a head of other classes is drawn anew."""
        taking: Any = network
        if hasattr(trained.module, "multiscale"):
            taking.load_autoencoder(trained.module)
            return
        own, state = network.state_dict(), trained.module.state_dict()
        head = {name: own[name] for name in own if name.startswith("head.") and name in state}
        if any(state[name].shape != value.shape for name, value in head.items()):
            state |= head
        weights.fill(network, state, label)

    def make_task(self, contract: InputContract, steps: int) -> ClassificationTask:
        """The classifier's task."""
        return ClassificationTask(
            self.network(), self.recipe.train, steps, contract, self.data, len(self.class_names()), self.multi_label
        )

    def evaluate(self, model: Path, sources: Sequence[Any], folder: Path) -> None:
        """Score the test images, by the network's head and by their nearest neighbours among the training images."""
        trained = weights.load(model)
        contract = InputContract.from_card(trained.card, self.recipe.name)
        train = [source for source in self.sources if source.split == "train"]
        network, seen, tested = trained.module, [], []
        with contextlib.closing(Meter("evaluate")) as meter, torch.inference_mode():
            for number, source in enumerate([*sources, *train]):
                for batch in self._batches(source):
                    row = [batch["targets"].numpy(), features(network, contract, batch).numpy()]
                    if source.split == "train":
                        seen.append(row)
                    else:
                        shares = probabilities(network, contract, batch, self.multi_label).numpy()
                        tested.append([*row, shares, self._pictures(batch)])
                meter(number + 1, len(sources) + len(train))
        labels, known = (np.concatenate(part) for part in zip(*seen, strict=True))
        targets, queries, scores, pictures = (np.concatenate(part) for part in zip(*tested, strict=True))
        data, names = self.data, self.class_names()
        nearby = class_figures(
            nearest_neighbours(known, labels, queries, data.neighbours), targets, multi_label=self.multi_label
        )
        kept = ("map_micro", "map_macro") if self.multi_label else ("accuracy", "balanced_accuracy")
        write_classification(
            folder,
            scores,
            targets,
            names,
            multi_label=self.multi_label,
            picture=lambda number: pictures[number],
            figures={f"knn{data.neighbours}_{name}": nearby[name] for name in kept} | {"images": len(targets)},
            resamples=self.recipe.evaluate.resamples,
            seed=self.recipe.seed,
        )

    def _batches(self, source: Any) -> Any:
        try:
            patches = Patches([to_sample(source, self.cutting, len(self.class_names())).arrays])
        except InputError:
            if not self.data.skip_unreadable:
                raise
            return
        for first in range(0, len(patches), 64):
            yield patches.__getitems__(range(first, min(first + 64, len(patches))))

    def _pictures(self, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """Three bands of each image, reduced to at most 112 pixels a side, `(B, H, W, 3)` uint8."""
        chosen = [self.bands.index(band) for band in shown_bands(self.bands)]
        step = -(-batch["image"].shape[-1] // 112)
        return np.stack([stretched(image) for image in batch["image"][:, chosen, ::step, ::step].float().numpy()])
