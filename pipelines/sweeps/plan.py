"""Which runs a sweep has: the product of the settings, seeds and folds that were asked for."""

import contextlib
import hashlib
import io
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.recipe.loading import load_recipe
from pipelines.recipe.recipe import STAGES, Recipe
from pipelines.recipe.section import Domain
from pipelines.recipe.shown import is_shown
from shared_backbones.errors import InputError
from shared_backbones.json_values import leaves

_OPENING, _CLOSING = "[{(", "]})"
_REFUSED = {
    "seed": "give --seeds, which keeps the split of the data",
    "fold": "give --folds",
    "output": "all runs of a sweep share an output",
    "name": "all runs of a sweep are of one recipe",
    "search": "a sweep has no search space",
    "tracking": "all runs of a sweep are tracked in one experiment",
}
"""Keys that are not swept, and the way out."""
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Axes:
    """What is varied.

    Attributes:
        settings: Keys of the recipe with their values, as `KEY=V1,V2`.
        seeds: Seeds of training, such as `1-5` or `1,2,7`; None for the recipe's own.
        folds: Number of folds, each of which is validated on once; None for the recipe's own split.
    """

    settings: Sequence[str] = ()
    seeds: str | None = None
    folds: int | None = None

    def __bool__(self) -> bool:
        return bool(self.settings or self.seeds is not None or self.folds is not None)


