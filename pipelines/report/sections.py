"""What a page is made of: sections, each a title and then tables, figures and texts.

A block is a dataclass with the name of the macro that draws it, in `templates/blocks.html.j2` or in the block's own
template. All texts are escaped there but those of type `Markup`, which this package writes itself.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipelines.report.results import ResultTable
from pipelines.report.text import as_text, heading, words
from shared_backbones.json_values import Json


class Block:
    """A part of a section; `macro` is the name of the macro that draws it, which is in `template`."""

    macro: ClassVar[str]
    template: ClassVar[str] = "blocks.html.j2"


@dataclass(frozen=True)
class Section:
    """A part of a page with a title.

    Attributes:
        id: Anchor of the section, unique in its page.
        title: Heading.
        blocks: What is below the heading, from top to bottom.
        contents: Entry in the page's list of contents; a section without one is not listed.
        columns: Whether the blocks stand side by side, as many as the window has room for.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    contents: str = ""
    columns: bool = False


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: Title of the browser's window.
        kind: Kind of the report, above the heading.
        heading: Heading.
        lead: A line below the heading.
        sections: Sections from top to bottom.
        footer: A sentence at the end.
        facts: Names and values of the line of figures below the heading.
        medical: Whether the page says that it is for research only.
        noun: What results are made from: `scan` or `scene`; empty for a report on a model.
        licences: Licences of programs within the page.
        embedded: Data for the page's scripts.
    """

    title: str
    kind: str
    heading: str
    lead: str
    sections: Sequence[Section]
    footer: str
    facts: Sequence[tuple[str, str]] = ()
    medical: bool = True
    noun: str = "scan"
    licences: str = ""
    embedded: Sequence["Embedded"] = ()


@dataclass(frozen=True)
class Embedded:
    """Data within a page that no browser runs, found by `id`; `type` is its media type."""

    id: str
    type: str
    content: str


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    title: str = ""
    small: bool = False
    macro: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences, set apart where they are an `alert`."""

    items: Sequence[str]
    title: str = ""
    alert: bool = False
    macro: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Heading.
        numeric: Whether its cells are figures, which are set to the right.
        sort: `number` or `text` where the page's script can sort by it.
        wide: Whether its cells are sentences, which need room.
    """

    title: str
    numeric: bool = False
    sort: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        alert: Whether the text is in the colour of an alarm.
        rest: What follows the text in the plain colour.
        remark: What follows in small type; in a numeric column it has a line of its own.
        sort: Value that the page's script sorts by; None where it does not.
        link: Where the text leads.
        picture: Data URI of a small picture that stands in its place and leads there too.
        swatch: Colour of the structure that the text names.
        bar: Length from 0 to 1 of a bar before the text.
        note: Letter of the note below the table that the cell refers to.
    """

    text: str = ""
    alert: bool = False
    rest: str = ""
    remark: str = ""
    sort: str | None = None
    link: str | None = None
    picture: str = ""
    swatch: str = ""
    bar: float | None = None
    note: str = ""

    @property
    def long(self) -> bool:
        """Whether the text has to break."""
        return len(self.text) > 24


@dataclass(frozen=True)
class Table(Block):
    """A table.

    Attributes:
        columns: Its columns.
        rows: As many cells each.
        title: Heading; without one the section's own names the table.
        foot: A last row that sums up the others.
        notes: Letters that cells refer to, and what they stand for.
        remark: A sentence below.
        header: Number of the column that names a row.
        alert: Whether the table is set apart as an alarm.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    foot: Sequence[Cell] = ()
    notes: Sequence[tuple[str, str]] = ()
    remark: str = ""
    header: int = 0
    alert: bool = False
    macro: ClassVar[str] = "table"

    @classmethod
    def of(cls, result: ResultTable) -> "Table":
        """A table of an evaluation: the first column names the rows, and the others are figures."""
        columns = [Column(title, numeric=number > 0) for number, title in enumerate(result["columns"])]
        rows = [[Cell(str(row[0])), *(Cell(as_text(value)) for value in row[1:])] for row in result["rows"]]
        return cls(columns, rows, result["title"])


@dataclass(frozen=True)
class Pairs(Block):
    """Names with their values; `figures` sets several of them side by side."""

    rows: Sequence[tuple[str, str]]
    title: str = ""
    figures: bool = False
    macro: ClassVar[str] = "pairs"

    @classmethod
    def of(cls, title: str, values: Mapping[str, Json], *, figures: bool = False) -> "Pairs":
        """The values of a mapping, but for those that are None."""
        return cls([(words(key), as_text(value)) for key, value in values.items() if value is not None], title, figures)


@dataclass(frozen=True)
class Legend(Block):
    """Names with their colours; `label` says what has them, `title` is shown before them."""

    entries: Sequence[tuple[str, str]]
    label: str
    title: str = ""
    macro: ClassVar[str] = "legend"


@dataclass(frozen=True)
class Picture(Block):
    """A picture of its own size.

    Attributes:
        source: Data URI.
        alt: What it shows, for those who cannot see it.
        title: Heading.
        kind: Class of the element.
        size: Width and height in pixels, where other pictures stand beside it.
    """

    source: str
    alt: str
    title: str = ""
    kind: str = "picture"
    size: tuple[int, int] | None = None
    macro: ClassVar[str] = "picture"

    @classmethod
    def of(cls, path: Path) -> "Picture":
        """An SVG or PNG file, named by its file's name."""
        kind = "svg+xml" if path.suffix == ".svg" else "png"
        return cls(data_uri(path.read_bytes(), f"image/{kind}"), words(path.stem), heading(path.stem))


