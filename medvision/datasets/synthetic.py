"""Images synthesised from label maps: training data of any contrast, without a single real image.

The approach is that of SynthSeg (Billot et al., Medical Image Analysis 2023): a label map is deformed, every tissue
class draws an intensity distribution, and the result goes through the defects of a scanner (bias field, blur, thick
slices, noise). A network that has seen enough of it relies on shape and relations, not on one scanner's intensities.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvision.contract import Normalisation
from medvision.datasets.brain_labels import FREESURFER, RIGHT_TO_LEFT
from medvision.volumes.files import read_labels
from medvision.volumes.geometry import to_ras
from medvision.volumes.intensities import normalise
from medvision.volumes.resampling import linear_weights, resize_linear
from shared_backbones.errors import InputError

_HIGHEST_ID = 999

# Usual mean of each tissue in T1-weighted MRI, white matter = 1: textbook relations, not measured on any scan here.
_T1_MEAN = {
    2: 1.0, 3: 0.62, 4: 0.22, 5: 0.25, 7: 0.96, 8: 0.6, 10: 0.82, 11: 0.68, 12: 0.74, 13: 0.88, 14: 0.25, 15: 0.25,
    16: 0.9, 17: 0.64, 18: 0.62, 24: 0.22, 25: 0.75, 26: 0.68, 28: 0.88, 30: 0.4, 72: 0.22, 85: 0.8, 136: 0.4, 137: 0.4,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """What the generator draws from; every range is uniform unless said otherwise."""

    spacing_mm: float = 1.5
    """Spacing of the images and targets that come out."""
    rotation_degrees: float = 18.0
    scaling: float = 0.17
    """Relative change of each axis, plus or minus."""
    shear: float = 0.1
    displacement: float = 0.12
    """Largest standard deviation of the elastic displacement, in units of the distance between its control points."""
    t1_share: float = 0.85
    """Share of volumes whose tissue means lie around those of T1-weighted MRI; the others have random contrast."""
    stripped_share: float = 0.65
    """Share of volumes without skull and scalp."""
    bias_field: float = 0.35
    """Largest standard deviation of the logarithm of the bias field's control points."""
    noise: float = 0.07
    """Largest standard deviation of the noise, in units of the image's range."""
    thick_slices_share: float = 0.12
    """Share of volumes acquired in slices of 2 to 6 mm."""
    coarse_share: float = 0.0
    """Share of volumes acquired at up to `coarsest_mm` along all axes."""
    coarsest_mm: float = 3.0


