"""Sections of a recipe that describe labelled images."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from pipelines.recipe.section import DataSection, Filled, Section, Share, SplitSeed
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries


class ImageAugmentation(Section):
    """How training images are varied; 0 switches a part off."""

    mirrored: bool = True
    """Whether half of them are mirrored."""
    resized_crop: tuple[PositiveFloat, PositiveFloat] | None = None
    """Smallest and largest fraction of the area that is cut out at random and resized; null keeps the middle."""
    rotation_degrees: float = Field(default=180, ge=0, le=180)
    scaling: Share = 0.15
    """Largest relative change of size."""
    shift: Share = 0.05
    """Largest shift, as a fraction of the side."""
    brightness: Share = 0.15
    """Largest relative change of brightness and of contrast."""
    color: Share = 0.15
    """Largest relative change of saturation, and a tenth of it of hue."""
    noise: Share = 0.02
    """Largest standard deviation of added noise, in values from 0 to 1."""
    blur: float = Field(default=0.0, ge=0)
    """Largest sigma of a Gaussian blur, in pixels."""


class ImageSplit(Section):
    """Shares drawn within each class, where the data set has no split of its own."""

    test: Share = 0.1
    validation: Share = 0.1
    """Of the training images."""


class LabelledImages(DataSection):
    """Labelled images that a classifier learns from.

    A class of the card whose mirror image is another class names it as its `mirror`: mirrored training images get that
    label. Classes that are their own mirror images name none.
    """

    layout: str
    """Layout of the files: a name of `LAYOUTS` in `pipelines.data.image_layouts`."""
    options: Entries = Field(default_factory=dict)
    """Options of the layout."""
    split: ImageSplit = Field(default_factory=ImageSplit)
    split_seed: SplitSeed = None
    """Seed of what the split draws; by default the recipe's `seed`."""
    label_fixes: list[str] = Field(default_factory=list)
    """Tables of labels that readers gave in galleries (labels-fixed.csv), in place of those of the data set. Images
    that are artefacts, or that readers were not sure of, are left out of training and validation."""
    fix_test_labels: bool = False
    """Whether labels of test images are replaced, too, which needs as many random images as doubtful ones."""
    balance: float = Field(default=0.0, ge=0, le=1)
    """0 draws every training image equally often, 1 every class; between, classes by the power 1 - balance."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup; 0 for none."""
    smoothing: Share = 0.0
    """Smoothing of the labels."""
    symmetries: bool = False
    """Average over the eight symmetries of the square, in evaluation and in use."""
    coverage: float = Field(default=0.9, gt=0, lt=1)
    """Coverage of the prediction sets that the trained model gives."""
    merged: dict[str, Filled[str]] = Field(default_factory=dict)
    """Classes that the evaluation also scores as one, by the name of the whole."""
    corruption_images: NonNegativeInt = 0
    """Test images that are also scored under every corruption of the domain at five severities."""
    workers: NonNegativeInt = 0
    """Processes that read images; reading the store needs none."""
    skip_unreadable: bool = False


class LabelledPictures(LabelledImages):
    """Labelled images of 8 bits."""

    crop: float = Field(default=1.0, gt=0, le=1)
    """Fraction of an image's side, around its centre, that is stored."""
    stored: PositiveInt = 256
    """Side in pixels of the stored images."""
    size: PositiveInt = 256
    """Side in pixels of what the network sees, from the middle of the stored image."""
    detail: PositiveInt | None = None
    """Side in pixels to which larger images are reduced before they are stored, in training and in use: give it where
    the data set's own images are smaller than `stored`, so that sharper ones look as they do."""
    augmentation: ImageAugmentation = Field(default_factory=ImageAugmentation)


class GalaxyData(LabelledPictures):
    """Images of galaxies: colour images, sources of a FITS mosaic, or drawn ones."""

    domain = "astrovision"
    kind: Literal["galaxies"]
    symmetries: bool = True
    pixel_scale_arcsec: PositiveFloat | None = None
    """Of the stored images, where it is the same for all; cut-outs of a mosaic have it, by default the mosaic's own."""
    stretch: Entries | None = None
    """Of the fluxes of FITS images: kind and parameters, see `astrovision.stretches`. Of colour images the one that
    made them, where it is known (`sdss`): the model then takes FITS images, too."""
    parity: Literal[-1, 1] = -1
    """Of the cut-outs of FITS images, which are mirrored for it: -1 has east left of north, the first row below."""

    @field_validator("stretch")
    @classmethod
    def _known_stretch(cls, stretch: Entries | None) -> Entries | None:
        from astrovision.stretches import Stretch

        try:
            return None if stretch is None else Stretch.from_card(stretch, "of the recipe").card()
        except InputError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _stretch_where_there_are_fluxes(self) -> "GalaxyData":
        if self.holds_fluxes and self.stretch is None:
            raise ValueError(
                f"stretch is needed by the layout {self.layout}, whose images hold fluxes; give it, such as "
                "data.stretch={kind: asinh, parameters: {low: 0, high: 10, softening: 0.1}}"
            )
        if not self.holds_fluxes and self.stretch is not None and self.stretch["kind"] != "sdss":
            raise ValueError(
                f"stretch {self.stretch['kind']} is for the layouts mosaic and fits; images of the layout "
                f"{self.layout} are stretched already: leave it out, or give sdss where they are pictures of SDSS"
            )
        return self

    @property
    def holds_fluxes(self) -> bool:
        """Whether the images are FITS images."""
        return self.layout in ("mosaic", "fits")


class MedicalImageData(LabelledPictures):
    """Medical images: grey where the model has one input channel, else colours (grey images are repeated)."""

    domain = "medvision"
    kind: Literal["medical_images"]
    stored: PositiveInt = 28
    size: PositiveInt = 28
    corruptions: str | None = None
    """Set of MedMNIST whose corruptions are meant, such as `pneumoniamnist`; by default that of the data."""
    corruption_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the training images that `medvision.corruptions.medmnist_c.augmentation` sees: it draws one of the set's
    corruptions at any severity or, as likely as each of them, none."""


class MaskedImageData(DataSection):
    """Medical images, each with a mask of the one thing that is to be found, such as a polyp.

    The first class of the card is the background, the second what the masks show.
    """

    domain = "medvision"
    kind: Literal["image_segmentation"]
    layout: str
    """Layout of the files: a name of `pipelines.data.image_layouts.MASKED_LAYOUTS`."""
    options: Entries = Field(default_factory=dict)
    """Options of the layout."""
    split: ImageSplit = Field(default_factory=ImageSplit)
    split_seed: SplitSeed = None
    """Seed of what the split draws; by default the recipe's `seed`."""
    size: PositiveInt = 352
    """Side in pixels of what the network sees: the whole image, resized."""
    augmentation: ImageAugmentation = Field(default_factory=ImageAugmentation)
    workers: NonNegativeInt = 0
    """Processes that read images; reading the store needs none."""
    skip_unreadable: bool = False