@dataclass(frozen=True)
class Chart(Block):
    """A chart that stands in the page as it is drawn."""

    svg: str
    title: str
    macro: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Outline:
    """A line over a drawing: SVG path data, its colour, and the code and name of what it surrounds."""

    path: str
    colour: str
    code: int
    name: str


@dataclass(frozen=True)
class Layer:
    """Lines over a drawing that are shown and hidden together.

    Attributes:
        kind: `result`, `reference` or `difference`.
        outlines: The lines, later ones on top.
        transform: SVG transform from the units of the paths to pixels of the picture.
    """

    kind: str
    outlines: Sequence[Outline]
    transform: str


@dataclass(frozen=True)
class Drawing:
    """A picture with lines over it.

    Attributes:
        source: Data URI of the picture.
        alt: What it shows, for those who cannot see it.
        size: Width and height of the picture in pixels.
        layers: Lines over it.
        letters: What its borders `left`, `right`, `top` and `bottom` face.
        bar: Length in pixels of the scale bar.
        bar_text: What that length is.
        plane: The plane that it is a slice of.
    """

    source: str
    alt: str
    size: tuple[int, int]
    layers: Sequence[Layer]
    letters: Mapping[str, str]
    bar: float
    bar_text: str
    plane: str


@dataclass(frozen=True)
class Figure:
    """A drawing over a caption with its place on the right.

    Attributes:
        drawing: The drawing.
        caption: Its caption.
        place: Where the slice lies.
        position: The same in scanner coordinates.
        mm: Corner, side to the right and side down of the drawing in scanner coordinates (RAS+), nine numbers.
    """

    drawing: Drawing
    caption: str
    place: str
    position: str
    mm: Sequence[float]


@dataclass(frozen=True)
class Gallery(Block):
    """Figures in a grid; `large` ones stand three in a row, for the first look."""

    figures: Sequence[Figure]
    title: str
    text: str = ""
    large: bool = False
    macro: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Switches(Block):
    """What of the drawings' lines is shown; `compared` says what labels they have beside the result's, if any."""

    compared: str
    macro: ClassVar[str] = "switches"


@dataclass(frozen=True)
class JudgedStructure:
    """A structure with its colour and what its quality flags say, and the code of its lines."""

    code: int
    name: str
    colour: str
    flags: str


@dataclass(frozen=True)
class Judgement(Block):
    """A line of structures, flagged ones first, each of which a reader can judge; `flags` are those of the scan."""

    structures: Sequence[JudgedStructure]
    flags: Sequence[str]
    macro: ClassVar[str] = "judgement"


@dataclass(frozen=True)
class VerdictForm(Block):
    """The form in which a reviewer answers a question about a report; `program` collects the answers.

    `noun` is what the result was made from: a `scan` or a `scene`; empty where the question is about a model.
    """

    report: str
    sha256: str
    case: str
    question: str
    program: str
    noun: str = "scan"
    macro: ClassVar[str] = "verdict_form"


def verdict_section(report: Mapping[str, str], case: str, question: str, program: str, noun: str = "scan") -> Section:
    """The verdict on a report, known by its `id` and `sha256` (`pipelines.report.verdicts.report_identity`)."""
    form = VerdictForm(report["id"], report["sha256"], case, question, program, noun)
    return Section("verdict", "Verdict", [form], contents="Verdict")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of a media type as they stand in a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def hex_colour(rgb: tuple[int, int, int]) -> str:
    """A colour of bytes as a page writes it."""
    return "#" + bytes(rgb).hex()
