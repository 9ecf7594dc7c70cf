"""Segmentation of volumes, learned from slices that are synthesised from label maps."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from medvision.datasets.synthetic import LabelMapSynthesizer, SynthesisSettings
from medvision.datasets.synthetic_slices import SyntheticSlices
from pipelines.kinds.kind import TrainingData
from pipelines.kinds.segmentation import SegmentationKind
from pipelines.recipe.volumes import SyntheticData
from pipelines.runtime.processes import share_of
from pipelines.tracking.datasets import DatasetRecord
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries


@dataclass(frozen=True)
class LabelMaps:
    """Label maps that training reads as they are.

    Attributes:
        files: name, size and time of each.
    """

    files: list[list[Any]]

    def training_digest(self) -> str:
        """Digest of the files as they are."""
        return hashlib.sha256(json.dumps(self.files).encode()).hexdigest()


class SyntheticSegmentation(SegmentationKind[SyntheticData, LabelMaps]):
    """Training on slices synthesised from label maps: nothing to prepare, and no real case to evaluate on."""

    section = SyntheticData

    def check_settings(self) -> None:
        """Refuse a number of epochs."""
        if self.recipe.train.steps is None:
            raise InputError(
                f"recipe {self.recipe.name}: synthetic data have no end; give train.steps, not train.epochs"
            )

    def find_sources(self) -> list[Path]:
        """The label maps."""
        return sorted(path for path in self.root.iterdir() if path.is_file())

    def preparation_settings(self) -> Entries:
        """Nothing is prepared."""
        return {}

    def prepare(self, sources: Sequence[Path], folder: Path) -> None:
        """Label maps are read as they are."""

    def open(self, folder: Path) -> LabelMaps:
        """The label maps as they are now."""
        return LabelMaps(self.identify(self.find_sources()))

    def example(self) -> np.ndarray:
        """An input of the network, `(B, C, H, W)` float32."""
        return np.zeros((2, len(self.data.slices), self.data.size, self.data.size), np.float32)

    def batch_settings(self) -> Entries:
        """How batches are drawn."""
        return self.data.model_dump(exclude={"root", "workers"})

    def dataset_records(self, folder: Path) -> list[DatasetRecord]:
        """What is noted of the data in the tracking store."""
        maps = self.open(folder)
        profile = {"num_rows": len(maps.files)}
        return [DatasetRecord(self.recipe.name, maps.training_digest()[:32], "train", profile)]

    def input_section(self, prepared: Any = None) -> Entries:
        """The spacing of the synthesis, and the slices that become channels."""
        given = self.recipe.card.get("input", {})
        return {**given, "spacing_mm": self._synthesis().spacing_mm, "slices": self.data.slices}

    def training_section(self) -> Entries:
        """The settings of the synthesis."""
        return {"synthesis": asdict(self._synthesis())}

    def training_data(self, prepared: LabelMaps) -> TrainingData:
        """An endless stream."""
        data, size = self.data, self.recipe.train.batch_size

        def loader(batches: int, start: int, rank: int, world_size: int) -> DataLoader:
            stream = SyntheticSlices(
                LabelMapSynthesizer(str(self.root), self._synthesis(), normalisation=self.contract.normalisations[0]),
                context=data.slices,
                size=data.size,
                slices_per_volume=data.slices_per_volume,
                buffer=data.buffer,
                seed=self.recipe.seed,
                start=start * size // data.slices_per_volume,
                rank=rank,
                world_size=world_size,
            )
            own = share_of(size, world_size)
            return DataLoader(stream, own, num_workers=data.workers, persistent_workers=data.workers > 0)

        return TrainingData(loader, items=None)

    def _synthesis(self) -> SynthesisSettings:
        known = [setting.name for setting in fields(SynthesisSettings)]
        for name in self.data.synthesis:
            if name not in known:
                raise InputError(
                    f"recipe {self.recipe.name}: data.synthesis.{name}: unknown key; "
                    f"expected one of: {', '.join(known)}"
                )
        return SynthesisSettings(**self.data.synthesis)
