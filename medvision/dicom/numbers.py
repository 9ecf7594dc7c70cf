"""Numbers of DICOM headers, also where they are written in another form than the standard's but can mean one thing."""

import math
import re
from typing import TYPE_CHECKING, Any

from shared_backbones.errors import InputError, require
from shared_backbones.files import printable

if TYPE_CHECKING:
    from pydicom import Dataset

_LARGEST = 1e9


def attribute(dataset: "Dataset", key: str) -> Any:
    """The value of an attribute; its bytes where pydicom cannot convert them, and None where it is not there."""
    if key not in dataset:
        return None
    try:
        return dataset[key].value
    except Exception:  # pydicom raises what it likes
        return getattr(dataset.get_item(require("pydicom.tag", "dicom").Tag(key)), "value", None)


def numbers(value: Any, key: str, count: int, name: str, default: float | None = None) -> list[float]:
    """The numbers of an attribute.

    Text of any type is read, with a decimal comma in place of the point, and with commas between values where nothing
    else can be meant.

    Args:
        value: as `attribute` gives it.
        key: the attribute.
        count: how many numbers there must be.
        name: how errors call the file.
        default: the number where there is none.

    Raises:
        InputError: it is missing, or can mean several things or none.
    """
    parts = _parts(value)
    if not parts:
        if default is not None:
            return [default]
        raise InputError(f"{name}: has no {key}; expected one, as volumes have; choose another series, or export again")
    if len(parts) == 1 and count > 1 and isinstance(parts[0], str):
        parts = _at_commas(parts[0], count)
    try:
        values = [_number(part) for part in parts]
        if len(values) != count and any("," in str(part) for part in parts):
            raise ValueError
    except ValueError:
        raise InputError(
            f"{name}: its {key} is {_shown(parts)}; expected {count} numbers with decimal points; export it again"
        ) from None
    if len(values) != count or not all(math.isfinite(number) and abs(number) < _LARGEST for number in values):
        raise InputError(f"{name}: its {key} has {len(values)} values; expected {count} finite ones; export it again")
    return values


def _parts(value: Any) -> list[str | float]:
    """Numbers, or texts between backslashes."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        text = value.strip(" \0")
        return list(text.split("\\")) if text else []
    if value is None:
        return []
    return list(value) if hasattr(value, "__iter__") else [value]


def _at_commas(text: str, count: int) -> list[str | float]:
    """A text cut at its commas where they stand between the values: as many as needed, and no decimal commas."""
    pieces = text.split(",")
    between = len(pieces) == count and (count > 2 or any("." in piece for piece in pieces))
    return list(pieces) if between else [text]


def _number(part: str | float) -> float:
    """A number; with a decimal comma where it has one comma and no point.

    Raises:
        ValueError: it is none.
    """
    if isinstance(part, str) and part.count(",") == 1 and "." not in part:
        part = part.replace(",", ".")
    return float(part)


def _shown(parts: list[str | float]) -> str:
    """The value in quotes, where it looks like numbers and so tells nothing else of a header."""
    text = "\\".join(str(part).strip(" \0") for part in parts)
    return f"'{printable(text)}'" if re.fullmatch(r"(?=.*\d)[-+\w.,;:/\\ ]{1,64}", text) else "no number"
