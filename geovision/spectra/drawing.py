"""Small scenes drawn from spectra, with what each pixel is: no satellite image is needed to train on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter, shift
from scipy.spatial import KDTree

from geovision.datasets.labels import IGNORED
from geovision.sensors import find_sensor
from geovision.spectra import optics
from geovision.spectra.library import Part, spectra
from geovision.spectra.responses import HALF_POWER, band_responses

CLASSES = (
    "green_vegetation", "dry_vegetation", "soil_sand", "built_up", "burned", "water", "snow", "cloud", "shadow",
    "unknown",
)  # fmt: skip
"""Classes of drawn scenes, by number. `unknown` is what looks like no surface."""
_GREEN, _DRY, _SOIL, _BUILT, _BURNED, _WATER, _SNOW, _CLOUD, _SHADOW, _UNKNOWN = range(len(CLASSES))
_COVERS = 7  # the classes up to snow cover the ground, in fractions of a pixel
_LIBRARY = {_GREEN: "green", _DRY: "dry", _SOIL: "soil", _BUILT: "built", _BURNED: "burned"}
_FREQUENCY = np.array([0.26, 0.11, 0.14, 0.2, 0.07, 0.13, 0.09])  # of the covers among the regions of a scene
# What else is in a region of each cover, by weight.
_COMPANY: dict[int, dict[int, float]] = {
    _GREEN: {_DRY: 1, _SOIL: 1},
    _DRY: {_GREEN: 1, _SOIL: 2},
    _SOIL: {_GREEN: 1, _DRY: 1},
    _BUILT: {_GREEN: 3, _SOIL: 2, _DRY: 1},
    _BURNED: {_SOIL: 1, _DRY: 1, _GREEN: 0.3},
    _WATER: {_GREEN: 1},
    _SNOW: {_SOIL: 1, _DRY: 1, _GREEN: 1},
}
_LEAST = {_GREEN: 0.5, _DRY: 0.45, _SOIL: 0.65, _BUILT: 0.15, _BURNED: 0.45, _WATER: 0.85, _SNOW: 0.5}
"""Least fraction of its own cover that a region is drawn with."""
# Fraction of sealed ground from which a pixel is built-up (USGS NLCD: developed, low intensity), or may be.
_IS_BUILT, _MAYBE_BUILT = 0.2, 0.12
_IS_CLOUD, _MAYBE_CLOUD = 0.2, 0.06  # reflectance of a cloud, likewise
_IS_SHADOW, _MAYBE_SHADOW = 0.6, 0.2  # part of the direct light that is missing, likewise
_STRANGE, _ENLARGED = 0.04, 0.3  # how many scenes look like nothing, and have each pixel several times
NEEDED = ("green", "red", "nir", "swir")
"""Colours of the bands that every drawn scene has; `nir` and `swir` are either of two bands."""


@dataclass(frozen=True)
class DrawnScenes:
    """Scenes of one sensor.

    Attributes:
        images: Reflectances `(B, C, S, S)` float32.
        labels: Classes `(B, S, S)` uint8; 255 where no class dominates.
        wavelengths: Centres of the bands in nm.
    """

    images: np.ndarray
    labels: np.ndarray
    wavelengths: tuple[float, ...]


class SceneDrawer:
    """Draws scenes: regions of mixed surfaces, terrain, clouds and their shadows, air, and the sensor's noise.

    Args:
        part: Which spectra of the library are used, `train` or `test`.
        size: Side of a scene in pixels.
        sensors: Names of the sensors that scenes are seen by.
        whole: Whether all bands are there; otherwise most scenes lack some.
    """

    def __init__(
        self, part: Part, size: int = 48, sensors: Sequence[str] = tuple(HALF_POWER), *, whole: bool = False
    ) -> None:
        self.size, self.whole, self.sensors = size, whole, list(sensors)
        self._full = spectra(part)
        self._seen: dict[str, dict[int, np.ndarray]] = {}  # the library as each sensor sees it

    def __call__(self, count: int, random: np.random.Generator) -> DrawnScenes:
        """Draw scenes of one sensor, with the same bands.

        Args:
            count: Number of scenes.
            random: Source of all random choices.
        """
        sensor = self.sensors[random.integers(len(self.sensors))]
        bands = list(HALF_POWER[sensor])
        if not self.whole and random.random() < 0.6:
            bands = _some(sensor, bands, random)
        response = self._response(sensor)
        scenes = [self._draw(sensor, response, random) for _ in range(count)]
        scenes = [_enlarged(*scene, random) for scene in scenes]
        kept = [list(HALF_POWER[sensor]).index(band) for band in bands]
        images = np.stack([image[kept] for image, _ in scenes]).astype(np.float32)
        labels = np.stack([label for _, label in scenes])
        return DrawnScenes(images, labels, tuple(find_sensor(sensor).band(band).wavelength_nm for band in bands))

    def landscape(self, sensor: str, side: int, random: np.random.Generator) -> DrawnScenes:
        """Draw one larger scene with fields, woods, a lake and a town, and a cloud with its shadow.

        Args:
            sensor: Name of the sensor, of which all bands are there.
            side: Side of the scene in pixels.
            random: Source of all random choices.
        """
        bands = list(HALF_POWER[sensor])
        response = self._response(sensor)
        region, covers = _parcels(side, random)
        fractions, image = self._ground(region, covers, self._seen[sensor], response, random)
        image, fractions = (gaussian_filter(planes, (0, 0.5, 0.5)) for planes in (image, fractions))
        image *= 1 + 0.05 * _noise(side, side / 8, random)
        labels = _dominant(fractions)
        rows, columns = np.mgrid[:side, :side] / side
        place = np.exp(-(((rows - 0.3) ** 2 + (columns - 0.68) ** 2) / 0.012))
        depths = 35 * np.clip(place * (1.2 + 0.35 * _noise(side, side / 16, random)) - 0.5, 0, None)
        shade = shift(depths, (side / 9, -side / 10), order=1)
        image, labels = _covered(image, labels, response, 0.1, _Cloud(depths, shade, 0.3, 2e-5, ice=False))
        image = image + random.normal(0, 0.002, image.shape)
        wavelengths = tuple(find_sensor(sensor).band(band).wavelength_nm for band in bands)
        return DrawnScenes(image[None].astype(np.float32), labels[None], wavelengths)

    def _response(self, sensor: str) -> np.ndarray:
        """Responses of all bands of a sensor, `(C, len(GRID))`; the library is looked at through them once."""
        response = band_responses(sensor, list(HALF_POWER[sensor]))
        if sensor not in self._seen:
            self._seen[sensor] = {cover: self._full[name] @ response.T for cover, name in _LIBRARY.items()}
        return response

    def _draw(self, sensor: str, response: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if random.random() < _STRANGE:
            image = _nothing_known(len(response), self.size, random)
            return image, np.full((self.size, self.size), _UNKNOWN, np.uint8)
        count = int(random.integers(1, 6))
        region = np.stack([_noise(self.size, random.uniform(2, 16), random) for _ in range(count)]).argmax(0)
        covers = [int(random.choice(_COVERS, p=_FREQUENCY)) for _ in range(count)]
        fractions, image = self._ground(region, covers, self._seen[sensor], response, random)
        blur = random.uniform(0.3, 0.8)  # the sensor's point spread
        image = gaussian_filter(image, (0, blur, blur))
        fractions = gaussian_filter(fractions, (0, blur, blur))
        image *= 1 + 0.25 * random.random() * _noise(self.size, random.uniform(3, 20), random)  # terrain
        labels = _dominant(fractions)
        haze = float(np.exp(random.uniform(np.log(0.02), np.log(0.7))))
        if random.random() < 0.3:
            image, labels = _covered(image, labels, response, haze, _some_cloud(self.size, random))
        nearby = random.uniform(0, 0.25) * min(1.0, haze)  # light of the neighbourhood that air scatters into a pixel
        image = (1 - nearby) * image + nearby * gaussian_filter(image, (0, 8, 8))
        added, passed = (response @ part for part in optics.air(haze, random.uniform(0.8, 1.8), random.uniform(1, 1.6)))
        if random.random() < 0.5:  # at the sensor
            image = added[:, None, None] + passed[:, None, None] * image
        else:  # at the ground, as well as the air was known
            image = image + (random.normal(0, 0.15) * added)[:, None, None]
        image *= random.normal(1, 0.02, (len(image), 1, 1))  # calibration
        grain = random.uniform(0.001, 0.006)
        return image + random.normal(0, grain, image.shape) * (1 + image), labels

    def _ground(
        self,
        region: np.ndarray,
        covers: Sequence[int],
        library: dict[int, np.ndarray],
        response: np.ndarray,
        random: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fractions of the covers `(7, S, S)`, and reflectances `(C, S, S)`, of regions `(S, S)` of a cover each."""
        fractions, image = np.zeros((_COVERS, *region.shape)), np.zeros((len(response), *region.shape))
        for number, cover in enumerate(covers):
            inside = region == number
            pixels = int(inside.sum())
            if not pixels:
                continue
            spread = random.uniform(0.1, 1.2 if cover == _BUILT else 0.6)  # houses stand apart
            varied = np.exp(random.normal(0, spread, (_COVERS, pixels)))
            parts = _composition(cover, random)[:, None] * varied
            parts /= parts.sum(0)
            fractions[:, inside] = parts
            shade = random.uniform(0, 0.45) if cover in (_GREEN, _BUILT, _BURNED) else random.uniform(0, 0.15)
            lit = 1 - shade * random.random((1, pixels))
            each = [
                parts[other] * _spectra_of(int(other), pixels, library, response, random)
                for other in np.flatnonzero(parts.any(1))
            ]
            seen = sum(each)
            # light that two surfaces have reflected, one after the other (Fan et al., 2009)
            twice = random.uniform(0, 1) * 0.5 * (seen**2 - sum(one**2 for one in each))
            image[:, inside] = lit * (seen + twice)
        return fractions, image


