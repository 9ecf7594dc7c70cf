"""Arguments of a network as a card or recipe may give them: names that its class lists, plain values, bounded sizes.

A trained model may come from anyone. What its card hands to a constructor is therefore data alone: numbers, switches
and plain names of variants, and nothing that could name a file, an address or a hub.
"""

import inspect
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from shared_backbones.json_values import Document

if TYPE_CHECKING:  # arguments are checked without torch
    from torch import nn

Hint: TypeAlias = Any
"""A type as an annotation gives it."""

NOT_IN_CARDS = frozenset({"pretrained", "encoder_weights"})
"""Arguments with which a library fetches weights: a recipe may give them, a trained model has its own."""
_LARGEST, _MOST_ITEMS, _DEEPEST = 16_384, 1024, 4
_LARGEST_OF = {"num_classes": 65_536, "img_size": 8192, "window_size": 1024}
_LEAST_OF = {"num_classes": 0, "in_chans": 1}
_LARGEST_FLOAT = 1e9
_PLAIN_NAME = re.compile(r"[\w.+ -]{0,64}")


def check_arguments(network: "type[nn.Module]", arguments: Document, *, trained: bool) -> None:
    """Find out whether a network's class lists the arguments, and whether their values are plain and bounded.

    The list is the signature of the constructor with its annotations, and what a class method `further_arguments` adds
    of types by name, where it takes any names. Members of an ensemble are looked at likewise when they are built.

    Args:
        network: Class of the network.
        arguments: Arguments of its constructor, by the names of today.
        trained: Whether they are of the card of a trained model, which has weights of its own.

    Raises:
        ValueError: an argument is not listed, has another type, or is out of range.
    """
    listed = dict(listed_arguments(network))
    if hasattr(network, "further_arguments"):
        listed |= getattr(network, "further_arguments")(arguments)  # noqa: B009 - few classes have it
    for name, value in arguments.items():
        if trained and name in NOT_IN_CARDS:
            raise ValueError(f"{_short(name)} fetches weights, but a trained model has its own: take it out")
        if name not in listed:
            raise ValueError(f"unknown argument {_short(name)}; known: {', '.join(sorted({*listed} - NOT_IN_CARDS))}")
        _check(name, value, listed[name])


def plain(value: object, depth: int = 0) -> bool:
    """Whether a value is made of numbers, switches and plain names of variants."""
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) <= _LARGEST
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) <= _LARGEST_FLOAT
    if isinstance(value, str):
        return _PLAIN_NAME.fullmatch(value) is not None
    if depth >= _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return len(value) <= _MOST_ITEMS and all(plain(part, depth + 1) for pair in value.items() for part in pair)
    return isinstance(value, Sequence) and len(value) <= _MOST_ITEMS and all(plain(part, depth + 1) for part in value)


@lru_cache(maxsize=64)
def listed_arguments(network: "type[nn.Module]") -> dict[str, Hint]:
    """Types of a constructor's arguments by name; `Any` where it does not say."""
    parameters = inspect.signature(network.__init__, eval_str=True).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    empty = inspect.Parameter.empty
    return {
        parameter.name: Any if parameter.annotation is empty else parameter.annotation
        for parameter in list(parameters)[1:]
        if parameter.kind in named
    }


def _check(name: str, value: object, hint: Hint) -> None:
    """Raise a ValueError where an argument has another type, or is out of range."""
    if not fits(value, hint):
        raise ValueError(f"{name} is {_short(value)}, expected {_named(hint)}")
    least, largest = _LEAST_OF.get(name, -_LARGEST), _LARGEST_OF.get(name, _LARGEST)
    for number in _integers(value):
        if not least <= number <= largest:
            expected = f"{least} or more" if number < least else f"at most {largest}"
            raise ValueError(f"{name} is {_short(value)}, expected {expected}")
    if name != "members" and not any(True for _ in _integers(value)) and not plain(value):
        raise ValueError(
            f"{name} is {_short(value)}, expected plain numbers and names of variants: no address, no path of a file"
        )


def _integers(value: object) -> list[int]:
    """A whole number, or those of a list of them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if isinstance(value, list | tuple) and len(value) <= _MOST_ITEMS:
        numbers = [part for part in value if isinstance(part, int) and not isinstance(part, bool)]
        return numbers if len(numbers) == len(value) else []
    return []


def fits(value: object, hint: Hint) -> bool:
    """Whether a value in JSON types is one of an annotated type; whole numbers are floats, too."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if hint is None or hint is type(None):
        return value is None
    kind = parts[0] if origin is Annotated else origin or hint
    if hint is Any or not isinstance(kind, type):
        return True  # which says nothing of plain values
    if is_typeddict(kind):
        return isinstance(value, Mapping) and _fits_entries(value, kind)
    if issubclass(kind, Sequence) and not issubclass(kind, str):
        items = parts[0] if parts else Any
        return isinstance(value, list | tuple) and all(fits(part, items) for part in value)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number if kind is float else isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _fits_entries(value: Document, kind: type) -> bool:
    """Whether a mapping has what a typed dictionary must have, and nothing of another type under its names."""
    required: frozenset[str] = kind.__dict__["__required_keys__"]
    hints = get_type_hints(kind)
    return required <= value.keys() and all(fits(value[name], hints[name]) for name in hints.keys() & value.keys())


def _named(hint: Hint) -> str:
    """A type as a message names it."""
    if isinstance(hint, type) and not get_args(hint):
        return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a name"}.get(
            hint.__name__, hint.__name__
        )
    return str(hint).replace("collections.abc.", "").replace("typing.", "")


def _short(value: object) -> str:
    return reprlib.repr(value)
