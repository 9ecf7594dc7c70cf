"""Recipes: one YAML file holds everything that decides a result, or names the data that does."""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.recipe.images import GalaxyData, MedicalImageData
from pipelines.recipe.section import Section, Share
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256
from shared_backbones.weights import read_card

STAGES = ("prepare", "train", "evaluate", "report", "register")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]  # of folders and of models


class SyntheticData(Section):
    """Slices synthesised from label maps while training."""

    kind: Literal["synthetic"]
    root: str | None = None
    """Folder of label maps."""
    synthesis: dict[str, float] = Field(default_factory=dict)
    """Fields of `medvision.datasets.synthetic.SynthesisSettings` that differ from its defaults."""
    slices: list[int] = Field(default=[-2, -1, 0, 1, 2])
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


class VolumeData(Section):
    """Volumes with label maps, read from the files as they were downloaded."""

    kind: Literal["volumes"]
    layout: str
    """How the files lie; see `medvision.datasets.layouts`."""
    root: str | None = None
    """Folder of the files."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the layout, such as the rule of its split."""
    validation: Share = 0.1
    """Share of the training subjects that are held out to choose the checkpoint."""
    spacing_mm: PositiveFloat | tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None] = 1.0
    """Spacing at which the network works, along all axes or each of the RAS ones; null keeps the scan's own."""
    normalisation: str | dict[str, Any] = "rescale_intensity"
    """Scaling of intensities; see `medvision.volumes.resampling.normalise`."""
    slices: list[int] = Field(default=[-1, 0, 1])
    """Offsets of the neighbouring slices that become channels."""
    views: list[Literal["axial", "coronal", "sagittal"]] = Field(default=["axial"])
    """Planes that slices are cut along, in training and later in use."""
    size: PositiveInt = 64
    """Side of the square crops in voxels; smaller slices are padded with their lowest value."""
    foreground: Share = 0.5
    """Share of the training slices that are drawn among those with a label."""
    augmentation: Augmentation = Field(default_factory=Augmentation)
    workers: NonNegativeInt = 0
    """Processes that convert files; reading the store needs none."""
    skip_unreadable: bool = False


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


class _Scenes(Section):
    """What both kinds of scene data share."""

    root: str | None = None
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

    kind: Literal["scenes"]
    layout: str | None = None
    """Images of a published data set, one patch each, in place of scenes; see `geovision.datasets.layouts`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the layout."""
    mask_ratio: Share = 0.75
    """Share of tokens that the encoder does not see."""
    crop: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.0)
    """Smallest and largest share of a patch's area that is cut out and enlarged."""


class LabelledSceneData(_Scenes):
    """Scenes with label rasters on the same grid, to learn maps from.

    `root` holds the folders `images` and `labels`; a label raster has its scene's name, or is one for all.
    """

    kind: Literal["labelled_scenes"]
    label_values: list[int] | None = None
    """Value of each class in the label rasters; other pixels are not learnt. By default the classes' numbers."""
    min_valid: Share = 0.01
    flip: bool = True
    """Mirror and turn training patches by quarters."""
    overlap: Share = 0.25
    """Share of a tile that is blended with the next when scenes are mapped."""


class LabelledImageData(_Scenes):
    """Labelled satellite images, read as published data sets lay them out."""

    kind: Literal["labelled_images"]
    layout: str
    """See `geovision.datasets.layouts`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the layout."""
    crop: tuple[PositiveFloat, PositiveFloat] = (0.3, 1.0)
    """Smallest and largest share of an image's area in a training view."""
    mixup: float = Field(default=0.8, ge=0)
    """Of images with one label: alpha of mixup; 0 for none."""
    cutmix: float = Field(default=1.0, ge=0)
    """Likewise of cutmix; where both are given, half of the batches each."""
    smoothing: Share = 0.1
    """Of the labels of images with one."""
    neighbours: PositiveInt = 20
    """Of the k-nearest-neighbour figures."""