def _spectra_of(
    cover: int, pixels: int, library: dict[int, np.ndarray], response: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Reflectances of the pixels of a region that are all of one cover, `(C, pixels)`."""
    if cover in library:
        # roofs and streets differ from pixel to pixel, fields do not
        variety = int(random.integers(2, 9)) if cover == _BUILT else int(random.integers(1, 3))
        chosen = library[cover][random.integers(len(library[cover]), size=variety)]
        weights = random.dirichlet(np.full(variety, 0.5 if cover == _BUILT else 5.0), pixels)
        colour = np.polynomial.chebyshev.chebval(np.linspace(-1, 1, len(response)), random.normal(0, [0.1, 0.08, 0.05]))
        dry = (weights @ chosen).T * np.exp(colour)[:, None]  # no library has everything
        if cover != _SOIL:
            return dry
        # samples were dried: wet soil is darker (Lobell & Asner, 2002), and water absorbs in short-wave infrared
        wet = max(0.0, random.uniform(-0.5, 1))
        return dry * (1 - 0.55 * wet) * np.exp(-2e-4 * wet * (response @ optics.WATER))[:, None]
    return np.broadcast_to((response @ _optical(cover, random))[:, None], (len(response), pixels))


def _optical(cover: int, random: np.random.Generator) -> np.ndarray:
    """A spectrum of water or snow."""
    if cover == _SNOW:
        return optics.snow(_log_uniform(5e-5, 2e-3, random), random.choice([0.0, _log_uniform(0.01, 20, random)]))
    chlorophyll = _log_uniform(0.03, 100, random)
    sediment = random.choice([0.0, _log_uniform(0.1, 200, random)])
    return optics.water(chlorophyll, _log_uniform(0.01, 5, random), sediment, _log_uniform(0.001, 0.04, random))


def _composition(cover: int, random: np.random.Generator) -> np.ndarray:
    """Mean fractions of a region of a cover, `(7,)`."""
    own = random.uniform(_LEAST[cover], 1)
    company = _COMPANY[cover]
    weights = random.dirichlet([0.7 * weight for weight in company.values()])
    fractions = np.full(_COVERS, 0.0)
    fractions[cover] = own
    for other, weight in zip(company, weights, strict=True):
        fractions[other] = (1 - own) * weight
    return fractions


def _dominant(fractions: np.ndarray) -> np.ndarray:
    """Class of each pixel, `(S, S)`: built-up where much is sealed, else what there is most of, if it is enough."""
    labels = fractions.argmax(0)
    labels = np.where(fractions.max(0) < 0.45, IGNORED, labels)
    labels = np.where(fractions[_BUILT] >= _MAYBE_BUILT, IGNORED, labels)
    return np.where(fractions[_BUILT] >= _IS_BUILT, _BUILT, labels).astype(np.uint8)


@dataclass(frozen=True)
class _Cloud:
    """A cloud and its shadow.

    Attributes:
        depths: Optical depth of the cloud above each pixel, `(S, S)`.
        shades: Optical depth of what is between each pixel and the sun, `(S, S)`.
        opaque: How much of the direct light a unit of the latter takes.
        particle: Diameter of droplets or crystals in m.
        ice: Whether they are of ice.
    """

    depths: np.ndarray
    shades: np.ndarray
    opaque: float
    particle: float
    ice: bool


def _some_cloud(side: int, random: np.random.Generator) -> _Cloud:
    """A cloud; it or its shadow may be outside of the scene."""
    thickness = np.clip(_noise(side, random.uniform(4, 16), random) + random.uniform(-0.5, 1), 0, None)
    depths = thickness * _log_uniform(2, 60, random)
    ice = bool(random.random() < 0.4)
    particle = _log_uniform(3e-5, 1e-4, random) if ice else _log_uniform(1e-5, 3e-5, random)
    shades = np.maximum(shift(depths, random.uniform(-12, 12, 2), order=1, mode="nearest"), 0)
    present = random.random()
    nothing = np.zeros_like(depths)
    return _Cloud(
        nothing if present < 0.4 else depths,
        nothing if present > 0.75 else shades,
        random.uniform(0.05, 0.4),
        particle,
        ice,
    )


def _covered(
    image: np.ndarray, labels: np.ndarray, response: np.ndarray, haze: float, cloud: _Cloud
) -> tuple[np.ndarray, np.ndarray]:
    """A scene under a cloud, and what its pixels are then."""
    known = np.array([0.0, 1, 2, 4, 8, 16, 32, 64, 128, 256])
    curve = np.stack([response @ optics.cloud(depth, cloud.particle, ice=cloud.ice) for depth in known], 1)
    above = np.stack([np.interp(cloud.depths, known, row) for row in curve])
    missing = 1 - np.exp(-cloud.shades * cloud.opaque)
    sky = (response @ optics.sky(haze))[:, None, None]
    shaded = image * (1 - missing * (1 - sky))
    covered = above + shaded * (1 - above) ** 2 / (1 - np.minimum(shaded * above, 0.9))
    labels_lit, labels = labels, np.where(missing > _MAYBE_SHADOW, IGNORED, labels)
    labels = np.where((missing > _IS_SHADOW) & (labels_lit != _WATER), _SHADOW, labels)  # water is dark anyway
    labels = np.where(above[0] > _MAYBE_CLOUD, IGNORED, labels)
    return covered, np.where(above[0] > _IS_CLOUD, _CLOUD, labels).astype(np.uint8)


def _parcels(side: int, random: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Parcels of a landscape: the number of each pixel's, and the cover of each."""
    places = np.indices((side, side)).reshape(2, -1).T
    fields = random.uniform(0, side, (max(4, (side // 28) ** 2), 2))
    streets = random.uniform(0, side, (max(4, (side // 9) ** 2), 2))
    wood, lake = _noise(side, side / 6, random), _noise(side, side / 5, random)
    rows, columns = np.mgrid[:side, :side] / side
    town = np.hypot(rows - 0.62, columns - 0.3) + 0.05 * _noise(side, side / 14, random) < 0.19
    field = KDTree(fields).query(places)[1].reshape(side, side)
    street = KDTree(streets).query(places)[1].reshape(side, side)
    covers = [int(cover) for cover in random.choice([_GREEN, _DRY, _SOIL], p=[0.5, 0.2, 0.3], size=len(fields))]
    region = field
    for mask, number, cover in (
        (wood > 1.1, np.zeros_like(field), _GREEN),
        (town, street, _BUILT),
        (lake > 1.5, np.zeros_like(field), _WATER),
    ):
        region = np.where(mask, len(covers) + number, region)
        covers += [cover] * (int(number.max()) + 1)
    return region, covers


def _enlarged(image: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Some scenes with each pixel several times, as after resampling to a finer grid: then neighbours say nothing."""
    if random.random() >= _ENLARGED:
        return image, labels
    side = labels.shape[0]
    times = int(min(side, 2 ** random.integers(1, 6)))
    row, column = random.integers(0, side - -(-side // times) + 1, 2)
    part = slice(row, row + -(-side // times)), slice(column, column + -(-side // times))
    repeated = image[:, *part].repeat(times, 1).repeat(times, 2), labels[part].repeat(times, 0).repeat(times, 1)
    return repeated[0][:, :side, :side], repeated[1][:side, :side]


def _nothing_known(bands: int, side: int, random: np.random.Generator) -> np.ndarray:
    """Numbers that are no reflectances of a surface, though they lie in their range, `(C, S, S)`."""
    level = random.uniform(0.02, 0.6, (bands, 1, 1))
    kind: Literal["speckle", "noise", "slopes", "shuffled"] = random.choice(["speckle", "noise", "slopes", "shuffled"])
    if kind == "speckle":
        looks = random.integers(1, 5)
        return level * random.gamma(looks, 1 / looks, (bands, side, side))
    if kind == "noise":
        return random.uniform(0, 2 * level, (bands, side, side))
    smooth = np.stack([_noise(side, random.uniform(4, 20), random) for _ in range(bands)])
    if kind == "slopes":  # one quantity, such as a height or a temperature, in all bands
        smooth = np.broadcast_to(smooth[:1], smooth.shape) * random.uniform(-1, 1, (bands, 1, 1))
    return np.clip(level * (1 + 0.3 * smooth), 0, None) + random.normal(0, 0.004, (bands, side, side))


def _some(sensor: str, bands: list[str], random: np.random.Generator) -> list[str]:
    """Some bands of a sensor, with those that are needed, in their order."""
    colours = {band: find_sensor(sensor).band(band).color for band in bands}

    def one(matches: Callable[[str], bool]) -> str:
        candidates = [band for band in bands if matches(colours[band])]
        return candidates[random.integers(len(candidates))]

    kept = {
        one(lambda colour: colour == "green"),
        one(lambda colour: colour == "red"),
        one(lambda colour: colour in ("nir", "nir08")),
        one(lambda colour: colour in ("swir16", "swir22")),
    }
    often = random.uniform(0.2, 0.9)
    return [band for band in bands if band in kept or random.random() < often]


def _noise(side: int, scale: float, random: np.random.Generator) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, `(side, side)`."""
    field = gaussian_filter(random.normal(size=(side, side)), scale / 2, mode="wrap")
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def _log_uniform(low: float, high: float, random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))
