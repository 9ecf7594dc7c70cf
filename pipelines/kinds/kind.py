"""The kinds of data a recipe can name, and what all of them share."""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch

from pipelines.data.store import Sample, Store, write_store
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.section import DataSection
from pipelines.recipe.shown import shown_init
from pipelines.runtime.processes import first_process
from pipelines.runtime.progress import Meter
from pipelines.tracking.datasets import DatasetRecord
from shared_backbones import architectures, weights
from shared_backbones.card import read_card
from shared_backbones.catalogue import Catalogue
from shared_backbones.errors import InputError
from shared_backbones.folds import fold_name, split_of
from shared_backbones.json_values import Document, Entries
from shared_backbones.networks.pyramids import fill_backbone

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from pipelines.training.loop import Log
    from pipelines.training.tasks.task import Task

KINDS = {
    "synthetic_volumes": "pipelines.kinds.synthetic_volumes:SyntheticSegmentation",
    "volumes": "pipelines.kinds.volumes:VolumeSegmentation",
    "volume_patches": "pipelines.kinds.volume_patches:VolumePatchSegmentation",
    "thick_slices": "pipelines.kinds.thick_slices:ThickSlices",
    "scene_pretraining": "pipelines.kinds.scene_pretraining:ScenePretraining",
    "scene_mapping": "pipelines.kinds.scene_mapping:SceneMapping",
    "scene_instances": "pipelines.kinds.scene_instances:SceneInstances",
    "synthetic_scenes": "pipelines.kinds.synthetic_scenes:SyntheticScenes",
    "restoration": "pipelines.kinds.restoration:Restoration",
    "satellite_images": "pipelines.kinds.satellite_images:SatelliteClassification",
    "galaxies": "pipelines.kinds.galaxies:GalaxyClassification",
    "medical_images": "pipelines.kinds.medical_images:MedicalClassification",
    "image_segmentation": "pipelines.kinds.image_segmentation:ImageSegmentation",
}
"""Where each kind is; imported when a recipe names it, as each domain has heavy readers of its own."""
SPLITS = ("train", "validation", "test")
_CONSEQUENCES = {
    "train": "the network can learn nothing; look at the labels, or at how the recipe reads them",
    "validation": "its figures say nothing; give it other cases, or a larger share",
}

Data = TypeVar("Data", bound=DataSection)


class PreparedData(Protocol):
    """What a preparation opens as."""

    def training_digest(self) -> str:
        """Digest of what a training reads."""
        ...


Prepared = TypeVar("Prepared", bound=PreparedData)


@dataclass(frozen=True)
class TrainingData:
    """What training and validation read.

    Attributes:
        loader: Training loader for `(batches, start, rank, world_size)`: how many batches there are in all, the
            first one, and the process that asks.
        items: Training items, which are an epoch; None where they have no end.
        validation: Loader of the validation split, or None.
        statistics: Loader that statistics of batch norms are estimated from before each validation, or None.
    """

    loader: "Callable[[int, int, int, int], DataLoader]"
    items: int | None
    validation: "DataLoader | None" = None
    statistics: "DataLoader | None" = None


def find_kind(recipe: Recipe) -> Any:
    """What the stages do for a recipe.

    Raises:
        InputError: something in the recipe or its data is wrong.
    """
    module, _, name = KINDS[recipe.data.kind].partition(":")
    kind = getattr(importlib.import_module(module), name)(recipe)
    kind.check_network()
    return kind


