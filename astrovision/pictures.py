"""Pictures of galaxies for people: north up, the longest wavelength red, with a compass, a scale bar and a caption."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from astrovision.bands import as_rgb
from shared_backbones.classification.grad_cam import cam_overlay

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_SIDE = 320  # pixels of a panel, at least
_GAP, _LINE = 6, 18
_UNITS = {"arcsec": 1, "arcmin": 60, "deg": 3600}
_BARS = (1, 2, 5, 10, 20, 30)  # what a scale bar says in one of these


@dataclass(frozen=True)
class SkyView:
    """How the image of a source lies on the sky.

    Attributes:
        of_fits: whether the image is of FITS data, whose last row is up; else it is shown as it is.
        bands: names of its bands.
        east: unit vector `(x, y)` on the image as stored, y along its rows from the first to the last; None where it is
            not known.
        north: unit vector to the north, `(x, y)` as that to the east.
        pixel_scale_arcsec: side of a pixel; None where it is not known.
    """

    of_fits: bool = False
    bands: tuple[str, ...] = ()
    east: tuple[float, float] | None = None
    north: tuple[float, float] | None = None
    pixel_scale_arcsec: float | None = None

    @property
    def is_mirrored(self) -> bool:
        """Whether east is right of north where the last row is up."""
        if self.east is None or self.north is None:
            return False
        return self.east[0] * self.north[1] - self.east[1] * self.north[0] > 0

    def shown(self, image: np.ndarray) -> np.ndarray:
        """An image `(..., H, W)` as it is displayed, row by row from the top."""
        if not self.of_fits:
            return image
        return image[..., ::-1, ::-1] if self.is_mirrored else image[..., ::-1, :]


def draw(image: np.ndarray, cam: np.ndarray, view: SkyView, caption: Sequence[str]) -> "Image":
    """A picture of a source, the same under a map of what spoke for its class, and lines of text below.

    Args:
        image: what the network sees, `(C, H, W)` from 0 to 1.
        cam: map of `ImageClassifier.grad_cam`, `(H, W)` from 0 to 1.
        view: how the image lies on the sky.
        caption: lines below.
    """
    from PIL import Image, ImageDraw

    plain = Image.fromarray(annotated(image, view, _SIDE))
    factor = plain.width // image.shape[-1]
    heat = _enlarged(view.shown(cam)[None], factor)[0]
    glowing = cam_overlay(_enlarged(_colours(image, view), factor), heat)
    sheet = Image.new("RGB", (2 * plain.width + _GAP, plain.height + _LINE * len(caption) + _GAP), "white")
    sheet.paste(plain, (0, 0))
    sheet.paste(Image.fromarray(glowing), (plain.width + _GAP, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(caption):
        pen.text((2, plain.height + 2 + number * _LINE), line, fill="black", font=_font(14))
    return sheet


def annotated(image: np.ndarray, view: SkyView, side: int) -> np.ndarray:
    """An image `(C, H, W)` from 0 to 1 as `(h, w, 3)` uint8, enlarged to a side or more, with compass and scale bar."""
    from PIL import Image, ImageDraw

    factor = max(1, math.ceil(side / image.shape[-1]))
    large = _enlarged(_colours(image, view), factor)
    sheet = Image.fromarray((large * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    pen, font = ImageDraw.Draw(sheet), 14 if sheet.width >= _SIDE else 10
    _draw_compass(pen, view, sheet.width, font)
    _draw_bar(pen, view, factor, sheet.size, font)
    return np.asarray(sheet)


def _colours(image: np.ndarray, view: SkyView) -> np.ndarray:
    return view.shown(as_rgb(image, view.bands) if view.of_fits else image)


def _enlarged(layers: np.ndarray, factor: int) -> np.ndarray:
    from PIL import Image

    height, width = layers.shape[-2:]
    planes = [
        Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize(
            (width * factor, height * factor), Image.Resampling.BICUBIC
        )
        for plane in layers
    ]
    return np.stack([np.asarray(plane) for plane in planes]).clip(0, 1)


def _draw_compass(pen: "ImageDraw", view: SkyView, side: int, font: int) -> None:
    """Arrows to north and east in the upper right corner."""
    if not view.of_fits or view.east is None or view.north is None:
        return
    length = 1.6 * font
    middle = side - 2 * length, 2 * length
    for name, (x, y) in (("N", view.north), ("E", view.east)):
        x = -x if view.is_mirrored else x
        pen.line([middle, (middle[0] + length * x, middle[1] - length * y)], fill="white", width=2)
        place = middle[0] + 1.45 * length * x, middle[1] - 1.45 * length * y
        pen.text(place, name, fill="white", font=_font(font), anchor="mm")


def _draw_bar(pen: "ImageDraw", view: SkyView, factor: int, size: tuple[int, int], font: int) -> None:
    """A bar of a round length in the lower left corner."""
    if view.pixel_scale_arcsec is None:
        return
    scale, (width, height) = view.pixel_scale_arcsec / factor, size
    arcsec, words = _bar(0.35 * width * scale)
    left, bottom = 0.8 * font, height - font
    pen.line([(left, bottom), (left + arcsec / scale, bottom)], fill="white", width=2)
    pen.text((left, bottom - 1.4 * font), words, fill="white", font=_font(font))


def _bar(longest: float) -> tuple[float, str]:
    """The longest round angle in arcseconds that is no longer than another, and its words."""
    round_ones = [(bar * unit, f"{bar} {name}") for name, unit in _UNITS.items() for bar in _BARS]
    fitting = [pair for pair in round_ones if pair[0] <= longest]
    if fitting:
        return max(fitting)
    power = 10.0 ** math.floor(math.log10(longest))
    return power, f"{power:g} arcsec"


def _font(size: int) -> "FreeTypeFont | ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)
