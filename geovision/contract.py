"""What a model for satellite images expects of its input, as its card says it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geovision.sensors import RANGES, Sensor, find_sensor
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries

if TYPE_CHECKING:
    from torch import Tensor

NORMALISATIONS = ("mean_std", "satmae", "none")
_ALIKE = {"nir": ("nir", "nir08"), "swir": ("swir16", "swir22")}  # either will do
_OPAQUE = ("nir09", "cirrus", "pan")  # colours of bands that see air, or several colours at once
_OPTICAL_NM = (400, 2500)


@dataclass(frozen=True)
class InputContract:
    """Input contract of a model for satellite images. A model owns its bands and their normalisation.

    Attributes:
        sensor: Sensor whose bands they are.
        bands: Names, in the order of the network's channels.
        unit: Unit of the values; all bands have the same.
        scale: One of the model's numbers is this much in `unit`: 0.0001 for reflectance x 10000.
        gsd_m: Ground sampling distance at which it was trained; None where it was not fixed.
        size: Side in pixels of the images that the network takes.
        normalisation: Scaling: `mean_std`, (x - mean) / std; or `satmae`, the published treatment of fMoW-Sentinel: the
            range from mean - 2 std to mean + 2 std in 256 steps from 0 to 1; or `none`, values as they are.
        mean: Mean of each band, in the model's numbers.
        std: Standard deviation of each band, same unit.
        stored: Side in pixels that a classifier's images are brought to before they are normalised; None where they are
            taken as they are.
        tile: Side in pixels of the tiles in which scenes are mapped; None for `size`.
        needed: Colours of the bands that must be there, for a model that takes whatever bands a scene has, by their
            wavelengths; `nir` and `swir` are of either width or place. Empty where `bands` alone are taken.
    """

    sensor: Sensor
    bands: tuple[str, ...]
    unit: str
    scale: float
    gsd_m: float | None
    size: int
    normalisation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stored: int | None = None
    tile: int | None = None
    needed: tuple[str, ...] = ()

    @classmethod
    def from_card(cls, card: Mapping[str, Any], model: str) -> "InputContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            given = card["input"]
            sensor = find_sensor(given["sensor"])
            contract = cls(
                sensor=sensor,
                bands=tuple(sensor.band(str(name)).name for name in given["bands"]),
                unit=str(given["unit"]),
                scale=float(given["scale"]),
                gsd_m=None if given.get("gsd_m") is None else float(given["gsd_m"]),
                size=int(given["size"]),
                normalisation=str(given["normalisation"]),
                mean=tuple(float(value) for value in given["mean"]),
                std=tuple(float(value) for value in given["std"]),
                stored=None if given.get("stored") is None else int(given["stored"]),
                tile=None if given.get("tile") is None else int(given["tile"]),
                needed=tuple(map(str, given.get("needed", ()))),
            )
            contract._check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model for satellite images") from None
        except (AttributeError, InputError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    def _check(self) -> None:
        if not self.bands or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands are {list(self.bands)}, expected one or more different ones")
        if self.unit not in RANGES:
            raise ValueError(f"unit is {self.unit!r}, expected one of {', '.join(RANGES)}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale is {self.scale:g}, expected more than 0")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation is {self.normalisation!r}, expected one of {', '.join(NORMALISATIONS)}")
        if self.normalisation != "none" and not len(self.mean) == len(self.std) == len(self.bands):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations for {len(self.bands)} bands")
        if not all(map(math.isfinite, self.mean)) or not all(0 < std < math.inf for std in self.std):
            raise ValueError("means must be finite and deviations more than 0")
        for name, side in (("size", self.size), ("stored", self.stored), ("tile", self.tile)):
            if side is not None and not 1 <= side <= 8192:
                raise ValueError(f"{name} is {side}, expected 1 to 8192")

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Centres of the bands in nm."""
        return tuple(self.sensor.band(name).wavelength_nm for name in self.bands)

    def chosen(self, sensor: Sensor, bands: Sequence[str]) -> list[str]:
        """Those of a scene's bands that the model sees: its own, or all that show the ground, by their wavelength.

        Args:
            sensor: The scene's sensor.
            bands: Names of the scene's bands.

        Raises:
            InputError: a needed one is not among them.
        """
        if not self.needed:
            return list(self.bands)
        known = [sensor.band(name) for name in bands if sensor.find(name) is not None]
        low, high = _OPTICAL_NM
        seen = [band for band in known if low <= band.wavelength_nm <= high and band.color not in _OPAQUE]
        colours = {band.color for band in seen}
        lacking = [colour for colour in self.needed if colours.isdisjoint(_ALIKE.get(colour, (colour,)))]
        if lacking:
            there = ", ".join(f"{band.name} ({band.color})" for band in known) or "none that is known"
            raise InputError(
                f"lacks {', '.join(lacking)}; found {there}; the model takes any bands of a scene that has "
                f"{', '.join(self.needed)}: give one, or --bands if they are there under other names"
            )
        return [band.name for band in seen]

    def normalise(self, images: "Tensor", valid: "Tensor | None" = None) -> "Tensor":
        """The network's input.

        Args:
            images: `(..., C, H, W)`, in the model's numbers.
            valid: `(..., H, W)`; pixels that are False count as the band's mean.
        """
        if not images.is_floating_point():
            images = images.float()
        if self.normalisation == "none":
            return images if valid is None else images.masked_fill(~valid.unsqueeze(-3), 0.0)
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        scaled = (images - mean) / std
        if valid is not None:
            scaled = scaled.masked_fill(~valid.unsqueeze(-3), 0.0)
        if self.normalisation == "satmae":
            return ((scaled + 2) * (255 / 4)).clamp(0, 255).floor() / 255
        return scaled


def input_section(
    sensor: str,
    bands: Sequence[str],
    size: int,
    *,
    normalisation: str = "mean_std",
    statistics: Mapping[str, Sequence[float]] | None = None,
    scale: float | None = None,
    gsd_m: float | None = None,
) -> Entries:
    """The `input` of a card.

    Args:
        sensor: name of the sensor.
        bands: in the order of the network's channels.
        size: side in pixels of the images that the network takes.
        normalisation: scaling of the values, as in `InputContract`.
        statistics: `mean` and `std` of each band in the model's numbers; by default those that are published.
        scale: factor of the stored numbers, as in `InputContract`; by default the sensor's.
        gsd_m: ground sampling distance in metres, as in `InputContract`.

    Raises:
        InputError: a band is unknown or of another unit than the others, or no statistics are published for it.
    """
    known = find_sensor(sensor)
    members = [known.band(name) for name in bands]
    units = {band.unit for band in members}
    if len(units) != 1:
        raise InputError(f"bands {', '.join(bands)} of {sensor}: have the units {', '.join(sorted(units))}; take one")
    if statistics is None:
        unknown = [band.name for band in members if band.mean is None]
        if unknown:
            raise InputError(
                f"sensor {sensor}: no statistics are published for {', '.join(unknown)}; give mean and std"
            )
        statistics = {
            "mean": [band.mean for band in members if band.mean is not None],
            "std": [band.std for band in members if band.std is not None],
        }
    return {
        "sensor": known.name,
        "bands": [band.name for band in members],
        "unit": units.pop(),
        "scale": scale or known.scale or 1.0,
        "gsd_m": gsd_m,
        "size": size,
        "normalisation": normalisation,
        "mean": list(statistics["mean"]),
        "std": list(statistics["std"]),
    }