class LabelMapSynthesizer:
    """Draws pairs of image and structure map from a folder of label maps.

    Args:
        folder: directory of `.nii.gz` label maps at 1 mm with FreeSurfer ids, and ids from 500 for what is outside the
            brain (SynthSeg's training maps).
        settings: ranges of the random choices.
        targets: value, up to 255, of each FreeSurfer id in the maps that come out; ids that it lacks become 0.
        normalisation: how the images are scaled, as the model's card says; see `medvision.volumes.intensities`. Of
            `rescale_intensity`, only version 2 waits for no device.
        device: where the volumes are drawn. No step waits for it: what decides the course of one is drawn on the CPU.

    Raises:
        InputError: the folder contains no label map, or one that cannot be read, of another spacing or with other ids.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: SynthesisSettings | None = None,
        *,
        targets: Mapping[int, int] = FREESURFER,
        normalisation: Normalisation = "rescale_intensity",
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings, self.device = settings or SynthesisSettings(), torch.device(device)
        self.normalisation = normalisation
        paths = sorted(Path(folder).glob("*.nii.gz"))
        if not paths:
            raise InputError(f"{folder}: found no label map, expected *.nii.gz with FreeSurfer ids; pass their folder")
        maps = [_read_ids(path) for path in paths]
        # background is always the first, also where no map holds any
        self.ids = np.union1d([0], np.concatenate([np.unique(ids) for ids in maps]))
        index = np.zeros(_HIGHEST_ID + 1, np.uint8)
        index[self.ids] = np.arange(len(self.ids))
        heads = [torch.from_numpy(index[ids]) for ids in maps]
        self.heads = [_crop_to(head, head > 0, margin=8) for head in heads]
        # Brain for the purpose of skull stripping: everything FreeSurfer names inside the skull but sulcal CSF.
        is_brain = torch.tensor([0 < i < 500 and i not in (24, 30, 85) for i in self.ids.tolist()])
        self.brains = [_crop_to(head, is_brain[head.int()], margin=12).to(self.device) for head in self.heads]
        self.heads = [head.to(self.device) for head in self.heads]
        self.is_brain = is_brain.to(self.device)
        self.is_extracerebral = torch.tensor([i >= 500 for i in self.ids.tolist()], device=self.device)
        ids = [int(i) for i in self.ids]
        other_side = RIGHT_TO_LEFT | {left: right for right, left in RIGHT_TO_LEFT.items()}
        self.targets = self._table(targets, ids)
        self.mirrored_targets = self._table(targets, [other_side.get(i, i) for i in ids])

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one volume.

        Returns:
            image `(X, Y, Z)` float32 in [0, 1], axes RAS, at `settings.spacing_mm`, and targets `(X, Y, Z)` uint8.
        """
        s = self.settings
        stripped = bool(uniform(0, 1, generator) < s.stripped_share)
        sources = self.brains if stripped else self.heads
        source = sources[int(integer(len(sources), generator))]
        mirrored = bool(uniform(0, 1, generator) < 0.5)
        if mirrored:
            source = source.flip(0).contiguous()
        labels = self._deform(source, generator)
        keep = self._skull_strip(labels, generator) if stripped else None
        image = self._paint(labels, generator)
        if keep is not None:
            # what surrounds a stripped brain is nearly always exactly zero
            image = image * keep
            labels = labels * keep
        image = self._scan(image, generator)
        if keep is not None and uniform(0, 1, generator) < 0.85:
            small = resize_linear(keep.float(), (1.0,) * 3, (s.spacing_mm,) * 3)
            image = image * (small > 0.5)
        image = normalise(image, self.normalisation)
        image = image ** float(torch.exp(0.25 * torch.randn((), generator=generator)))
        targets = self.mirrored_targets if mirrored else self.targets
        return image, _resize_nearest(targets[labels.int()], image.shape, s.spacing_mm)

    def at_spacing(self, spacing_mm: float) -> "LabelMapSynthesizer":
        """The same, with another spacing of what comes out; the maps are shared."""
        other = copy.copy(self)
        other.settings = replace(self.settings, spacing_mm=spacing_mm)
        return other

    def _deform(self, source: Tensor, generator: torch.Generator) -> Tensor:
        """Affine and elastic deformation of a label map at 1 mm, sampled on a box around its content."""
        s = self.settings
        angles = torch.deg2rad(uniform(-s.rotation_degrees, s.rotation_degrees, generator, 3))
        matrix = torch.eye(3)
        for axis, angle in enumerate(angles):
            i, j = (axis + 1) % 3, (axis + 2) % 3
            turn = torch.eye(3)
            turn[i, i] = turn[j, j] = torch.cos(angle)
            turn[i, j], turn[j, i] = -torch.sin(angle), torch.sin(angle)
            matrix = matrix @ turn
        shear = torch.eye(3) + torch.triu(uniform(-s.shear, s.shear, generator, 3, 3), 1)
        matrix = matrix @ shear @ torch.diag(1 + uniform(-s.scaling, s.scaling, generator, 3))

        distance_mm = float(uniform(16, 64, generator))
        knots = [max(2, round(n / distance_mm)) for n in source.shape]
        ends = [(n - 1) / 2 for n in source.shape]
        axes = [torch.linspace(-end, end, k) for end, k in zip(ends, knots, strict=True)]
        # linear interpolation between control points keeps the affine part exact
        control = torch.einsum("ij,jxyz->ixyz", matrix, torch.stack(torch.meshgrid(*axes, indexing="ij")))
        std = distance_mm * uniform(0, s.displacement, generator)
        control += torch.tensor(ends).view(3, 1, 1, 1) + std * torch.randn(control.shape, generator=generator)
        sizes = zip(knots, source.shape, strict=True)
        spread = [linear_weights(k, n, (k - 1) / (n - 1), self.device) for k, n in sizes]
        inside = torch.ones(source.shape, dtype=torch.bool, device=self.device)
        index = torch.zeros(source.shape, dtype=torch.int32, device=self.device)
        for points, n in zip(sent(control, self.device), source.shape, strict=True):
            rows = (spread[0] @ points.flatten(1)).view(-1, knots[1], knots[2])
            position = (spread[1] @ rows @ spread[2].T).round_()
            inside &= (position >= 0) & (position < n)
            index.mul_(n).add_(position.clamp_(0, n - 1).int())
        return source.view(-1)[index.view(-1)].view(source.shape) * inside

    def _skull_strip(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Mask `(X, Y, Z)` of what a skull-stripping tool leaves: the brain and a rim of 0 to 4 mm around it."""
        brain = self.is_brain[labels.int()]
        closing = 4 + int(integer(7, generator))
        closed = ~_dilate(~_dilate(brain, closing), closing)
        mask = _dilate(closed, int(integer(5, generator)))
        if uniform(0, 1, generator) < 0.7:  # most tools leave no skull inside the rim, some do
            mask &= ~self.is_extracerebral[labels.int()]
        return mask

    def _paint(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Intensities: a Gaussian for every tissue class, left and right alike."""
        s = self.settings
        means = uniform(0, 1, generator, len(self.ids))
        stds = uniform(0.01, 0.1, generator, len(self.ids))
        if uniform(0, 1, generator) < s.t1_share:
            contrast, offset = uniform(0.5, 1.25, generator), uniform(-0.1, 0.1, generator)
            t1 = torch.tensor([_T1_MEAN.get(RIGHT_TO_LEFT.get(i, i), float("nan")) for i in map(int, self.ids)])
            jitter = 0.045 * torch.randn(t1.shape, generator=generator)
            t1 = 1 + (t1 + jitter - 1) * contrast + offset
            # scalp fat is brighter than white matter, bone and air are dark: leave the outside free, up to 1.4
            means = torch.where(t1.isnan(), 1.4 * means, t1)
            stds = 0.02 + 0.7 * stds
        index = {int(i): k for k, i in enumerate(self.ids)}
        for right, left in RIGHT_TO_LEFT.items():
            if right in index and left in index:
                means[index[right]], stds[index[right]] = means[index[left]], stds[index[left]]
        background = index[0]
        means[background] = uniform(0, 0.15, generator) if uniform(0, 1, generator) < 0.5 else 0.0
        stds[background] = stds[background] * means[background]
        texture = self._noise(labels.shape, generator)
        means, stds, pick = sent(means, self.device), sent(stds, self.device), labels.int()
        return means[pick].addcmul_(stds[pick], texture).clamp_(min=0)

    def _scan(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Bias field, resolution and noise of a scanner; the result lies on the model's grid."""
        s = self.settings
        knots = uniform(0, s.bias_field, generator) * torch.randn((1, 1, 4, 4, 4), generator=generator)
        field = F.interpolate(sent(knots, self.device), size=image.shape, mode="trilinear", align_corners=True)
        image = image * field[0, 0].exp_()
        thickness = [1.0, 1.0, 1.0]
        if uniform(0, 1, generator) < s.thick_slices_share:
            thickness[int(integer(3, generator))] = float(uniform(2, 6, generator))
        elif s.coarse_share and uniform(0, 1, generator) < s.coarse_share:
            thickness = [float(uniform(1, s.coarsest_mm, generator))] * 3
        blur = float(uniform(0.3, 1.0, generator))
        image = _gaussian_blur(image, [blur * max(1.0, 0.5 * t) for t in thickness])
        shape = image.shape
        noise = float(uniform(0, s.noise, generator))
        acquired = resize_linear(image, (1.0,) * 3, tuple(thickness)) if max(thickness) > 1 else image
        acquired = acquired + noise * self._noise(acquired.shape, generator)
        if uniform(0, 1, generator) < 0.5:  # magnitude images have no negative values
            acquired = acquired.abs_()
        target = tuple(max(1, round(n / s.spacing_mm)) for n in shape)
        return resize_linear(acquired, tuple(thickness), (s.spacing_mm,) * 3, shape=target)

    def _table(self, targets: Mapping[int, int], ids: Sequence[int]) -> Tensor:
        return torch.tensor([targets.get(i, 0) for i in ids], dtype=torch.uint8, device=self.device)

    def _noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard normal numbers on the device, decided by the generator on the CPU."""
        if self.device.type == "cpu":
            return torch.randn(shape, generator=generator)
        if self.device.type == "meta":
            return torch.empty(shape, device=self.device)
        seed = int(torch.randint(2**62, (), generator=generator))
        own = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=own, device=self.device)


def _read_ids(path: Path) -> np.ndarray:
    """FreeSurfer ids `(X, Y, Z)` int16 with axes closest to RAS."""
    volume = read_labels(path)
    ids, spacing, _ = to_ras(volume.data, volume.grid)
    if ids.min() < 0 or ids.max() > _HIGHEST_ID:
        raise InputError(
            f"{path}: found ids from {ids.min()} to {ids.max()}, expected FreeSurfer ids 0 to {_HIGHEST_ID}"
        )
    if max(abs(size - 1) for size in spacing) > 0.1:
        sizes = " x ".join(f"{size:.3g}" for size in spacing)
        raise InputError(f"{path}: its voxels measure {sizes} mm, expected 1 mm; resample it")
    return np.ascontiguousarray(ids, np.int16)


def _crop_to(labels: Tensor, mask: Tensor, margin: int) -> Tensor:
    """Cut out the box that holds `mask`, and `margin` voxels around it."""
    box = []
    for first, last in extent(mask):
        box.append(slice(max(0, first - margin), last + margin + 1))
    return labels[tuple(box)].contiguous()


def extent(mask: Tensor) -> list[tuple[int, int]]:
    """First and last index of the true voxels along each axis; the whole axis where there are none."""
    extent = []
    for axis in range(3):
        filled = torch.nonzero(mask.amax(dim=[d for d in range(3) if d != axis]))
        extent.append((int(filled[0]), int(filled[-1])) if len(filled) else (0, mask.shape[axis] - 1))
    return extent


def _resize_nearest(labels: Tensor, shape: Sequence[int], spacing: float) -> Tensor:
    """Nearest voxel of a 1 mm map for every voxel of a centred grid."""
    for axis, n in enumerate(shape):
        centre = (labels.shape[axis] - 1) / 2
        at = centre + (torch.arange(n, device=labels.device) - (n - 1) / 2) * spacing
        labels = labels.index_select(axis, at.round().long().clamp_(0, labels.shape[axis] - 1))
    return labels


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Dilation by a cube, one axis after the other."""
    for axis in range(3):
        n, grown = mask.shape[axis], mask.clone()
        for offset in range(1, min(radius, n - 1) + 1):
            grown.narrow(axis, offset, n - offset).logical_or_(mask.narrow(axis, 0, n - offset))
            grown.narrow(axis, 0, n - offset).logical_or_(mask.narrow(axis, offset, n - offset))
        mask = grown
    return mask


def _gaussian_blur(image: Tensor, sigma: Sequence[float]) -> Tensor:
    for axis, value in enumerate(sigma):
        radius = max(1, int(2.5 * value + 0.5))
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / value) ** 2)
        kernel = (kernel / kernel.sum()).tolist()
        n = image.shape[axis]
        blurred = image * kernel[radius]
        for offset in range(1, min(radius, n - 1) + 1):
            weight = kernel[radius + offset]
            blurred.narrow(axis, offset, n - offset).add_(image.narrow(axis, 0, n - offset), alpha=weight)
            blurred.narrow(axis, 0, n - offset).add_(image.narrow(axis, offset, n - offset), alpha=weight)
        image = blurred
    return image


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on its way to a device, which nobody waits for."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers between `low` and `high`, on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def integer(high: int, generator: torch.Generator) -> Tensor:
    """One of the integers below `high`, on the CPU."""
    return torch.randint(high, (), generator=generator)
