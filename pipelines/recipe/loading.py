"""Reading recipes: bundled ones by name, YAML files by path, with changes from the command line."""

import contextlib
import difflib
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from pipelines.recipe.former_names import use_current_names
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.section import Domain
from pipelines.recipe.values import Annotation, ValueProblem, inner, read_typed, read_yaml
from shared_backbones.documents import read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Entries, Json, leaves
from shared_backbones.terminal import say

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


_LARGEST = 2**20  # bytes of a recipe


def bundled_recipes() -> dict[str, Path]:
    """Files of the bundled recipes, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parents[1].glob("recipes/*/*.yaml"))}


def find_recipe(name_or_path: str, domain: Domain | None = None) -> Path:
    """The file of a recipe.

    Args:
        name_or_path: name of a bundled recipe, or path of a YAML file.
        domain: program that asks; where the name is unknown, its recipes are offered.

    Raises:
        InputError: neither the name of a bundled recipe nor a YAML file's path.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    bundled = bundled_recipes()
    if name_or_path in bundled:
        return bundled[name_or_path]
    names = [name for name, file in bundled.items() if domain is None or file.parent.name == domain]
    similar = difflib.get_close_matches(name_or_path, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"expected one of: {', '.join(names)}"
    raise InputError(f"recipe {name_or_path!r}: neither a bundled recipe nor the path of a .yaml file; {hint}")


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), domain: Domain | None = None) -> Recipe:
    """Read a recipe and apply dotted overrides.

    Args:
        name_or_path: name of a bundled recipe (`brain_structures`) or path of a YAML file.
        overrides: `section.key=value`, the value as `pipelines.recipe.values.read_typed` reads it.
        domain: program that asks; a recipe of another domain is refused.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, a value of the wrong kind, or another domain.
    """
    path = find_recipe(name_or_path, domain)
    try:
        content = _parse(read_bounded(path, _LARGEST).decode("utf-8"), printable(path))
    except UnicodeDecodeError:
        raise InputError(f"{printable(path)}: is not text; pass the path of a recipe") from None
    if not isinstance(content, dict):
        raise InputError(f"{printable(path)}: found {type(content).__name__}, expected a YAML mapping of sections")
    notes = use_current_names(content)
    written = leaves(content)
    for override in overrides:
        _apply(content, override)
        notes += use_current_names(content)
    for note in dict.fromkeys(notes):
        say(f"note: {note}", file=sys.stderr)
    recipe = check_recipe(content, printable(path), overrides)
    if domain is not None and recipe.domain != domain:
        raise InputError(
            f"recipe {recipe.name}: is for {recipe.domain}, not {domain}; run it with: {recipe.domain} run"
        )
    changed = [key for key, value in leaves(content).items() if key not in written or written[key] != value]
    return recipe.with_overridden(changed)


def check_recipe(content: Document, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that a mapping of sections is.

    Args:
        content: Sections, with the overrides applied.
        source: Name of the file, for the message.
        overrides: What the command line changed.

    Raises:
        InputError: an unknown key, or a value of the wrong kind.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        where, problem = _explain(error.errors()[0])
        line = f"{where}: {problem}" if where else problem
        raise InputError(f"{_given_by(where, overrides) or source}: {line}") from None


def _given_by(where: str, overrides: Sequence[str]) -> str | None:
    """The override, if one, that gave what stands at a place of the recipe: the last that reaches it."""
    for override in reversed(overrides):
        key = override.partition("=")[0]
        if where == key or where.startswith(f"{key}.") or (where and key.startswith(f"{where}.")):
            return f"override {override!r}"
    return None


def _parse(text: str, source: str) -> Json:
    with _reading(source):
        return read_yaml(text, Recipe)


@contextlib.contextmanager
def _reading(source: str) -> Iterator[None]:
    """What is wrong with a text, as one line."""
    try:
        yield
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is not YAML ({' '.join(str(error).split())})") from None
    except ValueProblem as problem:
        raise InputError(f"{source}: {problem}") from None


def _apply(content: Entries, override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"{override!r}: expected section.key=value, for example train.steps=100")
    *sections, last = key.split(".")
    annotation: Annotation = Recipe
    for section in sections:
        annotation = inner(annotation, section)
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"{override!r}: {section!r} is not a section")
    with _reading(f"override {override!r}"):
        content[last] = read_typed(value, inner(annotation, last), key)


def _explain(problem: "ErrorDetails") -> tuple[str, str]:
    """Place and description of a problem that pydantic reports; for an unknown key, the known one most like it."""
    model: Annotation = Recipe
    path, known = [], list(Recipe.model_fields)
    for part in problem["loc"]:
        variants = _sections(model)
        tagged = [section for section in variants if part in _tags(section)]
        if tagged:  # the kind of a section with several: not a level of the file
            model = tagged[0]
            continue
        path.append(str(part))
        fields = variants[0].model_fields if variants else {}
        known = list(fields)
        model = fields[part].annotation if part in fields else None
    where = ".".join(path)
    if problem["type"] != "extra_forbidden":
        value, message = problem["input"], problem["msg"].removeprefix("Value error, ")
        ours = problem["type"] == "value_error"  # and says itself what it is about
        return where, message if ours or not isinstance(
            value, str | int | float | list
        ) else f"{message}, found {value!r}"
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
    return where, f"unknown key; {hint}"


def _sections(annotation: Annotation) -> list[type[BaseModel]]:
    """The sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType, Annotated}:
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []


def _tags(section: type[BaseModel]) -> tuple[str, ...]:
    kind = section.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()
