"""Where the cases of published data sets lie, and which split each belongs to."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medvision.volumes.channels import channel_groups, missing_channel
from medvision.volumes.files import find_scans
from medvision.volumes.names import is_scan_name, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.folds import fold_name

SYNAPSE_TEST = ("0008", "0022", "0038", "0036", "0032", "0002", "0029", "0003", "0001", "0004", "0025", "0035")
SYNAPSE_TRAIN = (
    *("0005", "0006", "0007", "0009", "0010", "0021", "0023", "0024", "0026", "0027", "0028", "0030"),
    *("0031", "0033", "0034", "0037", "0039", "0040"),
)
"""Cases of the TransUNet split of the BTCV abdomen data, which papers share."""
SYNAPSE_FROM_BTCV = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}
"""The eight of BTCV's thirteen organs that papers on Synapse score; the others become background."""
AVT_TEST = (
    *("R15", "K19", "D15", "K2", "R7 (AD)", "D17", "D13", "R10", "K12", "D4", "R1 (AD)", "K5", "R6 (AAA)", "D12"),
    *("R18", "K20", "D18", "K9"),
)


@dataclass(frozen=True)
class Case:
    """Files of one case.

    Attributes:
        name: as the data set calls it; shown on a terminal, never stored.
        subject: whom it shows; several cases may show one.
        image: files of the image: one volume, a volume for each channel, or slices in order.
        labels: files of its labels, in the same order; empty where they are in the image's files.
        split: `train`, `validation`, `test` or a fold; empty until one is given.
        mapping: pairs of a label in the files and the one it becomes; other labels become 0. Empty keeps them.
    """

    name: str
    subject: str
    image: tuple[Path, ...]
    labels: tuple[Path, ...] = ()
    split: str = ""
    mapping: tuple[tuple[int, int], ...] = ()


def find_cases(
    layout: str,
    root: Path,
    *,
    validation: float = 0.0,
    seed: int = 0,
    folds: int | None = None,
    test: Sequence[str] | None = None,
    test_ids_above: int | None = None,
    test_share: float | None = None,
    **options: Any,
) -> list[Case]:
    """Find the cases of a data set and part them.

    Args:
        layout: `msd`, `pairs`, `nnunet`, `synapse`, `synapse_arrays`, `acdc`, `lits`, `avt` or `scans`.
        root: folder of the data set.
        validation: fraction of the training subjects that form the validation set, in [0, 1).
        seed: seed of the draws of subjects.
        folds: number of folds that all subjects outside the test are divided into, in place of training and validation.
        test: names of the test subjects; by default the published split, where there is one.
        test_ids_above: test subjects are those whose number is higher.
        test_share: fraction of the subjects drawn as test, where nothing else says which they are.
        options: options of the layout, such as `images` and `labels`, the folders of `pairs`.

    Returns:
        Cases in the order of their names, each with its split.

    Raises:
        InputError: an unknown layout, nothing found, an image without labels, or fewer subjects than folds.
    """
    if layout not in LAYOUTS:
        raise InputError(f"data.layout {layout!r} is unknown; expected one of: {', '.join(LAYOUTS)}")
    find, shape = LAYOUTS[layout]
    try:
        cases = sorted(find(root, **options), key=lambda case: case.name)
    except TypeError as error:
        raise InputError(f"data.options do not suit layout {layout} ({error})") from None
    if not cases:
        raise InputError(f"{printable(root)}: no case of layout {layout} found; expected {shape}")
    _check_cases(cases, root, test)
    parted = _part(cases, test, test_ids_above, test_share, seed)
    return _in_folds(parted, folds, seed) if folds else _hold_out(parted, validation, seed)


def _check_cases(cases: Sequence[Case], root: Path, test: Sequence[str] | None) -> None:
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{printable(root)}: case {printable(name)} is there twice; keep one of them")
    if test is not None:
        unknown = sorted(set(test) - {case.subject for case in cases})
        if unknown:
            raise InputError(f"data.options.test: no subject {printable(unknown[0])} among {len(cases)} cases")


def _part(
    cases: list[Case], test: Sequence[str] | None, above: int | None, fraction: float | None, seed: int
) -> list[Case]:
    """Give every case that has none a split."""
    subjects = sorted({case.subject for case in cases})
    chosen: set[str] = set()
    if test is not None:
        chosen = set(test)
    elif above is not None:
        chosen = {subject for subject in subjects if _number(subject) > above}
    elif fraction is not None:
        chosen = set(_draw(subjects, fraction, seed))
    elif all(case.split for case in cases):
        return cases
    return [replace(case, split="test" if case.subject in chosen else "train") for case in cases]