class ModelSection(Section):
    """What is trained."""

    architecture: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    init: str | None = None
    """Trained model whose weights training starts from: a folder, a bundled name, or `models:/NAME@ALIAS`."""
    backbone_weights: str | None = None
    """File of torchvision's or timm's weights, such as ImageNet's, that the network's backbone starts from."""

    @model_validator(mode="after")
    def _one_start(self) -> "ModelSection":
        if self.init and self.backbone_weights:
            raise ValueError("give either init or backbone_weights: init has weights for the backbone, too")
        return self


class TrainSection(Section):
    """How it is trained: for a number of steps or, where the data has an end, of epochs."""

    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    steps_per_epoch: PositiveInt | None = None
    """Length of an epoch; by default as many as it takes to draw every slice once."""
    batch_size: PositiveInt = 16
    """Of all processes together: however many there are, they learn from the same batches."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are summed for a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 2e-3
    momentum: Share = 0.9
    """Of SGD."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each block of a vision transformer learns at this share of the rate of the one above it."""
    learnt: Literal["all", "head"] = "all"
    """What of the network learns; with `head` the rest stays as it is, as a linear probe wants."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of AdamW."""
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    """Poly is (1 - step / steps) ** 0.9."""
    final_rate: Share = 0.01
    """Of the cosine schedule: the learning rate at the end, as a share of the highest."""
    warmup_steps: NonNegativeInt = 200
    weight_decay: float = Field(default=0.02, ge=0)
    gradient_clip: PositiveFloat | None = 1.0
    ema_decay: Share = 0.998
    """Of the averaged weights that are evaluated and kept; 0 keeps the last ones."""
    norm_images: NonNegativeInt = 0
    """Training images without augmentation that statistics of batch norms are estimated from before each validation,
    of classifiers of images; 0 keeps the running ones, which are of augmented images under dropout."""
    loss: Literal["dice_ce", "dice_focal", "ce"] = "dice_ce"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    """Compile the network with torch.compile before the first step; wants a C++ compiler."""
    checkpoint_every: PositiveInt = 500
    validate_every: PositiveInt | None = None
    """Steps between validations; by default an epoch."""
    patience: PositiveInt | None = None
    """Validations without a better one after which training ends."""
    devices: PositiveInt = 1
    """Processes that train together, each on a device (or CPU thread pool) of its own and on its share of each batch;
    where srun or torchrun start them, as many as those start."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Whether each process holds the whole network and optimiser (DDP), or a share of both (FSDP); the latter averages
    no weights."""
    sync_batchnorm: bool = False
    """Take a batch norm's statistics over all processes; else each has those of its own share."""
    threads: PositiveInt | None = None
    """CPU threads of each process."""
    local_copy: str | None = None
    """Folder on each node's own disk that the prepared data are copied to and read from; see
    `pipelines.data.local_copy`."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSection":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    @model_validator(mode="after")
    def _can_be_shared(self) -> "TrainSection":
        wrong = {"ema_decay": self.ema_decay > 0, "compile": self.compile, "precision": self.precision == "16-mixed"}
        if self.strategy == "fsdp" and any(wrong.values()):
            name = next(name for name, found in wrong.items() if found)
            raise ValueError(
                f"strategy=fsdp: found {name}={getattr(self, name)}, expected ema_decay=0, compile=false and "
                "precision 32-true or bf16-mixed; set them so, or strategy=ddp"
            )
        return self


class EvaluateSection(Section):
    """How the test cases are scored."""

    protocol: str = "default"
    """See `medvision.metrics.protocols`."""
    resamples: PositiveInt = 2000
    """Of the bootstrap intervals."""


class RegisterSection(Section):
    """Under which name the trained model is registered."""

    name: Name | None = None
    """By default the recipe's."""
    alias: Name = "newest"

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, alias: str) -> str:
        if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.I) or "." in alias:
            raise ValueError(f"{alias!r} is no alias MLflow takes; expected letters, digits, _, -, not latest or v1")
        return alias


class TrackingSection(Section):
    """Where the run is noted; the store itself is MLFLOW_TRACKING_URI, or `mlruns/mlflow.db` in the current folder."""

    experiment: str | None = None
    """By default the recipe's domain."""
    system_metrics: bool = True
    """Note the machine's load every ten seconds."""


