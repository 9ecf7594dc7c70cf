"""What a labelled data set is like: sizes, spacings, labels and intensities, which a training is planned from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from medvision.datasets.layouts import Case
from medvision.datasets.preparation import read_case
from medvision.volumes.geometry import to_ras
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_VOXELS_PER_CASE = 10_000


@dataclass(frozen=True)
class CaseFacts:
    """What one case is like.

    Attributes:
        shape: Voxels along the RAS axes.
        spacing_mm: Spacing along them.
        counts: Voxels of each label, by number.
        intensities: Intensities of labelled voxels, ten thousand at most.
        modality: What the header says, such as "CT"; None where it says nothing.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    counts: dict[int, int]
    intensities: np.ndarray
    modality: str | None


@dataclass(frozen=True)
class Fingerprint:
    """What a data set is like.

    Attributes:
        cases: What each case is like.
        names: Name of each class, by number.
        modality: `CT`, or another word for what the images are; empty where nothing says so.
    """

    cases: Sequence[CaseFacts]
    names: Sequence[str]
    modality: str

    @property
    def spacings(self) -> np.ndarray:
        """Spacings of the cases, `(N, 3)`, in mm."""
        return np.array([case.spacing_mm for case in self.cases])

    def shapes_at(self, spacing_mm: ArrayLike) -> np.ndarray:
        """Shapes of the cases at another spacing, `(N, 3)`."""
        return np.array([case.shape for case in self.cases]) * self.spacings / np.asarray(spacing_mm)

    def intensities(self) -> np.ndarray:
        """Intensities of labelled voxels of all cases."""
        return np.concatenate([case.intensities for case in self.cases])


def take_fingerprint(
    cases: Sequence[Case], root: Path, modality: str | None, on_progress: Callable[[int, int], None]
) -> Fingerprint:
    """Read every case and note what it is like.

    Args:
        cases: Cases of files with labels of their own.
        root: Folder of the data set; `dataset.json` in it may name classes and modality, as those of the Medical
            Segmentation Decathlon and of nnU-Net do.
        modality: What the images are, in place of what `dataset.json` and the headers say.
        on_progress: Called with cases done and cases in all.

    Raises:
        InputError: a case cannot be read, or labels are not numbered from 1 without a gap.
    """
    facts = []
    for number, case in enumerate(cases):
        facts.append(_facts(case, number))
        on_progress(number + 1, len(cases))
    present = sorted({label for case in facts for label in case.counts} - {0})
    described, own_modality = _described(root)
    if not present:
        raise InputError(f"{printable(root)}: no case has a label; expected label maps with values from 1 on")
    count = max(len(described) - 1, present[-1])
    if not described and present != list(range(1, count + 1)):
        raise InputError(
            f"{printable(root)}: labels are {', '.join(map(str, present))}, expected 1 to {count} without a gap; "
            "number them anew, or name all classes in dataset.json"
        )
    names = ["background", *(described.get(label, f"label {label}") for label in range(1, count + 1))]
    said = {case.modality for case in facts} - {None}
    return Fingerprint(facts, names, modality or own_modality or "".join(said if len(said) == 1 else ()))


def _facts(case: Case, number: int) -> CaseFacts:
    if not case.labels:
        raise InputError(f"{printable(case.image[0])}: slices in arrays have no spacing; plan from volumes")
    volume, values = read_case(case, range(256))
    ras, spacing, _ = to_ras(volume.data, volume.grid)
    labels, counts = np.unique(values, return_counts=True)
    inside = volume.data[values > 0]
    random = np.random.default_rng(number)
    chosen = inside if len(inside) <= _VOXELS_PER_CASE else random.choice(inside, _VOXELS_PER_CASE, replace=False)
    first, second, third = ras.shape
    tally = dict(zip(labels.astype(int).tolist(), counts.tolist(), strict=True))
    return CaseFacts((first, second, third), spacing, tally, np.asarray(chosen, np.float32), volume.modality)


def _described(root: Path) -> tuple[dict[int, str], str]:
    """Names of classes by number, and the modality, where `dataset.json` has them."""
    path = root / "dataset.json"
    if not path.is_file():
        return {}, ""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels, channels = content.get("labels", {}), content.get("modality", content.get("channel_names", {}))
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
        names = {int(number): str(name) for number, name in pairs}
        modalities = [str(name) for name in channels.values()]
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{printable(path)}: cannot be used ({printable(str(error))}); fix it, or remove it") from None
    if len(modalities) > 1:
        raise InputError(
            f"{printable(path)}: images have {len(modalities)} channels ({printable(', '.join(modalities))}); volumes "
            "of one channel are read: split the files"
        )
    if names and sorted(names) != list(range(len(names))):
        raise InputError(f"{printable(path)}: labels are not numbered 0 to {len(names) - 1}; number them anew")
    return names, "".join(modalities)
