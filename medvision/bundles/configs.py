"""The configuration of a MONAI bundle, read as data: references are followed, nothing is instantiated or evaluated."""

import ast
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Json

_MOST_BYTES = 2**18  # published configurations have at most a tenth of it
_MOST_VALUES = 10_000
_MOST_STEPS = 32  # from one reference to the next
_DEEPEST = 24
_HIGHEST = 1e9
_REFERENCE = re.compile(r"\$?\s*@(\w+(?:(?:::|#)\w+)*)\s*$")
_TARGET = re.compile(r"(?:monai(?:\.\w+)*\.)?(\w+)$")
_NUMBER_TYPES = {f"${home}.{name}": name for home in ("torch", "np") for name in ("float32", "float64")}
_SAYS_NOTHING = {"_target_", "_desc_", "_disabled_"}


@dataclass(frozen=True)
class Component:
    """What a `_target_` names.

    Attributes:
        name: its class, without the modules of MONAI.
        where: its place in the configuration.
        arguments: its arguments as they are written.
        config: the configuration that it is in.
    """

    name: str
    where: str
    arguments: Document
    config: "Config"

    def read(self, known: Mapping[str, Json], ignored: Sequence[str] = ()) -> dict[str, Json]:
        """Values of arguments.

        Args:
            known: arguments that we know, and their defaults.
            ignored: arguments that decide no label.

        Raises:
            InputError: there are others, or a value is an expression.
        """
        self.known(*known, *ignored)
        values = {}
        for name, default in known.items():
            given = self.arguments.get(name, default)
            values[name] = self.config.value(given, f"{self.where}::{name}")
        return values

    def known(self, *names: str) -> None:
        """Raise an InputError where there is an argument that is not one of these."""
        for name in self.arguments:
            if name not in names:
                self.config.refuse(self.where, f"{self.name} has the argument {shown(name)}, which we do not know")

    def expect(self, *names: str) -> None:
        """Raise an InputError unless the class is one of these."""
        if self.name not in names:
            self.config.refuse(self.where, f"{self.name} is not one of those that we know: {', '.join(names)}")

    def need(self, values: Mapping[str, Json], **expected: Json) -> None:
        """Raise an InputError unless arguments have the values that we can take; a tuple names several."""
        for name, choice in expected.items():
            value = values[name]
            value = value[0] if isinstance(value, list) and len(value) == 1 else value
            choices = choice if isinstance(choice, tuple) else (choice,)
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in choices):
                expectation = " or ".join(map(shown, choices))
                self.config.refuse(f"{self.where}::{name}", f"is {shown(value)} of {self.name}, expected {expectation}")

    def number(self, values: Mapping[str, Json], name: str) -> float:
        """An argument that is a finite number.

        Raises:
            InputError: it is none.
        """
        value = values[name]
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _HIGHEST:
            self.config.refuse(f"{self.where}::{name}", f"is {shown(value)} of {self.name}, expected a number")
        return float(value)


