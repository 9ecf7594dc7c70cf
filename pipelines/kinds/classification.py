"""What the stages do for labelled images: learning to classify them, and judging and calibrating the probabilities."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.data.batch_augmentation import BatchAugmentation, Mixup
from pipelines.data.image_layouts import find_layout
from pipelines.data.image_reading import Stored, to_sample
from pipelines.data.label_fixes import fix_labels
from pipelines.data.store import Store, parts_of
from pipelines.data.stored_images import Batch, DrawOrder, StoredImages, as_picture
from pipelines.evaluation.calibration import calibrate, calibration_figures
from pipelines.evaluation.classification import handedness, merged_table, write_classification, write_predictions
from pipelines.evaluation.image_robustness import (
    CorruptedImages,
    Corruption,
    ImageMeasurement,
    Scorer,
    figures_of,
    measure,
    spread,
)
from pipelines.evaluation.robustness_files import write_robustness
from pipelines.evaluation.robustness_tables import image_tables
from pipelines.evaluation.tested_images import TestedImages, numbered
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.images import LabelledImages
from pipelines.recipe.recipe import Recipe
from pipelines.report.results import Figures, ResultTable
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.classification import ClassificationTask
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.classification.contract import Contract, mirror_of
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import COLORS, ImageSource, Layout, find_images, split_digest

Images = TypeVar("Images", bound=LabelledImages)
Whatever = TypeVar("Whatever")
Source: TypeAlias = ImageSource[Any]
Classifier: TypeAlias = ImageClassifier[Any]
Reader: TypeAlias = Callable[[Source], Stored]


class ClassifierKind(Kind[Images, Store]):
    """A network learns to classify images; its probabilities are calibrated on the validation split.

    A domain says how its images are read and varied, and what its contract, its classifier and its corruptions are.

    Args:
        recipe: Recipe of data of a kind of labelled images.

    Attributes:
        bands: Names of the images' bands.
        mirror: For each class the one that its mirror image has.
        multi_label: Whether an image can have several classes.
        sources: Images of all splits, in parts.
        fixed: How many labels readers replaced, by split; None where there are no such labels.
        repeats_grey: Whether grey images are repeated where colours are asked for.
        embeds: Whether an evaluation keeps what the head sees of the test images.
    """

    role = "classifier"
    monitor = "validation_log_likelihood"
    evaluates = True
    repeats_grey: ClassVar[bool] = False
    embeds: ClassVar[bool] = False

    def __init__(self, recipe: Recipe) -> None:
        self.mirror = mirror_of(recipe.card)
        super().__init__(recipe)
        self.sources: Sequence[Source] = find_images(
            self.layout(),
            self.root,
            self.class_names(),
            test=self.data.split.test,
            validation=self.data.split.validation,
            seed=recipe.split_seed,
            folds=recipe.folds,
            options=self.data.options,
            bands=self.expected_bands(),
            repeats_grey=self.repeats_grey,
        )
        self.sources, self.fixed = fix_labels(
            self.sources, self.data.label_fixes, self.class_names(), test=self.data.fix_test_labels
        )
        self.bands = self.sources[0].bands
        self.multi_label = self.sources[0].items[0].labels is not None
        if self.multi_label and (self.data.balance or self.data.merged):
            raise InputError(
                f"recipe {recipe.name}: images have several classes, for which data.balance and data.merged mean "
                "nothing; leave them out"
            )

    def check_settings(self) -> None:
        """Refuse merged classes that the card lacks."""
        names = self.class_names()
        for whole, parts in self.data.merged.items():
            for part in parts:
                if part not in names:
                    raise InputError(
                        f"recipe {self.recipe.name}: data.merged.{whole} names {part!r}, no class of the card"
                    )

    def takes_file(self) -> bool:
        """Whether the layout's data set is one file."""
        return self.layout().takes_file

    def takes_nothing(self) -> bool:
        """Whether the images are drawn."""
        return self.layout().takes_nothing

    def layout(self) -> Layout[Any]:
        """How the data set's files lie, and how they are read."""
        return find_layout(self.data.layout)

    def expected_bands(self) -> tuple[str, ...]:
        """Bands that images are to have, where the files do not fix them."""
        return COLORS

    def reader(self) -> Reader:
        """How the images of a part are read; it can be sent to other processes."""
        raise NotImplementedError

    def stored_images(
        self, parts: Sequence[Mapping[str, np.ndarray]], view: Callable[[Tensor], Tensor] | None = None
    ) -> StoredImages:
        """Images as `reader` gives them, and what is seen of them."""
        raise NotImplementedError

    def training_images(self, parts: Sequence[Mapping[str, np.ndarray]]) -> StoredImages:
        """Images as `reader` gives them, varied one by one where the domain does that."""
        return self.stored_images(parts)

    def view(self, classifier: Classifier) -> Callable[[Tensor], Tensor] | None:
        """What a trained classifier sees of images of `StoredImages.images`; None for the images themselves."""
        return None

    def batch_augmentation(self) -> BatchAugmentation:
        """How training batches are varied once they are normalised."""
        return Mixup(self.data.mixup)

    def validation_view(self) -> Callable[[Tensor], Tensor] | None:
        """What a validation sees of images that are normalised; None for the images themselves."""
        return None

    def smoothing(self) -> float:
        """Smoothing of the labels."""
        return self.data.smoothing

    def contract(self, card: Document) -> Contract:
        """The domain's contract, as a card has it."""
        raise NotImplementedError

    def classifier(
        self, model: Path, *, symmetries: bool, threads: int | None = None, calibrated: bool = True
    ) -> Classifier:
        """The domain's classifier of a trained model."""
        raise NotImplementedError

    def corruptions(self) -> Mapping[str, str]:
        """Names of the domain's corruptions, each with the family that it belongs to."""
        raise NotImplementedError

    def corruption(self, images: np.ndarray) -> Corruption:
        """How images `(N, C, H, W)` such as these are corrupted."""
        return self.corrupted

    def corrupted(self, name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        """An image `(C, H, W)` under a corruption, the same whenever it is made.

        Args:
            name: Name of the corruption.
            image: Image as `StoredImages.images` gives it.
            severity: 1 to 5.
            number: Number of the image.
        """
        raise NotImplementedError

    def picture(self, image: np.ndarray) -> np.ndarray:
        """An image `(C, H, W)` for those who look at it, `(H, W, 3)` uint8."""
        return as_picture(image)

    def further_figures(self, classifier: Classifier, tested: TestedImages) -> Figures:
        """Figures of the evaluation that the domain alone has."""
        return {}

    def find_sources(self) -> Sequence[Source]:
        """The images of all splits, in parts."""
        return self.sources

    def test_sources(self) -> list[Source]:
        """The images that are scored.

        Raises:
            InputError: there are none.
        """
        return self.of_test_split(self.sources, "image; raise data.split.test")

    def identify(self, sources: Sequence[Source]) -> list[list[Any]]:
        """Files, labels and splits as they are now."""
        return [
            [*super(ClassifierKind, self).identify(sorted(set(source.files))), source.split, source.digest]
            for source in sources
        ]

    def prepare(self, sources: Sequence[Source], folder: Path) -> None:
        """Read the images of all splits."""
        self.fill_store(
            folder,
            sources,
            functools.partial(to_sample, read=self.reader()),
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
            splits=self.needed_splits("train"),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store."""
        return self.store(folder)

    def notices(self, prepared: Store) -> list[str]:
        """Images of each split, and what names the split."""
        counts = {split: self.count(prepared, split) for split in SPLITS}
        lines = ["images: " + ", ".join(f"{count} {split}" for split, count in counts.items())]
        lines.append(f"split: {self._split_digest()[:16]}")
        if self.fixed is not None:
            lines.append(self.fixed["title"])
        if prepared.manifest["skipped"]:
            lines.append(f"warning: {prepared.manifest['skipped']} parts with images that cannot be used were left out")
        return lines

    def count(self, prepared: Store, split: str) -> int:
        """Number of images of a split."""
        return sum(case["record"]["images"] for case in prepared.cases(split))

    def label_counts(self, prepared: Store, split: str) -> list[int]:
        """Images of each class in a split."""
        counts = [np.asarray(prepared.array(case, "targets")).sum(0) for case in prepared.cases(split)]
        return np.sum(counts, 0).astype(int).tolist() if counts else []

    def batch_settings(self) -> Entries:
        """How batches are drawn and varied, and what is calibrated after training."""
        names = {"size", "augmentation", "balance", "mixup", "smoothing", "symmetries", "coverage"}
        return self.data.model_dump(include=names)

    def evaluation_settings(self) -> Entries:
        """What of the data's section decides an evaluation, calibration included: that is not in the weights."""
        return self.data.model_dump(include={"symmetries", "coverage", "merged", "corruption_images"})

    def card(self, prepared: Store) -> Entries:
        """The recipe's card with the contract that the data give, and whether images can have several classes."""
        return {**super().card(prepared), **({"multi_label": True} if self.multi_label else {})}

    def training_section(self) -> Entries:
        """What names the split."""
        return {"split": self._split_digest()}

    def _split_digest(self) -> str:
        items = [item for source in self.sources for item in source.items]
        return split_digest(replace(item, split=self.split_of(item)) for item in items)

    def task(self, card: Document, steps: int) -> ClassificationTask:
        """The classifier's task."""
        network = self.network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return ClassificationTask(
            network,
            self.recipe.train,
            steps,
            self.contract(card),
            len(self.mirror),
            multi_label=self.multi_label,
            smoothing=self.smoothing(),
            augment=self.batch_augmentation(),
            view=self.validation_view(),
        )

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's images, and those that statistics of batch norms are estimated from, where there are any."""
        settings, seed = self.recipe.train, self.recipe.seed
        train_set, plain, val_set = (
            self.training_images(parts_of(prepared, "train")),
            self.stored_images(parts_of(prepared, "train")),
            self.stored_images(parts_of(prepared, "validation")),
        )
        order = functools.partial(DrawOrder, train_set.labels(), seed=seed, balance=self.data.balance)

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader[Batch]:
            drawn = order(batch_size=settings.batch_size, steps=batches, start=start, rank=rank, world_size=world_size)
            return DataLoader(train_set, batch_sampler=drawn, collate_fn=_as_it_is)

        validation = DataLoader(val_set, batch_size=64, collate_fn=_as_it_is) if len(val_set) else None
        statistics = None
        if settings.norm_images and validation is not None:  # drawn as training draws them
            drawn = order(batch_size=64, steps=max(1, settings.norm_images // 64))
            statistics = DataLoader(plain, batch_sampler=drawn, collate_fn=_as_it_is)
        return TrainingData(loader, len(train_set), validation, statistics)

    def finish_model(self, model: Path, prepared: Store) -> None:
        """Calibrate on the validation split."""
        if not prepared.cases("validation"):
            return
        classifier = self.classifier(model, symmetries=self.data.symmetries, calibrated=False)
        train_set, val_set = (
            self.stored_images(parts_of(prepared, split), self.view(classifier)) for split in ("train", "validation")
        )
        if len(val_set):
            calibrate(model, classifier, train_set, val_set, self.data.coverage)

    def evaluate(self, model: Path, sources: Sequence[Source], folder: Path) -> None:
        """Score the test images as a user's are, with calibrated probabilities and prediction sets."""
        data, names, seed = self.data, self.class_names(), self.recipe.seed
        classifier = self.classifier(model, symmetries=data.symmetries, threads=self.recipe.train.threads)
        tested = self._test(classifier, sources)
        scores, targets = tested.scores, tested.targets
        figures: Figures = {"images": len(targets)}
        if not self.multi_label:
            figures |= calibration_figures(classifier, scores, targets, data.coverage, seed)
            figures |= handedness(scores, targets, self.mirror)
        figures |= tested.outlier_figures() | self.further_figures(classifier, tested)
        tables: list[ResultTable] = [] if self.fixed is None else [self.fixed]
        if data.merged:
            tables.append(merged_table(figures, scores, targets, names, data.merged))
        if data.corruption_images:
            measured = self.robustness(model, sources, targets, folder)
            figures |= figures_of(measured)
            tables += image_tables(measured)
        write_classification(
            folder,
            scores,
            targets,
            names,
            multi_label=self.multi_label,
            picture=lambda number: tested.pictures[number],
            figures=figures,
            tables=tables,
            resamples=self.recipe.evaluate.resamples,
            seed=seed,
        )
        write_predictions(folder / "predictions.csv", tested.keys, targets, scores, names)

    def read_parts(self, sources: Sequence[Source], classifier: Classifier) -> Iterator[tuple[Source, StoredImages]]:
        """The images of some sources as a classifier sees them, without parts that cannot be used and are skipped."""
        read, view = self.reader(), self.view(classifier)
        for source in sources:
            try:
                sample = to_sample(source, read)
            except InputError:
                if not self.data.skip_unreadable:
                    raise
            else:
                yield source, self.stored_images([sample.arrays], view)

    def _test(self, classifier: Classifier, sources: Sequence[Source]) -> TestedImages:
        """What the classifier says of the images of some sources."""
        tested, count = TestedImages(), sum(len(source.items) for source in sources)
        with contextlib.closing(Meter("evaluate")) as meter:
            for source, images in self.read_parts(sources, classifier):
                tested.add([item.key for item in source.items], images, classifier, self.picture, embed=self.embeds)
                meter(len(tested.keys), count)
        return tested

    def robustness(self, model: Path, sources: Sequence[Source], targets: np.ndarray, folder: Path) -> ImageMeasurement:
        """Measure the model under the domain's corruptions, on single views of test images spread evenly over them."""
        classifier = self.classifier(model, symmetries=False, threads=self.recipe.train.threads)
        view, chosen = self.view(classifier), spread(len(targets), self.data.corruption_images)
        images = numbered((images for _, images in self.read_parts(sources, classifier)), chosen)
        states = CorruptedImages(images, chosen, self.corruption(images))

        def predict(part: np.ndarray) -> np.ndarray:
            images = torch.from_numpy(part)
            return classifier.predict(images if view is None else view(images)).probabilities

        scorer = Scorer(states.batches, predict, self.picture)
        with contextlib.closing(Meter("corrupt")) as meter:
            measured = measure(
                scorer,
                targets[chosen],
                self.class_names(),
                self.corruptions(),
                multi_label=self.multi_label,
                resamples=self.recipe.evaluate.resamples,
                seed=self.recipe.seed,
                on_progress=meter,
            )
        write_robustness(folder, measured, lambda name, severity: scorer.pictures[name, severity])
        return measured


def _as_it_is(batch: Whatever) -> Whatever:
    return batch
