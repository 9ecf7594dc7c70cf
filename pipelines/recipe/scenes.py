"""Sections of a recipe that describe satellite scenes and images."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from geovision.spectra.responses import HALF_POWER
from pipelines.recipe.images import ImageSplit, LabelledImages
from pipelines.recipe.section import DataSection, Filled, Section, Share, SplitSeed
from shared_backbones.json_values import Entries


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


class SensorData(DataSection):
    """What all kinds of satellite data share: the sensor, its bands and their numbers."""

    domain = "geovision"
    sensor: str
    """Sensor of all scenes; its name in `geovision.sensors`."""
    bands: Filled[str]
    """Those the network sees, in its order."""
    file_bands: Filled[str] | None = None
    """Names of the files' bands in order, where the files do not say them."""
    scale: float | None = None
    """Value = stored number * scale + offset, where neither file nor sensor say so."""
    offset: float | None = None
    mask_clouds: bool = False
    """Whether clouds and their shadows count as invalid, where products say where they are."""
    patch: PositiveInt = 96
    """Side of the stored patches, or images, in pixels."""
    normalisation: Literal["mean_std", "satmae"] = "mean_std"
    statistics: Literal["published", "training", "init"] = "training"
    """Means and deviations of the bands: published ones of the sensor, those of the training, or of `model.init`."""
    workers: NonNegativeInt = 0
    """Processes that cut patches; reading the store needs none."""
    skip_unreadable: bool = False


class _Scenes(SensorData):
    """What both kinds of scene data share."""

    stride: PositiveInt | None = None
    """From one patch to the next; by default the side."""
    min_valid: Share = 0.5
    """Patches with a smaller fraction of valid (and labelled) pixels are left out."""
    split: SceneSplit = Field(default_factory=SceneSplit)
    split_seed: SplitSeed = None
    """Seed of what the split draws; by default the recipe's `seed`."""


class SceneData(_Scenes):
    """Scenes that are cut into patches, to pretrain on; `root` is a folder of GeoTIFFs and products."""

    kind: Literal["scene_pretraining"]
    layout: str | None = None
    """Layout of images, one patch each, in place of scenes: a name of `SATELLITE_LAYOUTS`, or `torchgeo:CLASS`."""
    options: Entries = Field(default_factory=dict)
    """Of the layout."""
    mask_ratio: Share = 0.75
    """Share of tokens that the encoder does not see."""
    resized_crop: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.0)
    """Smallest and largest fraction of a patch's area that is cut out and enlarged."""


class LabelledSceneData(_Scenes):
    """Scenes with label rasters on the same grid, to learn maps from.

    `root` holds the folders `images` and `labels`; labels have their scene's name, or are one file for all. They are
    rasters of whole numbers, or polygons (GeoPackage, GeoJSON, shapefile) with a column of classes.
    """

    kind: Literal["scene_mapping"]
    layout: str | None = None
    """`torchgeo:CLASS`: a data set of torchgeo with masks, in place of `images` and `labels`."""
    options: Entries = Field(default_factory=dict)
    """Of the layout."""
    label_values: Filled[int] | None = None
    """Value of each class in the label rasters; other pixels are left out. By default the classes' numbers."""
    label_column: str | None = None
    """Column of the classes where labels are polygons; by default `class`, `label`, or the only one."""
    min_valid: Share = 0.01
    flip: bool = True
    """Mirror and turn training patches by quarters."""
    overlap: Share = 0.25
    """Share of a tile that is blended with the next when scenes are mapped."""


