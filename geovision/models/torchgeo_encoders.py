"""Encoders whose weights torchgeo names: what each takes, by its metadata."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from geovision.contract import input_section
from geovision.datasets.torchgeo_classes import TorchGeo
from geovision.models.torchgeo_networks import default_size, encoder_class, takes_resolution
from geovision.sensors import REFLECTANCE, Sensor, find_sensor, plain_name
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.json_values import Entries

_DARKEST = 300  # reflectance x 10000 is not divided by less; numbers of 8 bits are
_SIZE = 224  # of networks that take any size, where torchgeo names none
_COLOURS = {"R": "red", "G": "green", "B": "blue", "B4": "red", "B3": "green", "B2": "blue"}
_OPEN = ("sensor", "bands", "mean", "std")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Encoder:
    """Weights that torchgeo names.

    Attributes:
        name: Torchgeo's name, such as `ViTSmall16_Weights.SENTINEL2_ALL_MAE`.
        network: Name of the network.
        bands: Names of the bands, in order.
        dataset: Data that they were trained on.
        license: Licence of the weights, or `unknown`.
        publication: Address of what describes them.
        reason: Why they cannot be taken here; empty where they can.
        input: The `input` of a card; the `size` alone where they take bands and numbers that the user names; empty
            where they cannot be taken.
        takes: Names of what the user says of them: of bands and numbers that torchgeo leaves open, and of the ground.
        of_timm: Whether the network is one of timm's.
    """

    name: str
    network: str
    bands: tuple[str, ...]
    dataset: str
    license: str
    publication: str
    reason: str
    input: Entries
    takes: tuple[str, ...]
    of_timm: bool


@lru_cache(maxsize=1)
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
            f"torchgeo:{printable(name)}: torchgeo names no such weights{hint}; see geovision models list --torchgeo"
        )
    if known[name].reason:
        raise InputError(f"torchgeo:{name}: {known[name].reason}; choose others, see geovision models list --torchgeo")
    return known[name]


def arguments_of(encoder: Encoder, given: Entries) -> tuple[Entries, Entries]:
    """The `input` of a card, and arguments of the network, by what the user says of weights beside torchgeo.

    Args:
        encoder: What the weights are of.
        given: Values by the names in `encoder.takes`; `mean` and `std` are by default the sensor's published ones.

    Raises:
        InputError: a name is not among them, sensor or bands are missing or unknown, or no numbers are known of them.
    """
    unknown = [name for name in given if name not in encoder.takes]
    if unknown:
        allowed = f"give {', '.join(encoder.takes)} alone" if encoder.takes else "leave them out"
        raise InputError(f"{unknown[0]}: {encoder.name} has its arguments; {allowed}")
    res = given.get("res")
    if "bands" in encoder.input:
        return {**encoder.input, **({} if res is None else {"gsd_m": res})}, {} if res is None else {"res": res}
    if not isinstance(given.get("sensor"), str) or not isinstance(given.get("bands"), list):
        raise InputError(
            f'{encoder.name}: torchgeo names no bands of these weights; give sensor=NAME bands=["B2", ...]'
        )
    numbers = {name: given[name] for name in ("mean", "std") if name in given}
    lengths = {len(value) if isinstance(value, list) else 0 for value in numbers.values()}
    if numbers and (len(numbers) < 2 or lengths != {len(given["bands"])}):
        raise InputError(f"{encoder.name}: give mean=[...] and std=[...], a number for each band")
    section = input_section(given["sensor"], given["bands"], encoder.input["size"], statistics=numbers or None)
    return section, {"in_chans": len(section["bands"]), "wavelengths": wavelengths(section["sensor"], section["bands"])}


def wavelengths(sensor: str, bands: Sequence[str]) -> list[float]:
    """Centres of the bands of a sensor in nm."""
    return [find_sensor(sensor).band(name).wavelength_nm for name in bands]


def card_of(encoder: Encoder, section: Entries) -> Entries:
    """What a card says of an encoder, but for its name and version.

    Args:
        encoder: What the weights are of.
        section: The card's `input`.
    """
    return {
        "description": f"{encoder.network}, trained on {encoder.dataset}, as torchgeo names it",
        "license": encoder.license,
        "input": section,
        "training": {"source": f"torchgeo {encoder.name}", "data": encoder.dataset},
    }


def check_license(encoder: Encoder, accepted: bool, way_out: str) -> None:
    """Have the user look where torchgeo names no licence.

    Args:
        encoder: What the weights are of.
        accepted: Whether the user has looked, or names a licence.
        way_out: What to add, for the message.

    Raises:
        InputError: torchgeo names none, and the user has not looked.
    """
    if encoder.license == UNKNOWN and not accepted:
        raise InputError(
            f"{encoder.name}: torchgeo names no licence of these weights; look at {encoder.publication}, and where "
            f"they may be used so, {way_out}"
        )


def _encoder(network: str, entry: TorchGeo) -> Encoder:
    about: Entries = entry.meta
    bands = tuple(map(str, about.get("bands") or ()))
    section, reason = {}, ""
    try:
        section = _input(network, str(entry).partition(".")[2], bands, entry)
    except ValueError as error:
        reason = str(error)
    takes = _OPEN if section and "bands" not in section else ()
    if section and takes_resolution(network):
        takes = (*takes, "res")
    return Encoder(
        name=str(entry),
        network=network,
        bands=tuple(section.get("bands", bands)),
        dataset=str(about.get("dataset")),
        license=str(about.get("license") or UNKNOWN),
        publication=str(about.get("publication")),
        reason=reason,
        input=section,
        takes=(
            *(_OPEN if section and "bands" not in section else ()),
            *(("res",) if takes_resolution(network) else ()),
        ),
        of_timm=require("timm", "train").is_model(network),
    )


def _input(network: str, member: str, bands: Sequence[str], entry: TorchGeo) -> Entries:
    """The `input` of a card.

    Raises:
        ValueError: the weights cannot be taken here.
    """
    if encoder_class(network) is None:
        raise ValueError(f"{network} is no network that is built here")
    mean, std, sides = _numbers(entry.transforms)
    sides_too = [*sides, *([int(entry.meta["img_size"])] if "img_size" in entry.meta else [])]
    size = min(sides_too) if sides_too else default_size(network) or _SIZE
    if not bands and std is None:  # as of DOFA, for any bands in any numbers
        return {"size": size}
    count = len(bands) or int(entry.meta.get("in_chans") or 0)
    if std is None:
        raise ValueError("torchgeo does not say how its numbers are scaled")
    mean, std = (np.broadcast_to(value, count).astype(float) for value in (mean, std))
    sensor, names = _bands(member, bands, count, std)
    section = input_section(
        sensor.name, names, size, statistics={"mean": mean.tolist(), "std": std.tolist()}, gsd_m=None
    )
    return {**section, **({"stored": max(sides)} if sides and max(sides) > size else {})}


def _numbers(transforms: TorchGeo) -> tuple[np.ndarray, np.ndarray | None, list[int]]:
    """Mean and deviation that numbers are normalised by, None where they are not, and the sides that images get.

    Raises:
        ValueError: the images are treated in another way.
    """
    mean, std, sides = np.zeros(1), np.ones(1), []
    normalised = False
    for part in _parts(transforms):
        kind = type(part).__name__
        if kind == "Normalize":
            factor, shift = (np.asarray(value, float) for value in (part.std, part.mean))
            mean, std, normalised = mean + std * shift, std * factor, True
        elif kind in {"Resize", "CenterCrop"}:
            sides.append(int(np.asarray(part.size).ravel()[0]))
        else:
            raise ValueError(f"its images are treated by {kind}, of which nothing is known here")
    return mean, std if normalised else None, sides


def _bands(member: str, bands: Sequence[str], count: int, std: np.ndarray) -> tuple[Sensor, list[str]]:
    """Sensor and bands; three colours in numbers of 8 bits are a picture's.

    Raises:
        ValueError: they are not known, or their numbers are not.
    """
    plain = [plain_name(name) for name in bands] or (["R", "G", "B"] if "RGB" in member and count == 3 else [])
    if not plain:
        raise ValueError("torchgeo does not say its bands")
    in_eight_bits = bool(np.median(std) < _DARKEST)
    if in_eight_bits and all(name in _COLOURS for name in plain):
        return find_sensor("rgb"), [_COLOURS[name] for name in plain]
    sensor = _sensor(member, bands)
    names = [sensor.band(name).name for name in bands]
    if sensor.band(names[0]).unit == REFLECTANCE and in_eight_bits:
        raise ValueError("takes numbers of 8 bits in a scale of their own, which no product has")
    return sensor, names


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
