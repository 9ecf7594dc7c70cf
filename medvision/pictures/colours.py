"""Colours of labels: those of a model's card, and those that contours on a picture need to be told apart."""

from collections.abc import Iterable, Sequence

import numpy as np

from shared_backbones.card import ClassEntry

Colour = tuple[int, int, int]

# Okabe and Ito's colours (2008), some moved so that every two stay apart for readers who see no green (deuteranopia).
_BASE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 190, 140),
    (240, 228, 66),
    (70, 130, 255),
    (235, 110, 40),
    (224, 140, 190),
    (180, 235, 160),
    (190, 160, 255),
    (0, 220, 220),
)
_LEAST_LUMINANCE = 0.1  # of a contour: a contrast of 3 against the black line under it
_LEAST_DISTANCE = 10.0  # in CIELAB between any two contours as a reader with deuteranopia sees them
_BLENDS = (0.0, 0.2, -0.2, 0.35, -0.35, 0.5, -0.5, 0.65)  # towards white, or black where negative
# Linear sRGB as seen with deuteranopia: Machado, Oliveira and Fernandes (2009), severity 1.0.
_DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
_WHITE = np.array([0.9505, 1.0, 1.089])  # D65


def palette(count: int) -> list[Colour]:
    """`count` colours for labels 1, 2, …: colour-blind-friendly, and bright enough for contours on grey tissue.

    The first ten follow Okabe and Ito (2008); later ones repeat them, lighter in one round and darker in the next.
    """
    colours = []
    for number in range(count):
        turn, base = divmod(number, len(_BASE))
        blend = (0.0, 0.45, -0.3, 0.7, -0.5)[turn % 5]  # towards white, or black where negative
        colours.append(_blended(_BASE[base], blend))
    return colours


def class_colours(classes: Iterable[ClassEntry]) -> dict[int, Colour]:
    """The colour of every class id: its own `color`, or else one from `palette`."""
    classes = list(classes)
    spare = palette(max((int(entry["id"]) for entry in classes), default=0))
    colours: dict[int, Colour] = {}
    for entry in classes:
        number = int(entry["id"])
        own = entry.get("color")
        if own is not None:
            red, green, blue = (min(255, max(0, int(value))) for value in own)
            colours[number] = (red, green, blue)
        else:
            colours[number] = spare[number - 1] if number > 0 else (0, 0, 0)
    return colours


def contour_colours(classes: Iterable[ClassEntry]) -> dict[int, Colour]:
    """`class_colours`, made lighter or darker where a contour could not be told from others or the line under it.

    A contour lies on a black line, to which its contrast is 3 or more. As a reader with deuteranopia sees them, two
    colours are 10 or more apart in CIELAB as far as the number of classes allows.
    """
    chosen: dict[int, Colour] = {}
    seen: list[np.ndarray] = []
    for number, colour in class_colours(classes).items():
        if number:
            legible = [_blended(colour, blend) for blend in _BLENDS]
            legible = [each for each in legible if luminance(each) >= _LEAST_LUMINANCE] or [(160, 160, 160)]
            nearest = [_nearest(each, seen) for each in legible]
            enough = [place for place, distance in enumerate(nearest) if distance >= _LEAST_DISTANCE]
            colour = legible[enough[0] if enough else int(np.argmax(nearest))]
            seen.append(_with_deuteranopia(colour))
        chosen[number] = colour
    return chosen


def luminance(colour: Colour) -> float:
    """Relative luminance from 0 to 1, as the Web Content Accessibility Guidelines (2.2) define it."""
    return float(_XYZ[1] @ _linear(colour))


def deuteranopic_distance(first: Colour, second: Colour) -> float:
    """How far apart in CIELAB (1976) two colours are for a reader with deuteranopia."""
    return float(np.linalg.norm(_with_deuteranopia(first) - _with_deuteranopia(second)))


def _nearest(colour: Colour, seen: Sequence[np.ndarray]) -> float:
    if not seen:
        return np.inf
    return float(np.linalg.norm(np.stack(seen) - _with_deuteranopia(colour), axis=1).min())


def _with_deuteranopia(colour: Colour) -> np.ndarray:
    """CIELAB coordinates (3,) of a colour as it is seen."""
    ratios = _XYZ @ np.clip(_DEUTERANOPIA @ _linear(colour), 0, 1) / _WHITE
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _linear(colour: Colour) -> np.ndarray:
    parts = np.array(colour) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _blended(colour: Colour, blend: float) -> Colour:
    """A colour on its way to white, or to black where negative."""
    goal = 255 if blend > 0 else 0
    red, green, blue = (round(part + (goal - part) * abs(blend)) for part in colour)
    return red, green, blue
