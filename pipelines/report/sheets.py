"""Sheets of pictures: a grid with names above, beside and below, and the colours of what is shown."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Legend = Sequence[tuple[str, tuple[int, int, int]]]

_INK = "#222"
_LINE, _ENTRY = 13, 18  # height in pixels of a line below a picture, and of an entry of the legend
_ABOVE, _BESIDE = 18, 130  # pixels for the names of columns and of rows


def picture_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    size: tuple[int, int] | None = None,
    gap: tuple[int, int] = (4, 4),
    smooth: bool = False,
    above: Sequence[str] = (),
    beside: Sequence[str] = (),
    below: Sequence[Sequence[str]] = (),
    legend: Legend = (),
    font: int = 11,
) -> Image.Image:
    """Pictures of one size in rows.

    Args:
        rows: Pictures `(H, W, 3)` uint8, as many in each row.
        size: Width and height in pixels to which each is resized; by default those of the first one.
        gap: Pixels to the right of a picture, and below it.
        smooth: Whether pictures are interpolated where they are resized; otherwise pixels stay sharp.
        above: Names of the columns.
        beside: Names of the rows.
        below: Lines of text below each picture of the last row.
        legend: Names and colours of what is shown.
        font: Size of the texts in pixels.
    """
    width, height = size or (rows[0][0].shape[1], rows[0][0].shape[0])
    left, top = _BESIDE if beside else 0, _ABOVE if above else 0
    across, down = width + gap[0], height + gap[1]
    lines = max((len(texts) for texts in below), default=0)
    bottom = top + down * len(rows) + (4 + _LINE * lines if lines else 0)
    sheet = Image.new("RGB", (left + across * len(rows[0]), bottom + _ENTRY * len(legend)), "white")
    draw, face = ImageDraw.Draw(sheet), ImageFont.load_default(font)

    def write(x: int, y: int, text: str) -> None:
        draw.text((x, y), text, fill=_INK, font=face)

    for column, name in enumerate(above):
        write(left + column * across + 4, 3, name)
    for number, row in enumerate(rows):
        if beside:
            write(4, top + number * down + height // 2 - 6, beside[number])
        for column, picture in enumerate(row):
            how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
            cell = Image.fromarray(picture).resize((width, height), how)
            sheet.paste(cell, (left + column * across, top + number * down))
    for column, texts in enumerate(below):
        for line, text in enumerate(texts):
            write(left + column * across, top + down * len(rows) - gap[1] + 2 + _LINE * line, text)
    for number, (name, color) in enumerate(legend):
        y = bottom + _ENTRY * number
        draw.rectangle((0, y, 12, y + 12), fill=color, outline=_INK)
        write(18, y - 1, name)
    return sheet
