"""What the stages do for labelled images: learning to classify them, and judging and calibrating the probabilities."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipelines.data.augmentation import Augmentation
from pipelines.data.image_layouts import find_layout
from pipelines.data.image_reading import read_images
from pipelines.data.store import Sample, Store
from pipelines.data.stored_images import DrawOrder, StoredImages
from pipelines.evaluation.calibration import calibrate, calibration_figures, predict_all
from pipelines.evaluation.classification import handedness, merged_table, write_classification, write_predictions
from pipelines.evaluation.image_robustness import ImageMeasurement, figures_of, measure
from pipelines.evaluation.robustness_files import write_robustness
from pipelines.evaluation.robustness_tables import image_tables
from pipelines.kinds.kind import SPLITS, Kind, TrainingData
from pipelines.recipe.images import LabelledImages
from pipelines.recipe.recipe import Recipe
from pipelines.report.results import Figures
from pipelines.runtime.progress import Meter
from pipelines.training.tasks.classification import ClassificationTask
from shared_backbones import weights
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.classification.contract import ImageContract, mirror_of
from shared_backbones.errors import InputError
from shared_backbones.labelled_images import ImageSource, Item, Layout, find_images, split_digest

Images = TypeVar("Images", bound=LabelledImages)


class ClassifierKind(Kind[Images, Store]):
    """A network learns to classify images; its probabilities are calibrated on the validation split.

    A domain says what its images, its contract, its classifier and its corruptions are.

    Args:
        recipe: of data of a kind of labelled images.

    Attributes:
        bands: names of the images' bands.
        mirror: for each class the one that its mirror image has.
        multi_label: whether an image can have several classes.
        sources: the images of all splits, in parts.
    """

    role = "classifier"
    monitor = "validation_log_likelihood"
    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        self.mirror = mirror_of(recipe.card)
        super().__init__(recipe)
        self.sources: list[ImageSource[Item]] = find_images(
            self.layout(),
            self.root,
            self.class_names(),
            test=self.data.split.test,
            validation=self.data.split.validation,
            seed=recipe.seed,
            options=self.data.options,
            **self.reading(),
        )
        self.bands = self.sources[0].bands
        self.multi_label = self.sources[0].items[0].labels is not None
        if self.multi_label and (self.data.balance or self.data.merged):
            raise InputError(
                f"recipe {recipe.name}: images have several classes, for which data.balance and data.merged mean "
                "nothing; leave them out"
            )
        channels = recipe.model.arguments.get("in_chans", 3)
        if channels != len(self.bands):
            raise InputError(
                f"recipe {recipe.name}: model.arguments.in_chans is {channels}, the images have {len(self.bands)} "
                f"bands ({', '.join(self.bands)}); give model.arguments.in_chans={len(self.bands)}"
            )

    def check_settings(self) -> None:
        """Refuse merged classes that the card lacks, and sizes that contradict one another."""
        recipe, data, names = self.recipe, self.data, self.class_names()
        for whole, parts in data.merged.items():
            for part in parts:
                if part not in names:
                    raise InputError(f"recipe {recipe.name}: data.merged.{whole} names {part!r}, no class of the card")
        if data.size > data.stored:
            raise InputError(
                f"recipe {recipe.name}: data.size is {data.size}, more than data.stored of {data.stored}; lower it"
            )
        size = recipe.model.arguments.get("img_size")
        if size is not None and size != data.size:
            raise InputError(
                f"recipe {recipe.name}: model.arguments.img_size is {size}, data.size {data.size}; give both the same"
            )

    def takes_file(self) -> bool:
        """Whether the layout's data set is one file."""
        return self.layout().takes_file

    def takes_nothing(self) -> bool:
        """Whether the images are drawn."""
        return self.layout().takes_nothing

    def layout(self) -> Layout[Item]:
        """How the data set's files lie, and how they are read."""
        return find_layout(self.data.layout)

    def reading(self) -> dict[str, Any]:
        """What else `find_images` is to know."""
        return {}

    def contract_section(self, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """The card's `input`: what the domain's contract holds.

        Args:
            mean: of each band of the training images, in values from 0 to 1.
            std: likewise.
        """
        raise NotImplementedError

    def contract(self, card: Mapping[str, Any]) -> ImageContract:
        """The domain's contract, as a card has it."""
        raise NotImplementedError

    def classifier(self, model: Path, **options: Any) -> ImageClassifier:
        """The domain's classifier of a trained model."""
        raise NotImplementedError

    def corruptions(self) -> Mapping[str, str]:
        """Names of the domain's corruptions, each with the family that it belongs to."""
        raise NotImplementedError

    def corrupted(self, name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        """An image `(C, H, W)` uint8 under a corruption, uint8, or floating point from 0 to 1; the same whenever made.

        Args:
            name: of the corruption.
            image: as the network sees it.
            severity: 1 to 5.
            number: of the image.
        """
        raise NotImplementedError

    def varied(self) -> Callable[[np.ndarray, int], np.ndarray]:
        """How training images are varied, by a seed."""
        settings = self.data.augmentation.model_dump(exclude={"mirrored"})
        return Augmentation(self.data.size, bands=len(self.bands), **settings)

    def find_sources(self) -> list[ImageSource[Item]]:
        """The images of all splits, in parts."""
        return self.sources

    def test_sources(self) -> list[ImageSource[Item]]:
        """The images that are scored.

        Raises:
            InputError: there are none.
        """
        return self.of_test_split(self.sources, "image; raise data.split.test")

    def identify(self, sources: Sequence[ImageSource[Item]]) -> list[list[Any]]:
        """Files, labels and splits as they are now."""
        return [
            [*super(ClassifierKind, self).identify(sorted(set(source.files))), source.split, source.digest]
            for source in sources
        ]

    def preparation_settings(self) -> dict[str, Any]:
        """What decides the stored images."""
        return {
            "crop": self.data.crop,
            "stored": self.data.stored,
            "classes": self.class_names(),
            "bands": list(self.bands),
        }

    def prepare(self, sources: Sequence[ImageSource[Item]], folder: Path) -> None:
        """Read the images of all splits."""
        data = self.data
        convert = functools.partial(to_sample, size=data.stored, crop=data.crop, classes=len(self.class_names()))
        self.fill_store(
            folder,
            sources,
            convert,
            workers=data.workers,
            skip_unreadable=data.skip_unreadable,
            splits=("train",),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store."""
        return Store(folder)

    def notices(self, prepared: Store) -> list[str]:
        """Images of each split, and what names the split."""
        counts = {split: sum(case["record"]["images"] for case in prepared.cases(split)) for split in SPLITS}
        items = [item for source in self.sources for item in source.items]
        lines = ["images: " + ", ".join(f"{count} {split}" for split, count in counts.items())]
        lines.append(f"split: {split_digest(items)[:16]}")
        if prepared.manifest["skipped"]:
            lines.append(f"warning: {prepared.manifest['skipped']} parts with images that cannot be used were left out")
        return lines

    def batch_settings(self) -> dict[str, Any]:
        """How batches are drawn and varied, and what is calibrated after training."""
        names = {"size", "augmentation", "balance", "mixup", "smoothing", "symmetries", "coverage"}
        return self.data.model_dump(include=names)

    def evaluation_settings(self) -> dict[str, Any]:
        """What of the data's section decides an evaluation, calibration included: that is not in the weights."""
        return self.data.model_dump(include={"symmetries", "coverage", "merged", "corruption_images"})

    def card(self, prepared: Store) -> dict[str, Any]:
        """The recipe's card with the contract that the data give, and whether images can have several classes."""
        return {**super().card(prepared), **({"multi_label": True} if self.multi_label else {})}

    def input_section(self, prepared: Store) -> dict[str, Any]:
        """The domain's contract, with mean and standard deviation of each band of the training images."""
        records = [case["record"] for case in prepared.cases("train")]
        count = sum(record["pixels"] for record in records)
        mean = np.sum([record["sums"] for record in records], 0) / count
        variance = np.sum([record["squares"] for record in records], 0) / count - mean**2
        std = np.sqrt(np.maximum(variance, 1e-6))
        section = self.contract_section((mean / 255).tolist(), (std / 255).tolist())
        return {**self.recipe.card.get("input", {}), **section}

    def training_section(self) -> dict[str, Any]:
        """What names the split."""
        return {"split": split_digest([item for source in self.sources for item in source.items])}

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.bands), self.data.size, self.data.size), np.float32)

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Take a trained classifier's weights; tables of another size are resampled, a head of other classes is new."""
        own, state = network.state_dict(), dict(trained.module.state_dict())
        fitted: Any = getattr(trained.module, "set_input_size", None)
        if fitted is not None and getattr(trained.module, "arguments", {}).get("img_size") != self.data.size:
            fitted(self.data.size)
            state = dict(trained.module.state_dict())
        head = str(getattr(network, "classifier", "head"))
        for name in own:
            if name.startswith(f"{head}.") and name in state and state[name].shape != own[name].shape:
                state[name] = own[name]
        weights.fill(network, state, label)

    def task(self, card: Mapping[str, Any], steps: int) -> ClassificationTask:
        """The classifier's task."""
        network = self.network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return ClassificationTask(
            network, self.recipe.train, steps, self.contract(card), self.data, len(self.mirror), self.multi_label
        )

    def training_data(self, prepared: Store) -> TrainingData:
        """The store's images, and those that statistics of batch norms are estimated from, where there are any."""
        settings, data, seed = self.recipe.train, self.data, self.recipe.seed
        mirror = self.mirror if data.augmentation.mirrored else ()
        train_set = self._stored(prepared, "train", augment=self.varied(), mirror=mirror, seed=seed)
        val_set = self._stored(prepared, "validation")
        order = functools.partial(DrawOrder, train_set.labels(), seed=seed, balance=data.balance)

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            drawn = order(batch_size=settings.batch_size, steps=batches, start=start, rank=rank, world_size=world_size)
            return DataLoader(train_set, batch_sampler=drawn, collate_fn=_as_it_is)

        validation = DataLoader(val_set, batch_size=64, collate_fn=_as_it_is) if len(val_set) else None
        statistics = None
        if settings.norm_images and validation is not None:  # drawn as training draws them
            drawn = order(batch_size=64, steps=max(1, settings.norm_images // 64))
            statistics = DataLoader(self._stored(prepared, "train"), batch_sampler=drawn, collate_fn=_as_it_is)
        return TrainingData(loader, len(train_set), validation, statistics)

    def finish_model(self, model: Path, prepared: Store) -> None:
        """Calibrate on the validation split."""
        val_set = self._stored(prepared, "validation")
        if len(val_set):
            classifier = self.classifier(model, symmetries=self.data.symmetries, calibrated=False)
            calibrate(model, classifier, self._stored(prepared, "train"), val_set, self.data.coverage)

    def _stored(self, store: Store, split: str, **options: Any) -> StoredImages:
        parts = [{name: store.array(case, name) for name in case["arrays"]} for case in store.cases(split)]
        return StoredImages(parts, self.data.size, **options)

    def evaluate(self, model: Path, sources: Sequence[ImageSource[Item]], folder: Path) -> None:
        """Score the test images as a user's are, with calibrated probabilities and prediction sets."""
        data, names, seed = self.data, self.class_names(), self.recipe.seed
        parts, keys = [], []
        for source in sources:
            try:
                parts.append(to_sample(source, size=data.stored, crop=data.crop, classes=len(names)).arrays)
                keys += [item.key for item in source.items]
            except InputError:
                if not data.skip_unreadable:
                    raise
        images = StoredImages(parts, data.size)
        classifier = self.classifier(model, symmetries=data.symmetries, threads=self.recipe.train.threads)
        with contextlib.closing(Meter("evaluate")) as meter:
            scores, outliers = predict_all(classifier, images, meter)
        targets = images.targets()
        figures: Figures = {"images": len(targets)}
        if not self.multi_label:
            figures |= calibration_figures(classifier, scores, targets, data.coverage, seed)
            figures |= handedness(scores, targets, self.mirror)
        if outliers is not None:
            figures["called_outliers"] = float(outliers.mean())
        tables = []
        if data.merged:
            tables.append(merged_table(figures, scores, targets, names, data.merged))
        if data.corruption_images:
            found = self.robustness(classifier.folder, images, folder)
            figures |= figures_of(found)
            tables += image_tables(found)
        write_classification(
            folder,
            scores,
            targets,
            names,
            multi_label=self.multi_label,
            picture=images.picture,
            figures=figures,
            tables=tables,
            resamples=self.recipe.evaluate.resamples,
            seed=seed,
        )
        write_predictions(folder / "predictions.csv", keys, targets, scores, names)

    def robustness(self, model: Path, images: StoredImages, folder: Path) -> ImageMeasurement:
        """Measure the model under the domain's corruptions, on single views of test images spread evenly over them."""
        count = min(self.data.corruption_images, len(images))
        chosen = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))
        batch, targets = images.__getitems__([int(number) for number in chosen])["image"].numpy(), images.targets()
        classifier = self.classifier(model, symmetries=False, threads=self.recipe.train.threads)

        def score(name: str | None, severity: int) -> tuple[np.ndarray, str]:
            scores, digest = [], hashlib.sha256()
            for start in range(0, len(batch), 64):
                part = batch[start : start + 64]
                if name is not None:
                    numbers = chosen[start : start + 64]
                    pairs = zip(part, numbers, strict=True)
                    part = np.stack([self.corrupted(name, image, severity, int(number)) for image, number in pairs])
                digest.update(np.ascontiguousarray(part).tobytes())
                scores.append(classifier.predict(torch.from_numpy(part)).probabilities)
            return np.concatenate(scores), digest.hexdigest()

        def picture(name: str | None, severity: int) -> np.ndarray:
            image = batch[0] if name is None else self.corrupted(name, batch[0], severity, int(chosen[0]))
            values = image if image.dtype == np.uint8 else (image * 255 + 0.5).astype(np.uint8)
            shown = values if len(values) == 3 else np.repeat(values.mean(0, keepdims=True).astype(np.uint8), 3, 0)
            return shown.transpose(1, 2, 0)

        with contextlib.closing(Meter("corrupt")) as meter:
            found = measure(
                score,
                targets[chosen],
                self.class_names(),
                self.corruptions(),
                multi_label=self.multi_label,
                resamples=self.recipe.evaluate.resamples,
                seed=self.recipe.seed,
                on_progress=meter,
            )
        write_robustness(folder, found, picture)
        return found


def to_sample(source: ImageSource[Item], *, size: int, crop: float, classes: int) -> Sample:
    """A part of the data as the store keeps it, without its names."""
    arrays, record = read_images(source, size, crop, classes)
    name = f"case-{record['sha256'][:12]}"
    return Sample(name, name, source.split, arrays, record)


def _as_it_is(batch: Any) -> Any:
    return batch
