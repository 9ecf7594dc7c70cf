"""What kinds of volumes with label maps have in common: their cases, the store, and the evaluation."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medvision.contract import InputContract
from medvision.datasets.layouts import UNLABELLED, Case, find_cases
from medvision.datasets.preparation import bytes_of, prepare, read_case
from medvision.metrics.protocols import evaluate_case, find_protocol
from medvision.segmentation import Segmenter
from pipelines.data.store import Sample, Store
from pipelines.evaluation import segmentation
from pipelines.kinds.segmentation import SegmentationKind
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.volumes import PatchData, VolumeData
from pipelines.report.volumes import write_case_panel
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries

Labelled = TypeVar("Labelled", VolumeData, PatchData)


class LabelledVolumesKind(SegmentationKind[Labelled, Store]):
    """Volumes with label maps, which are prepared in a store and scored on their own grids."""

    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.cases = find_cases(
            self.data.layout,
            self.root,
            validation=self.data.validation,
            seed=recipe.split_seed,
            folds=recipe.folds,
            **self.data.options,
        )
        if self.data.layout == UNLABELLED:
            raise InputError(f"data.layout={UNLABELLED}: has scans without labels; expected labels to learn from")

    def check_settings(self) -> None:
        """Refuse an unknown protocol."""
        find_protocol(self.recipe.evaluate.protocol)

    def find_sources(self) -> list[Case]:
        """All cases: those of the test are checked before hours of training, not after."""
        return self.cases

    def test_sources(self) -> list[Case]:
        """Cases that are scored.

        Raises:
            InputError: there are none.
        """
        return self.of_test_split(self.cases, "case; name some in data.options.test, test_ids_above or test_share")

    def identify(self, sources: Sequence[Any]) -> list[list[Any]]:
        """Files and splits as they are now: a changed one makes another preparation."""
        paths = [path for case in sources for path in (*case.image, *case.labels)]
        return [*super().identify(paths), *([case.split, case.subject, case.mapping] for case in sources)]

    def preparation_settings(self) -> Entries:
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
            workers=self.data.workers,
            skip_unreadable=self.data.skip_unreadable,
            splits=self.needed_splits("train", *(["validation"] if self.data.validation else [])),
            estimate=functools.partial(bytes_of, contract=self.contract),
        )

    def open(self, folder: Path) -> Store:
        """The prepared store."""
        return self.store(folder)

    def notices(self, prepared: Store) -> list[str]:
        """What a user should know of the data."""
        skipped = prepared.manifest["skipped"]
        return [f"warning: {skipped} of {skipped + len(prepared.cases())} cases were left out"] if skipped else []

    def label_counts(self, prepared: Store, split: str) -> list[int]:
        """Voxels of each class in the files of a split."""
        counts = [case["record"]["voxels"] for case in prepared.cases(split)]
        return [sum(count[str(entry["id"])] for count in counts) for entry in self.recipe.card["classes"]]

    def evaluate(self, model: Path, sources: Sequence[Case], folder: Path) -> None:
        """Segment the test cases from their files, as a user does, and score them on their own grids.

        A case that is done is not done again after an interruption.
        """
        classes, evaluate = self.recipe.card["classes"], self.recipe.evaluate
        notes = folder / "cases.jsonl"
        done = _read_lines(notes)
        segmenter = Segmenter(model, threads=self.recipe.train.threads)
        rows: list[Entries] = []
        skipped = 0
        with notes.open("a", encoding="utf-8") as file, contextlib.closing(Meter("evaluate")) as meter:
            for number, case in enumerate(sources):
                if number not in done:
                    try:
                        ids = [entry["id"] for entry in classes]
                        volume, labels = read_case(case, ids, self.contract.channels)
                    except InputError:
                        if not self.data.skip_unreadable:
                            raise
                        skipped += 1
                        continue
                    predicted = segmenter.segment(volume).labels
                    scored = evaluate_case(predicted, labels, volume.grid.spacing_mm, classes, evaluate.protocol)
                    done[number] = [{"case": volume.case_id, **row} for row in scored]
                    for name in _extremes(done, number):
                        panel = (volume.data, predicted, labels, volume.grid, classes, scored)
                        write_case_panel(folder / f"{name}.svg", *panel)
                    file.write(json.dumps({"number": number, "rows": done[number]}) + "\n")
                    file.flush()
                rows += done[number]
                meter(number + 1, len(sources))
        if not rows:
            raise InputError(f"recipe {self.recipe.name}: no test case could be read; fix them")
        segmentation.write_tables(
            folder, rows, evaluate.protocol, seed=self.recipe.seed, resamples=evaluate.resamples, skipped=skipped
        )

    def figures(self, summary: Document) -> dict[str, float]:
        """What the tracking store notes of an evaluation."""
        figures = {f"test_{figure}": summary["overall"][figure]["mean"] for figure in segmentation.FIGURES}
        for row in summary["classes"]:
            figures |= {f"test_{figure}_{row['name']}": row[figure]["mean"] for figure in segmentation.FIGURES}
        return {name: value for name, value in figures.items() if value is not None}

    def lines(self, summary: Document) -> list[str]:
        """The figures of an evaluation for a terminal."""
        rows = [*summary["classes"], {"name": "mean", **summary["overall"]}]
        lines = [
            f"  {row['name']:24} Dice {_text(row['dice']['mean'])} [{_text(row['dice']['low'])}, "
            f"{_text(row['dice']['high'])}]  HD95 {_text(row['hd95_mm']['mean'])}"
            for row in rows
        ]
        return [f"  protocol {self.recipe.evaluate.protocol}", *lines]


def _extremes(done: Mapping[int, Sequence[Document]], number: int) -> list[str]:
    """Names of the pictures that a case is drawn as: that of the lowest mean Dice so far, of the highest, or both."""
    means = {case: _mean_dice(rows) for case, rows in done.items()}
    own = means[number]
    ends = {"case_of_lowest_dice": min(means.values()), "case_of_highest_dice": max(means.values())}
    return [name for name, end in ends.items() if own == end]


def _mean_dice(rows: Sequence[Document]) -> float:
    """The mean over structures that have a Dice; 1 where none has."""
    scores = [row["dice"] for row in rows if row["dice"] is not None]
    return sum(scores) / len(scores) if scores else 1.0


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
    prepared = prepare(case, contract)
    identity = f"case-{prepared['record']['sha256'][:8]}"
    group = hashlib.sha256(case.subject.encode()).hexdigest()[:16]
    return Sample(identity, group, case.split, prepared["arrays"], prepared["record"])


def _read_lines(path: Path) -> dict[int, list[Entries]]:
    """Rows of the cases that were done, by number; a line cut off by an interruption is none."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            rows[entry["number"]] = entry["rows"]
    return rows


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
