"""Charts of a page as standalone SVG pictures."""

import html
from collections.abc import Mapping, Sequence

_COLORS = ("#0b5a73", "#8a2c0d", "#4d7c0f", "#7c3aed", "#b45309", "#0f766e", "#be185d", "#334155")
_DASHES = ("", "6 3", "2 3")


def line_chart(curves: Mapping[str, Sequence[float]], across: str, up: str, at: Sequence[int] = ()) -> str:
    """Values of some series; the upward axis goes from 0 to 1.

    Args:
        curves: values from 0 to 1, by the series' name.
        across: what the numbers are.
        up: what the values are.
        at: rising numbers, from 0, at which the values are; by default 0, 1, 2 and so on.
    """
    left, top, width, height = 46, 12, 420, 260
    count = max((len(values) for values in curves.values()), default=2)
    at = at or range(count)
    step = width / max([1, *at])
    lines, legend = [], []
    for number, (name, values) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        dash = _DASHES[number // len(_COLORS) % len(_DASHES)]
        places = [(left + x * step, top + (1 - value) * height) for x, value in zip(at, values, strict=False)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = f'stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"'
        lines.append(f'<polyline points="{points}" fill="none" {style}/>')
        y = top + 8 + 17 * number
        legend.append(f'<path d="M{left + width + 16} {y}h22" {style}/>')
        legend.append(f'<text x="{left + width + 44}" y="{y + 4}">{html.escape(name)}</text>')
    ticks = [
        f'<text x="{left - 6}" y="{top + (1 - value) * height + 4:.0f}" text-anchor="end">{value:g}</text>'
        f'<path d="M{left} {top + (1 - value) * height:.0f}h{width}" stroke="#e4e9ed"/>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    ticks += [
        f'<text x="{left + place * step:.0f}" y="{top + height + 18}" text-anchor="middle">{place}</text>'
        for place in at
    ]
    whole = max(top + height + 44, top + 17 * len(curves) + 10)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 190} {whole}" '
        f'width="{left + width + 190}" font-family="sans-serif" font-size="12" fill="#51606e">{"".join(ticks)}'
        f'<path d="M{left} {top}v{height}h{width}" fill="none" stroke="#9aa7b2"/>{"".join(lines)}{"".join(legend)}'
        f'<text x="{left + width / 2:.0f}" y="{top + height + 38}" text-anchor="middle">{html.escape(across)}; up: '
        f"{html.escape(up)}</text></svg>\n"
    )
