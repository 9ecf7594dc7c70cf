"""Encoders whose weights torchgeo names: what each takes, by its metadata, and a checkpoint of it as a network of timm.

Nothing is fetched: the file is the user's. A trained model that came of one needs torchgeo no more.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geovision.contract import input_section
from geovision.datasets.torchgeo_classes import TorchGeo
from geovision.sensors import REFLECTANCE, Sensor, find_sensor, plain_name
from shared_backbones import official
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.networks.timm_classifier import TimmClassifier
from shared_backbones.weights import check_tensor, sample_of

_ABSENT = ("norm.weight", "norm.bias")  # of encoders whose tokens were averaged; torchgeo leaves them as they are drawn
_HEADS = ("head.", "fc.")
_DARKEST = 300  # reflectance x 10000 is not divided by less; numbers of 8 bits are
_SIZE = 224  # of networks that take any size, where torchgeo names none


@dataclass(frozen=True)
class Encoder:
    """Weights that torchgeo names.

    Attributes:
        name: Torchgeo's name, such as `ViTSmall16_Weights.SENTINEL2_ALL_MAE`.
        network: Name of the network.
        bands: Names of the bands, in order.
        dataset: Data that they were trained on.
        license: Licence of the weights, or `unknown`.
        reason: Why they cannot be taken here; empty where they can.
        input: The `input` of a card; empty where they cannot be taken.
    """

    name: str
    network: str
    bands: tuple[str, ...]
    dataset: str
    license: str
    reason: str
    input: Entries


def encoders() -> list[Encoder]:
    """All weights that torchgeo names, with what each takes, or why it cannot be taken.

    Raises:
        InputError: torchgeo is not installed.
    """
    models = require("torchgeo.models", "torchgeo")
    known: dict[str, Encoder] = {}
    for network in models.list_models():
        try:
            weights = models.get_model_weights(network)
        except KeyError:  # a network without weights
            continue
        known |= {str(entry): _encoder(network, entry) for entry in weights}
    return list(known.values())


def find_encoder(name: str) -> Encoder:
    """The weights of a name.

    Raises:
        InputError: torchgeo names none so, or they cannot be taken here.
    """
    known = {encoder.name: encoder for encoder in encoders()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"torchgeo:{printable(name)}: torchgeo names no such weights{hint}; see geovision models torchgeo"
        )
    if known[name].reason:
        raise InputError(f"torchgeo:{name}: {known[name].reason}; choose others, see geovision models torchgeo")
    return known[name]


def load_encoder(encoder: Encoder, checkpoint: Path) -> TimmClassifier:
    """The network with the weights of a checkpoint, without a head, in eval mode.

    Args:
        encoder: What the weights are of.
        checkpoint: The file that torchgeo would fetch; read as tensors alone.

    Raises:
        InputError: the file cannot be read safely, or its entries are not those of the network.
    """
    side = {"img_size": encoder.input["size"]} if encoder.network.startswith("vit_") else {}
    network = TimmClassifier(encoder.network, num_classes=0, in_chans=len(encoder.bands), **side)
    own, state = network.network.state_dict(), official.read_foreign(checkpoint)
    missing = [name for name in own if name not in state and name not in _ABSENT]
    left_over = [name for name in state if name not in own and not name.startswith(_HEADS)]
    label = printable(checkpoint)
    if missing or left_over:
        raise InputError(
            f"{label}: no weights of {encoder.name}: missing {sample_of(missing)}; unexpected {sample_of(left_over)}; "
            "give the file that torchgeo names for them"
        )
    for name in own.keys() & state.keys():
        check_tensor(name, state[name], tuple(own[name].shape), label)
    network.network.load_state_dict({name: state.get(name, value) for name, value in own.items()})
    return network.eval()


def card_of(encoder: Encoder) -> Entries:
    """What a card says of an encoder, but for its name and version."""
    return {
        "description": f"{encoder.network}, trained on {encoder.dataset}, as torchgeo names it",
        "license": encoder.license,
        "input": encoder.input,
        "training": {"source": f"torchgeo {encoder.name}", "data": encoder.dataset},
    }


def _encoder(network: str, entry: TorchGeo) -> Encoder:
    about: Entries = entry.meta
    bands = tuple(map(str, about.get("bands") or ()))
    section, reason = {}, ""
    try:
        section = _input(network, str(entry).partition(".")[2], bands, entry.transforms)
    except ValueError as error:
        reason = str(error)
    license = str(about.get("license") or "unknown")
    return Encoder(str(entry), network, bands, str(about.get("dataset")), license, reason, section)


def _input(network: str, member: str, bands: Sequence[str], transforms: TorchGeo) -> Entries:
    """The `input` of a card.

    Raises:
        ValueError: the weights cannot be taken here.
    """
    if not require("timm", "train").is_model(network):
        raise ValueError(f"{network} is no network of timm, the only ones that are built here")
    if not bands:
        raise ValueError("torchgeo does not say its bands")
    sensor = _sensor(member, bands)
    names = [sensor.band(name).name for name in bands]
    mean, std, sides = np.zeros(len(bands)), np.ones(len(bands)), []
    normalised = False
    for part in _parts(transforms):
        kind = type(part).__name__
        if kind == "Normalize":
            factor, shift = (np.broadcast_to(np.asarray(value, float), len(bands)) for value in (part.std, part.mean))
            mean, std, normalised = mean + std * shift, std * factor, True
        elif kind in {"Resize", "CenterCrop"}:
            sides.append(int(np.asarray(part.size).ravel()[0]))
        else:
            raise ValueError(f"its images are treated by {kind}, of which nothing is known here")
    if not normalised:
        raise ValueError("torchgeo does not say how its numbers are scaled")
    if sensor.band(names[0]).unit == REFLECTANCE and np.median(std) < _DARKEST:
        raise ValueError("takes numbers of 8 bits in a scale of their own, which no product has")
    size = min(sides, default=_SIZE)
    section = input_section(
        sensor.name, names, size, statistics={"mean": mean.tolist(), "std": std.tolist()}, gsd_m=None
    )
    return {**section, **({"stored": max(sides)} if sides and max(sides) > size else {})}


def _sensor(member: str, bands: Sequence[str]) -> Sensor:
    """The sensor, where the name of the weights and their bands leave one.

    Raises:
        ValueError: they leave none, or several.
    """
    plain = {plain_name(name) for name in bands}
    if not member.startswith("SENTINEL2"):
        raise ValueError(
            f"its sensor ({member.partition('_')[0]}) has numbers of its own here, other than its products'"
        )
    if "B10" in plain:
        return find_sensor("sentinel2_l1c")
    unknown = sorted(plain - {plain_name(name) for name in find_sensor("sentinel2_l2a").names()})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no band of Sentinel-2")
    if {"B1", "B9"} <= plain:
        return find_sensor("sentinel2_l2a")
    raise ValueError("its bands do not tell whether they are of level 1C or 2A")


def _parts(transforms: TorchGeo) -> Iterator[TorchGeo]:
    """Transforms one after another, without those that do nothing."""
    if hasattr(transforms, "__iter__"):
        for part in transforms:
            yield from _parts(part)
    elif type(transforms).__name__ != "Identity":
        yield transforms
