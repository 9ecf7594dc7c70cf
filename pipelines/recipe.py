"""Recipes: one YAML file holds everything that decides a training run's result."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

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
    size: int = 128
    """Side of the square crops in voxels."""
    slices_per_volume: int = 40
    buffer: int = 1024
    """Slices kept to draw batches from, so that a batch mixes volumes."""
    workers: int = 1


class ModelSection(_Section):
    """What is trained."""

    architecture: str
    arguments: dict[str, Any] = {}
    init: str | None = None
    """Trained model (a folder or a bundled name) whose weights training starts from."""


class TrainSection(_Section):
    """How it is trained."""

    steps: int
    batch_size: int = 16
    """Of each process."""
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.02
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    checkpoint_every: int = 500
    devices: int = 1
    """Processes that train together, each on a device (or CPU thread pool) of its own and on batches of its own."""
    threads: int | None = None
    """CPU threads of each process."""


class Recipe(_Section):
    """A whole recipe; see `pipelines/recipes/`."""

    name: str
    seed: int = 0
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
        bundled = sorted(resources.files("pipelines").joinpath("recipes").glob(f"*/{name_or_path}.yaml"))
        if not bundled:
            raise InputError(f"{name_or_path!r}: no such recipe; pass the path of a .yaml file or a bundled name")
        path = Path(str(bundled[0]))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise InputError(f"{path}: found {type(content).__name__}, expected a YAML mapping of sections")
        for override in overrides:
            _apply(content, override)
        return Recipe.model_validate(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pass the path of a recipe") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise InputError(f"{override!r}: expected section.key=value, for example train.steps=100")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"{override!r}: {section!r} is not a section")
    content[last] = yaml.safe_load(value)
