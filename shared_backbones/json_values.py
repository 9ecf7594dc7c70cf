"""Values in JSON types, as cards, recipes, manifests and summaries contain them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that a JSON file can contain."""
Document: TypeAlias = Mapping[str, Any]
"""Content of a JSON or YAML file that is checked as it is read; typed dictionaries are documents, too."""
Entries: TypeAlias = dict[str, Any]
"""Such content while it is put together or changed: arguments, options, sections of a card or recipe."""


def leaves(content: Document, prefix: str = "") -> dict[str, Json]:
    """Values that are no sections, by dotted key."""
    flat: dict[str, Json] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        flat |= leaves(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return flat
