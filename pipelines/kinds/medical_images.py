"""What is particular to medical images: grey or coloured, an up and a down, and MedMNIST-C's corruptions."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from medvision.classification import MedicalClassifier, MedicalContract
from medvision.corruptions.medmnist_c import FOLDS, SETS, augmentation, corrupt
from medvision.datasets.medmnist import find_set
from pipelines.kinds.pictures import PictureKind
from pipelines.recipe.images import MedicalImageData
from pipelines.recipe.recipe import Recipe
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import COLORS, GREY


class MedicalClassification(PictureKind[MedicalImageData]):
    """A network learns to classify medical images.

    Args:
        recipe: Recipe of data of kind `medical_images`.
    """

    section = MedicalImageData
    repeats_grey = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        data = self.data
        self.corruption_set = data.corruptions
        if self.corruption_set is None and data.layout == "medmnist":
            self.corruption_set = find_set(self.sources[0].files[0]).name
        if self.corruption_set is None and (data.corruption_images or data.corruption_share):
            raise InputError(
                f"recipe {recipe.name}: data.corruptions is needed; give the set of MedMNIST whose corruptions are "
                f"meant, one of {', '.join(SETS)}"
            )
        if self.corruption_set is not None and self.corruption_set not in SETS:
            raise InputError(
                f"recipe {recipe.name}: data.corruptions is {self.corruption_set!r}, expected one of {', '.join(SETS)}"
            )

    def expected_bands(self) -> tuple[str, ...]:
        """Grey or coloured images, as the network takes them."""
        return GREY if self.recipe.model.arguments.get("in_chans", 3) == 1 else COLORS

    def batch_settings(self) -> Entries:
        """How batches are drawn, varied and corrupted."""
        return {**super().batch_settings(), **self.data.model_dump(include={"corruptions", "corruption_share"})}

    def evaluation_settings(self) -> Entries:
        """What of the data's section decides an evaluation."""
        return {**super().evaluation_settings(), "corruptions": self.data.corruptions}

    def contract(self, card: Document) -> MedicalContract:
        """The contract for medical images."""
        return MedicalContract.from_card(card, self.recipe.name)

    def classifier(
        self, model: Path, *, symmetries: bool, threads: int | None = None, calibrated: bool = True
    ) -> MedicalClassifier:
        """The classifier of medical images."""
        return MedicalClassifier(model, symmetries=symmetries, threads=threads, calibrated=calibrated)

    def corruptions(self) -> Mapping[str, str]:
        """MedMNIST-C's of the data set, with their folds."""
        assert self.corruption_set is not None  # noqa: S101 - the constructor saw to it
        folds = {name: fold for fold, names in FOLDS.items() for name in names}
        return {name: folds[name] for name in SETS[self.corruption_set]}

    def corrupted(self, name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        """An image under a corruption, uint8."""
        assert self.corruption_set is not None  # noqa: S101 - the constructor saw to it
        shown = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        corrupted = corrupt(self.corruption_set, name, np.ascontiguousarray(shown), severity, seed_key=[number])
        return corrupted[None] if corrupted.ndim == 2 else corrupted.transpose(2, 0, 1)

    def augmentation(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """Variation, and after it a corruption of the fraction of images that the recipe asks for."""
        plain, fraction = super().augmentation(), self.data.corruption_share
        if not fraction:
            return plain
        assert self.corruption_set is not None  # noqa: S101 - the constructor saw to it
        harm = augmentation(self.corruption_set)

        def vary(image: np.ndarray, seed: int) -> np.ndarray:
            varied, random = plain(image, seed), np.random.default_rng(seed)
            if random.random() >= fraction:
                return varied
            shown = varied[..., 0] if varied.shape[2] == 1 else varied
            harmed = harm(np.ascontiguousarray(shown), random)
            return harmed[..., None] if harmed.ndim == 2 else harmed

        return vary