class Recipe(Section):
    """A whole recipe; see `pipelines/recipes/`."""

    name: Name
    domain: Literal["medvision", "geovision", "astrovision"] = "medvision"
    seed: int = Field(default=0, ge=0, lt=2**31)
    output: str | None = None
    """Folder of everything the run makes; by default `runs/<name>`."""
    data: Annotated[
        SyntheticData | VolumeData | SceneData | LabelledSceneData | LabelledImageData | GalaxyData | MedicalImageData,
        Field(discriminator="kind"),
    ]
    model: ModelSection
    train: TrainSection
    evaluate: EvaluateSection = EvaluateSection()
    register_as: RegisterSection = RegisterSection()
    tracking: TrackingSection = TrackingSection()
    card: dict[str, Any] = Field(default_factory=dict)
    """What goes into `model.json` beside what training itself records."""

    @model_validator(mode="after")
    def _something_to_copy(self) -> "Recipe":
        if self.train.local_copy and self.data.kind == "synthetic":
            raise ValueError("train.local_copy: synthetic slices are drawn from files as they are; leave it out")
        return self


def shown(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe is noted with a run and stands on its report: no folder, and no name of a subject."""
    content = recipe.model_dump(exclude={"output": True, "card": True, "train": {"local_copy"}})
    content["data"].pop("root", None)
    for key in ("test", "images", "labels", "table", "file", "catalogue"):  # subjects, folders and files
        content["data"].get("options", {}).pop(key, None)
    content["model"] = shown_model(recipe)
    return content


def shown_model(recipe: Recipe) -> dict[str, Any]:
    """The model's section, with the sha256 of the weights that training starts from in place of paths."""
    file = recipe.model.backbone_weights
    return {
        **recipe.model.model_dump(),
        "init": shown_init(recipe),
        "backbone_weights": None if file is None else f"sha256:{file_sha256(file)}",
    }


def shown_init(recipe: Recipe) -> str | None:
    """What training starts from: a bundled model's name, or the sha256 of the weights in a folder, not its path."""
    init = recipe.model.init
    if init is None or not Path(init).is_dir():
        return init
    return f"sha256:{read_card(init)['weights_sha256']}"


def bundled_recipes() -> dict[str, Path]:
    """Files of the bundled recipes, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parents[1].glob("recipes/*/*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe.

    Raises:
        InputError: neither the name of a bundled recipe nor a YAML file's path.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    bundled = bundled_recipes()
    if name_or_path not in bundled:
        names = ", ".join(bundled)
        raise InputError(f"recipe {name_or_path!r}: expected the path of a .yaml file or one of: {names}")
    return bundled[name_or_path]


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides.

    Args:
        name_or_path: name of a bundled recipe (`brain_structures`) or path of a YAML file.
        overrides: `section.key=value`, the value in YAML syntax.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, or a value of the wrong kind.
    """
    path = find_recipe(name_or_path)
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the path of a recipe") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; pass the path of a recipe") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {type(content).__name__}, expected a YAML mapping of sections")
    for override in overrides:
        _apply(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error.errors()[0])}") from None


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is not YAML ({' '.join(str(error).split())})") from None


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"{override!r}: expected section.key=value, for example train.steps=100")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"{override!r}: {section!r} is not a section")
    content[last] = _parse(value, repr(override))


def _explain(problem: Mapping[str, Any]) -> str:
    """One line for a problem that pydantic found; for an unknown key, the known one most like it."""
    model: Any = Recipe
    path, known = [], list(Recipe.model_fields)
    for part in problem["loc"]:
        variants = _sections(model)
        tagged = [section for section in variants if part in _tags(section)]
        if tagged:  # the kind of a section with several: not a level of the file
            model = tagged[0]
            continue
        path.append(str(part))
        fields = variants[0].model_fields if variants else {}
        known = list(fields)
        model = fields[part].annotation if part in fields else None
    where = ".".join(path)
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType, Annotated}:
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    kind = section.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()
