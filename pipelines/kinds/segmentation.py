"""What the stages do for segmentation of volumes: with synthetic training images, and with labelled ones."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medvision.contract import InputContract
from medvision.datasets.layouts import Case, find_cases
from medvision.datasets.preparation import bytes_of, prepare, read_case
from medvision.datasets.slices import Augment, LabelledSlices, SliceOrder
from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings, SyntheticSlices
from medvision.metrics.protocols import evaluate_case, find_protocol
from medvision.models.catalogue import find_model
from medvision.segmentation import Segmenter
from pipelines.data.store import Sample, Store
from pipelines.evaluation import segmentation
from pipelines.kinds.kind import Kind
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.shown import shown_init
from pipelines.recipe.volumes import SyntheticData, VolumeData
from pipelines.runtime.processes import share_of
from pipelines.runtime.progress import Meter
from pipelines.tracking.runs import DatasetRecord
from pipelines.training.loop import Batches, Log, fit
from pipelines.training.tasks.task import SegmentationTask
from shared_backbones.errors import InputError


class Segmentation(Kind):
    """What both kinds of training data share: the network, its card, and the loop.

    Args:
        recipe: a segmentation recipe.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.contract = InputContract.from_card(self.card(), recipe.name)

    def find_model(self, name_or_folder: str) -> Path:
        """Folder of a bundled model, or of the user's."""
        return find_model(name_or_folder)

    def card(self) -> dict[str, Any]:
        """The trained model's card, but for what training adds."""
        raise NotImplementedError

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        data = self.recipe.data
        assert isinstance(data, SyntheticData | VolumeData)  # noqa: S101 - chosen by the data's kind
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
            origin=folder.name,
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
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
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
                "init": shown_init(recipe),
                "batch_size": recipe.train.batch_size * recipe.train.accumulate,
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
                start=start * size // data.slices_per_volume,
                rank=rank,
                world_size=world_size,
            )
            share = share_of(size, world_size)
            return DataLoader(stream, share, num_workers=data.workers, persistent_workers=data.workers > 0)

        steps = self.recipe.train.steps
        assert steps is not None  # noqa: S101 - seen to when the recipe was read
        self._fit(Batches(loader), steps, steps, folder, log)

    def _synthesis(self) -> SynthesisSettings:
        known = [setting.name for setting in fields(SynthesisSettings)]
        for name in self.data.synthesis:
            if name not in known:
                raise InputError(
                    f"recipe {self.recipe.name}: data.synthesis.{name}: unknown key; "
                    f"expected one of: {', '.join(known)}"
                )
        return SynthesisSettings(**self.data.synthesis)


