"""Values in JSON types, as cards, recipes, manifests and summaries contain them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that a JSON file can contain."""
Document: TypeAlias = Mapping[str, Any]
"""Content of a JSON or YAML file that is checked as it is read; typed dictionaries are documents, too."""
Entries: TypeAlias = dict[str, Any]
"""Such content while it is put together or changed: arguments, options, sections of a card or recipe."""
