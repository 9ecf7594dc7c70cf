"""Words and figures as a page shows them, and texts that contain no path."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from markupsafe import Markup

from shared_backbones.json_values import Json

DASH = "–"
_CAPITALS = {
    "auc": "AUC",
    "csf": "CSF",
    "dice": "Dice",
    "ece": "ECE",
    "f1": "F1",
    "iou": "IoU",
    "nll": "NLL",
    "sha256": "SHA-256",
}
# The data of a page has no paths and no names of scans; should one slip in, it ends here and is not passed on.
_PATH = re.compile(  # and no end of a tag, such as </b>
    r"(?<![\w:/\\])(?!(?<=<)/[\w:-]+>)(?:~|[A-Za-z]:)?[/\\][\w.][^\s\"'<>]*|[^\s\"'<>]+\.(?:nii(?:\.gz)?|mg[zh]|dcm)\b",
    re.I,
)
_Data = TypeVar("_Data")


def without_paths(data: _Data) -> _Data:
    """The same texts, mappings and lists with every path and scan's name in them left out."""
    cleaned: _Data = _cleaned(data)
    return cleaned


def as_text(value: Json) -> str:
    """A value of a side-car or a card, for a reader."""
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        nested = any(isinstance(inner, Mapping | list | tuple) for inner in value.values())
        return ("; " if nested else ", ").join(f"{words(key)} {as_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(as_text(inner) for inner in value)
    return str(value)


def moment(iso: str) -> str:
    """A time of ISO 8601 for a reader, to the minute in UTC; any other text as it is."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def value_at(data: Json, *keys: str) -> Json:
    """The value below some keys, one within the other; None where one of them is missing."""
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def text_at(data: Json, *keys: str) -> str:
    """The text below some keys; empty where there is none."""
    value = value_at(data, *keys)
    return "" if value is None else str(value)


def number_at(data: Json, *keys: str) -> float | None:
    """The number below some keys; None where there is none."""
    value = value_at(data, *keys)
    return value if isinstance(value, int | float) else None


def part_at(data: Json, *keys: str) -> Mapping[str, Json]:
    """The mapping below some keys; empty where there is none."""
    value = value_at(data, *keys)
    return value if isinstance(value, Mapping) else {}


def list_at(data: Json, *keys: str) -> Sequence[Json]:
    """The list below some keys; empty where there is none."""
    value = value_at(data, *keys)
    return value if isinstance(value, list | tuple) else []


def rows_at(data: Json, *keys: str) -> list[Mapping[str, Json]]:
    """The mappings in the list below some keys; empty where there is none."""
    return [row for row in list_at(data, *keys) if isinstance(row, Mapping)]


def words(key: str) -> str:
    """A key such as `weights_sha256` as words."""
    return " ".join(_CAPITALS.get(word, word) for word in key.replace("_", " ").split(" "))


def in_words(data: _Data, names: Iterable[str]) -> _Data:
    """The same texts, mappings and lists with names such as `other_csf` as words, wherever they stand in a text."""
    known = sorted((name for name in names if words(name) != name), key=len, reverse=True)
    if not known:
        return data
    return _replaced(data, re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)"))


def heading(key: str) -> str:
    """A key as words that begin with a capital letter."""
    text = words(key)
    return text[:1].upper() + text[1:]


def fixed(number: float | None, digits: int) -> str:
    """A number with so many decimals, or a dash."""
    return DASH if number is None else f"{number:,.{digits}f}"


def percent(part: float | None) -> str:
    """A part of 1 in percent, or a dash."""
    return DASH if part is None else f"{part:.1%}"


def code(text: str) -> Markup:
    """A hash or a command in the type of code."""
    return Markup("<code>{}</code>").format(text)


def _replaced(data: Any, names: re.Pattern[str]) -> Any:
    if isinstance(data, str):
        return names.sub(lambda match: words(match[0]), data)
    if isinstance(data, Mapping):
        return {key: _replaced(value, names) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_replaced(value, names) for value in data]
    return data


def _cleaned(data: Any) -> Any:
    if isinstance(data, str):
        return _PATH.sub("[path left out]", data)
    if isinstance(data, Mapping):
        return {_cleaned(key): _cleaned(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_cleaned(value) for value in data]
    return data