def _hold_out(cases: list[Case], fraction: float, seed: int) -> list[Case]:
    """Move a fraction of the training subjects to the validation split, where the data set has none of its own."""
    if not fraction or any(case.split == "validation" for case in cases):
        return cases
    validation_subjects = set(
        _draw(sorted({case.subject for case in cases if case.split == "train"}), fraction, seed + 1)
    )
    return [replace(case, split="validation") if case.subject in validation_subjects else case for case in cases]


def _in_folds(cases: list[Case], folds: int, seed: int) -> list[Case]:
    """Divide the subjects outside the test into folds, of which the largest has one subject more than the smallest."""
    subjects = sorted({case.subject for case in cases if case.split != "test"})
    if len(subjects) < folds:
        raise InputError(f"fold.of={folds}: there are {len(subjects)} subjects outside the test; give fewer folds")
    order = np.random.default_rng(seed + 1).permutation(len(subjects))
    home = {subjects[place]: fold_name(rank % folds + 1) for rank, place in enumerate(order)}
    return [case if case.split == "test" else replace(case, split=home[case.subject]) for case in cases]


def _draw(subjects: list[str], fraction: float, seed: int) -> list[str]:
    count = max(1, round(fraction * len(subjects)))
    order = np.random.default_rng(seed).permutation(len(subjects))
    return [subjects[i] for i in sorted(order[:count])]


