"""Intensities as a network sees them, shared by training data and inference so that the two agree."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medvision.contract import Normalisation
from medvision.volumes.resampling import resize_linear

VIEWS = ("sagittal", "coronal", "axial")


def to_network(
    volume: np.ndarray,
    spacing: Sequence[float],
    target: Sequence[float],
    how: Normalisation,
    shape: Sequence[int] | None = None,
    starts: Sequence[float] | None = None,
) -> tuple[Tensor, list[str]]:
    """Bring a volume to a network's spacing and scale.

    Args:
        volume: `(X, Y, Z)` float32, axes RAS.
        spacing: its spacing in mm.
        target: spacing of the network in mm.
        how: as `normalise` takes it. Under version 2 of `rescale_intensity` outliers are taken off on the volume's own
            grid, before resampling spreads them: values are clipped, and spoilt slices interpolated.
        shape: voxels of the image; by default the rounded extent.
        starts: where its first voxel lies, as `resize_linear` takes it.

    Returns:
        The image, and a clause for each view in which slices were interpolated.
    """
    if how != {"name": "rescale_intensity", "version": 2}:
        return normalise(resize_linear(volume, spacing, target, shape, starts=starts), how), []
    plausible = Plausible.of(volume)
    image = resize_linear(
        volume, spacing, target, shape, starts=starts, limits=plausible.limits, bridged=plausible.spoilt
    )
    return rescale_robustly(image, plausible.limits), plausible.notes


def channels_to_network(
    channels: Sequence[np.ndarray],
    spacing: Sequence[float],
    target: Sequence[float],
    hows: Sequence[Normalisation],
    shape: Sequence[int] | None = None,
    starts: Sequence[float] | None = None,
) -> tuple[Tensor, list[str]]:
    """Bring the channels of an image to a network's spacing, each to its own scale.

    Args:
        channels: each `(X, Y, Z)` float32, axes RAS.
        spacing: their spacing in mm.
        target: spacing of the network in mm.
        hows: scaling of each channel, as `normalise` takes it.
        shape: as `to_network` takes it.
        starts: as `to_network` takes it.

    Returns:
        The image `(C, x, y, z)`, and what `to_network` says of each channel.
    """
    first, notes = to_network(channels[0], spacing, target, hows[0], shape, starts)
    if len(channels) == 1:
        return first[None], notes
    image = torch.empty((len(channels), *first.shape))
    image[0] = first
    del first
    for number, (channel, how) in enumerate(zip(channels[1:], hows[1:], strict=True), 1):
        image[number], more = to_network(channel, spacing, target, how, shape, starts)
        notes = [*notes, *(f"channel {number}: {note}" for note in more)]
    return image, notes


@dataclass(frozen=True)
class Plausible:
    """What of a volume can be meant.

    Attributes:
        limits: lowest and highest value.
        spoilt: indices of slices along each axis that stand out from their neighbours.
    """

    limits: tuple[float, float]
    spoilt: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, volume: np.ndarray) -> "Plausible":
        """Look at a volume `(X, Y, Z)`.

        The limits lie as far beyond the range of the middle 94 % of all voxels as that is wide: neither 3 % of the
        voxels nor one slice in fifty move them, whatever they hold.
        """
        step = max(1, math.ceil((volume.size / _SAMPLE) ** (1 / 3)))
        low, high = np.percentile(volume[::step, ::step, ::step], _MIDDLE).tolist()
        if low == high:  # nearly all of it is empty
            low, high = np.percentile(volume[::step, ::step, ::step], _NEARLY_ALL).tolist()
        limits = (low - _MARGIN * (high - low), high + _MARGIN * (high - low))
        if low == high:
            return cls((-math.inf, math.inf), ((), (), ()))
        spoilt = []
        for axis in range(3):
            thinned = volume[tuple(slice(None, None, 1 if other == axis else step) for other in range(3))]
            scaled = (np.clip(thinned, *limits) - limits[0]) / (high - low)
            others = tuple(other for other in range(3) if other != axis)
            figures = (scaled.mean(others, dtype=np.float64), scaled.std(others, dtype=np.float64))
            indices = np.flatnonzero(_spoilt_in_any(figures)).tolist()
            # more than one in fifty are no accident
            spoilt.append(tuple(indices) if len(indices) <= math.ceil(_SLICES * volume.shape[axis]) else ())
        return cls(limits, tuple(spoilt))

    @property
    def notes(self) -> list[str]:
        """A clause for each view with spoilt slices."""
        return [
            f"{len(slices)} {view} slices stand out from their neighbours ({_listed(slices)}, counted from 0 at the "
            f"{start}): the network was given the neighbours' mean instead"
            for view, start, slices in zip(VIEWS, ("left", "back", "bottom"), self.spoilt, strict=True)
            if slices
        ]


def _spoilt_in_any(figures: Sequence[np.ndarray]) -> np.ndarray:
    """Which slices are spoilt by any of their figures `(N,)`; one that is spoilt by an early figure is judged no more.

    Otherwise it moves the neighbourhoods of its neighbours, which would seem spoilt by a later figure.
    """
    spoilt = np.zeros(len(figures[0]), bool)
    for figure in figures:
        kept = np.flatnonzero(~spoilt)
        bridged = np.interp(np.arange(len(figure)), kept, figure[kept])
        spoilt |= _spoilt(bridged)
    return spoilt


def _spoilt(figures: np.ndarray) -> np.ndarray:
    """Which slices differ in a figure `(N,)` from their neighbourhood, and far more than the others do."""
    deviations = _deviations(torch.from_numpy(figures)).numpy()
    return deviations > max(_SPOILT, _FAR_MORE * float(np.percentile(deviations, 95)))


def _listed(slices: Sequence[int]) -> str:
    return ", ".join(map(str, slices[:4])) + (", ..." if len(slices) > 4 else "")


def normalise(image: Tensor, how: Normalisation) -> Tensor:
    """Scale an image as a model's card says.

    Args:
        image: any shape, float32; `(X, Y, Z)` for `rescale_intensity` of version 2.
        how: name, or name and settings:

            - `rescale_intensity`, or `{"name": "rescale_intensity", "version": 2}`, which outliers do not move;
            - `zscore`: mean 0 and deviation 1; with `"nonzero": true` those of voxels that are not 0, and 0 stays;
            - `{"name": "window", "low": -125, "high": 275}`: that range to [0, 1], and clipped; `"out_low"` and
              `"out_high"` name another range, `"clip": false` leaves what is outside;
            - `minmax`: from its lowest value to its highest to [0, 1], or from `"out_low"` to `"out_high"`;
            - `none`.

    Raises:
        ValueError: the name or version is unknown, or the window has no width.
    """
    name, settings = (how, {}) if isinstance(how, str) else (str(how.get("name")), how)
    if name not in _NORMALISATIONS:
        raise ValueError(f"normalisation is {name!r}, expected one of {', '.join(_NORMALISATIONS)}")
    return _NORMALISATIONS[name](image, settings)


def _rescaled(image: Tensor, settings: Mapping[str, str | float]) -> Tensor:
    version = settings.get("version", 1)
    if version not in _RESCALINGS:
        raise ValueError(f"rescale_intensity has no version {version!r}, expected 1 or 2")
    return _RESCALINGS[version](image)


def _standardised(image: Tensor, settings: Mapping[str, str | float]) -> Tensor:
    if not settings.get("nonzero"):
        deviation = image.std()
        return (image - image.mean()) / torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    inside = image != 0
    values = image[inside]
    if not len(values):
        return image
    deviation = float(values.std(correction=0)) or 1.0
    return torch.where(inside, (image - values.mean()) / deviation, image)


def _windowed(image: Tensor, settings: Mapping[str, str | float]) -> Tensor:
    low, high = float(settings["low"]), float(settings["high"])
    if not low < high:
        raise ValueError(f"window from {low:g} to {high:g}: expected low < high")
    out_low, out_high = float(settings.get("out_low", 0)), float(settings.get("out_high", 1))
    scaled = ((image - low) / (high - low)).mul_(out_high - out_low).add_(out_low)
    return scaled.clamp_(out_low, out_high) if settings.get("clip", True) else scaled


def _between_extremes(image: Tensor, settings: Mapping[str, str | float]) -> Tensor:
    low, high = image.min(), image.max()
    out_low, out_high = float(settings.get("out_low", 0)), float(settings.get("out_high", 1))
    if low == high:
        return image * out_low  # as MONAI's ScaleIntensity
    return ((image - low) / (high - low)).mul_(out_high - out_low).add_(out_low)


def rescale_intensity(image: Tensor) -> Tensor:
    """Scale an image to [0, 1]: 0 is its 0.5th percentile, 1 the 99.5th of the voxels above the mean.

    The share of empty background changes from scan to scan; voxels above the mean are tissue in all of them.
    Percentiles are those of evenly spread voxels, two to four million where there are more.
    """
    values = image.reshape(-1)
    values = values[:: max(1, values.numel() // 2_000_000)]
    low = _percentile(values, 0.5)
    foreground = values[values > values.mean()]
    high = _percentile(foreground, 99.5) if foreground.numel() else low
    return (image - low).div_(float(high - low) or 1.0).clamp_(0, 1)


def _percentile(values: Tensor, q: float) -> Tensor:
    return values.kthvalue(max(1, round(q / 100 * values.numel()))).values


def rescale_robustly(volume: Tensor, within: tuple[float, float] = (-math.inf, math.inf)) -> Tensor:
    """Scale a volume to [0, 1] by the quantiles of `rescale_intensity`, whatever a few outliers hold.

    Version 2 of `rescale_intensity`. Neither single voxels (up to 0.1 % of all) nor slices along any axis (up to one in
    fifty) move the range, at any scale of the intensities. No step waits for the volume's device.

    Args:
        volume: `(X, Y, Z)` float32.
        within: voxels at or beyond these values do not count, such as those that were clipped.
    """
    low, high = robust_range(volume, within)
    return volume.sub(low).div_(torch.where(high > low, high - low, torch.ones_like(high))).clamp_(0, 1)


def robust_range(volume: Tensor, within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[Tensor, Tensor]:
    """The intensities that become 0 and 1: scalars on the volume's device.

    They are the 0.5th percentile of all voxels and the 99.5th of those above the mean, among evenly spread voxels, a
    million at most, less the slices that stand out from their neighbours.

    Args:
        volume: `(X, Y, Z)` float32.
        within: as `rescale_robustly` takes it.
    """
    step = max(1, math.ceil((volume.numel() / _SAMPLE) ** (1 / 3)))
    values = volume[::step, ::step, ::step]
    kept = (values > within[0]) & (values < within[1])
    values = values.clamp(_percentile(values.reshape(-1), 0.1), _percentile(values.reshape(-1), 99.9))
    flat = values.reshape(-1)
    # 97: a bright slice in fifty holds the highest 2 %
    limit = _OUTLYING * (_percentile(flat, 97) - _percentile(flat, 0.5))
    for axis in range(3):
        outlying = _deviations(values.mean([other for other in range(3) if other != axis])) > limit
        kept = kept & ~outlying.view([-1 if other == axis else 1 for other in range(3)])
    count = kept.sum()
    mean = (values * kept).sum() / count
    foreground = (kept & (values > mean)).sum()
    ranked = torch.where(kept, values, torch.inf).reshape(-1).sort().values
    places = torch.stack([(0.005 * count).round() - 1, count - foreground + (0.995 * foreground).round() - 1])
    low, high = ranked[places.long().clamp(min=0)].unbind()
    return low, high


def _deviations(means: Tensor) -> Tensor:
    """How far slices lie in their mean `(N,)` from the median of their neighbourhood.

    The first and the last slices have neighbours on one side only, where a head may rise steeply: theirs count less.
    """
    width = min(2 * math.ceil(_SLICES * len(means)) + 3, len(means))
    place = torch.arange(len(means), device=means.device)
    starts = (place - width // 2).clamp(0, len(means) - width)
    neighbourhoods = means.unfold(0, width, 1)[starts]
    distance = (place - starts - width // 2).abs()
    return (means - neighbourhoods.median(-1).values).abs() / (1 + distance)


_SAMPLE = 2**20
_MIDDLE, _NEARLY_ALL = (3, 97), (0.1, 99.9)  # percentiles
_MARGIN = 1.0  # of the range between them
_SPOILT = 0.09  # of it, that a spoilt slice is off in its mean or its standard deviation
_FAR_MORE = 3  # times as far as 95 % of the slices are
_SLICES = 0.02  # how many side by side may stand out
_OUTLYING = 0.04  # of the range of intensities
_RESCALINGS: dict[str | float, Callable[[Tensor], Tensor]] = {1: rescale_intensity, 2: rescale_robustly}
_NORMALISATIONS: dict[str, Callable[[Tensor, Mapping[str, str | float]], Tensor]] = {
    "rescale_intensity": _rescaled,
    "zscore": _standardised,
    "window": _windowed,
    "minmax": _between_extremes,
    "none": lambda image, settings: image,
}
