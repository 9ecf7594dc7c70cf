"""Small pictures of reports: the first drawing of a page with its contours."""

import base64
import binascii
import io
import re

from PIL import Image, ImageColor, ImageDraw

from pipelines.report.sections import data_uri

_SIDE = 112  # pixels of the longest side
_DRAWING = re.compile(r'<svg class="drawing" .*?</svg>', re.S)
_PICTURE = re.compile(r'<image href="data:image/png;base64,([A-Za-z0-9+/=]+)"')
_LAYER = re.compile(
    r'<g class="layer result" transform="translate\((\d+) (\d+)\) scale\(([\d.e+-]+) ([\d.e+-]+)\)">(.*?)</defs>',
    re.S,
)
_LINE = re.compile(r'<path vector-effect="non-scaling-stroke" data-code="\d+" color="(#[0-9a-f]{6})" d="([^"]*)"/>')
_LOOP = re.compile(r"M(\d+) (\d+)([^z]*)z")
_RUN = re.compile(r"([hv])(-?\d+)")


def thumbnail(report: str) -> str | None:
    """Data URI of the first drawing of a report's page, made small; None where there is none."""
    drawing = _DRAWING.search(report)
    match = drawing and _PICTURE.search(drawing[0])
    if not drawing or not match:
        return None
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGB")
    except (binascii.Error, OSError, ValueError, Image.DecompressionBombError):
        return None
    ratio = _SIDE / max(picture.size)
    width, height = (max(1, round(side * ratio)) for side in picture.size)
    picture = picture.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    if layer := _LAYER.search(drawing[0]):
        left, top, across, down = (2 * ratio * float(layer[part]) for part in range(1, 5))
        pen = ImageDraw.Draw(picture)
        for colour, path in _LINE.findall(layer[5]):
            for loop in _LOOP.findall(path):
                points = [(left + x * across, top + y * down) for x, y in _corners(loop)]
                pen.line(points, fill=ImageColor.getrgb(colour), width=2)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.quantize(64).save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue(), "image/png")


def _corners(loop: tuple[str, str, str]) -> list[tuple[int, int]]:
    """Corners of a closed loop, the first one at its end again."""
    x, y = int(loop[0]), int(loop[1])
    corners = [(x, y)]
    for axis, length in _RUN.findall(loop[2]):
        x, y = (x + int(length), y) if axis == "h" else (x, y + int(length))
        corners.append((x, y))
    return [*corners, corners[0]]
