"""What a labelled data set is like: sizes, spacings, labels and intensities, which a training is planned from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from medvision.datasets.layouts import Case
from medvision.datasets.preparation import count_channels, read_case
from medvision.volumes.geometry import to_ras
from shared_backbones.documents import read_json
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
        intensities: Intensities of labelled voxels, ten thousand at most, `(C, N)`.
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
        channels: What each channel of the images is, such as `CT` or `FLAIR`; empty where nothing says so.
    """

    cases: Sequence[CaseFacts]
    names: Sequence[str]
    channels: Sequence[str]

    @property
    def spacings(self) -> np.ndarray:
        """Spacings of the cases, `(N, 3)`, in mm."""
        return np.array([case.spacing_mm for case in self.cases])

    def shapes_at(self, spacing_mm: ArrayLike) -> np.ndarray:
        """Shapes of the cases at another spacing, `(N, 3)`."""
        return np.array([case.shape for case in self.cases]) * self.spacings / np.asarray(spacing_mm)

    def intensities(self, channel: int) -> np.ndarray:
        """Intensities of labelled voxels of all cases, in one channel."""
        return np.concatenate([case.intensities[channel] for case in self.cases])


def take_fingerprint(
    cases: Sequence[Case], root: Path, modalities: Sequence[str], on_progress: Callable[[int, int], None]
) -> Fingerprint:
    """Read every case and note what it is like.

    Args:
        cases: Cases of files with labels of their own.
        root: Folder of the data set; `dataset.json` in it may name classes and modality, as those of the Medical
            Segmentation Decathlon and of nnU-Net do.
        modalities: What each channel of the images is, in place of what `dataset.json` and the headers say; empty
            leaves it to them.
        on_progress: Called with cases done and cases in all.

    Raises:
        InputError: a case cannot be read, labels are not numbered from 1 without a gap, or the images have other
            channels than are named.
    """
    described, own = _described(root)
    channels = list(modalities) or own
    if not channels:
        count = count_channels(cases[0])
        channels = [f"channel {number}" for number in range(count)] if count > 1 else [""]
    facts = []
    for number, case in enumerate(cases):
        facts.append(_facts(case, number, channels))
        on_progress(number + 1, len(cases))
    present = sorted({label for case in facts for label in case.counts} - {0})
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
    if channels == [""] and len(said) == 1:
        channels = [str(*said)]
    return Fingerprint(facts, names, channels)


def _facts(case: Case, number: int, channels: Sequence[str]) -> CaseFacts:
    if not case.labels:
        raise InputError(f"{printable(case.image[0])}: slices in arrays have no spacing; plan from volumes")
    count = count_channels(case)
    if count != len(channels):
        names = f" ({printable(', '.join(channels))})" if any(channels) else ""
        raise InputError(
            f"{printable(case.image[0])}: has {count} channel{'s' * (count > 1)}, expected {len(channels)}{names}; "
            "name those that all cases have in dataset.json or --modality, or fix the case"
        )
    volume, values = read_case(case, range(256), channels if len(channels) > 1 else ())
    ras, spacing, _ = to_ras(volume.data, volume.grid)
    labels, counts = np.unique(values, return_counts=True)
    inside = np.stack([channel[values > 0] for channel in volume.channels])
    random = np.random.default_rng(number)
    chosen = inside
    if inside.shape[1] > _VOXELS_PER_CASE:
        chosen = random.choice(inside, _VOXELS_PER_CASE, replace=False, axis=1)
    first, second, third = ras.shape
    tally = dict(zip(labels.astype(int).tolist(), counts.tolist(), strict=True))
    return CaseFacts((first, second, third), spacing, tally, np.asarray(chosen, np.float32), volume.modality)


def _described(root: Path) -> tuple[dict[int, str], list[str]]:
    """Names of classes by number, and what each channel is, where `dataset.json` has them."""
    path = root / "dataset.json"
    if not path.is_file():
        return {}, []
    try:
        content = read_json(path)
        labels, channels = content.get("labels", {}), content.get("modality", content.get("channel_names", {}))
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
        names = {int(number): str(name) for number, name in pairs}
        modalities = [str(channels[number]) for number in sorted(channels, key=int)]
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{printable(path)}: cannot be used ({printable(str(error))}); fix it, or remove it") from None
    if len(set(modalities)) < len(modalities):
        raise InputError(f"{printable(path)}: two channels have one name; give each its own, or remove the file")
    if "ignore" in names.values():
        raise InputError(
            f"{printable(path)}: has nnU-Net's label `ignore`, which the losses here would learn as a class; give its "
            "voxels a class, and remove it"
        )
    if names and sorted(names) != list(range(len(names))):
        raise InputError(f"{printable(path)}: labels are not numbered 0 to {len(names) - 1}; number them anew")
    return names, modalities
