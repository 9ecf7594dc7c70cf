"""Reading recipes: bundled ones by name, YAML files by path, with changes from the command line."""

import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from pipelines.recipe.recipe import Recipe
from shared_backbones.errors import InputError


def bundled_recipes() -> dict[str, Path]:
    """Files of the bundled recipes, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parents[1].glob("recipes/*/*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe.

    Raises:
        InputError: neither the name of a bundled recipe nor a YAML file's path.
    """
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    bundled = bundled_recipes()
    if name_or_path not in bundled:
        names = ", ".join(bundled)
        raise InputError(f"recipe {name_or_path!r}: expected the path of a .yaml file or one of: {names}")
    return bundled[name_or_path]


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides.

    Args:
        name_or_path: name of a bundled recipe (`brain_structures`) or path of a YAML file.
        overrides: `section.key=value`, the value in YAML syntax.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, or a value of the wrong kind.
    """
    path = find_recipe(name_or_path)
    try:
        content = _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the path of a recipe") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; pass the path of a recipe") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {type(content).__name__}, expected a YAML mapping of sections")
    for override in overrides:
        _apply(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error.errors()[0])}") from None


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is not YAML ({' '.join(str(error).split())})") from None


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"{override!r}: expected section.key=value, for example train.steps=100")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"{override!r}: {section!r} is not a section")
    content[last] = _parse(value, repr(override))


def _explain(problem: Mapping[str, Any]) -> str:
    """One line for a problem that pydantic found; for an unknown key, the known one most like it."""
    model: Any = Recipe
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
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType, Annotated}:
        return [section for part in get_args(annotation) for section in _sections(part)]
    return []


def _tags(section: type[BaseModel]) -> tuple[Any, ...]:
    kind = section.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()