def _number(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


def _scans(folder: Path, pattern: str = ".*") -> dict[str, Path]:
    """Volume files of a folder whose stem matches, by stem; hidden ones and those of resource forks are left out."""
    if not folder.is_dir():
        return {}
    files = (path for path in folder.iterdir() if is_scan_name(path))
    return {scan_stem(path): path for path in files if re.fullmatch(pattern, scan_stem(path))}


def _with_labels(
    images: Mapping[str, Path], labels: Mapping[str, Path], where: Path
) -> Iterable[tuple[str, Path, Path]]:
    """Pairs of the same key; an image without labels is an error, labels without an image are none of ours."""
    for key, image in sorted(images.items()):
        if key not in labels:
            raise InputError(f"{printable(image)}: has no labels in {printable(where)}; add them, or remove the image")
        yield key, image, labels[key]


def _msd(root: Path) -> list[Case]:
    images, labels = _scans(root / "imagesTr"), _scans(root / "labelsTr")
    return [Case(key, key, (image,), (label,)) for key, image, label in _with_labels(images, labels, root / "labelsTr")]


def is_nnunet(root: Path) -> bool:
    """Whether images in `imagesTr` have the number of a channel at their end, as nnU-Net names them."""
    images, labels = _scans(root / "imagesTr"), _scans(root / "labelsTr")
    numbered = sum(map(len, channel_groups(images.values()).values()))
    return bool(images) and numbered == len(images) and not images.keys() & labels.keys()


def _nnunet(root: Path) -> list[Case]:
    groups, labels = channel_groups(_scans(root / "imagesTr").values()), _scans(root / "labelsTr")
    count = max((max(files) + 1 for files in groups.values()), default=0)
    for files in groups.values():
        problem = missing_channel(files, count)
        if problem:
            raise InputError(problem)
    first = {name: files[0] for name, files in groups.items()}
    return [
        Case(name, name, tuple(groups[name][number] for number in range(count)), (label,))
        for name, _, label in _with_labels(first, labels, root / "labelsTr")
    ]


def _pairs(root: Path, images: str = "images", labels: str = "labels") -> list[Case]:
    scans, label_maps = _scans(root / images), _scans(root / labels)
    return [Case(key, key, (image,), (label,)) for key, image, label in _with_labels(scans, label_maps, root / labels)]


def _synapse(root: Path) -> list[Case]:
    folders = [
        (root, root),
        (root / "img", root / "label"),
        (root / "averaged-training-images", root / "averaged-training-labels"),
    ]
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for image_folder, label_folder in folders:
        images |= {stem[3:]: path for stem, path in _scans(image_folder, r"img\d{4}").items()}
        labels |= {stem[5:]: path for stem, path in _scans(label_folder, r"label\d{4}").items()}
    mapping = tuple(SYNAPSE_FROM_BTCV.items())
    return [
        Case(key, key, (image,), (label,), "test" if key in SYNAPSE_TEST else "train", mapping)
        for key, image, label in _with_labels(images, labels, root)
    ]


def _slices(folder: Path, pattern: str) -> dict[str, tuple[Path, ...]]:
    """Slice files of each case, in order; the pattern's groups are the case and the number of the slice."""
    by_case: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(pattern, path.name)
        if match:
            by_case.setdefault(match[1], []).append((int(match[2]), path))
    return {case: tuple(path for _, path in sorted(slices)) for case, slices in by_case.items()}


def _synapse_arrays(root: Path) -> list[Case]:
    train = next((root / name for name in ("train_npz", "train") if (root / name).is_dir()), root)
    test = next((root / name for name in ("test_vol_h5", "test") if (root / name).is_dir()), root)
    cases = [
        Case(key, key, files, (), "train") for key, files in _slices(train, r"case(\d{4})_slice(\d+)\.npz").items()
    ]
    volumes = sorted(test.glob("case*.npy.h5")) if test.is_dir() else []
    return cases + [Case(path.name[4:8], path.name[4:8], (path,), (), "test") for path in volumes]


def _avt(root: Path) -> list[Case]:
    train = root / "train" if (root / "train").is_dir() else root
    test = root / "test" if (root / "test").is_dir() else root
    cases = [Case(key, key, files, (), "train") for key, files in _slices(train, r"(.+)_slice_(\d+)\.npz").items()]
    return cases + [Case(path.stem, path.stem, (path,), (), "test") for path in sorted(test.glob("*.h5"))]


def _acdc(root: Path) -> list[Case]:
    cases = []
    for split in ("training", "testing", ""):
        folder = root / split
        for patient in sorted(folder.glob("patient[0-9][0-9][0-9]")) if folder.is_dir() else ():
            frames = _scans(patient, r"patient\d{3}_frame\d+")
            labels = {stem.removesuffix("_gt"): path for stem, path in _scans(patient, r".*_gt").items()}
            cases += [
                Case(key, patient.name, (image,), (label,), {"training": "train", "testing": "test"}.get(split, ""))
                for key, image, label in _with_labels(frames, labels, patient)
            ]
    return cases


def _lits(root: Path) -> list[Case]:
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for folder in (root, *(path for path in sorted(root.iterdir()) if path.is_dir())):
        images |= {stem.removeprefix("volume-"): path for stem, path in _scans(folder, r"volume-\d+").items()}
        labels |= {stem.removeprefix("segmentation-"): p for stem, p in _scans(folder, r"segmentation-\d+").items()}
    return [Case(key, key, (image,), (label,)) for key, image, label in _with_labels(images, labels, root)]


def _unlabelled(root: Path) -> list[Case]:
    """Scans alone."""
    return [Case(scan_stem(path), scan_stem(path), (path,)) for path in find_scans(root)]


UNLABELLED = "scans"
"""The layout of scans that nobody has labelled."""
LAYOUTS: dict[str, tuple[Callable[..., list[Case]], str]] = {
    "msd": (_msd, "imagesTr/NAME.nii.gz and labelsTr/NAME.nii.gz (Medical Segmentation Decathlon)"),
    "pairs": (_pairs, "images/NAME.nii.gz and labels/NAME.nii.gz; other folders by data.options.images and .labels"),
    "nnunet": (_nnunet, "imagesTr/NAME_0000.nii.gz, _0001, ... for each channel, and labelsTr/NAME.nii.gz (nnU-Net)"),
    "synapse": (_synapse, "img0001.nii.gz and label0001.nii.gz, in the folder or in img/ and label/ (BTCV)"),
    "synapse_arrays": (_synapse_arrays, "train_npz/case0005_slice000.npz and test_vol_h5/case0001.npy.h5"),
    "acdc": (_acdc, "training/patient001/patient001_frame01.nii.gz and patient001_frame01_gt.nii.gz"),
    "lits": (_lits, "volume-0.nii and segmentation-0.nii, in the folder or one below"),
    "avt": (_avt, "train/NAME_slice_0.npz and test/NAME.h5"),
    UNLABELLED: (_unlabelled, "NAME.nii.gz, without labels"),
}
