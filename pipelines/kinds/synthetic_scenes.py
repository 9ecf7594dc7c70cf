"""Maps of surfaces learned from scenes that are drawn from spectra: no image is needed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from geovision.contract import InputContract
from geovision.datasets.patches import IGNORED
from geovision.metrics import confusion, map_figures
from geovision.models.spectral_mapper import SpectralMapper
from geovision.spectra.drawing import CLASSES, NEEDED, DrawnScenes, SceneDrawer
from geovision.spectra.library import Part
from pipelines.kinds.kind import Kind, TrainingData
from pipelines.kinds.scene_mapping import mapping_tables
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import SyntheticSceneData
from pipelines.report.results import write_summary
from pipelines.runtime.processes import share_of
from pipelines.tracking.datasets import DatasetRecord
from pipelines.training.tasks.mapping import Batch, SpectralMappingTask
from shared_backbones import weights
from shared_backbones.classification.calibration import fit_temperature
from shared_backbones.classification.figures import calibration_error
from shared_backbones.errors import InputError, require
from shared_backbones.json_values import Document, Entries

_COUNTED = 20  # one pixel in so many is kept for calibration: neighbours say the same


@dataclass(frozen=True)
class Spectra:
    """Spectra that scenes are drawn from.

    Attributes:
        library: Version of the package that has those of land surfaces.
    """

    library: str

    def training_digest(self) -> str:
        """What names the spectra."""
        return f"earthlib {self.library}"


class SyntheticScenes(Kind[SyntheticSceneData, Spectra]):
    """A network learns to map surfaces from scenes that are drawn as they are needed.

    Validation draws with spectra of sources that training does not see, and the test with others again.
    """

    section = SyntheticSceneData
    role = "segmenter"
    monitor = "validation_miou"
    evaluates = True

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.contract = InputContract.from_card({"input": self.input_section()}, recipe.name)

    def check_settings(self) -> None:
        """Refuse a number of epochs, other classes than those that are drawn, and networks of fixed bands."""
        recipe = self.recipe
        if recipe.train.steps is None:
            raise InputError(f"recipe {recipe.name}: drawn scenes have no end; give train.steps, not train.epochs")
        if self.class_names() != list(CLASSES):
            raise InputError(
                f"recipe {recipe.name}: card.classes are {', '.join(self.class_names())}; expected those that are "
                f"drawn: {', '.join(CLASSES)}"
            )
        if recipe.model.architecture != "spectral_mapper":
            raise InputError(
                f"recipe {recipe.name}: model.architecture is {recipe.model.architecture}, expected spectral_mapper: "
                "drawn scenes have other bands each time"
            )

    def takes_nothing(self) -> bool:
        """No files: scenes are drawn."""
        return True

    @property
    def has_background(self) -> bool:
        """No: each class is a surface."""
        return False

    def find_sources(self) -> list[Path]:
        """No files."""
        return []

    def test_sources(self) -> list[Path]:
        """No files: the test is drawn, too."""
        return []

    def preparation_settings(self) -> Entries:
        """The library of spectra."""
        require("earthlib", "train")
        return {"earthlib": version("earthlib")}

    def prepare(self, sources: Sequence[Path], folder: Path) -> None:
        """Nothing is prepared."""

    def open(self, folder: Path) -> Spectra:
        """The library of spectra as it is installed."""
        return Spectra(str(self.preparation_settings()["earthlib"]))

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.contract.bands), self.data.size, self.data.size), np.float32)

    def batch_settings(self) -> Entries:
        """How scenes are drawn."""
        return self.data.model_dump(include={"size", "sensors", "validation_scenes"})

    def evaluation_settings(self) -> Entries:
        """How test scenes are drawn."""
        return self.data.model_dump(include={"size", "sensors", "test_scenes"})

    def dataset_records(self, folder: Path) -> list[DatasetRecord]:
        """What is noted of the data in the tracking store."""
        known = self.open(folder)
        return [DatasetRecord(self.recipe.name, known.training_digest().replace(" ", "-"), "train", {"num_rows": 0})]

    def input_section(self, prepared: Any = None) -> Entries:
        """The card's `input`: any bands, by their wavelength."""
        given = self.recipe.card.get("input", {})
        return {
            "sensor": "reflectance",
            "bands": ["blue", "green", "red", "nir", "swir16", "swir22"],
            "needed": list(NEEDED),
            "unit": "reflectance",
            "scale": 1.0,
            "gsd_m": None,
            "size": self.data.size,
            "tile": 256,
            "normalisation": "none",
            "mean": [],
            "std": [],
            **given,
        }

    def training_section(self) -> Entries:
        """Where the spectra are from."""
        return {"spectra": f"earthlib {version('earthlib')}", "sensors": self.data.sensors}

    def training_data(self, prepared: Spectra) -> TrainingData:
        """An endless stream; validation scenes are the same each time."""
        data, seed = self.data, self.recipe.seed
        size = self.recipe.train.batch_size

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            stream = _Stream(self._drawer("train"), share_of(size, world_size), seed, start, rank, world_size)
            return DataLoader(stream, batch_size=None, num_workers=data.workers, persistent_workers=data.workers > 0)

        batches = -(-data.validation_scenes // size)
        validation = [_tensors(scenes) for scenes in self._drawn("validation", batches, size)]
        return TrainingData(loader, None, DataLoader(_Fixed(validation), batch_size=None))

    def task(self, card: Document, steps: int) -> SpectralMappingTask:
        """The task of mapping from other bands each time."""
        return SpectralMappingTask(self.network(), self.recipe.train, steps, self.contract, self.class_names(), False)

    def finish_model(self, model: Path, prepared: Spectra) -> None:
        """Divide the logits by the temperature that fits the validation scenes."""
        network, card = _load(model)
        logits, labels = [], []
        size = self.recipe.train.batch_size
        for scenes in self._drawn("validation", -(-self.data.validation_scenes // size), size):
            known = scenes.labels != IGNORED
            answer = _answer(network, scenes).transpose(0, 2, 3, 1)
            logits.append(answer[known][::_COUNTED])
            labels.append(scenes.labels[known][::_COUNTED])
        temperature = fit_temperature(np.concatenate(logits), np.concatenate(labels).astype(np.int64))
        network.cool_(temperature)
        own = {"architecture", "arguments", "weights_sha256"}
        said = {key: value for key, value in card.items() if key not in own}
        weights.save(model, network, {**said, "temperature": temperature})

    def evaluate(self, model: Path, sources: Sequence[Path], folder: Path) -> None:
        """Map scenes drawn from spectra of sources that were left out of the training."""
        network, names = _load(model)[0], self.class_names()
        matrix = np.zeros((len(names), len(names)), np.int64)
        probabilities, labels = [], []
        for scenes in self._drawn("test", -(-self.data.test_scenes // 8), 8):
            scores = torch.from_numpy(_answer(network, scenes)).softmax(1).numpy()
            matrix += confusion(scores.argmax(1), scenes.labels, len(names))
            known = scenes.labels != IGNORED
            probabilities.append(scores.transpose(0, 2, 3, 1)[known][::_COUNTED])
            labels.append(scenes.labels[known][::_COUNTED])
        figures = map_figures(matrix, names)
        recalls = {f"recall_{row['name']}": row["recall"] for row in figures["classes"]}
        scores = np.concatenate(probabilities)
        error = calibration_error(scores.max(1), scores.argmax(1) == np.concatenate(labels))
        shown = {name: figures[name] for name in ("accuracy", "majority", "mean_iou", "macro_f1")}
        write_summary(folder, {**shown, "calibration_error": error, **recalls}, mapping_tables(figures, matrix, names))

    def _drawer(self, part: Part) -> SceneDrawer:
        return SceneDrawer(part, self.data.size, self.data.sensors)

    def _drawn(self, part: Part, batches: int, size: int) -> Iterator[DrawnScenes]:
        """The same scenes each time."""
        drawer = self._drawer(part)
        for number in range(batches):
            yield drawer(
                size, np.random.default_rng([self.recipe.seed, 1 + ("validation", "test").index(part), number])
            )


class _Stream(IterableDataset[Batch]):
    """Batches without end; each depends on the seed and on its number alone."""

    def __init__(self, drawer: SceneDrawer, size: int, seed: int, start: int, rank: int, world_size: int) -> None:
        self.drawer, self.size, self.seed, self.start = drawer, size, seed, start
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in count(self.start + index, workers):
            yield _tensors(self.drawer(self.size, np.random.default_rng([self.seed, 0, number, self.rank])))


class _Fixed(torch.utils.data.Dataset[Batch]):
    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def _tensors(scenes: DrawnScenes) -> Batch:
    return {name: torch.from_numpy(value) if name != "wavelengths" else value for name, value in asdict(scenes).items()}


def _load(model: Path) -> tuple[SpectralMapper, Document]:
    """A trained network in eval mode, and its card."""
    trained = weights.load(model)
    if not isinstance(trained.module, SpectralMapper):
        raise TypeError(f"{type(trained.module).__name__} does not take any bands")
    return trained.module.eval(), {**trained.card}


def _answer(network: SpectralMapper, scenes: DrawnScenes) -> np.ndarray:
    """Logits of drawn scenes, `(B, K, S, S)`."""
    network.see(scenes.wavelengths)
    with torch.inference_mode():
        return network(torch.from_numpy(scenes.images)).numpy()
