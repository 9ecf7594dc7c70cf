"""Values of a recipe as they are typed: YAML 1.2's rules, and text wherever a key of the recipe holds text.

PyYAML follows version 1.1, where `010` is 8, `1:30` is 90, `no` is false and a key that stands twice counts once.
"""

import math
import re
import types
from collections.abc import Iterator, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import yaml
from pydantic import BaseModel

from shared_backbones.documents import DEEPEST
from shared_backbones.json_values import Entries, Json

Annotation: TypeAlias = Any
"""A type, or a form such as `int | None` or `Annotated[...]`, for which there is no type before Python 3.15."""

_MOST_VALUES = 100_000
_NULLS = {"", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class ValueProblem(ValueError):
    """Something that no recipe can contain.

    Attributes:
        where: Dotted key of it; empty for the whole.
    """

    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: {text}" if where else text)
        self.where = where


class _PlainLoader(yaml.SafeLoader):
    """Leaves plain scalars as they are: what they mean depends on the key."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own name and form


def read_yaml(text: str, annotation: Annotation, where: str = "") -> Json:
    """The value of a YAML text.

    Args:
        text: One document.
        annotation: What is to be read, such as a section; it tells where values are text.
        where: Dotted key of it, for messages.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueProblem: it has a key twice, a number that is not finite, or what YAML 1.2 does not know.
    """
    try:
        node = yaml.compose(text, _PlainLoader)
        if node is not None:
            _values_in(node, 0, {})
    except RecursionError:
        raise ValueProblem(where, f"is nested more than {DEEPEST} levels deep; write it flatter") from None
    except ValueProblem as problem:
        raise ValueProblem(where, str(problem)) from None
    return None if node is None else _construct(node, annotation, where, frozenset())


def read_typed(value: str, annotation: Annotation, where: str) -> Json:
    """A value from the command line: what begins with `[`, `{` or a quote is YAML, all else is one value as it is.

    Raises:
        yaml.YAMLError: it begins like YAML, and is not.
        ValueProblem: A key stands twice, a number is not finite, or YAML 1.2 does not know what is there.
    """
    if value[:1] in {"'", '"'} and _is_quoted(value):
        return read_yaml(value, annotation, where)
    if not holds_text(annotation) and value.lstrip()[:1] in {"[", "{", "'", '"'}:
        return read_yaml(value, annotation, where)
    return _plain(value, annotation, where)


def inner(annotation: Annotation, key: str) -> Annotation:
    """What stands under a key of a section or a mapping; `object` where that is not known.

    A mapping that a section does not check names the `TypedDict` that says what is in it: `Annotated[Entries, Card]`.
    """
    below = []
    for kind in _kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if key in kind.model_fields:
                field = kind.model_fields[key]
                below.append(next(filter(is_typeddict, field.metadata), field.annotation))
        elif is_typeddict(kind):
            below += [hint for name, hint in get_type_hints(kind).items() if name == key]
        elif get_origin(kind) in {dict, Mapping}:
            below.append(get_args(kind)[1])
    return Union[tuple(below)] if below else object  # noqa: UP007 - of types that are known only now


def holds_text(annotation: Annotation) -> bool:
    """Whether a value can be nothing but text, or left out."""
    kinds = [kind for kind in _kinds(annotation) if kind is not types.NoneType]
    return bool(kinds) and all(kind is str or _is_word(kind) for kind in kinds)


def _values_in(node: yaml.Node, depth: int, known: dict[int, int]) -> int:
    """How many values a node stands for, each as often as it is referred to.

    Raises:
        ValueProblem: there are too many, or they are nested too deep.
    """
    if id(node) in known:
        return known[id(node)]
    if depth > DEEPEST:
        raise ValueProblem("", f"is nested more than {DEEPEST} levels deep; write it flatter")
    known[id(node)] = 0  # of one that contains itself, which is said where it is read
    parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else ()
    inner = (part for item in parts for part in (item if isinstance(item, tuple) else (item,)))
    count = known[id(node)] = 1 + sum(_values_in(part, depth + 1, known) for part in inner)
    if count > _MOST_VALUES:
        raise ValueProblem("", f"stands for more than {_MOST_VALUES} values; expected fewer")
    return count


def _construct(node: yaml.Node, annotation: Annotation, where: str, above: frozenset[int]) -> Json:
    if id(node) in above:
        raise ValueProblem(where, "contains itself; write it out")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise ValueProblem(where, f"found the tag {node.tag}, expected plain YAML; leave the tag out")
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _plain(node.value, annotation, where)
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        kinds = _items(annotation, len(node.value))
        parts = enumerate(zip(node.value, kinds, strict=True))
        return [
            _construct(part, kind, f"{where}.{number}" if where else str(number), above)
            for number, (part, kind) in parts
        ]
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - there is no fourth kind
    return _mapping(node, annotation, where, above)


def _mapping(node: yaml.MappingNode, annotation: Annotation, where: str, above: frozenset[int]) -> Entries:
    entries: Entries = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueProblem(where, "found a list or a mapping as a key, expected a word")
        plain = not key_node.style
        key = cast(
            "str", _plain(key_node.value, _key_kind(annotation), where) if plain else key_node.value
        )  # or a number
        path = f"{where}.{key}" if where else str(key)
        if key_node.value == "<<":
            raise ValueProblem(path, "merging is no part of YAML 1.2; write the keys out")
        value = _construct(value_node, inner(annotation, str(key)), path, above)
        if key in entries:
            raise ValueProblem(
                path, f"is there twice, found {_shown(entries[key])} and {_shown(value)}; keep one of them"
            )
        entries[key] = value
    return entries


def _plain(text: str, annotation: Annotation, where: str) -> Json:
    """What an unquoted scalar means, by YAML 1.2's core schema, where it is not text."""
    if text in _NULLS:
        return None
    if holds_text(annotation):
        return text
    word = text.strip()
    if word == "~":
        return None
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    if _INTEGER.fullmatch(word):
        return int(word, 0 if word[:2] in {"0o", "0x"} else 10)
    value = float(word) if _FLOAT.fullmatch(word) else math.inf if _NOT_FINITE.fullmatch(word) else None
    if value is not None and not math.isfinite(value):
        raise ValueProblem(where, f"found {word}, expected a finite number")
    return text if value is None else value


def _is_quoted(value: str) -> bool:
    """Whether a text is one quoted scalar, and nothing else."""
    try:
        node = yaml.compose(value, _PlainLoader)
    except yaml.YAMLError:
        return False
    return isinstance(node, yaml.ScalarNode) and node.end_mark.index == len(value)


def _kinds(annotation: Annotation) -> Iterator[Annotation]:
    """The types that an annotation unites."""
    if get_origin(annotation) in {Union, types.UnionType}:
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    else:
        yield annotation


def _items(annotation: Annotation, count: int) -> list[Annotation]:
    """What each item of a sequence is."""
    for kind in _kinds(annotation):
        arguments = get_args(kind)
        if get_origin(kind) is list or (get_origin(kind) is tuple and arguments[-1] is Ellipsis):
            return [arguments[0]] * count
        if get_origin(kind) is tuple and len(arguments) == count:
            return list(arguments)
    return [object] * count


def _key_kind(annotation: Annotation) -> Annotation:
    """Keys of sections are words; those of other mappings can be numbers, too."""
    sections = all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in _kinds(annotation))
    return str if sections else object


def _is_word(kind: Annotation) -> bool:
    return get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind))


def _shown(value: Json) -> str:
    return "another section" if isinstance(value, dict | list) else str(value)