@dataclass(frozen=True)
class Child:
    """One run of a sweep.

    Attributes:
        number: Number of the run, from 1.
        setting: Values of the swept keys as they were typed; neither seed nor fold.
        shown: The same for logs, tables and the tracking store: `value 2` is the second one, where a key's values
            name folders, files or subjects.
        seed: Seed, where seeds are varied.
        fold: Number of the fold that is validated on, where there are folds.
        recipe: The recipe with all of that.
    """

    number: int
    setting: dict[str, str]
    shown: dict[str, str]
    seed: int | None
    fold: int | None
    recipe: Recipe

    @property
    def label(self) -> str:
        """What tells the run from the others, in a few words."""
        parts = [f"{key}={value}" for key, value in self.shown.items()]
        parts += [f"{name}={value}" for name, value in (("seed", self.seed), ("fold", self.fold)) if value is not None]
        return " ".join(parts)


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep.

    Attributes:
        children: The runs, those of a setting next to one another.
        axes: What is varied, for people to read, by key, as `Child.shown` has it.
        stages: Stages that each run goes through.
    """

    children: tuple[Child, ...]
    axes: dict[str, str]
    stages: tuple[str, ...]

    @property
    def recipe(self) -> Recipe:
        """The first run's recipe, for all that the runs have in common."""
        return self.children[0].recipe

    @property
    def output(self) -> Path:
        """Folder of everything that the runs make."""
        return Path(self.recipe.output or f"runs/{self.recipe.name}")

    @property
    def name(self) -> str:
        """Name of the sweep: a digest of all runs' recipes and of the stages."""
        content = json.dumps([[child.recipe.digest for child in self.children], self.stages])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Folder of what the sweep makes of its runs."""
        return self.output / "sweeps" / self.name

    @property
    def settings(self) -> list[dict[str, str]]:
        """The settings, in the order of the runs."""
        return [dict(pairs) for pairs in dict.fromkeys(tuple(child.setting.items()) for child in self.children)]

    def of_setting(self, setting: dict[str, str]) -> list[Child]:
        """The runs of a setting."""
        return [child for child in self.children if child.setting == setting]

    def child(self, number: int) -> Child:
        """A run by its number.

        Raises:
            InputError: there is none of that number.
        """
        if not 1 <= number <= len(self.children):
            raise InputError(f"--task {number}: the sweep has the runs 1 to {len(self.children)}")
        return self.children[number - 1]


def plan_sweep(
    recipe: str,
    overrides: Sequence[str],
    axes: Axes,
    *,
    stages: Sequence[str] | None = None,
    domain: Domain | None = None,
) -> Sweep:
    """The runs of a sweep, each of whose recipes is read and checked.

    With seeds, the split of the data stays the one of the recipe's own seed, so that all runs share a preparation.

    Args:
        recipe: Name of a bundled recipe, or path of a YAML file.
        overrides: Changes that all runs share.
        axes: What is varied.
        stages: Stages of each run; by default all but `register`.
        domain: Program that asks; a recipe of another domain is refused.

    Raises:
        InputError: a key or a value cannot be used, or two runs would be the same.
    """
    swept = _read_settings(axes.settings, overrides)
    seeds = None if axes.seeds is None else _read_seeds(axes.seeds)
    given = [change for change in overrides if axes.folds is not None and re.match(r"fold\b", change)]
    if given:
        raise InputError(f"--folds {axes.folds}: {given[0]} says which fold; leave one of them out")
    children: list[Child] = []
    for values in itertools.product(*swept.values()):
        setting = dict(zip(swept, values, strict=True))
        shown = {key: _shown(key, value, swept[key]) for key, value in setting.items()}
        changes = [*overrides, *(f"{key}={value}" for key, value in setting.items())]
        with contextlib.redirect_stderr(io.StringIO()) if children else contextlib.nullcontext():
            base = load_recipe(recipe, changes, domain)
            for seed, fold in itertools.product(seeds or [None], range(1, axes.folds + 1) if axes.folds else [None]):
                own = load_recipe(recipe, [*changes, *_of_seed(base, seed), *_of_fold(fold, axes.folds)], domain)
                children.append(Child(len(children) + 1, setting, shown, seed, fold, own))
    _check_different(children)
    described = {key: ",".join(_shown(key, value, values) for value in values) for key, values in swept.items()}
    described |= {"seeds": axes.seeds} if axes.seeds is not None else {}
    described |= {"folds": str(axes.folds)} if axes.folds is not None else {}
    return Sweep(tuple(children), described, tuple(stages or STAGES[:-1]))


def _shown(key: str, value: str, values: Sequence[str]) -> str:
    return value if is_shown(key) else f"value {values.index(value) + 1}"


def varied_keys(sweep: Sweep) -> set[str]:
    """Keys of the recipe in which runs of a sweep differ."""
    flat = [leaves(child.recipe.model_dump(mode="json")) for child in sweep.children]
    return {key for own in flat for key in own if any(repr(other.get(key)) != repr(own[key]) for other in flat)}


def _of_seed(recipe: Recipe, seed: int | None) -> list[str]:
    """Changes that give a run its seed, and keep the split of the data as it is."""
    if seed is None:
        return []
    has_split = "split_seed" in type(recipe.data).model_fields
    return [f"seed={seed}", *([f"data.split_seed={recipe.split_seed}"] if has_split else [])]


def _of_fold(fold: int | None, folds: int | None) -> list[str]:
    return [] if fold is None else [f"fold.number={fold}", f"fold.of={folds}"]


def _read_settings(options: Sequence[str], overrides: Sequence[str]) -> dict[str, list[str]]:
    """Values of each swept key, as they were typed."""
    swept: dict[str, list[str]] = {}
    given = {override.partition("=")[0] for override in overrides}
    for option in options:
        key, separator, text = option.partition("=")
        if not separator or not key:
            raise InputError(f"--sweep {option}: expected KEY=V1,V2, such as train.learning_rate=1e-3,3e-4")
        for refused, way_out in _REFUSED.items():
            if key == refused or key.startswith(f"{refused}."):
                raise InputError(f"--sweep {option}: {key} cannot be swept; {way_out}")
        for other in (*swept, *given):
            if other == key or other.startswith(f"{key}."):  # which the values of `key` would replace
                raise InputError(f"--sweep {option}: {other} is given twice; keep one of them")
        swept[key] = _values(text, option)
    return swept


def _values(text: str, option: str) -> list[str]:
    """Values with commas between; a comma inside brackets or quotes is part of a value."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not values[-1][:-1].strip():
            quote = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
    if depth or quote:
        raise InputError(f"--sweep {option}: a bracket or a quote is not closed")
    if not all(values):
        raise InputError(f"--sweep {option}: a value is empty; expected KEY=V1,V2")
    return values


def _read_seeds(text: str) -> list[int]:
    """Seeds of a text such as `1-5` or `1,2,7`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**31:
            raise InputError(f"--seeds {text}: expected numbers below 2^31 such as 1-5 or 1,2,7")
        seeds += range(first, min(last, first + _MOST_SEEDS) + 1)
    if len(seeds) > _MOST_SEEDS:
        raise InputError(f"--seeds {text}: more than {_MOST_SEEDS} seeds; give fewer")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text}: a seed is there twice; keep one of them")
    return seeds


def _check_different(children: Sequence[Child]) -> None:
    """Refuse runs that are the same, as the values 1e-3 and 0.001 make them."""
    first: dict[str, Child] = {}
    for child in children:
        same = first.setdefault(child.recipe.digest, child)
        if same is not child:
            one, other = (" ".join(f"{key}={value}" for key, value in run.setting.items()) for run in (same, child))
            raise InputError(f"sweep: {one} and {other} are the same run; keep one of the values")