class VolumeSegmentation(Segmentation):
    """Training and evaluation on volumes with label maps."""

    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        assert isinstance(recipe.data, VolumeData)  # noqa: S101 - chosen by the data's kind
        self.data = recipe.data
        find_protocol(recipe.evaluate.protocol)
        super().__init__(recipe)
        self.cases = find_cases(
            self.data.layout, self.root, validation=self.data.validation, seed=recipe.seed, **self.data.options
        )

    def find_sources(self) -> list[Case]:
        """All cases: those of the test are checked before hours of training, not after."""
        return self.cases

    def test_sources(self) -> list[Case]:
        """Cases that are scored.

        Raises:
            InputError: there are none.
        """
        found = [case for case in self.cases if case.split == "test"]
        if not found:
            raise InputError(
                f"recipe {self.recipe.name}: no test case; name some in data.options.test, test_ids_above or test_share"
            )
        return found

    def identify(self, sources: Sequence[Any]) -> list[list[Any]]:
        """Files and splits as they are now: a changed one makes another preparation."""
        paths = [path for case in sources for path in (*case.image, *case.labels)]
        return [*super().identify(paths), [case.split for case in sources]]

    def preparation_settings(self) -> dict[str, Any]:
        """What decides the stored volumes."""
        return {
            "classes": list(range(len(self.class_names()))),
            "spacing_mm": self.data.spacing_mm,
            "normalisation": self.data.normalisation,
        }

    def prepare(self, sources: Sequence[Case], folder: Path) -> None:
        """Check all cases, and convert those of training and validation."""
        self.fill_store(
            folder,
            sources,
            functools.partial(to_sample, contract=self.contract),
            splits=("train", "validation") if self.data.validation else ("train",),
            estimate=functools.partial(bytes_of, contract=self.contract),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store."""
        return Store(folder)

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data."""
        skipped = prepared.manifest["skipped"]
        return [f"warning: {skipped} of {skipped + len(prepared.cases())} cases were left out"] if skipped else []

    def batch_settings(self) -> dict[str, Any]:
        """How batches are drawn."""
        return self.data.model_dump(include={"slices", "views", "size", "foreground", "augmentation"})

    def card(self) -> dict[str, Any]:
        """The recipe's card with the contract that the data section gives."""
        recipe, data = self.recipe, self.data
        return {
            **recipe.card,
            "input": {
                **recipe.card.get("input", {}),
                "spacing_mm": data.spacing_mm,
                "normalisation": data.normalisation,
                "slices": data.slices,
                "views": data.views,
                "smallest_slice": data.size,
            },
            "training": {
                **recipe.card.get("training", {}),
                "recipe": recipe.name,
                "seed": recipe.seed,
                "init": shown_init(recipe),
                "batch_size": recipe.train.batch_size * recipe.train.accumulate,
            },
        }

    def train(self, prepared: Store, folder: Path, log: Log | None) -> None:
        """Train on slices of the store, and choose the checkpoint on the validation split."""
        data, settings, seed = self.data, self.recipe.train, self.recipe.seed
        shared: dict[str, Any] = {"offsets": data.slices, "views": data.views, "size": data.size}
        augment = Augment(data.augmentation.model_dump(), data.size)
        learnt = LabelledSlices(StoredVolumes(prepared, "train"), **shared, augment=augment)
        held_out = LabelledSlices(StoredVolumes(prepared, "validation"), **shared)
        epoch = settings.steps_per_epoch or max(1, len(learnt) // settings.batch_size)
        steps = settings.steps or epoch * (settings.epochs or 1)

        def loader(start: int, rank: int, world_size: int) -> DataLoader:
            order = SliceOrder(
                learnt.labelled,
                batch_size=settings.batch_size,
                steps=steps * settings.accumulate,
                foreground=data.foreground,
                seed=seed,
                start=start,
                rank=rank,
                world_size=world_size,
            )
            return DataLoader(learnt, batch_sampler=order)

        validation = DataLoader(held_out, batch_size=2 * settings.batch_size) if len(held_out) else None
        self._fit(Batches(loader, validation), steps, epoch, folder, log)

    def evaluate(self, model: Path, sources: Sequence[Case], folder: Path) -> None:
        """Segment the test cases from their files, as a user does, and score them on their own grids.

        A case that is done is not done again after an interruption.
        """
        classes, evaluate = self.recipe.card["classes"], self.recipe.evaluate
        notes = folder / "cases.jsonl"
        done = _read_lines(notes)
        segmenter = Segmenter(model, threads=self.recipe.train.threads)
        rows: list[dict[str, Any]] = []
        skipped = 0
        with notes.open("a", encoding="utf-8") as file, contextlib.closing(Meter("evaluate")) as meter:
            for number, case in enumerate(sources):
                if number not in done:
                    try:
                        volume, labels = read_case(case, [entry["id"] for entry in classes])
                    except InputError:
                        if not self.data.skip_unreadable:
                            raise
                        skipped += 1
                        continue
                    found = segmenter.segment(volume).labels
                    scored = evaluate_case(found, labels, volume.grid.spacing_mm, classes, evaluate.protocol)
                    done[number] = [{"case": volume.case_id, **row} for row in scored]
                    file.write(json.dumps({"number": number, "rows": done[number]}) + "\n")
                    file.flush()
                rows += done[number]
                meter(number + 1, len(sources))
        if not rows:
            raise InputError(f"recipe {self.recipe.name}: no test case could be read; mend them")
        segmentation.write_tables(
            folder, rows, evaluate.protocol, seed=self.recipe.seed, resamples=evaluate.resamples, skipped=skipped
        )

    def figures(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """What the tracking store notes of an evaluation."""
        found = {f"test_{figure}": summary["overall"][figure]["mean"] for figure in segmentation.FIGURES}
        for row in summary["classes"]:
            found |= {f"test_{figure}_{row['name']}": row[figure]["mean"] for figure in segmentation.FIGURES}
        return {name: value for name, value in found.items() if value is not None}

    def lines(self, summary: Mapping[str, Any]) -> list[str]:
        """The figures of an evaluation for a terminal."""
        rows = [*summary["classes"], {"name": "mean", **summary["overall"]}]
        lines = [
            f"  {row['name']:24} Dice {_text(row['dice']['mean'])} [{_text(row['dice']['low'])}, "
            f"{_text(row['dice']['high'])}]  HD95 {_text(row['hd95_mm']['mean'])}"
            for row in rows
        ]
        return [f"  protocol {self.recipe.evaluate.protocol}", *lines]


class StoredVolumes:
    """Images and labels of one split of a store."""

    def __init__(self, store: Store, split: str) -> None:
        self.store, self.cases = store, store.cases(split)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        case = self.cases[index]
        return self.store.array(case, "image"), self.store.array(case, "labels")


def to_sample(case: Case, contract: InputContract) -> Sample:
    """A case as the store keeps it, without its name."""
    found = prepare(case, contract)
    identity = f"case-{found['record']['sha256'][:8]}"
    group = hashlib.sha256(case.subject.encode()).hexdigest()[:16]
    return Sample(identity, group, case.split, found["arrays"], found["record"])


def _read_lines(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Rows of the cases that were done, by number; a line cut off by an interruption is none."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            found[entry["number"]] = entry["rows"]
    return found


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
