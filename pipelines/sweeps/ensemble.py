"""The networks of all seeds and folds as one model, which every program takes like any other."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipelines.kinds.kind import find_kind
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import InstanceSceneData
from pipelines.runtime import preemption
from pipelines.stages import folder_digest
from pipelines.sweeps.children import Outcome
from pipelines.sweeps.plan import Child, Sweep
from shared_backbones import architectures, weights
from shared_backbones.card import Card, Member
from shared_backbones.classification import outliers
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.json_values import Document, Entries
from shared_backbones.networks.ensemble import Ensemble

_OF_ONE = {
    "architecture", "arguments", "weights_sha256", "calibration", "metrics", "training", "parameters",
    "bfloat16_agreement",
}  # fmt: skip
"""Parts of a card that are true of one member alone."""


def make_ensembles(sweep: Sweep, outcomes: Sequence[Outcome]) -> dict[int, Path]:
    """Write the ensemble of each setting that has several runs, all of them complete, whose answers have a mean.

    Args:
        sweep: The sweep.
        outcomes: What became of its runs, in their order.

    Returns:
        Folders of the ensembles, by the number of the setting.
    """
    folders: dict[int, Path] = {}
    for number, setting in enumerate(sweep.settings, start=1):
        children = sweep.of_setting(setting)
        models = [outcomes[child.number - 1]["model"] for child in children]
        complete = all(models) and not any(outcomes[child.number - 1]["failed"] for child in children)
        if complete and len(children) > 1 and _has_mean(children[0].recipe):
            folder = sweep.folder / ("ensemble" if len(sweep.settings) == 1 else f"ensemble-{number}")
            write_ensemble(
                folder, [(child, sweep.output / str(model)) for child, model in zip(children, models, strict=True)]
            )
            folders[number] = folder
    return folders


def _has_mean(recipe: Recipe) -> bool:
    """Whether networks of a recipe tell probabilities of classes: single objects of several networks have no mean."""
    role = getattr(architectures.find(recipe.model.architecture), "role", None)
    return role not in ("autoencoder", "restorer") and not isinstance(recipe.data, InstanceSceneData)


def write_ensemble(folder: Path, members: Sequence[tuple[Child, Path]]) -> None:
    """Write a model whose probabilities are the means of its members', each with the temperature that it has.

    Prediction sets are left out: with folds every case outside the test was learned from by some of the members, so
    that none is left to fit them on. The score of outliers is the first member's, as its features are.

    Args:
        folder: Folder of the model, which is made.
        members: Runs with the folders of their models.

    Raises:
        InputError: members have other classes or expect another input.
    """
    trained = [weights.load(model) for _, model in members]
    first = trained[0].card
    for model in trained[1:]:
        for key in ("classes", "input", "multi_label"):
            if model.card.get(key) != first.get(key):
                raise InputError(f"{model.folder}: its `{key}` is another than that of {trained[0].folder}")
    network = Ensemble(
        [
            {
                "architecture": model.card["architecture"],
                "arguments": model.card["arguments"],
                "temperature": float(model.card.get("calibration", {}).get("temperature", 1.0)),
            }
            for model in trained
        ],
        multi_label=bool(first.get("multi_label", False)),
    )
    for member, model in zip(network.members, trained, strict=True):
        member.load_state_dict(model.module.state_dict())
    noted = [_member(child, model.card) for (child, _), model in zip(members, trained, strict=True)]
    weights.save(folder, network, _card(first, noted))
    if (trained[0].folder / outliers.FILE).is_file():
        with replacing(folder / outliers.FILE) as path:
            shutil.copyfile(trained[0].folder / outliers.FILE, path)


def evaluate_ensemble(sweep: Sweep, setting: int, model: Path) -> dict[str, float]:
    """Figures of an ensemble over the test cases; nothing where the runs were not evaluated.

    Args:
        sweep: The sweep.
        setting: Number of the setting.
        model: Folder of the ensemble.
    """
    kind = find_kind(sweep.of_setting(sweep.settings[setting - 1])[0].recipe)
    if "evaluate" not in sweep.stages or not kind.evaluates:
        return {}
    folder = model.with_name(f"{model.name}-{folder_digest(model)[:12]}")
    folder.mkdir(exist_ok=True)
    with preemption.leaving_at_once():
        if not (folder / "done.json").exists():
            print(f"evaluate: {model.name}", flush=True)
            kind.evaluate(model, kind.test_sources(), folder)
            with replacing(folder / "done.json") as path:
                path.write_text("{}", encoding="utf-8")
    summary: Document = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: float(value) for name, value in kind.figures(summary).items()}


def _member(child: Child, card: Card) -> Member:
    return {"weights_sha256": card["weights_sha256"], "seed": child.recipe.seed, "fold": child.fold}


def _card(first: Card, members: Sequence[Member]) -> Entries:
    """The first member's card, without what is true of that one alone."""
    training = first.get("training", {})
    calibrated = first.get("calibration")
    return {
        **{key: value for key, value in first.items() if key not in _OF_ONE},
        "training": {key: value for key, value in training.items() if key in {"recipe", "split_origin"}},
        **(
            {"calibration": {"temperature": 1.0, "symmetries": calibrated.get("symmetries", False)}}
            if calibrated
            else {}
        ),
        "members": list(members),
    }
