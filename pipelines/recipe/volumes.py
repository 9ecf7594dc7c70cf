"""Sections of a recipe that describe volumes: label maps to synthesise from, and labelled volumes."""

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from pipelines.recipe.section import DataSection, Filled, Section, Share, SplitSeed
from shared_backbones.json_values import Document

Normalisation: TypeAlias = str | dict[str, str | int | float]
Side: TypeAlias = Annotated[int, Field(ge=8, le=512)]


class SyntheticData(DataSection):
    """Slices synthesised from label maps while training."""

    domain = "medvision"
    kind: Literal["synthetic_volumes"]
    synthesis: dict[str, float] = Field(default_factory=dict)
    """Fields of `medvision.datasets.synthetic.SynthesisSettings` that differ from its defaults."""
    slices: Filled[int] = Field(default=[-2, -1, 0, 1, 2])
    """Offsets of the neighbouring slices that become channels."""
    size: PositiveInt = 128
    """Side of the square crops in voxels."""
    slices_per_volume: PositiveInt = 40
    buffer: NonNegativeInt = 1024
    """Slices kept to draw batches from, so that a batch mixes volumes."""
    workers: NonNegativeInt = 1


class Augmentation(Section):
    """How training slices are varied; 0 switches a part off."""

    rotation_degrees: float = Field(default=15, ge=0, le=180)
    scaling: Share = 0.15
    """Largest relative change of size."""
    shift: Share = 0.1
    """Largest shift, as a share of the crop's side."""
    elastic: float = Field(default=0, ge=0)
    """Largest displacement of a coarse grid of control points, in voxels."""
    flip: bool = False
    """Mirror slices along both axes; not where left and right are different labels."""
    intensity: Share = 0.15
    """Largest relative change of contrast and brightness."""
    gamma: float = Field(default=0.3, ge=0)
    """Largest log of the exponent applied to intensities."""
    noise: float = Field(default=0.03, ge=0)
    """Largest standard deviation of added noise, in units of the normalised image."""
    blur: float = Field(default=0.0, ge=0)
    """Largest sigma of Gaussian smoothing, in voxels."""


class LabelledVolumes(DataSection):
    """Volumes with label maps, read from the files as they were downloaded."""

    domain = "medvision"
    layout: str
    """How the files lie; see `medvision.datasets.layouts`."""
    options: Document = Field(default_factory=dict)
    """Of the layout, such as the rule of its split."""
    validation: Share = 0.1
    """Share of the training subjects that are held out to choose the checkpoint."""
    split_seed: SplitSeed = None
    """Seed of what the split draws; by default the recipe's `seed`."""
    spacing_mm: PositiveFloat | tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None] = 1.0
    """Spacing at which the network works, along all axes or each of the RAS ones; null keeps the scan's own."""
    normalisation: Normalisation | list[Normalisation] = "rescale_intensity"
    """Scaling of intensities, or a list with that of each channel; see `medvision.volumes.intensities.normalise`."""
    augmentation: Augmentation = Field(default_factory=Augmentation)
    workers: NonNegativeInt = 0
    """Processes that convert files; reading the store needs none."""
    skip_unreadable: bool = False


class ThickSliceData(DataSection):
    """Scans whose fine slices are made coarse along one axis, to be found again; no labels are needed."""

    domain = "medvision"
    kind: Literal["thick_slices"]
    layout: str = "scans"
    """How the files lie; see `medvision.datasets.layouts`. `scans` is a folder of scans."""
    options: Document = Field(default_factory=dict)
    """Of the layout, such as the rule of its split (`test_share`)."""
    validation: Share = 0.0
    """Share of the training subjects that are held out to choose the checkpoint."""
    split_seed: SplitSeed = None
    """Seed of what the split draws; by default the recipe's `seed`."""
    ratio: int = Field(default=3, ge=2, le=16)
    """Thin slices per thick one."""
    mtf: float = Field(default=0.25, gt=0, lt=1)
    """What a thick slice leaves of a wave that is two slices long (its modulation transfer function there)."""
    patch: Annotated[int, Field(ge=16, le=512)] = 48
    """Side of the squares that are learned from, in voxels; a multiple of the ratio."""
    least_contrast: float = Field(default=0.2, ge=0)
    """Squares with a smaller standard deviation, as a share of the scan's, are left out: background."""
    flip: bool = True
    """Mirror and turn training squares by quarters."""
    workers: NonNegativeInt = 0
    """Processes that convert files; reading the store needs none."""
    skip_unreadable: bool = False


class VolumeData(LabelledVolumes):
    """Labelled volumes for a network of slices."""

    kind: Literal["volumes"]
    slices: Filled[int] = Field(default=[-1, 0, 1])
    """Offsets of the neighbouring slices that become channels."""
    views: Filled[Literal["axial", "coronal", "sagittal"]] = Field(default=["axial"])
    """Planes that slices are cut along, in training and later in use."""
    size: PositiveInt = 64
    """Side of the square crops in voxels; smaller slices are padded with their lowest value."""
    foreground: Share = 0.5
    """Share of the training slices that are drawn among those with a label."""


class PatchData(LabelledVolumes):
    """Labelled volumes for a 3-D network."""

    kind: Literal["volume_patches"]
    channels: list[str] = Field(default_factory=list)
    """Names of the image's channels, where it has several: the volumes of 4-D files, or files that end in _0000, _0001
    and so on, in this order."""
    patch: tuple[Side, Side, Side]
    """Voxels along the RAS axes of what the network sees at once; smaller volumes are padded with 0."""
    foreground: Share = 1 / 3
    """Share of the training patches that have a voxel of a class at their centre."""
    overlap: float = Field(default=0.5, ge=0, le=0.9)
    """Share of a patch's side that the next one covers again when a volume is segmented."""
    mirror_axes: list[Literal[0, 1, 2]] = Field(default_factory=list)
    """RAS axes along which half of the training patches are mirrored; when a volume is segmented, logits are averaged
    over all mirror images. Not axis 0 where left and right are different labels."""
