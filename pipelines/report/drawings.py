"""Sections with drawings of slices: grey pictures, and over them the contours of structures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from medvision.pictures.colours import Colour, contour_colours
from medvision.pictures.keyslices import ShownSlice
from medvision.pictures.overlays import DIFFERENCE, Contours, Rendering, Slice
from pipelines.report.sections import (
    Block,
    Drawing,
    Figure,
    Gallery,
    JudgedStructure,
    Judgement,
    Layer,
    Legend,
    Outline,
    Section,
    Switches,
    Text,
    data_uri,
    hex_colour,
)
from pipelines.report.text import as_text, fixed, list_at, part_at, rows_at, text_at, words
from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Json


def slice_sections(
    data: Mapping[str, Json],
    classes: Sequence[ClassEntry],
    rendering: Rendering,
    entries: Sequence[ShownSlice],
    reference_name: str = "reference",
) -> list[Section]:
    """Drawings of slices: a section of those to look at first, and one of those of each plane.

    Args:
        data: Side-car.
        classes: Classes of the labels.
        rendering: The slices.
        entries: What the plan says of each.
        reference_name: What the labels are that the result is compared with.
    """
    compared = bool(part_at(data, "reference")) or rendering.slices[0].reference is not None
    painter = _Painter(classes, f"{rendering.scale_bar_mm:g} mm")
    shown = list(zip(rendering.slices, entries, strict=True))
    planes = {plane: list(items) for plane, items in groupby((pair for pair in shown if "why" not in pair[1]), _plane)}
    keys = [(item, entry) for item, entry in shown if "why" in entry]
    seen = {item.plane for item, _ in keys}
    middle = [items[len(items) // 2] for plane, items in planes.items() if plane not in seen]
    first = [painter.key_figure(item, entry) for item, entry in [*keys, *middle]]
    blocks: list[Block] = [
        _judgement(data, painter),
        Switches(reference_name if compared else ""),
        painter.legend(compared, reference_name),
    ]
    blocks.append(Gallery(first, "", large=True))
    blocks.append(Text(_choice_of_slices(reference_name if compared else ""), small=True))
    rest: list[Block] = [Text(_convention(data, rendering), small=True)]
    for plane, items in planes.items():
        figures = [painter.figure(item) for item, entry in items if (item, entry) not in middle]
        rest.append(Gallery(figures, plane.capitalize()))
    return [
        Section("first", "To look at first", blocks, contents="To look at first"),
        Section("slices", "Slices", rest, contents="Slices"),
    ]


def _plane(pair: tuple[Slice, ShownSlice]) -> str:
    return pair[0].plane


def _convention(data: Mapping[str, Json], rendering: Rendering) -> str:
    """How the drawings are to be read."""
    low, high = rendering.window
    text = (
        "Radiological convention: the patient’s right is on the left of axial and coronal slices; anterior is on the "
        f"left of sagittal ones. Window {low:.4g} to {high:.4g} ({rendering.window_rule}). Contours run along the "
        "edges of voxels. Positions are those of the slice’s centre in scanner coordinates."
    )
    channels = list_at(data, "input", "channels")
    if channels:
        text += f" Shown is {as_text(channels[0])}, the first of {len(channels)} channels."
    return text


def _judgement(data: Mapping[str, Json], painter: "_Painter") -> Judgement:
    """Structures with what their flags say, flagged ones first."""
    flags: dict[str, list[str]] = {}
    for flag in rows_at(data, "flags"):
        flags.setdefault(text_at(flag, "structure"), []).append(words(text_at(flag, "code")))
    names = [str(row["name"]) for row in rows_at(data, "structures")] or list(painter.names.values())
    codes = {name: number for number, name in painter.names.items() if number}
    known = [name for name in sorted(names, key=lambda name: name not in flags) if name in codes]
    rows = [
        JudgedStructure(codes[name], name, painter.colour(codes[name]), ", ".join(flags.get(name, ())))
        for name in known
    ]
    whole = [flag for name, listed in flags.items() if name not in known for flag in listed]
    return Judgement(rows, whole)


def _choice_of_slices(compared: str) -> str:
    """How the slices to look at first were chosen."""
    errors = (
        f"Most errors: the slices with most voxels of the structure that are in the result or the {compared} alone; "
        "structures of lowest Dice. "
    )
    return (errors if compared else "") + (
        "Least certain: the slices in which the structure’s mean confidence is lowest, among slices with at least a "
        "quarter of its largest one; flagged structures first. Three planes of the worst structure, one of others."
    )


class _Painter:
    """Makes figures of slices, all with the same names and colours of structures."""

    def __init__(self, classes: Sequence[ClassEntry], bar_text: str) -> None:
        self.names = {entry["id"]: str(entry["name"]) for entry in classes}
        self.colours, self.bar_text = contour_colours(classes), bar_text

    def colour(self, number: int) -> str:
        """The colour of a structure as a page writes it."""
        return hex_colour(self.colours.get(number, (255, 255, 255)))

    def legend(self, compared: bool, reference_name: str) -> Legend:
        """What the colours stand for; those of structures stand with their names already."""
        entries = [(name, hex_colour(rgb)) for name, rgb in DIFFERENCE.items()] if compared else []
        return Legend(entries, f"Colours of the difference to the {reference_name}", "Difference:" if compared else "")

    def figure(self, item: Slice) -> Figure:
        """A slice with its contours, those of the reference, and the difference of the two."""
        inside = ", ".join(self.names.get(number, str(number)) for number in item.present) or "no structure"
        layers = [_layer("result", item.result, self.names, self.colours)]
        if item.reference is not None and item.difference is not None:
            kinds = dict(enumerate(DIFFERENCE, start=1)), dict(enumerate(DIFFERENCE.values(), start=1))
            layers.append(_layer("reference", item.reference, self.names, self.colours))
            layers.append(_layer("difference", item.difference, *kinds))
        drawing = Drawing(
            source=data_uri(item.grey, "image/png"),
            alt=f"{item.plane.capitalize()} slice at {item.position}: {inside}",
            size=(item.width, item.height),
            layers=layers,
            letters=item.letters,
            bar=item.bar,
            bar_text=self.bar_text,
            plane=item.plane,
        )
        mm = [round(float(part), 4) for vector in (item.corner, item.across, item.down) for part in vector]
        return Figure(drawing, item.position, f"{item.plane} slice {item.index}", item.position, mm)

    def key_figure(self, item: Slice, entry: ShownSlice) -> Figure:
        """A slice to look at first, and why."""
        figure, why, value = self.figure(item), entry.get("why"), entry.get("value")
        if why is None:
            return replace(figure, caption="middle of the labels", place=f"{figure.caption}, {figure.place}")
        measure = f"{value} voxels" if why == "most errors" else f"mean confidence {fixed(value, 2)}"
        caption = words(f"{entry.get('structure')}: {why}, {measure}")
        return replace(figure, caption=caption, place=f"{figure.caption}, {figure.place}")


def _layer(kind: str, contours: Contours, names: Mapping[int, str], colours: Mapping[int, Colour]) -> Layer:
    (across, down), (left, top) = contours.scale, contours.origin
    outlines = [
        Outline(path, hex_colour(colours.get(number, (255, 255, 255))), number, names.get(number, str(number)))
        for number, path in contours.paths.items()
    ]
    return Layer(kind, outlines, f"translate({left} {top}) scale({across:.5g} {down:.5g})")
