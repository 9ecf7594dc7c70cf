"""Recipes: one YAML file holds everything that decides a result, or names the data that does."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipelines.recipe.images import GalaxyData, MaskedImageData, MedicalImageData
from pipelines.recipe.scenes import (
    InstanceSceneData,
    LabelledSceneData,
    SatelliteImageData,
    SceneData,
    SharpenedSceneData,
    SyntheticSceneData,
)
from pipelines.recipe.search import SearchSection
from pipelines.recipe.section import Domain, Section, Share
from pipelines.recipe.volumes import PatchData, SyntheticData, ThickSliceData, VolumeData
from shared_backbones.card import Card
from shared_backbones.json_values import Entries

STAGES = ("prepare", "train", "evaluate", "report", "register")
_WEIGHTS = (".pth", ".pt", ".safetensors")  # files of weights
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]  # of folders and of models


class ModelSection(Section):
    """What is trained."""

    architecture: str
    arguments: Entries = Field(default_factory=dict)
    init: str | None = None
    """Trained model whose weights training starts from: a folder, a bundled name, or `models:/NAME@ALIAS`; a file of
    weights (`.pth`, `.pt`, `.safetensors`) is taken for `backbone_weights`."""
    backbone_weights: str | None = None
    """File of torchvision's, timm's or torchgeo's weights, such as ImageNet's, that the network's backbone starts
    from."""
    accept_license: bool = Field(default=False, exclude_if=lambda accepted: not accepted)
    """Start from weights of which nobody names a licence."""

    @model_validator(mode="after")
    def _one_start(self) -> "ModelSection":
        if self.init and self.backbone_weights:
            raise ValueError("give either init or backbone_weights: init has weights for the backbone, too")
        if self.init and self.init.endswith(_WEIGHTS):
            self.init, self.backbone_weights = None, self.init
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
    backbone_rate: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda rate: rate == 1)
    """Share of the rate at which a segmenter's backbone learns, which usually starts from published weights."""
    trainable: Literal["all", "head"] = "all"
    """What of the network learns; with `head` the rest stays as it is, as a linear probe needs."""
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
    loss: Literal["dice_ce", "dice_focal", "ce", "ce_uncertainty"] = "dice_ce"
    """Of segmenters; `ce_uncertainty` is MSRNet's: cross-entropy, and a price of being unsure that rises to the end."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    """Compile the network with torch.compile before the first step; needs a C++ compiler."""
    checkpoint_every: PositiveInt = 500
    log_every: PositiveInt = 50
    """Steps between the figures of training: loss, gradient norm, learning rate and speed."""
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
            name = next(name for name, is_wrong in wrong.items() if is_wrong)
            raise ValueError(
                f"strategy=fsdp: found {name}={getattr(self, name)}, expected ema_decay=0, compile=false and "
                "precision 32-true or bf16-mixed; set them so, or strategy=ddp"
            )
        return self


class FoldSection(Section):
    """Cross-validation: all cases outside the test are divided into folds, by subject or group; one is validated on."""

    number: PositiveInt
    """Fold that is validated on, from 1; the network learns from the others."""
    of: int = Field(ge=2, le=100)
    """Number of folds, which take the place of the data's own validation split."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "FoldSection":
        if self.number > self.of:
            raise ValueError(f"number is {self.number}, expected 1 to {self.of}")
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
    seed: int = Field(default=0, ge=0, lt=2**31)
    output: str | None = None
    """Folder of everything the run makes; by default `runs/<name>`."""
    data: Annotated[
        SyntheticData
        | VolumeData
        | PatchData
        | ThickSliceData
        | SceneData
        | LabelledSceneData
        | InstanceSceneData
        | SyntheticSceneData
        | SharpenedSceneData
        | SatelliteImageData
        | GalaxyData
        | MedicalImageData
        | MaskedImageData,
        Field(discriminator="kind"),
    ]
    domain: Domain = Field(default_factory=lambda fields: fields["data"].domain)
    """Follows from `data.kind`; where it is given, it must be that one."""
    model: ModelSection
    train: TrainSection
    fold: FoldSection | None = Field(default=None, exclude_if=lambda fold: fold is None)
    search: SearchSection | None = Field(default=None, exclude_if=lambda search: search is None)
    evaluate: EvaluateSection = EvaluateSection()
    register_as: RegisterSection = RegisterSection()
    tracking: TrackingSection = TrackingSection()
    card: Annotated[Entries, Card] = Field(default_factory=dict)
    """What goes into `model.json` beside what training itself records."""

    _overridden: tuple[str, ...] = ()

    @property
    def overridden(self) -> tuple[str, ...]:
        """Keys whose values are not those of the recipe's file, such as `train.learning_rate`."""
        return self._overridden

    def with_overridden(self, keys: Sequence[str]) -> "Recipe":
        """The recipe, knowing which keys the command line changed."""
        recipe = self.model_copy()
        recipe._overridden = tuple(keys)
        return recipe

    @property
    def digest(self) -> str:
        """Digest of everything that the recipe says, which names its run in the output folder."""
        content = json.dumps(self.model_dump(), sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def folds(self) -> int | None:
        """Number of folds that the cases outside the test are divided into, if they are."""
        return self.fold.of if self.fold else None

    @property
    def split_seed(self) -> int:
        """Seed of what the split draws."""
        own: int | None = getattr(self.data, "split_seed", None)  # synthetic volumes have no split
        return self.seed if own is None else own

    @field_validator("card")
    @classmethod
    def _texts_of_the_card(cls, card: Entries) -> Entries:
        for key in ("name", "version", "description", "license"):
            if not isinstance(card.get(key, ""), str):
                raise ValueError(f"{key}: found {card[key]}, expected text; give one, or leave it out")
        return card

    @model_validator(mode="after")
    def _domain_of_the_data(self) -> "Recipe":
        if self.domain != self.data.domain:
            raise ValueError(
                f"domain is {self.domain}, but data.kind={self.data.kind} is of {self.data.domain}; leave domain out"
            )
        return self

    @model_validator(mode="after")
    def _something_to_divide(self) -> "Recipe":
        if self.fold and self.data.kind == "synthetic_volumes":
            raise ValueError("fold: synthetic slices are drawn anew, there is nothing to divide; leave it out")
        if self.fold and getattr(getattr(self.data, "split", None), "by", "") == "halves":
            raise ValueError("fold: data.split.by=halves has two fixed parts; give scenes, last or blocks")
        return self

    @model_validator(mode="after")
    def _something_to_copy(self) -> "Recipe":
        if self.train.local_copy and self.data.kind == "synthetic_volumes":
            raise ValueError("train.local_copy: synthetic slices are drawn from files as they are; leave it out")
        return self
