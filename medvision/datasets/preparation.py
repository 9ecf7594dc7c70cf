"""From the files of a labelled case to volumes a network learns from, scaled as they are when it is used."""

import hashlib
import zipfile
from collections.abc import Sequence
from typing import Any, TypedDict

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from medvision.contract import InputContract
from medvision.datasets.layouts import Case
from medvision.volumes.files import Volume, read_labels, read_volume
from medvision.volumes.geometry import Grid, to_ras
from medvision.volumes.intensities import to_network
from medvision.volumes.resampling import resize_linear
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable


class VolumeRecord(TypedDict):
    """What a manifest says of a volume: hash of its files, geometry, voxels of each label, and percentiles."""

    sha256: str
    shape: list[int]
    spacing_mm: list[float]
    orientation: str
    voxels: dict[str, int]
    percentiles: list[float]


class Prepared(TypedDict):
    """A prepared case: its arrays by name, and what a manifest says of it."""

    arrays: dict[str, np.ndarray]
    record: VolumeRecord


def read_case(case: Case, classes: Sequence[int]) -> tuple[Volume, np.ndarray]:
    """Read a case's image and labels.

    Args:
        case: volumes, or slices and volumes in arrays.
        classes: the labels there may be, 0 included.

    Returns:
        The image, and labels `(X, Y, Z)` uint8 on its grid. Its sha256 is that of all its files.

    Raises:
        InputError: a file cannot be read, the grids differ, or there is another label.
    """
    name = printable(case.image[0])
    if case.labels:
        volume = read_volume(case.image[0], smallest_axis=1)
        labels = read_labels(case.labels[0], smallest_axis=1)
        difference = volume.grid.differs_from(labels.grid, tolerance_mm=1e-2)
        if difference:
            raise InputError(f"{name}: image and labels lie on different grids ({difference}); resample the labels")
        values = labels.data
        digest = hashlib.sha256((volume.sha256 + labels.sha256).encode()).hexdigest()
    else:
        image, values, digest = _read_arrays(case)
        volume = Volume(image, Grid.from_affine(image.shape, np.eye(4)), digest)
    volume.sha256 = digest
    if case.mapping:
        table = np.zeros(max(int(values.max()), *(source for source, _ in case.mapping)) + 1, np.uint8)
        for source, target in case.mapping:
            table[source] = target
        values = table[np.maximum(values, 0)]
    unknown = sorted(set(np.unique(values).tolist()) - set(classes))
    if unknown:
        raise InputError(
            f"{name}: labels hold {', '.join(map(str, unknown[:5]))}, expected some of "
            f"{', '.join(map(str, sorted(classes)))}; declare them in card.classes, or fix the labels"
        )
    return volume, values.astype(np.uint8)


def prepare(case: Case, contract: InputContract) -> Prepared:
    """Bring a case to the network's spacing and scale, in RAS axes, exactly as `Segmenter` does.

    Returns:
        `arrays`: `image` `(X, Y, Z)` float16 and `labels` `(X, Y, Z)` uint8, or nothing of a test case, which is only
        checked; and `record`: the source's sha256 and geometry, counts of every label, and percentiles of the image.

    Raises:
        InputError: as `read_case`, the image is constant, or its values do not fit float16.
    """
    classes = [entry["id"] for entry in contract.classes]
    volume, labels = read_case(case, classes)
    record = _record(volume, labels, classes)
    if case.split == "test":
        return {"arrays": {}, "record": record}
    ras, spacing, _ = to_ras(volume.data, volume.grid)
    ras_labels, _, _ = to_ras(labels, volume.grid)
    target = contract.spacing_for(spacing)
    scaled, _ = to_network(ras, spacing, target, contract.normalisation)
    targets = torch.from_numpy(np.ascontiguousarray(ras_labels))
    if scaled.shape != targets.shape or not np.allclose(spacing, target, rtol=1e-4):
        targets = _resize_labels(targets, spacing, target, tuple(scaled.shape))
    halves = scaled.half()
    if not halves.isfinite().all():
        raise InputError(
            f"{printable(case.image[0])}: holds values up to {float(scaled.abs().max()):.3g}, too large for float16 "
            "with data.normalisation=none; choose another, such as zscore"
        )
    return {"arrays": {"image": halves.numpy(), "labels": targets.numpy()}, "record": record}


def _record(volume: Volume, labels: np.ndarray, classes: Sequence[int]) -> VolumeRecord:
    counts = np.bincount(labels.ravel(), minlength=max(classes) + 1)
    return {
        "sha256": volume.sha256,
        "shape": list(volume.data.shape),
        "spacing_mm": [round(float(step), 6) for step in volume.grid.spacing_mm],
        "orientation": volume.grid.orientation,
        "voxels": {str(label): int(counts[label]) for label in classes},
        "percentiles": np.percentile(volume.data, [0.5, 50, 99.5]).astype(float).round(4).tolist(),
    }


def _resize_labels(labels: Tensor, spacing: Sequence[float], target: Sequence[float], shape: tuple[int, ...]) -> Tensor:
    """The label that covers most of each new voxel."""
    best, winner = torch.full(shape, -1.0), torch.zeros(shape, dtype=torch.uint8)
    for label in torch.unique(labels).tolist():
        fraction = resize_linear((labels == label).float(), spacing, target, shape)
        better = fraction > best
        best[better], winner[better] = fraction[better], int(label)
    return winner


def _read_arrays(case: Case) -> tuple[np.ndarray, np.ndarray, str]:
    """Slices or a volume with `image` and `label`, as papers share them: axis 0 is the slice, here the last."""
    digest, images, labels = hashlib.sha256(), [], []
    for path in case.image:
        try:
            digest.update(path.read_bytes())
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    image, label = file["image"], file["label"]
            else:
                with require("h5py", "astro").File(path, "r") as file:
                    image, label = file["image"][()], file["label"][()]
        except KeyError as error:
            raise InputError(f"{printable(path)}: contains no {error}; expected `image` and `label`") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{printable(path)}: cannot be read ({printable(reason)}); copy or export it again"
            ) from None
        if image.shape != label.shape or image.ndim not in {2, 3} or (image.ndim == 2) != (path.suffix == ".npz"):
            raise InputError(
                f"{printable(path)}: image of shape {image.shape} with label of shape {label.shape}; expected two of "
                "one shape, 2-D in .npz and 3-D in .h5"
            )
        images.append(image)
        labels.append(label)
    stack = np.stack(images) if images[0].ndim == 2 else images[0]
    marks = np.stack(labels) if labels[0].ndim == 2 else labels[0]
    if not np.isfinite(stack).all() or not np.array_equal(marks, np.rint(marks)):
        raise InputError(
            f"{printable(case.image[0])}: holds values that are not finite, or labels that are no integers"
        )
    return np.moveaxis(stack, 0, 2).astype(np.float32), np.moveaxis(marks, 0, 2).astype(np.int32), digest.hexdigest()


def bytes_of(case: Case, contract: InputContract) -> int:
    """About what a prepared case takes on the disk: three bytes a voxel at the network's spacing."""
    if case.split == "test":
        return 0
    if not case.labels:  # arrays, mostly packed
        return sum(path.stat().st_size for path in case.image) * 3
    try:
        header: Any = nib.load(case.image[0]).header
        shape, spacing = header.get_data_shape()[:3], [float(step) for step in header.get_zooms()[:3]]
    except Exception:  # it is named when it is read
        return 0
    # in the file's order of axes: near enough for an estimate
    targets = contract.spacing_for(spacing)
    return int(3 * np.prod([n * s / t for n, s, t in zip(shape, spacing, targets, strict=True)]))
