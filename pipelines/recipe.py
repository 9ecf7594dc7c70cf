"""Recipes: one YAML file holds everything that decides a training run's result."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from shared_backbones.errors import InputError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataSection(_Section):
    """Where the training data comes from and how it is drawn."""

    root: str | None = None
    """Folder of label maps."""
    synthesis: dict[str, float] = {}
    """Fields of `medvision.datasets.synthetic.SynthesisSettings` that differ from its defaults."""
    slices: list[int] = [-2, -1, 0, 1, 2]
    """Offsets of the neighbouring slices that become channels."""
    size: PositiveInt = 128
    """Side of the square crops in voxels."""
    slices_per_volume: PositiveInt = 40
    buffer: NonNegativeInt = 1024
    """Slices kept to draw batches from, so that a batch mixes volumes."""
    workers: NonNegativeInt = 1


class ModelSection(_Section):
    """What is trained."""

    architecture: str
    arguments: dict[str, Any] = {}
    init: str | None = None
    """Trained model (a folder or a bundled name) whose weights training starts from."""


class TrainSection(_Section):
    """How it is trained."""

    steps: PositiveInt
    batch_size: PositiveInt = 16
    """Of each process."""
    learning_rate: PositiveFloat = 2e-3
    warmup_steps: NonNegativeInt = 200
    weight_decay: float = Field(0.02, ge=0)
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = Field(0.998, ge=0, lt=1)
    checkpoint_every: PositiveInt = 500
    devices: PositiveInt = 1
    """Processes that train together, each on a device (or CPU thread pool) of its own and on batches of its own."""
    threads: PositiveInt | None = None
    """CPU threads of each process."""


class Recipe(_Section):
    """A whole recipe; see `pipelines/recipes/`."""

    name: str
    seed: int = Field(0, ge=0, lt=2**31)
    output: str | None = None
    data: DataSection
    model: ModelSection
    train: TrainSection
    card: dict[str, Any] = {}
    """What goes into `model.json` beside what training itself records."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply dotted overrides.

    Args:
        name_or_path: name of a bundled recipe (`brain_structures`) or path of a YAML file.
        overrides: `section.key=value`, the value in YAML syntax.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, or a value of the wrong kind.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        bundled = {path.stem: path for path in Path(__file__).parent.glob("recipes/*/*.yaml")}
        if name_or_path not in bundled:
            names = ", ".join(sorted(bundled))
            raise InputError(f"recipe {name_or_path!r}: expected the path of a .yaml file or one of: {names}")
        path = bundled[name_or_path]
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
    *sections, last = problem["loc"]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}"
    model: Any = Recipe
    for section in sections:
        model = model.model_fields[section].annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(last), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"expected one of: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"
