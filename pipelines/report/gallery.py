"""Galleries in which a reader gives images their labels with one key each: the most doubtful ones, and random ones."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from pipelines.report.page import render_page
from pipelines.report.sections import Block, Embedded, Page, Section
from shared_backbones.json_values import Json

MOST = 1000
"""Images of a page, at most."""
_LARGEST = 7_500_000  # characters of a page's images with what is said of them
_TEXT = 1200  # characters, at most, of what is said of an image
KEYS = "1234567890abdfgilmnopqrstvwyz"
"""Keys of classes, in their order; the others do something else."""
CANNOT_TELL, ARTEFACT = "cannot tell", "artefact"
"""What can be said in place of a class."""

_AGAIN = 0.05  # fraction of the images that are shown twice
_ANSWERS = 3  # classes of the network's answer that are shown


@dataclass(frozen=True)
class Cutout:
    """An image to label.

    Attributes:
        id: What the user knows it by.
        row: Its number in the input, from 1.
        position: Right ascension and declination in degrees as text; may be empty.
        picture: Data URI.
        layers: Data URIs of single bands, alike for all images of a gallery; none of images of one band.
        cam: Data URI of a layer that shows what spoke for the answer (Grad-CAM); empty where there is none.
        margin: Probability of the most probable class, less that of the second.
        set_size: Classes in its prediction set, if the model gives sets.
        outlier: Its score as an outlier, if the model has one.
        label: The class that it was thought to have; empty where that is not known.
        believed: The probability that the network gives to it.
        drawn: `doubtful` or `random`.
        answer: Classes and their probabilities, the most probable ones first.
    """

    id: str
    row: int
    position: str
    picture: str
    margin: float
    set_size: int | None
    outlier: float | None
    drawn: str
    answer: Sequence[tuple[str, float]]
    layers: Sequence[str] = ()
    cam: str = ""
    label: str = ""
    believed: float | None = None

    @property
    def answer_text(self) -> str:
        """The answer as a line, and the label."""
        answer = ", ".join(f"{name} {probability:.2f}" for name, probability in self.answer[:_ANSWERS])
        return answer if self.believed is None else f"{answer}; label {self.label} {self.believed:.2f}"

    @property
    def doubt(self) -> float:
        """What images are chosen by, the most doubtful ones lowest."""
        return self.margin if self.believed is None else min(self.margin, self.believed)


@dataclass(frozen=True)
class Cutouts(Block):
    """Images to label, and the keys of the labels."""

    cutouts: Sequence[Cutout]
    keys: Sequence[tuple[str, str]]
    orders: Mapping[str, str]
    layers: Sequence[str] = ()
    macro: ClassVar[str] = "cutouts"

    @property
    def glows(self) -> bool:
        """Whether images have a layer of Grad-CAM."""
        return any(cutout.cam for cutout in self.cutouts)


def pages_of(cutouts: Sequence[Cutout]) -> list[list[Cutout]]:
    """Images in pages of at most `MOST`, and of under 8 MB, the most doubtful ones first."""
    pages: list[list[Cutout]] = [[]]
    room = _LARGEST
    for cutout in sorted(cutouts, key=lambda each: (each.doubt, each.row)):
        size = _TEXT + sum(map(len, (cutout.picture, cutout.cam, *cutout.layers)))
        if pages[-1] and (len(pages[-1]) == MOST or size > room):
            pages.append([])
            room = _LARGEST
        pages[-1].append(cutout)
        room -= size
    return pages


def gallery_page(
    cutouts: Sequence[Cutout], classes: Sequence[str], model: str, page: int = 1, layers: Sequence[str] = ()
) -> str:
    """Build the page. It is one file, and nothing is fetched; its script keeps the labels, and saves them as CSV.

    The network's answer is hidden until a label is given, and a twentieth of the images is shown twice. Bands and
    Grad-CAM, where images have them, lie over the picture on request.

    Args:
        cutouts: Images of one of `pages_of`.
        classes: Names of the classes, at most as many as `KEYS`.
        model: What the model is called.
        page: Number of the page, from 1.
        layers: Names of the images' layers.
    """
    again = np.random.default_rng(0).permutation(len(cutouts))[: round(_AGAIN * len(cutouts))]
    orders = {"margin": "smallest margin"}
    orders |= {"set": "largest set"} if any(each.set_size is not None for each in cutouts) else {}
    orders |= {"outlier": "highest outlier score"} if any(each.outlier is not None for each in cutouts) else {}
    orders |= {"believed": "least believed label"} if any(each.believed is not None for each in cutouts) else {}
    keys = [*zip(KEYS, classes, strict=False), ("c", CANNOT_TELL), ("x", ARTEFACT)]
    known = "\n".join(f"{each.row} {each.id} {each.answer_text}" for each in cutouts)
    data: dict[str, Json] = {
        "gallery": hashlib.sha256(known.encode()).hexdigest()[:16],
        "file": "labels-fixed.csv" if page == 1 else f"labels-fixed-{page}.csv",
        "again": again.tolist(),
        "entries": [
            {"id": each.id, "row": each.row, "drawn": each.drawn, "margin": each.margin, "set": each.set_size,
             "outlier": each.outlier, "believed": each.believed, "answer": each.answer[0][0]}
            for each in cutouts
        ],
    }  # fmt: skip
    whole = Page(
        title="Gallery",
        kind="Gallery",
        heading=f"{len(cutouts)} image{'' if len(cutouts) == 1 else 's'} to label",
        lead=f"{model}; the most doubtful ones first, and random ones among them. Page {page}.",
        facts=[
            (name.capitalize(), str(count))
            for name in ("doubtful", "random")
            if (count := sum(each.drawn == name for each in cutouts))
        ],
        sections=[Section("gallery", "Images", [Cutouts(cutouts, keys, orders, layers)])],
        footer="The page loads nothing; its one script keeps the labels and saves them.",
        medical=False,
        embedded=[Embedded("gallery-data", "application/json", htmlsafe_json_dumps(data))],
    )
    return render_page(whole, styles=["verdict.css", "gallery.css"], script="gallery.js")