class Config:
    """A JSON or YAML file of a bundle.

    Args:
        path: the file.
        folder: the bundle, which the file must not lie outside of.

    Raises:
        InputError: it cannot be read, or is no object.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.label = printable(path)
        content = _parse(inside(path, folder), self.label)
        if not isinstance(content, dict):
            raise InputError(f"{self.label}: holds a {type(content).__name__}, expected an object of named sections")
        self.root: Document = content

    def refuse(self, where: str, reason: str) -> NoReturn:
        """Raise an InputError about a part of the configuration."""
        raise InputError(f"{self.label}: {where} {reason}; such a bundle is not imported: run it with monai.bundle")

    def follow(self, value: Json, where: str) -> tuple[Json, str]:
        """What a reference leads to, unchanged, and where that is."""
        for _ in range(_MOST_STEPS):
            if not isinstance(value, str) or not (match := _REFERENCE.match(value)):
                return value, where
            where = match[1].replace("#", "::")
            value = self._at(where)
        self.refuse(where, f"is a reference that does not end within {_MOST_STEPS} steps")

    def _at(self, where: str) -> Json:
        value: Json = self.root
        for step in where.split("::"):
            if isinstance(value, str):
                value, _ = self.follow(value, where)
            if isinstance(value, Mapping) and step in value:
                value = value[step]
            elif isinstance(value, list) and re.fullmatch("[0-9]{1,6}", step) and int(step) < len(value):
                value = value[int(step)]
            else:
                self.refuse(shown(f"@{where}"), "leads nowhere")
        return value

    def value(self, value: Json, where: str) -> Json:
        """A value with its references followed; expressions that are plain literals are read, all others refused."""
        return _Expansion(self).expand(value, where, 0)

    def component(self, value: Json, where: str) -> Component:
        """The component that a value or a reference is.

        Raises:
            InputError: it is none, or is made in another way than by its class.
        """
        value, where = self.follow(value, where)
        target = value.get("_target_") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(target, str):
            self.refuse(where, f"is {shown(value)}, expected a component with a _target_")
        match = _TARGET.match(target)
        if match is None:
            self.refuse(where, f"has the _target_ {shown(target)}, expected a class of MONAI")
        special = [name for name in value if name.startswith("_") and name not in _SAYS_NOTHING]
        if special and not (special == ["_mode_"] and value["_mode_"] == "default"):
            self.refuse(where, f"has {shown(special[0])}, which we do not know")
        arguments = {name: given for name, given in value.items() if name not in (*_SAYS_NOTHING, "_mode_")}
        return Component(match[1], where, arguments, self)

    def components(self, value: Json, where: str) -> list[Component]:
        """The components of a list, without the disabled ones."""
        value, where = self.follow(value, where)
        if not isinstance(value, list):
            self.refuse(where, f"is {shown(value)}, expected a list of components")
        numbered = [self.follow(item, f"{where}::{index}") for index, item in enumerate(value[:_MOST_VALUES])]
        return [self.component(item, place) for item, place in numbered if not self._disabled(item, place)]

    def _disabled(self, item: Json, where: str) -> bool:
        flag = item.get("_disabled_", False) if isinstance(item, dict) else False
        flag = self.value(flag, f"{where}::_disabled_")
        return flag is True or (isinstance(flag, str) and flag.strip().lower() == "true")


class _Expansion:
    """References of one value, followed up to a number of values, as references can multiply what they lead to."""

    def __init__(self, config: Config) -> None:
        self.config, self.count = config, 0

    def expand(self, value: Json, where: str, depth: int) -> Json:
        self.count += 1
        if self.count > _MOST_VALUES or depth > _DEEPEST:
            self.config.refuse(where, f"is nested more than {_DEEPEST} deep, or holds more than {_MOST_VALUES} values")
        value, where = self.config.follow(value, where)
        if isinstance(value, str):
            return self._literal(value, where)
        if isinstance(value, list):
            return [self.expand(item, f"{where}::{index}", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {str(name): self.expand(item, f"{where}::{shown(name)}", depth + 1) for name, item in value.items()}
        return value

    def _literal(self, value: str, where: str) -> Json:
        if value.startswith("%"):
            self.config.refuse(where, f"reads {shown(value)} from another place")
        if not value.startswith("$"):
            return value
        if value in _NUMBER_TYPES:
            return _NUMBER_TYPES[value]
        try:
            literal = ast.literal_eval(value[1:].strip()) if len(value) < 200 else value
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            literal = value
        if literal is not None and literal != value and isinstance(literal, bool | int | float | str | list | tuple):
            return list(literal) if isinstance(literal, tuple) else literal
        self.config.refuse(where, f"is the expression {shown(value)}, which we do not know")


def inside(path: Path, folder: Path) -> Path:
    """The path of a bundle's file.

    Raises:
        InputError: it is no regular file, or a link leads out of the bundle.
    """
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve(strict=True)):
            raise InputError(f"{printable(path)}: is a link that leaves the bundle; expected a file: copy it there")
        if not stat.S_ISREG(real.stat().st_mode):
            raise InputError(f"{printable(path)}: is no regular file; expected one: use an intact copy of the bundle")
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{printable(path)}: cannot be read ({reason}); a bundle holds configs/metadata.json, "
            "configs/inference.json (or .yaml) and models/model.pt"
        ) from None
    return real


def shown(value: Json) -> str:
    """A value for one line of a message: quoted, on one line, and short."""
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = printable(value) if isinstance(value, str) else str(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"'{text}'" if isinstance(value, str) else text


def _parse(path: Path, label: str) -> Json:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise InputError(
            f"{label}: has {size:,} bytes, expected at most {_MOST_BYTES:,}; it is no bundle's configuration"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _parse_yaml(text)
    except RecursionError:
        raise InputError(f"{label}: is nested too deep; expected a bundle's configuration") from None
    except (OSError, ValueError) as error:
        reason = shown(str(error).replace("\n", " "))
        raise InputError(f"{label}: cannot be read ({reason}); use an intact copy of the bundle") from None


def _parse_yaml(text: str) -> Json:
    yaml = require("yaml", "train")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