class Kind(Generic[Data, Prepared]):
    """What all kinds share: the folder of the data, and the network.

    It is generic over the recipe's section of the data, and over what a preparation opens as.

    Args:
        recipe: Recipe whose data are of that kind.

    Attributes:
        section: Class of the recipe's section of the data.
        data: That section.
        role: What the network must be.
        monitor: Validation figure that chooses the checkpoint; higher is better.
        evaluates: Whether there is something to be scored.
    """

    role: ClassVar[architectures.Role]
    monitor = ""
    evaluates = False
    section: type[Data]

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.data = recipe, _section_of(recipe.data, self.section)
        architectures.check_role(recipe.model.architecture, self.role)
        self.check_settings()
        if not recipe.data.root and not self.takes_nothing():
            raise InputError(f"recipe {recipe.name}: data.root is needed; pass data.root=FOLDER")
        self.root = Path(recipe.data.root or ".")
        if not (self.root.is_dir() or (self.takes_file() and self.root.is_file())):
            raise InputError(f"data.root={self.root}: not a folder; pass the folder of the data")
        if recipe.model.init:
            self.find_model(recipe.model.init)

    def check_network(self) -> None:
        """Find out whether the network suits the data: what nothing can use shows now, not after training.

        Raises:
            InputError: it does not, or what it starts from does not suit it.
        """
        recipe, model = self.recipe, self.recipe.model
        try:
            network = architectures.check(
                model.architecture,
                model.arguments,
                role=self.role,
                shape=self.example().shape[1:],
                classes=len(recipe.card.get("classes", ())),
            )
        except InputError as error:
            raise InputError(f"recipe {recipe.name}: model: {error}") from None
        published = model.backbone_weights
        if published and not hasattr(network, "backbone"):
            raise InputError(f"recipe {recipe.name}: {model.architecture} has no backbone; leave backbone_weights out")
        if published and not Path(published).is_file():
            raise InputError(f"model.backbone_weights={published}: no such file; give weights, .safetensors or .pth")

    def check_settings(self) -> None:
        """Refuse settings that contradict one another, before any file is looked at."""

    def takes_file(self) -> bool:
        """Whether the data may be one file in place of a folder."""
        return False

    def takes_nothing(self) -> bool:
        """Whether there are no files, as images are drawn."""
        return False

    def find_model(self, name_or_folder: str) -> Path:
        """Folder of the trained model that training starts from: one of the domain's bundled ones, or the user's."""
        return Catalogue(self.section.domain).find_model(name_or_folder)

    def init_digest(self) -> str | None:
        """Sha256 of the weights that training starts from, if it starts from a trained model's."""
        return str(read_card(self.find_model(init))["weights_sha256"]) if (init := self.recipe.model.init) else None

    def skips_unreadable(self) -> bool:
        """Whether sources that cannot be used are left out."""
        return bool(getattr(self.data, "skip_unreadable", False))

    def check_left_out(self, prepared: Prepared) -> None:
        """Refuse prepared data that an earlier run has left sources out of, where this one is to use them all."""
        skipped = prepared.manifest["skipped"] if isinstance(prepared, Store) else 0
        if skipped and not self.skips_unreadable():
            raise InputError(
                f"{skipped} cases or parts cannot be used: an earlier run left them out; fix them, leave them out with "
                "--skip-unreadable (data.skip_unreadable=true), or read them again with --restart prepare"
            )

    @property
    def has_background(self) -> bool:
        """Whether the first class is what is of no other."""
        return self.role == "segmenter"

    def label_counts(self, prepared: Prepared, split: str) -> Sequence[int]:
        """How often each class is among the labels of a split; empty where that is not known."""
        return ()

    def label_warnings(self, prepared: Prepared) -> list[str]:
        """What labels of training and validation lack, each in a line."""
        names, lines = self.class_names(), []
        real = slice(1, None) if self.has_background else slice(None)
        for split in ("train", "validation"):
            counts = list(self.label_counts(prepared, split))
            lacking = [name for name, count in list(zip(names, counts, strict=False))[real] if not count]
            if counts and not any(counts[real]):
                lines.append(f"no {split} label is of any class: {_CONSEQUENCES[split]}")
            elif any(counts) and lacking:
                lines.append(f"no {split} label is of: {', '.join(lacking)}")
        return lines

    def notices(self, prepared: Prepared) -> list[str]:
        """What a user should know of the data."""
        return []

    def identify(self, sources: Sequence[Any]) -> list[list[Any]]:
        """Files as they are now: a changed one makes another preparation."""
        stats = [(path, path.stat()) for path in sources]
        return [[os.path.relpath(path, self.root), stat.st_size, stat.st_mtime_ns] for path, stat in stats]

    def store(self, folder: Path) -> Store:
        """A prepared store, with the fold that the recipe validates on."""
        return Store(folder, self.recipe.fold.number if self.recipe.fold else None)

    def needed_splits(self, *splits: str) -> tuple[str, ...]:
        """Splits that must not be empty: those given, or every fold."""
        return tuple(map(fold_name, range(1, self.recipe.folds + 1))) if self.recipe.folds else splits

    def split_of(self, source: Any) -> str:
        """The split of a source, or of an item of one, while the recipe's fold is validated on."""
        return split_of(source.split, self.recipe.fold.number if self.recipe.fold else None)

    def fill_store(
        self, folder: Path, sources: Sequence[Any], convert: Callable[[Any], Sample], **options: Any
    ) -> None:
        """Convert sources into a store, telling what cannot be used and how far it is; see `write_store`."""
        with contextlib.closing(Meter("prepare")) as meter:
            write_store(
                folder,
                sources,
                convert,
                settings=self.preparation_settings(),
                on_failure=lambda reason: print(f"cannot be used: {reason}", file=sys.stderr, flush=True),
                on_progress=meter,
                **options,
            )

    def preparation_settings(self) -> Entries:
        """What decides the prepared data, in JSON types."""
        raise NotImplementedError

    def of_test_split(self, sources: Sequence[Any], lacking: str) -> list[Any]:
        """Those of sources that are scored.

        Raises:
            InputError: there are none; `lacking` says what there is none of, and the way out.
        """
        tested = [source for source in sources if source.split == "test"]
        if not tested:
            raise InputError(f"recipe {self.recipe.name}: no test {lacking}")
        return tested

    def dataset_records(self, folder: Path) -> list[DatasetRecord]:
        """What is noted of the data in the tracking store: each split of the prepared store."""
        store: Any = self.store(folder)  # what `open` returns where there is a store
        return [
            DatasetRecord(
                name=f"{self.recipe.name}-{split}",
                digest=store.split_digest(split)[:32],
                context=split,
                profile=self.profile(store, split),
                fields=store.fields(),
            )
            for split in SPLITS
            if store.cases(split)
        ]

    def profile(self, prepared: Prepared, split: str) -> Entries:
        """Counts of a split: of its items, and of the labels of each class, in voxels or images."""
        counts = self.label_counts(prepared, split)
        labels = dict(zip(self.class_names(), counts, strict=False)) if counts else None
        return {"num_rows": self.count(prepared, split), **({"labels": labels} if labels else {})}

    def count(self, prepared: Prepared, split: str) -> int:
        """Number of items of a split."""
        return len(prepared.cases(split)) if isinstance(prepared, Store) else 0

    def evaluation_settings(self) -> Entries:
        """What of the data's section decides an evaluation, beside the recipe's own."""
        return {}

    def figures(self, summary: Document) -> dict[str, float]:
        """What the tracking store notes of an evaluation."""
        return {f"test_{name}": value for name, value in summary["figures"].items() if value is not None}

    def lines(self, summary: Document) -> list[str]:
        """The figures of an evaluation for a terminal."""
        return [f"  {name.replace('_', ' '):28} {_text(value)}" for name, value in summary["figures"].items()]

    def network(self) -> torch.nn.Module:
        """The network to train, with the weights that the recipe starts from."""
        section = self.recipe.model
        torch.manual_seed(self.recipe.seed)
        network = architectures.build(section.architecture, section.arguments)
        if section.init:
            self.start_from(network, weights.load(self.find_model(section.init)), f"model.init={section.init}")
        if section.backbone_weights:
            backbone = network.get_submodule("backbone")
            getattr(backbone, "fill", functools.partial(fill_backbone, backbone))(section.backbone_weights)
        return network

    def start_from(self, network: torch.nn.Module, trained: weights.TrainedModel, label: str) -> None:
        """Fill a network with the weights of a trained model."""
        weights.fill(network, weights.tensors_of(trained.module), label)

    def card(self, prepared: Prepared) -> Entries:
        """The trained model's card, but for what training itself adds."""
        recipe = self.recipe
        return {
            **recipe.card,
            "input": self.input_section(prepared),
            "training": {
                **recipe.card.get("training", {}),
                "recipe": recipe.name,
                "seed": recipe.seed,
                "init": shown_init(recipe),
                **({"fold": recipe.fold.model_dump()} if recipe.fold else {}),
                "batch_size": recipe.train.batch_size * recipe.train.accumulate,
                **self.training_section(),
            },
        }

    def input_section(self, prepared: Prepared) -> Entries:
        """The card's `input`: the recipe's, with the contract that the data give."""
        raise NotImplementedError

    def training_section(self) -> Entries:
        """What else the card's `training` says of the data."""
        return {}

    def training_data(self, prepared: Prepared) -> "TrainingData":
        """What training and validation read."""
        raise NotImplementedError

    def task(self, card: Document, steps: int) -> "Task":
        """What learns: the network with its loss, over a schedule of `steps` optimiser steps."""
        raise NotImplementedError

    def finish_model(self, model: Path, prepared: Prepared) -> None:
        """What follows training in the first process, such as calibration; by default nothing."""

    def train(self, prepared: Prepared, folder: Path, log: "Log | None") -> None:
        """Train on the prepared data, and choose the checkpoint on the validation split.

        Args:
            prepared: What `open` returned.
            folder: Gets the checkpoints, and the trained model as `model`.
            log: Takes figures and the step.
        """
        from pipelines.training.loop import Batches, fit

        settings, data, card = self.recipe.train, self.training_data(prepared), self.card(prepared)
        size = settings.batch_size * settings.accumulate
        whole = settings.steps if data.items is None else data.items // size
        epoch = settings.steps_per_epoch or max(1, whole or 1)
        steps = settings.steps or epoch * (settings.epochs or 1)
        model = fit(
            self.task(card, steps),
            Batches(functools.partial(data.loader, steps * settings.accumulate), data.validation, data.statistics),
            settings,
            steps=steps,
            validate_every=settings.validate_every or epoch,
            seed=self.recipe.seed,
            folder=folder,
            card=card,
            origin=folder.name,
            monitor=self.monitor,
            log=log,
        )
        if first_process():
            self.finish_model(model, prepared)

    def class_names(self) -> list[str]:
        """Names of the classes, by number."""
        return [str(entry["name"]) for entry in self.recipe.card["classes"]]

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` or `(B, C, X, Y, Z)` float32."""
        raise NotImplementedError


def _section_of(data: DataSection, section: type[Data]) -> Data:
    if not isinstance(data, section):
        raise TypeError(f"data are {type(data).__name__}, expected {section.__name__}")
    return data


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
