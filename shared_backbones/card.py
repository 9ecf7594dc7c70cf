"""The card of a trained model, `model.json`: what it is, what it expects, and where it comes from."""

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, Required, TypedDict, cast, get_type_hints

from shared_backbones.architectures import Arguments
from shared_backbones.arguments import fits
from shared_backbones.documents import parse_json, read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Json

CARD = "model.json"
SCHEMA_VERSION = 1


class ClassEntry(TypedDict):
    """A class of a model.

    Attributes:
        id: Number of the class, which is its place in the network's output; classifiers may leave it out.
        name: Name, in the characters of a file name.
        color: Red, green and blue, from 0 to 255.
        mirror: Name of the class that its mirror image has; by default its own.
        code: Coding scheme, value and meaning of a structure.
        pieces: Parts that a structure has by nature; 2 where the card does not say.
    """

    id: NotRequired[int]
    name: str
    color: NotRequired[Sequence[int]]
    mirror: NotRequired[str]
    code: NotRequired[Sequence[str]]
    pieces: NotRequired[int]


class Calibration(TypedDict, total=False):
    """What was fitted to a classifier's probabilities on validation images.

    Attributes:
        temperature: Divisor of the logits.
        quantile: Threshold of prediction sets, from 0 to 1.
        coverage: Nominal coverage of the prediction sets.
        symmetries: Whether probabilities are means over the symmetries of the square.
    """

    temperature: float
    quantile: float | None
    coverage: float | None
    symmetries: bool


class Member(TypedDict, total=False):
    """A network of an ensemble.

    Attributes:
        weights_sha256: SHA-256 of the weights that it was trained to.
        seed: Seed of its training.
        fold: Number of the fold that it was validated on.
    """

    weights_sha256: Required[str]
    seed: int
    fold: int | None


class Card(TypedDict, total=False):
    """The content of `model.json`; what a domain expects of its inputs is read by the domain's contract.

    Attributes:
        schema_version: Version of this form, 1.
        architecture: Name of a registered architecture.
        arguments: Arguments of its constructor.
        weights_sha256: Hexadecimal SHA-256 of `model.safetensors`.
        name: Name of the model.
        version: Version of the model.
        description: What it does, in one sentence.
        license: Licence of the weights.
        parameters: Number of parameters.
        classes: Classes of the output, by number.
        parts: Parts of the classes that a segmentation network tells apart; see `medvision.parts`.
        multi_label: Whether an image can have several classes.
        input: What the model expects of an input.
        calibration: What was fitted to its probabilities.
        bfloat16_agreement: Share of outputs that are the same in bfloat16 as in float32.
        training: Data and settings of the training.
        metrics: Figures of an evaluation.
        limits: What the model must not be used for.
        members: Trained networks that an ensemble is made of.
    """

    schema_version: Required[int]
    architecture: Required[str]
    arguments: Required[Arguments]
    weights_sha256: Required[str]
    name: str
    version: str
    description: str
    license: str
    parameters: int
    classes: list[ClassEntry]
    parts: list[Document]
    multi_label: bool
    input: Document
    calibration: Calibration
    bfloat16_agreement: float
    training: Document
    metrics: Document
    limits: list[str]
    members: list[Member]


class Provenance(TypedDict):
    """What a side-car says of a model."""

    name: str | None
    version: str | None
    architecture: str
    sha256: str
    license: str | None


def provenance_of(card: Card, sha256: str) -> Provenance:
    """What a side-car says of a model, by its card and the SHA-256 of its weights."""
    return {
        "name": card.get("name"),
        "version": card.get("version"),
        "architecture": card["architecture"],
        "sha256": sha256,
        "license": card.get("license"),
    }


def read_card(folder: str | Path) -> Card:
    """Read `model.json` alone, without importing torch.

    Raises:
        InputError: it is missing, is no JSON object, lacks what every card has, or has an entry of another form.
    """
    path = Path(folder) / CARD
    label = printable(path)
    try:
        card = parse_json(read_bounded(path))
    except InputError as error:
        raise InputError(f"{error}; a model folder holds {CARD}") from None
    except ValueError as error:
        raise InputError(f"{label}: not JSON ({error}); use an intact copy of the folder") from None
    _check(card, label)
    return cast(Card, card)


def _check(card: Json, label: str) -> None:
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA_VERSION:
        version = card.get("schema_version") if isinstance(card, dict) else type(card).__name__
        raise InputError(
            f"{label}: schema_version is {version}, expected {SCHEMA_VERSION}; use a matching version of us"
        )
    for key, kind in (("architecture", str), ("arguments", dict), ("weights_sha256", str)):
        if not isinstance(card.get(key), kind):
            raise InputError(f"{label}: `{key}` is missing or no {kind.__name__}; use an intact copy of the folder")
    for key, hint in get_type_hints(Card).items():
        if key in card and not fits(card[key], hint):
            raise InputError(
                f"{label}: `{key}` is {reprlib.repr(card[key])}, which has another form than a card's; use an intact "
                "copy of the folder"
            )
