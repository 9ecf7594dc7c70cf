"""Drawn images of galaxies, any number of them, to learn from before there are labels.

A galaxy is a sum of profiles as the field fits them: Sersic (1963) bulges, exponential discs (Freeman 1970) seen at an
angle, and arms along logarithmic spirals; around it stars, over it seeing, noise and a stretch. What is drawn is not
meant to look like any survey: it teaches a network what arms are and which way they turn, which few labelled galaxies
do slowly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_images import ImageSource, Item, Layout

_VIEW = 92.0  # units across an image: of 64 in the middle a network sees, the rest is what turning brings in
_BLUE, _RED = np.array([0.75, 0.85, 1.0]), np.array([1.0, 0.8, 0.55])


def phantom(name: str, random: np.random.Generator, side: int) -> np.ndarray:
    """An image of a galaxy, around whose middle it lies.

    Args:
        name: one of `PHANTOMS`.
        random: draws everything else.
        side: Side of the image in pixels; the galaxy's size goes with it.

    Returns:
        `(side, side, 3)` uint8, red, green and blue.

    Raises:
        ValueError: no such phantom.
    """
    if name not in PHANTOMS:
        raise ValueError(f"phantom {name!r} is unknown; expected one of: {', '.join(PHANTOMS)}")
    canvas = _Canvas(side, random)
    PHANTOMS[name](canvas)
    return canvas.photograph()


class _Canvas:
    """Light of a scene `(side, side, 3)`, and what draws on it; lengths are in units of 1 / 92 of the side."""

    def __init__(self, side: int, random: np.random.Generator) -> None:
        self.random, self.side = random, side
        self.unit = side / _VIEW
        self.y, self.x = (np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2) / self.unit
        self.light = np.zeros((side, side, 3))
        self.centre = random.normal(0, 1, 2)
        self.angle = random.uniform(0, 2 * np.pi)
        # how plain the image is, more often much than little: what is learnt on plain arms helps with the others
        self.plain = np.sqrt(random.random())
        self.radius = np.exp(self.drawn(np.log(8), np.log(24), 0.5))

    def drawn(self, low: float, high: float, plainness: float) -> float:
        """A number of a range, whose lower part is left out by so much where the image is plain."""
        return self.random.uniform(low + (high - low) * plainness * self.plain, high)

    def plane(
        self, flattening: float, centre: np.ndarray | None = None, angle: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates along and across an ellipse's long axis, the latter as if seen from above, and the radius."""
        (left, top), turn = (self.centre if centre is None else centre), (self.angle if angle is None else angle)
        right, down = self.x - left, self.y - top
        along = right * np.cos(turn) + down * np.sin(turn)
        across = (down * np.cos(turn) - right * np.sin(turn)) / flattening
        return along, across, np.hypot(along, across)

    def shine(self, values: np.ndarray, blueness: float) -> None:
        """Add light of a colour between that of old (0) and of young stars (1)."""
        self.light += values[..., None] * (_RED + blueness * (_BLUE - _RED))

    def photograph(self) -> np.ndarray:
        """What a camera makes of it: stars of the foreground, seeing, exposure, an asinh stretch, sky and noise."""
        from scipy.ndimage import gaussian_filter

        random, shape = self.random, (self.side, self.side)
        self.light /= np.percentile(self.light, 99.7) + 1e-6
        for _ in range(random.poisson(1.2)):
            place = random.uniform(-_VIEW / 2, _VIEW / 2, 2)
            if np.hypot(*(place - self.centre)) > 0.8 * self.radius:
                away = np.square(self.x - place[0]) + np.square(self.y - place[1])
                self.shine(random.uniform(0.1, 1.5) * np.exp(-away / 1.3), random.random())
        seeing, softening = random.uniform(0.6, 2.8 - 1.6 * self.plain) * self.unit, random.uniform(0.3, 3)
        seen = np.stack(
            [gaussian_filter(self.light[..., band], seeing * random.uniform(0.9, 1.1)) for band in range(3)]
        )
        seen = np.arcsinh(softening * seen * self.drawn(0.35, 1.2, 0.6)) / np.arcsinh(softening)
        noise = np.stack([gaussian_filter(random.normal(size=shape), random.uniform(0.4, 1.2)) for _ in range(3)])
        seen += 0.03 + random.uniform(0.005, 0.04) * noise / noise.std()
        return (np.clip(seen, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def _elliptical(canvas: _Canvas) -> None:
    random = canvas.random
    _, _, radius = canvas.plane(random.uniform(0.5, 1))
    size = np.exp(random.uniform(*np.log((4, 18))))
    canvas.shine(np.minimum(_sersic(radius, size, random.uniform(0.8, 4.5)), 6), random.random() ** 2)


def _edge_on(canvas: _Canvas) -> None:
    random = canvas.random
    flattening, scale = random.uniform(0.1, 0.32), canvas.radius * random.uniform(0.8, 1.3)
    _, across, radius = canvas.plane(flattening)
    canvas.shine(np.exp(-radius / scale), random.random())
    _, _, radius = canvas.plane(random.uniform(0.5, 0.9))
    canvas.shine(random.random() * np.exp(-radius / (0.35 * scale)), random.uniform(0, 0.3))
    if random.random() < 0.3:  # a lane of dust
        dust = np.exp(-np.square(across * flattening / 1.2 - random.normal(0, 0.5)))
        canvas.light *= 1 - 0.5 * dust[..., None]


def _spiral(canvas: _Canvas, turning: int) -> None:
    """A disc with 1 to 4 arms; outwards they turn with the hands of a clock on the image (1) or against (-1)."""
    from scipy.ndimage import gaussian_filter

    random, scale = canvas.random, 0.7 * canvas.radius
    flattening = canvas.drawn(0.35, 1, 0.6)
    along, across, radius = canvas.plane(flattening)
    count, pitch = random.choice([1, 2, 2, 2, 2, 3, 4]), np.deg2rad(canvas.drawn(10, 35, 0.5))
    winding = np.log(np.maximum(radius, 0.5) / scale) / np.tan(pitch)
    phase = count * (np.arctan2(across, along) - turning * winding) + random.uniform(0, 2 * np.pi)
    ragged = gaussian_filter(random.normal(size=phase.shape), random.uniform(3, 6) * canvas.unit)
    arms = np.exp(canvas.drawn(0.5, 3, 0.8) * (np.cos(phase + 0.5 * ragged / ragged.std()) - 1))
    arms /= arms.mean()
    strength, disc = canvas.drawn(0.3, 0.95, 0.9), np.exp(-radius / scale)
    outer = 1 / (1 + np.exp((0.5 * scale - radius) / (0.15 * scale)))  # arms begin outside the bulge
    light = np.maximum(disc * (1 + strength * random.uniform(0.8, 1.6) * outer * (arms - 1)), 0)
    if random.random() < 0.3:
        length = scale * random.uniform(0.6, 1.2)
        u, v, _ = canvas.plane(flattening, angle=canvas.angle + random.uniform(0, np.pi))
        light = light + 0.6 * np.exp(-np.square(u / length) - np.square(v / (0.3 * length)))
    canvas.shine(light, random.uniform(0.3, 1))
    canvas.shine(0.25 * strength * random.uniform(0, 1.5) * disc * outer * arms, 1)
    _, _, radius = canvas.plane(min(1, 1.4 * flattening))
    bulge = np.minimum(_sersic(radius, scale * random.uniform(0.15, 0.45), random.uniform(1, 3)), 4)
    canvas.shine(0.5 * random.uniform(0.2, 1.5 - canvas.plain) * bulge, random.uniform(0, 0.3))


def _merger(canvas: _Canvas) -> None:
    random = canvas.random
    for number in range(random.choice([2, 2, 2, 3])):
        away = canvas.radius * random.uniform(0.6, 1.8) if number else 0.0
        where = random.uniform(0, 2 * np.pi)
        centre = canvas.centre + away * np.array([np.cos(where), np.sin(where)])
        along, across, radius = canvas.plane(random.uniform(0.35, 1), centre, random.uniform(0, 2 * np.pi))
        size = canvas.radius * random.uniform(0.35, 0.8)
        core = np.minimum(_sersic(radius, size, random.uniform(0.8, 3)), 5)
        canvas.shine(random.uniform(0.5, 1) * core, random.random())
        if random.random() < 0.4:  # a tail torn out by the tide
            winding = np.log(np.maximum(radius, 0.5) / size) / np.tan(0.4)
            phase = np.arctan2(across, along) - random.choice([-1, 1]) * winding
            canvas.shine(0.3 * np.exp(3 * (np.cos(phase + 1) - 1) - radius / (2 * size)), 1)


def _sersic(radius: np.ndarray, half_light: float, index: float) -> np.ndarray:
    """Sersic's profile, 1 at the half-light radius; its constant by Ciotti and Bertin's (1999) leading terms."""
    return np.exp((1 / 3 - 2 * index) * (np.power(np.maximum(radius, 1e-3) / half_light, 1 / index) - 1))


PHANTOMS: Mapping[str, Callable[[_Canvas], None]] = {
    "elliptical": _elliptical,
    "edge_on": _edge_on,
    "spiral_acw": lambda canvas: _spiral(canvas, 1),
    "spiral_cw": lambda canvas: _spiral(canvas, -1),
    "merger": _merger,
}
"""By class."""


@dataclass(frozen=True, kw_only=True)
class PhantomItem(Item):
    """A drawn image.

    Attributes:
        phantom: Name of what is drawn.
        seed: Seed of the drawing.
    """

    phantom: str
    seed: int


class Phantoms(Layout[PhantomItem]):
    """Drawn images, of every class as many.

    Options: `count` (20000) of all images together.
    """

    name = "phantoms"
    options = ("count",)
    takes_nothing = True

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[PhantomItem]:
        """Number the images, the classes in turn."""
        count = options.get("count", 20_000)
        if not isinstance(count, int) or not 1 <= count <= 10_000_000:
            raise InputError(f"data.options.count is {count!r}; expected the number of images, 1 to 10000000")
        for name in classes:
            if name not in PHANTOMS:
                raise InputError(
                    f"class {printable(name)} is none that can be drawn; expected card.classes of {', '.join(PHANTOMS)}"
                )
        numbers = ((number, number % len(classes)) for number in range(count))
        return [PhantomItem(Path(), label, f"phantom-{n}", phantom=classes[label], seed=n) for n, label in numbers]

    def files(self, items: Sequence[PhantomItem]) -> list[Path]:
        """None: the images are drawn."""
        return []

    def read(self, source: ImageSource[PhantomItem], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Draw the images."""
        for number, item in enumerate(source.items):
            yield number, phantom(item.phantom, np.random.default_rng(item.seed), size)
