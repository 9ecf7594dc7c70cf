"""Label tables that viewers load: what the ids of a label map mean, and in which colour they are drawn."""

from collections.abc import Callable, Sequence

from medvision.findings.tables import identifiers
from medvision.pictures.colours import class_colours
from shared_backbones.card import ClassEntry


def freesurfer(classes: Sequence[ClassEntry]) -> str:
    """A colour look-up table of FreeSurfer and FreeView (`-v labels.nii.gz:colormap=lut:lut=FILE`)."""
    lines = [
        "#No. Label Name:                            R   G   B   A",
        "0   Unknown                                 0   0   0   0",
    ]
    for number, name, (red, green, blue) in _rows(classes):
        lines.append(f"{number:<3} {_word(name):<39} {red:<3} {green:<3} {blue:<3} 0")  # A is transparency
    return "\n".join(lines) + "\n"


def itksnap(classes: Sequence[ClassEntry]) -> str:
    """A label description file of ITK-SNAP (Segmentation, Import Label Descriptions)."""
    rule = "#" * 48
    lines = [rule, "# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL", rule]
    lines.append(f'{0:>5} {0:>5} {0:>4} {0:>4} {0:>8} {0:>2} {0:>2}    "Clear Label"')
    for number, name, (red, green, blue) in _rows(classes):
        shown = name.replace("_", " ").replace('"', "'")
        lines.append(f'{number:>5} {red:>5} {green:>4} {blue:>4} {1:>8} {1:>2} {1:>2}    "{shown}"')
    return "\n".join(lines) + "\n"


def slicer(classes: Sequence[ClassEntry]) -> str:
    """A colour table of 3D Slicer (`.ctbl`)."""
    lines = ["# Color table file", "# Label names and colours", "0 Background 0 0 0 0"]
    lines += [f"{number} {_word(name)} {red} {green} {blue} 255" for number, name, (red, green, blue) in _rows(classes)]
    return "\n".join(lines) + "\n"


def bids(classes: Sequence[ClassEntry]) -> str:
    """A look-up table of BIDS (`dseg.tsv`)."""
    names = identifiers([name for _, name, _ in _rows(classes)])
    lines = ["index\tname\tabbreviation\tcolor", "0\tbackground\tbackground\t#000000"]
    for (number, name, colour), short in zip(_rows(classes), names, strict=True):
        shown = " ".join(name.replace("_", " ").split())
        lines.append(f"{number}\t{shown}\t{short}\t#{bytes(colour).hex()}")
    return "\n".join(lines) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Sequence[ClassEntry]], str]]] = {
    "freesurfer": ("_freesurfer.txt", freesurfer),
    "itksnap": ("_itksnap.txt", itksnap),
    "slicer": (".ctbl", slicer),
    "bids": ("_dseg.tsv", bids),
}
"""Ending of the file, and what writes it, by name of the format."""


def _rows(classes: Sequence[ClassEntry]) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Id, name and colour of every structure."""
    colours = class_colours(classes)
    return [(entry["id"], entry["name"], colours[entry["id"]]) for entry in classes if entry["id"]]


def _word(name: str) -> str:
    """A name without spaces, which would end it."""
    return "_".join(name.split())
