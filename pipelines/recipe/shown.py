"""What of a recipe is shown with a run and on its report: no folder, and no name of a subject."""

import json
from collections import Counter
from pathlib import Path

from pipelines.recipe.recipe import Recipe
from shared_backbones.card import read_card
from shared_backbones.files import file_sha256
from shared_backbones.json_values import Document, Json, leaves

_OPTIONS = ("test", "images", "labels", "table", "file", "catalogue")  # of data: subjects, folders and files
_HIDDEN = (
    "output", "card", "search", "train.local_copy", "model.init", "model.backbone_weights", "data.root",
    *(f"data.options.{key}" for key in _OPTIONS),
)  # fmt: skip
_NAME, _VALUE = 120, 24  # characters of a run's name, and of a value in it


def shown(recipe: Recipe) -> Document:
    """What of a recipe is noted with a run and stands on its report: no folder, and no name of a subject."""
    content = recipe.model_dump(exclude={"output": True, "card": True, "search": True, "train": {"local_copy"}})
    content["data"].pop("root", None)
    for key in _OPTIONS:
        content["data"].get("options", {}).pop(key, None)
    content["model"] = shown_model(recipe)
    return content


def is_shown(key: str) -> bool:
    """Whether values of a dotted key can be shown as they are: they name no folder, file or subject."""
    return not any(f"{key}.".startswith(f"{hidden}.") or hidden.startswith(f"{key}.") for hidden in _HIDDEN)


def run_name(recipe: Recipe) -> str:
    """Name of a run: the recipe's, with what the command line changed of what is shown."""
    values = leaves(shown(recipe))
    keys = [key for key in recipe.overridden if key in values and key != "name" and not key.startswith("tracking.")]
    alike = Counter(key.rpartition(".")[2] for key in keys)
    short = {key: key.rpartition(".")[2] if alike[key.rpartition(".")[2]] == 1 else key for key in keys}
    return _cut(" ".join([recipe.name, *(f"{short[key]}={_cut(_text(values[key]), _VALUE)}" for key in keys)]), _NAME)


def _text(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shown_model(recipe: Recipe) -> Document:
    """The model's section, with the sha256 of the weights that training starts from in place of paths."""
    file = recipe.model.backbone_weights
    return {
        **recipe.model.model_dump(exclude={"accept_license"}),
        "init": shown_init(recipe),
        "backbone_weights": None if file is None else f"sha256:{file_sha256(file)}",
    }


def shown_init(recipe: Recipe) -> str | None:
    """What training starts from: a bundled model's name, or the sha256 of the weights in a folder, not its path."""
    init = recipe.model.init
    if init is None or not Path(init).is_dir():
        return init
    return f"sha256:{read_card(init)['weights_sha256']}"