class InstanceSceneData(_Scenes):
    """Scenes in which single objects are to be found, such as fields or buildings.

    `root` holds the folders `images` and `labels`; labels have their scene's name, or are one file for all. They are
    polygons (GeoPackage, GeoJSON, shapefile), each an object, with a column of classes where there are several, or
    rasters on their scene's grid with a number for each object and 0 where there is none.
    """

    kind: Literal["scene_instances"]
    label_values: Filled[int] | None = None
    """Value of each class in the column of classes. By default the classes' numbers."""
    label_column: str | None = None
    """Column of the classes where there are several; by default `class`, `label`, or the only one."""
    patch: PositiveInt = 96
    """Side of the stored patches in pixels, a multiple of 32."""
    flip: bool = True
    """Mirror and turn training patches by quarters."""
    overlap: Share = 0.5
    """Share of a tile that the next one sees again when scenes are mapped; objects in it are joined."""
    threshold: Share = 0.5
    """Smallest probability of an object's class."""


class SyntheticSceneData(DataSection):
    """Scenes drawn from spectra while training; there are no files."""

    domain = "geovision"
    kind: Literal["synthetic_scenes"]
    size: Annotated[int, Field(ge=16, le=512)] = 48
    """Side of the scenes in pixels."""
    sensors: Filled[str] = Field(default_factory=lambda: list(HALF_POWER))
    """Whose bands see the scenes; all whose responses are known."""
    validation_scenes: PositiveInt = 96
    test_scenes: PositiveInt = 400
    workers: NonNegativeInt = 0

    @field_validator("sensors")
    @classmethod
    def _are_known(cls, sensors: list[str]) -> list[str]:
        unknown = [sensor for sensor in sensors if sensor not in HALF_POWER]
        if unknown:
            raise ValueError(
                f"no band responses are known of {', '.join(unknown)}; expected some of: {', '.join(HALF_POWER)}"
            )
        return sensors


class SharpenedSceneData(_Scenes):
    """Scenes whose coarse bands are to be brought to the resolution of the fine ones; `root` is as of `SceneData`.

    Nothing but the scenes themselves is learnt from: everything is degraded once more, as the sensor would do it.
    """

    kind: Literal["restoration"]
    coarse: Filled[str]
    """Bands that are coarse; each of their values is repeated in a file of all bands. Where all bands are, scenes are
    enlarged: they are read on a grid that is `ratio` times as fine, which `patch` counts, too."""
    ratio: int = Field(default=2, ge=2)
    """Pixels of the fine grid per coarse one along each axis."""
    mtf: float = Field(default=0.25, gt=0, lt=1)
    """What the sensor leaves of a wave that is two coarse pixels long (its modulation transfer function there)."""
    tile: PositiveInt = 256
    """Side in pixels of the tiles in which scenes are enhanced."""
    overlap: NonNegativeInt = 32
    """Pixels that a tile is blended with the next in."""
    flip: bool = True
    """Mirror and turn training patches by quarters."""


class SatelliteAugmentation(Section):
    """How training images are varied, on the device where the network is."""

    mirrored: bool = True
    """Whether half of them are mirrored."""
    resized_crop: tuple[PositiveFloat, PositiveFloat] = (0.3, 1.0)
    """Smallest and largest fraction of an image's area that is cut out at random and enlarged."""


class SatelliteSplit(ImageSplit):
    """Fractions drawn within each class, where the data set has no split of its own."""

    test: Share = 0.2


class SatelliteImageData(SensorData, LabelledImages):
    """Labelled satellite images, read as published data sets lay them out."""

    kind: Literal["satellite_images"]
    layout: str
    """Layout of the files: a name of `pipelines.data.image_layouts.SATELLITE_LAYOUTS`, or `torchgeo:CLASS`."""
    split: SatelliteSplit = Field(default_factory=SatelliteSplit)
    augmentation: SatelliteAugmentation = Field(default_factory=SatelliteAugmentation)
    mixup: float = Field(default=0.8, ge=0)
    """Alpha of mixup, for images with one label; 0 for none."""
    cutmix: float = Field(default=1.0, ge=0)
    """Alpha of cutmix, for images with one label; where both are given, half of the batches each."""
    smoothing: Share = 0.1
    """Smoothing of the labels of images with one."""
    neighbours: PositiveInt = 20
    """Neighbours that the k-nearest-neighbour figures count."""
