"""Sections of a recipe that describe satellite scenes and images."""

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from pipelines.recipe.section import DataSection, Section, Share


class SceneSplit(Section):
    """How scenes are divided: by place, never pixel by pixel."""

    by: Literal["scenes", "last", "blocks", "halves"] = "blocks"
    """Whole scenes at random; the last scenes by name, such as the latest dates, for the test; square blocks of each
    scene; or each scene's north for training and its south for the test."""
    test: Share = 0.2
    validation: Share = 0.1
    """Of what remains for training; of halves, the southern part of the north."""
    block: PositiveInt = 512
    """Side of the blocks in pixels."""


class _Scenes(DataSection):
    """What both kinds of scene data share."""

    domain = "geovision"
    sensor: str
    """Of all scenes; see `geovision.sensors`."""
    bands: list[str]
    """Those the network sees, in its order."""
    file_bands: list[str] | None = None
    """Names of the files' bands in order, where the files do not say them."""
    scale: float | None = None
    """Value = stored number * scale + offset, where neither file nor sensor say so."""
    offset: float | None = None
    patch: PositiveInt = 96
    """Side of the stored patches in pixels; also of the tiles that scenes are mapped in."""
    stride: PositiveInt | None = None
    """From one patch to the next; by default the side."""
    min_valid: Share = 0.5
    """Patches with a smaller share of valid (and labelled) pixels are left out."""
    split: SceneSplit = Field(default_factory=SceneSplit)
    normalisation: Literal["mean_std", "satmae"] = "mean_std"
    statistics: Literal["published", "training"] = "training"
    """Means and deviations of the bands: those published for the sensor, or those of the training patches."""
    workers: NonNegativeInt = 0
    """Processes that cut patches; reading the store needs none."""
    skip_unreadable: bool = False


class SceneData(_Scenes):
    """Scenes that are cut into patches, to pretrain on; `root` is a folder of GeoTIFFs and products."""

    kind: Literal["scene_pretraining"]
    layout: str | None = None
    """Layout of images, one patch each, in place of scenes: a name of `SATELLITE_LAYOUTS`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the layout."""
    mask_ratio: Share = 0.75
    """Share of tokens that the encoder does not see."""
    resized_crop: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.0)
    """Smallest and largest share of a patch's area that is cut out and enlarged."""


class LabelledSceneData(_Scenes):
    """Scenes with label rasters on the same grid, to learn maps from.

    `root` holds the folders `images` and `labels`; a label raster has its scene's name, or is one for all.
    """

    kind: Literal["scene_mapping"]
    label_values: list[int] | None = None
    """Value of each class in the label rasters; other pixels are not learnt. By default the classes' numbers."""
    min_valid: Share = 0.01
    flip: bool = True
    """Mirror and turn training patches by quarters."""
    overlap: Share = 0.25
    """Share of a tile that is blended with the next when scenes are mapped."""


class LabelledImageData(_Scenes):
    """Labelled satellite images, read as published data sets lay them out."""

    kind: Literal["satellite_images"]
    layout: str
    """Layout of the files: a name of `pipelines.data.image_layouts.SATELLITE_LAYOUTS`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the layout."""
    resized_crop: tuple[PositiveFloat, PositiveFloat] = (0.3, 1.0)
    """Smallest and largest share of an image's area in a training view."""
    mixup: float = Field(default=0.8, ge=0)
    """Of images with one label: alpha of mixup; 0 for none."""
    cutmix: float = Field(default=1.0, ge=0)
    """Likewise of cutmix; where both are given, half of the batches each."""
    smoothing: Share = 0.1
    """Of the labels of images with one."""
    neighbours: PositiveInt = 20
    """Of the k-nearest-neighbour figures."""
