"""What every page shares: its template's environment, its style, and words that hold no path."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_DASH = "–"
_SHORT = {
    "auc": "AUC",
    "ece": "ECE",
    "f1": "F1",
    "iou": "IoU",
    "nll": "NLL",
    "sha256": "SHA-256",
}  # for readers
# The data of a page has no paths and no names of scans; should one slip in, it ends here and is not passed on.
_PATH = re.compile(
    r"(?<![\w:/\\])(?:~|[A-Za-z]:)?[/\\][\w.][^\s\"'<>]*|[^\s\"'<>]+\.(?:nii(?:\.gz)?|mg[zh]|dcm)\b", re.I
)


def render_page(
    template: str,
    *,
    styles: Sequence[str] = ("report.css",),
    script: str | None = None,
    digests: Sequence[str] = (),
    **content: Any,
) -> str:
    """A page from a template of this package, whose policy allows its style and its script by their hashes alone.

    Args:
        template: extends `page.html.j2`.
        styles: style sheets of this package.
        script: a script of this package.
        digests: of scripts that the page's script may start (`source_digest`).
        content: what the template shows.
    """
    style = "".join(_source(name) for name in styles)
    source = _source(script) if script else None
    return (
        _environment()
        .get_template(template)
        .render(
            style=style,
            style_hash=source_digest(style),
            script=source,
            script_hashes=[source_digest(source), *digests] if source else [],
            **content,
        )
    )


def source_digest(source: str) -> str:
    """The hash by which a content security policy allows a style sheet or a script."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def without_paths(item: Any) -> Any:
    """Texts, mappings and lists with every path and scan's name in them left out."""
    if isinstance(item, str):
        return _PATH.sub("[path left out]", item)
    if isinstance(item, Mapping):
        return {without_paths(key): without_paths(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [without_paths(value) for value in item]
    return item


def picture_uri(path: Path) -> str:
    """An SVG or PNG file as it stands in a page."""
    kind = "svg+xml" if path.suffix == ".svg" else "png"
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()


def as_text(item: Any) -> str:
    """Any value of a side-car or a card, for a reader."""
    if item is None or (isinstance(item, Mapping | list | tuple) and not item):
        return _DASH
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, Mapping):
        nested = any(isinstance(value, Mapping | list | tuple) for value in item.values())
        return ("; " if nested else ", ").join(f"{_words(key)} {as_text(value)}" for key, value in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(as_text(value) for value in item)
    return str(item)


def _source(name: str) -> str:
    return _environment().get_template(name).render()


@cache
def _environment() -> Environment:
    """Where templates are compiled, once for all pages."""
    environment = Environment(
        loader=PackageLoader("pipelines.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(value=as_text, words=_words, heading=_heading, fixed=_fixed, share=_share)
    return environment


def _words(key: Any) -> str:
    return " ".join(_SHORT.get(word, word) for word in str(key).replace("_", " ").split(" "))


def _heading(key: Any) -> str:
    words = _words(key)
    return words[:1].upper() + words[1:]


def _fixed(number: float | None, digits: int) -> str:
    return _DASH if number is None else f"{number:,.{digits}f}"


def _share(number: float | None) -> str:
    return _DASH if number is None else f"{number:.1%}"
