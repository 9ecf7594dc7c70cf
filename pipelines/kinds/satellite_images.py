"""What is particular to satellite images: bands of a sensor in its own numbers, pixels without data, and neighbours."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geovision.classification import SatelliteClassifier
from geovision.contract import InputContract
from geovision.corruptions import CORRUPTIONS, FAMILIES, corruption_of
from geovision.datasets.images import read_images
from geovision.datasets.layouts import SatelliteLayout
from geovision.metrics import nearest_neighbours
from geovision.models.satmae_pp import is_pretrained_encoder
from geovision.pictures import picture
from geovision.pretraining import central_views
from pipelines.data.batch_augmentation import SatelliteViews
from pipelines.data.image_layouts import SATELLITE_LAYOUTS, find_layout
from pipelines.data.store import Store
from pipelines.data.stored_images import StoredImages
from pipelines.evaluation.image_robustness import Corruption
from pipelines.evaluation.tested_images import TestedImages, features
from pipelines.kinds.classification import Classifier, ClassifierKind, Reader, Source
from pipelines.kinds.encoders import take_encoder_arguments
from pipelines.kinds.kind import SPLITS
from pipelines.kinds.scenes import bands_of, cutting_of, section_of, size_of
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import SatelliteImageData
from pipelines.report.results import Figures, ResultTable, read_summary, write_summary
from shared_backbones import weights
from shared_backbones.classification.figures import class_figures
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries


class SatelliteClassification(ClassifierKind[SatelliteImageData]):
    """A network learns to classify satellite images; its features are judged by their neighbours, too.

    Args:
        recipe: Recipe of data of kind `satellite_images`.
    """

    section = SatelliteImageData
    embeds = True

    def __init__(self, recipe: Recipe) -> None:
        take_encoder_arguments(recipe)
        super().__init__(recipe)
        self.monitor = "validation_map_macro" if self.multi_label else "validation_accuracy"
        self.cutting = cutting_of(self.data, self.layout().file_bands)
        self.size = size_of(recipe, self.data)
        if self.data.statistics != "training":
            self._section(None)

    def check_settings(self) -> None:
        """Refuse merged classes that the card lacks, and mirrored images of classes that are mirror images."""
        super().check_settings()
        if self.data.augmentation.mirrored and self.mirror != sorted(self.mirror):
            raise InputError(
                f"recipe {self.recipe.name}: has classes that are each other's mirror images, expected none where "
                "training images are mirrored; give data.augmentation.mirrored=false"
            )

    def layout(self) -> SatelliteLayout:
        """How the data set's files lie."""
        return find_layout(self.data.layout, SATELLITE_LAYOUTS)

    @functools.cached_property
    def split_origin(self) -> str:
        """What decides the split: the names of lists, or `drawn`."""
        layout: SatelliteLayout = self.layout()
        return layout.split_origin(self.root, self.class_names(), self.data.options)

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data; first, what decides the split."""
        return [f"split: {self.split_origin}", *super().notices(prepared)]

    def training_section(self) -> Entries:
        """What names the split, and what decides it."""
        return {**super().training_section(), "split_origin": self.split_origin}

    def expected_bands(self) -> tuple[str, ...]:
        """Bands of the sensor, as the recipe has them."""
        return bands_of(self.data)

    def reader(self) -> Reader:
        """Images in the sensor's numbers, with their valid pixels."""
        return functools.partial(read_images, cutting=self.cutting, classes=len(self.class_names()))

    def stored_images(
        self, parts: Sequence[Mapping[str, np.ndarray]], view: Callable[[Tensor], Tensor] | None = None
    ) -> StoredImages:
        """Whole images."""
        return StoredImages(parts, self.data.patch, view=view)

    def view(self, classifier: Classifier) -> Callable[[Tensor], Tensor]:
        """The published view of an evaluation."""
        return classifier.prepare

    def validation_view(self) -> Callable[[Tensor], Tensor]:
        """The published view of an evaluation."""
        return functools.partial(central_views, size=self.size)

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed: those with one label, for networks that learn as a whole."""
        return not self.multi_label and self.recipe.train.trainable == "all"

    def batch_augmentation(self) -> SatelliteViews:
        """Crops, and mixup or cutmix."""
        data, augmentation = self.data, self.data.augmentation
        return SatelliteViews(
            self.size,
            augmentation.resized_crop,
            augmentation.mirrored,
            mixup=data.mixup if self.mixes else 0.0,
            cutmix=data.cutmix if self.mixes else 0.0,
        )

    def smoothing(self) -> float:
        """Smoothing of the labels, where images have one."""
        return 0.0 if self.multi_label else self.data.smoothing

    def contract(self, card: Document) -> InputContract:
        """The contract for satellite images."""
        return InputContract.from_card(card, self.recipe.name)

    def classifier(
        self, model: Path, *, symmetries: bool, threads: int | None = None, calibrated: bool = True
    ) -> SatelliteClassifier:
        """The classifier of satellite images."""
        return SatelliteClassifier(model, symmetries=symmetries, threads=threads, calibrated=calibrated)

    def corruptions(self) -> Mapping[str, str]:
        """Those of `geovision.corruptions`."""
        return {name: FAMILIES[name] for name in CORRUPTIONS}

    def corruption(self, images: np.ndarray) -> Corruption:
        """How images are corrupted, in the sensor's numbers, NaN where there are no data."""
        return corruption_of(images, self.cutting.sensor, self.bands, self.recipe.seed)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """True colours where they are there, stretched."""
        return picture(image, self.bands)

    def further_figures(self, classifier: Classifier, tested: TestedImages) -> Figures:
        """What the nearest neighbours among the training images say of the test images."""
        known, labels = [], []
        for _, images in self.read_parts(
            [source for source in self.sources if self.split_of(source) == "train"], classifier
        ):
            known.append(features(classifier, images))
            labels.append(images.targets())
        nearest = nearest_neighbours(
            np.concatenate(known), np.concatenate(labels), tested.features, self.data.neighbours
        )
        figures = class_figures(nearest, tested.targets, multi_label=self.multi_label)
        kept = ("map_micro", "map_macro") if self.multi_label else ("accuracy", "balanced_accuracy")
        return {f"knn{self.data.neighbours}_{name}": figures[name] for name in kept}

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Score the test images, and say with the figures what decides the split."""
        super().evaluate(model, sources, folder)
        summary = read_summary(folder)
        assert "tables" in summary  # noqa: S101 - of a classification
        counts = Counter(self.split_of(source) for source in self.sources for _ in source.items)
        table: ResultTable = {
            "title": f"Split: {self.split_origin}",
            "columns": ["Part", "Images"],
            "rows": [[split, counts[split]] for split in SPLITS],
        }
        write_summary(folder, summary["figures"], [*summary["tables"], table])

    def open(self, folder: Path) -> Store:
        """The prepared store.

        Raises:
            InputError: no training image has a valid pixel.
        """
        store = super().open(folder)
        if not any(case["record"]["pixels"] for case in store.cases("train")):
            raise InputError(f"recipe {self.recipe.name}: no training image has a valid pixel; give other images")
        return store

    def preparation_settings(self) -> Entries:
        """What decides the stored images."""
        return {**asdict(self.cutting), "bands": list(self.bands), "classes": self.class_names()}

    def batch_settings(self) -> Entries:
        """How batches are drawn, normalised and varied, and what is calibrated after training."""
        own = self.data.model_dump(include={"normalisation", "statistics", "cutmix"})
        return {**super().batch_settings(), **own}

    def evaluation_settings(self) -> Entries:
        """What of the data's section decides an evaluation, the number of neighbours included."""
        return {**super().evaluation_settings(), "neighbours": self.data.neighbours}

    def input_section(self, prepared: Store) -> Entries:
        """The domain's contract, with the statistics that the recipe asks for."""
        return self._section([case["record"] for case in prepared.measured_cases()])

    def _section(self, records: Sequence[Document] | None) -> Entries:
        section = section_of(self.recipe, self.data, self.bands, self.size, records)
        return {**self.recipe.card.get("input", {}), **section, "stored": self.data.patch}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.bands), self.size, self.size), np.float32)

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Take a pretrained encoder's weights, or a classifier's; a head of other classes is drawn anew."""
        load: Callable[[torch.nn.Module], None] | None = getattr(network, "load_autoencoder", None)
        if load is not None and is_pretrained_encoder(trained.module):
            load(trained.module)
            return
        own, state = network.state_dict(), trained.module.state_dict()
        place = getattr(network, "classifier", "head")
        head = {name: own[name] for name in own if name.startswith(f"{place}.")}
        if any(name not in state or state[name].shape != value.shape for name, value in head.items()):
            state |= head
        weights.fill(network, state, label)
