"""What the stages do for segmentation of volumes: with synthetic training images, and with labelled ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from medvision.contract import InputContract
from medvision.datasets.layouts import Case, find_cases
from medvision.datasets.slices import Augment, LabelledSlices, SliceOrder
from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings, SyntheticSlices
from medvision.models.catalogue import find_model
from medvision.preparation import prepare_segmentation, read_case
from medvision.protocols import evaluate_case
from medvision.segmentation import Segmenter
from pipelines import evaluation
from pipelines.recipe import Recipe, SyntheticData, VolumeData
from pipelines.store import Store, open_store, write_store
from pipelines.tasks import SegmentationTask
from pipelines.tracking import DatasetRecord
from pipelines.training import Batches, Log, fit
from shared_backbones import weights
from shared_backbones.errors import InputError


class Segmentation:
    """What both kinds of training data share: the network, its card, and the loop.

    Args:
        recipe: a segmentation recipe.
    """

    evaluates = False

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        if not recipe.data.root:
            raise InputError(f"recipe {recipe.name}: data.root is needed; pass data.root=FOLDER")
        self.root = Path(recipe.data.root)
        if not self.root.is_dir():
            raise InputError(f"data.root={self.root}: not a folder; pass the folder of the data")
        InputContract.from_card(self.card(), recipe.name)  # a card that nothing can use shows now, not after training

    def card(self) -> dict[str, Any]:
        """The trained model's card, but for what training adds."""
        raise NotImplementedError

    def identify(self, sources: Sequence[Path]) -> list[list[Any]]:
        """Files as they are now: a changed one makes another preparation."""
        stats = [(path, path.stat()) for path in sources]
        return [[path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats]

    def network(self) -> torch.nn.Module:
        """The network to train, with the weights that the recipe starts from."""
        section = self.recipe.model
        torch.manual_seed(self.recipe.seed)
        network = weights.build(section.architecture, section.arguments)
        if section.init:
            trained = weights.load(find_model(section.init))
            weights.fill(network, trained.module.state_dict(), f"model.init={section.init}")
        return network

    def class_names(self) -> list[str]:
        """Names of the classes, by number."""
        return [str(entry["name"]) for entry in self.recipe.card["classes"]]

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        data = self.recipe.data
        return np.zeros((2, len(data.slices), data.size, data.size), np.float32)

    def _fit(self, batches: Batches, steps: int, epoch: int, folder: Path, log: Log | None) -> None:
        recipe = self.recipe
        fit(
            SegmentationTask(self.network(), recipe.train, steps, self.class_names()),
            batches,
            recipe.train,
            steps=steps,
            validate_every=recipe.train.validate_every or epoch,
            seed=recipe.seed,
            folder=folder,
            card=self.card(),
            log=log,
        )


class SyntheticSegmentation(Segmentation):
    """Training on slices synthesised from label maps: nothing to prepare, and no real case to evaluate on."""

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.data, SyntheticData)  # noqa: S101 - chosen by the data's kind
        self.data = recipe.data
        if recipe.train.steps is None:
            raise InputError(f"recipe {recipe.name}: synthetic data has no end; give train.steps, not train.epochs")
        super().__init__(recipe)

    def find_sources(self) -> list[Path]:
        """The label maps."""
        return sorted(path for path in self.root.iterdir() if path.is_file())

    def preparation_settings(self) -> dict[str, Any]:
        """Nothing is prepared."""
        return {}

    def prepare(self, sources: Sequence[Path], folder: Path) -> None:
        """Label maps are read as they are."""

    def open(self, folder: Path) -> list[list[Any]]:
        """What stands for the data: its files."""
        return self.identify(self.find_sources())

    def digest(self, prepared: list[list[Any]]) -> list[list[Any]]:
        """What a training on this data depends on."""
        return prepared

    def batch_settings(self) -> dict[str, Any]:
        """How batches are drawn."""
        return self.data.model_dump(exclude={"root", "workers"})

    def dataset_records(self, folder: Path) -> list[DatasetRecord]:
        """What is noted of the data in the tracking store."""
        files = self.identify(self.find_sources())
        digest = weights.hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return [DatasetRecord(name=self.recipe.name, digest=digest[:32], context="train")]

    def card(self) -> dict[str, Any]:
        """The recipe's card with the settings of the synthesis."""
        recipe, synthesis = self.recipe, asdict(self._synthesis())
        return {
            **recipe.card,
            "input": {
                **recipe.card.get("input", {}),
                "spacing_mm": synthesis["spacing_mm"],
                "slices": self.data.slices,
            },
            "training": {
                **recipe.card.get("training", {}),
                "recipe": recipe.name,
                "seed": recipe.seed,
                "init": recipe.model.init,
                "batch_size": recipe.train.batch_size * recipe.train.devices,
                "synthesis": synthesis,
            },
        }

    def train(self, prepared: Any, folder: Path, log: Log | None) -> None:
        """Train on an endless stream."""
        data, size = self.data, self.recipe.train.batch_size

        def loader(start: int, rank: int, world_size: int) -> DataLoader:
            stream = SyntheticSlices(
                LabelMapSynthesizer(str(self.root), self._synthesis()),
                context=data.slices,
                size=data.size,
                slices_per_volume=data.slices_per_volume,
                buffer=data.buffer,
                seed=self.recipe.seed,
                start=start * size * world_size // data.slices_per_volume,
                rank=rank,
                world_size=world_size,
            )
            return DataLoader(stream, size, num_workers=data.workers, persistent_workers=data.workers > 0)

        steps = self.recipe.train.steps
        assert steps is not None  # noqa: S101 - seen to when the recipe was read
        self._fit(Batches(loader), steps, steps, folder, log)

    def _synthesis(self) -> SynthesisSettings:
        known = [setting.name for setting in fields(SynthesisSettings)]
        for name in self.data.synthesis:
            if name not in known:
                raise InputError(
                    f"recipe {self.recipe.name}: data.synthesis.{name}: unknown key; expected one of: {', '.join(known)}"
                )
        return SynthesisSettings(**self.data.synthesis)


class VolumeSegmentation(Segmentation):
    """Training and evaluation on volumes with label maps."""

    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.data, VolumeData)  # noqa: S101 - chosen by the data's kind
        self.data = recipe.data
        super().__init__(recipe)
        self._cases: list[Case] | None = None

    def cases(self) -> list[Case]:
        """All cases, each with its split."""
        if self._cases is None:
            self._cases = find_cases(
                self.data.layout, self.root, validation=self.data.validation, seed=self.recipe.seed, **self.data.options
            )
        return self._cases


KINDS: Mapping[str, Any] = {"synthetic": SyntheticSegmentation, "volumes": VolumeSegmentation}
