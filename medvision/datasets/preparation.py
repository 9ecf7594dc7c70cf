"""From the files of a labelled case to volumes a network learns from, scaled as they are when it is used."""

import hashlib
import zipfile
from collections.abc import Sequence
from typing import TypedDict

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from medvision.arrays import read_dataset, read_member
from medvision.contract import InputContract
from medvision.datasets.layouts import Case
from medvision.volumes.channels import read_channels
from medvision.volumes.files import Volume, count_volumes, read_labels, read_volume
from medvision.volumes.geometry import Grid, to_ras
from medvision.volumes.intensities import channels_to_network
from medvision.volumes.resampling import resize_linear
from shared_backbones.errors import InputError, require
from shared_backbones.files import check_regular, printable

_BLOCK = 2**22  # bytes of a file that are hashed at a time


class VolumeRecord(TypedDict):
    """What a manifest says of a volume: hash of its files, geometry, voxels of each label, percentiles by channel."""

    sha256: str
    shape: list[int]
    spacing_mm: list[float]
    orientation: str
    voxels: dict[str, int]
    percentiles: list[float] | list[list[float]]


class Prepared(TypedDict):
    """A prepared case: its arrays by name, and what a manifest says of it."""

    arrays: dict[str, np.ndarray]
    record: VolumeRecord


def read_case(case: Case, classes: Sequence[int], channels: Sequence[str] = ()) -> tuple[Volume, np.ndarray]:
    """Read a case's image and labels.

    Args:
        case: volumes, or slices and volumes in arrays.
        classes: the labels there may be, 0 included.
        channels: names of the image's channels; empty where it has one.

    Returns:
        The image, and labels `(X, Y, Z)` uint8 on its grid. Its sha256 is that of all its files.

    Raises:
        InputError: a file cannot be read, the grids differ, or there is another label.
    """
    name = printable(case.image[0])
    if case.labels:
        volume = _read_image(case, channels)
        labels = read_labels(case.labels[0], smallest_axis=1)
        difference = volume.grid.differs_from(labels.grid, tolerance_mm=1e-2)
        if difference:
            raise InputError(f"{name}: image and labels lie on different grids ({difference}); resample the labels")
        values = labels.data
        digest = hashlib.sha256((volume.sha256 + labels.sha256).encode()).hexdigest()
    elif channels:
        raise InputError(f"{name}: slices in arrays have one channel, expected {', '.join(channels)}; leave them out")
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
        `arrays`: `image` `(X, Y, Z)` float16, `(C, X, Y, Z)` of several channels, and `labels` `(X, Y, Z)` uint8, or
        nothing of a test case, which is only checked; and `record`: the source's sha256 and geometry, counts of every
        label, and percentiles of the image.

    Raises:
        InputError: as `read_case`, the image is constant, or its values do not fit float16.
    """
    classes = [entry["id"] for entry in contract.classes]
    volume, labels = read_case(case, classes, contract.channels)
    record = _record(volume, labels, classes)
    if case.split == "test":
        return {"arrays": {}, "record": record}
    ras_labels, spacing, _ = to_ras(labels, volume.grid)
    channels = [to_ras(channel, volume.grid)[0] for channel in volume.channels]
    target = contract.spacing_for(spacing)
    scaled, _ = channels_to_network(channels, spacing, target, contract.normalisations)
    targets = torch.from_numpy(np.ascontiguousarray(ras_labels))
    if scaled.shape[1:] != targets.shape or not np.allclose(spacing, target, rtol=1e-4):
        targets = _resize_labels(targets, spacing, target, tuple(scaled.shape[1:]))
    halves = scaled.squeeze(0).half()
    if not halves.isfinite().all():
        raise InputError(
            f"{printable(case.image[0])}: holds values up to {float(scaled.abs().max()):.3g}, too large for float16 "
            "with data.normalisation=none; choose another, such as zscore"
        )
    return {"arrays": {"image": halves.numpy(), "labels": targets.numpy()}, "record": record}


def _read_image(case: Case, channels: Sequence[str]) -> Volume:
    count, expected = count_channels(case), len(channels) or 1
    if count != expected:
        names = f" ({', '.join(channels)})" if channels else ""
        raise InputError(
            f"{printable(case.image[0])}: has {count} channel{'s' * (count > 1)}, expected {expected}{names}; name "
            "those of all cases in data.channels, as `medvision plan` does, or fix the case"
        )
    if len(case.image) == 1:
        return read_volume(case.image[0], smallest_axis=1, channels=channels)
    return read_channels(case.image, smallest_axis=1)


def count_channels(case: Case) -> int:
    """How many channels the image of a case has: its files, or the volumes of its file.

    Raises:
        InputError: its file cannot be read.
    """
    return count_volumes(case.image[0]) if len(case.image) == 1 else len(case.image)


def _record(volume: Volume, labels: np.ndarray, classes: Sequence[int]) -> VolumeRecord:
    counts = np.bincount(labels.ravel(), minlength=max(classes) + 1)
    percentiles = [
        np.percentile(channel, [0.5, 50, 99.5]).astype(float).round(4).tolist() for channel in volume.channels
    ]
    return {
        "sha256": volume.sha256,
        "shape": list(volume.data.shape),
        "spacing_mm": [round(float(step), 6) for step in volume.grid.spacing_mm],
        "orientation": volume.grid.orientation,
        "voxels": {str(label): int(counts[label]) for label in classes},
        "percentiles": percentiles if volume.further else percentiles[0],
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
            check_regular(path)
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            name = printable(path)
            if path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    image, label = (read_member(archive, part, name) for part in ("image", "label"))
            else:
                with require("h5py", "astro").File(path, "r") as file:
                    image, label = (read_dataset(file, part, name) for part in ("image", "label"))
        except KeyError as error:
            raise InputError(f"{printable(path)}: contains no {error}; expected `image` and `label`") from None
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file makes zipfile, NumPy and h5py raise errors of every kind
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
    """About what a prepared case takes on the disk: at the network's spacing two bytes a value, and one a label."""
    if case.split == "test":
        return 0
    if not case.labels:  # arrays, mostly packed
        return sum(path.stat().st_size for path in case.image) * 3
    try:
        header = getattr(nib.load(case.image[0]), "header")  # noqa: B009
        shape, spacing = header.get_data_shape()[:3], [float(step) for step in header.get_zooms()[:3]]
    except Exception:  # it is named when it is read
        return 0
    # in the file's order of axes: near enough for an estimate
    targets = contract.spacing_for(spacing)
    bytes_per_voxel = 2 * contract.channel_count + 1
    return int(bytes_per_voxel * np.prod([n * s / t for n, s, t in zip(shape, spacing, targets, strict=True)]))
