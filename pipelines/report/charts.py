"""Charts as SVG: standalone pictures, and those that stand in a page."""

from collections.abc import Mapping, Sequence
from html import escape

_COLORS = ("#0b5a73", "#8a2c0d", "#4d7c0f", "#7c3aed", "#b45309", "#0f766e", "#be185d", "#334155")
_DASHES = ("", "6 3", "2 3")
_GREY, _AXIS, _GRID, _RULE = "#51606e", "#9aa7b2", "#e4e9ed", "#d8dfe5"  # of texts and of lines


def line_chart(curves: Mapping[str, Sequence[float]], across: str, up: str, at: Sequence[int] = ()) -> str:
    """Values of some series; the upward axis goes from 0 to 1.

    Args:
        curves: Values from 0 to 1, by the series' name.
        across: Name of the numbers to the right.
        up: Name of the values.
        at: Rising numbers, from 0, at which the values are; by default 0, 1, 2 and so on.
    """
    left, top, width, height = 46, 12, 420, 260
    at = at or range(max((len(values) for values in curves.values()), default=2))
    step = width / max([1, *at])
    lines, legend = [], []
    for number, (name, values) in enumerate(curves.items()):
        style = _stroke(_COLORS[number % len(_COLORS)], 2, _DASHES[number // len(_COLORS) % len(_DASHES)])
        places = [(left + x * step, top + (1 - value) * height) for x, value in zip(at, values, strict=False)]
        lines.append(_polyline(places, style))
        y = top + 8 + 17 * number
        legend += [_path(f"M{left + width + 16} {y}h22", style), _text(left + width + 44, y + 4, name)]
    ticks = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = top + (1 - value) * height
        ticks += [
            _text(left - 6, f"{y + 4:.0f}", f"{value:g}", "end"),
            _path(f"M{left} {y:.0f}h{width}", _stroke(_GRID)),
        ]
    ticks += [_text(f"{left + place * step:.0f}", top + height + 18, str(place), "middle") for place in at]
    axes = _path(f"M{left} {top}v{height}h{width}", _stroke(_AXIS))
    caption = _text(f"{left + width / 2:.0f}", top + height + 38, f"{across}; up: {up}", "middle")
    whole = left + width + 190, max(top + height + 44, top + 17 * len(curves) + 10)
    return _picture(whole, [*ticks, axes, *lines, *legend, caption], width=whole[0])


def reliability_diagram(bins: Sequence[tuple[float, float, int]]) -> str:
    """The fraction of right answers against the confidence; a mark's area tells how many images are in the bin.

    Args:
        bins: Mean confidence, fraction of right answers, and number of images of each bin that has some.
    """
    left, top, side = 46, 10, 240
    most = max((images for *_, images in bins), default=1)
    marks = [
        _circle(
            left + confidence * side, top + (1 - accuracy) * side, f"{2 + 8 * (images / most) ** 0.5:.1f}",
            f'fill="{_COLORS[0]}" fill-opacity="0.7"',
        )
        for confidence, accuracy, images in bins
    ]  # fmt: skip
    ticks = []
    for value in (0, 0.5, 1):
        ticks.append(_text(left - 6, f"{top + (1 - value) * side + 4:.0f}", f"{value:g}", "end"))
        ticks.append(_text(f"{left + value * side:.0f}", top + side + 18, f"{value:g}", "middle"))
    axes = _path(f"M{left} {top}v{side}h{side}", _stroke(_AXIS))
    diagonal = _path(f"M{left} {top + side}L{left + side} {top}", _stroke(_AXIS, dash="4"))
    caption = _text(f"{left + side / 2:.0f}", top + side + 36, "mean confidence; up: share right", "middle")
    return _picture((left + side + 12, top + side + 40), [axes, diagonal, *marks, *ticks, caption], width=300)


def strip_plot(values: Sequence[tuple[str, Sequence[float]]]) -> str:
    """A row of dots from 0 to 1 for each name, with their mean."""
    height, left, width = 34, 190, 420
    parts = []
    for number, (name, row) in enumerate(values):
        y = 24 + number * height
        parts += [_text(left - 12, y + 4, name, "end"), _path(f"M{left} {y}H{left + width}", _stroke(_RULE))]
        for place, value in enumerate(row):
            shift = (place * 0.618 % 1 - 0.5) * 14
            parts.append(_circle(left + width * value, y + shift, "2.5", 'fill-opacity=".45"'))
        if row:
            x = left + width * sum(row) / len(row)
            parts.append(_path(f"M{x:.1f} {y - 11}V{y + 11}", _stroke(_COLORS[1], 2)))
    bottom = 24 + len(values) * height
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(f"{left + width * tick:.1f}", bottom + 8, f"{tick:g}", "middle"))
    return _picture((left + width + 24, bottom + 18), parts, width=left + width + 24, font=13, fill=_COLORS[0])


def step_chart(name: str, values: Mapping[int, float]) -> str:
    """A figure over the steps of a training, between its lowest and highest value; at least two of them.

    It takes the width of the page, whose font it has.
    """
    left, top, right, bottom = 76, 8, 632, 194
    steps, numbers = list(values), list(values.values())
    first, last, low, high = min(steps), max(steps), min(numbers), max(numbers)
    width, span = (last - first) or 1, (high - low) or 1.0
    places = [
        (left + (step - first) / width * (right - left), top + (high - value) / span * (bottom - top - 8))
        for step, value in sorted(values.items())
    ]
    axes = [
        _text(left - 6, 16, f"{high:.4g}", "end"),
        _text(left - 6, bottom, f"{low:.4g}", "end"),
        _text(left, 212, str(first)),
        _text(right, 212, f"step {last}", "end"),
    ]
    label = escape(f"{name} from step {first} to {last}, at the end {numbers[-1]:.4g}")
    return (
        f'<svg viewBox="0 0 640 220" role="img" aria-label="{label}">'
        f"{_path(f'M{left} {top}V{bottom}H{right}', _stroke(_RULE))}{_polyline(places, _stroke(_COLORS[0], 2))}"
        f'<g fill="{_GREY}" font-size="13">{"".join(axes)}</g></svg>'
    )


def _picture(size: tuple[int, int], parts: Sequence[str], *, width: int, font: int = 12, fill: str = _GREY) -> str:
    """A file of parts, whose texts are escaped."""
    view = f'viewBox="0 0 {size[0]} {size[1]}" width="{width}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view} font-family="sans-serif" font-size="{font}" '
        f'fill="{fill}">{"".join(parts)}</svg>\n'
    )


def _text(x: int | str, y: int | str, text: str, anchor: str = "") -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x}" y="{y}"{where}>{escape(text)}</text>'


def _path(line: str, style: str) -> str:
    return f'<path d="{line}" {style}/>'


def _polyline(places: Sequence[tuple[float, float]], style: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" {style}/>'


def _circle(x: float, y: float, radius: str, style: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {style}/>'


def _stroke(color: str, width: int = 1, dash: str = "") -> str:
    wide = f' stroke-width="{width}"' if width != 1 else ""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{color}"{wide}{dashed}'
