"""How a page is written: one template for all of them, whose policy allows its own style and scripts and no others."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.report.sections import Page


def render_page(
    page: Page,
    *,
    styles: Sequence[str] = (),
    script: str | None = None,
    digests: Sequence[str] = (),
    bar: Literal["report", "shell", "agreement", ""] = "",
) -> str:
    """The HTML of a page: one file in which style, pictures and scripts are inside.

    Its content security policy allows its style and its scripts by their hashes, and lets nothing be fetched.

    Args:
        page: What it shows.
        styles: Style sheets of this package beside `report.css`.
        script: A script of this package.
        digests: Digests of scripts that the page's script may start (`source_digest`).
        bar: Whose bar of verdicts the page has, if any; a shell may frame reports that lie beside it.
    """
    style = "".join(_source(name) for name in ("report.css", *styles))
    source = _source(script) if script else None
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            bar=bar,
            style=style,
            style_hash=source_digest(style),
            script=source,
            script_hashes=[source_digest(source), *digests] if source else [],
        )
    )


def source_digest(source: str) -> str:
    """The hash by which a content security policy allows a style sheet or a script."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _source(name: str) -> str:
    return _environment().get_template(name).render()


@cache
def _environment() -> Environment:
    """Where templates are compiled, once for all pages."""
    return Environment(
        loader=PackageLoader("pipelines.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
