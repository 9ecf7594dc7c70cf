"""What each stage is made from: any one input changed changes exactly the stages that depend on it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.shown import shown
from pipelines.recipe.volumes import VolumeData
from pipelines.stages import Job, run_stages
from shared_backbones import weights
from tests.pipelines.balls import MARKER, write_raw, write_recipe

MADE = ("prepare", "train", "evaluate", "register")
"""Beside the report, which shows the whole recipe."""
NOTHING: set[str] = set()
TRAIN, EVALUATE, REGISTER, PREPARE = {"train"}, {"evaluate"}, {"register"}, {"prepare"}
CHANGES: dict[str, tuple[str, set[str]]] = {
    "name": ("other", TRAIN | REGISTER),
    "seed": ("5", PREPARE | TRAIN | EVALUATE),
    "output": ("elsewhere", NOTHING),
    "domain": ("medvision", NOTHING),
    "data.root": ("{link}", NOTHING),  # the same files under another path
    "data.layout": ("msd", NOTHING),  # the layout itself: what it finds decides
    "data.options": (f"{{test: [{MARKER}_001]}}", PREPARE | EVALUATE),
    "data.validation": ("0.5", PREPARE),
    "data.split_seed": ("5", PREPARE),
    "data.spacing_mm": ("2.0", PREPARE | TRAIN),
    "data.normalisation": ("zscore", PREPARE | TRAIN),
    "data.augmentation": ("{noise: 0.1}", TRAIN),
    "data.workers": ("2", NOTHING),
    "data.skip_unreadable": ("true", EVALUATE),
    "data.slices": ("[-2, 0, 2]", TRAIN),
    "data.views": ("[coronal]", TRAIN),
    "data.size": ("64", TRAIN),
    "data.foreground": ("0.25", TRAIN),
    "model.architecture": ("hbformer", NOTHING),
    "model.arguments": ("{model}", TRAIN),
    "model.init": ("{trained}", TRAIN),
    "model.backbone_weights": ("null", NOTHING),  # needs a network with a backbone
    "model.accept_license": ("true", NOTHING),
    "train.steps": ("null", NOTHING),  # excludes epochs
    "train.epochs": ("3", TRAIN),
    "train.steps_per_epoch": ("2", TRAIN),
    "train.batch_size": ("2", TRAIN),
    "train.accumulate": ("2", TRAIN),
    "train.optimizer": ("sgd", TRAIN),
    "train.learning_rate": ("1e-3", TRAIN),
    "train.momentum": ("0.5", TRAIN),
    "train.layer_decay": ("0.5", TRAIN),
    "train.backbone_rate": ("0.5", TRAIN),
    "train.trainable": ("head", TRAIN),
    "train.betas": ("[0.8, 0.9]", TRAIN),
    "train.schedule": ("poly", TRAIN),
    "train.final_rate": ("0.5", TRAIN),
    "train.warmup_steps": ("2", TRAIN),
    "train.weight_decay": ("0", TRAIN),
    "train.gradient_clip": ("null", TRAIN),
    "train.ema_decay": ("0", TRAIN),
    "train.norm_images": ("64", TRAIN),
    "train.loss": ("ce", TRAIN),
    "train.precision": ("bf16-mixed", TRAIN),
    "train.compile": ("true", TRAIN),
    "train.checkpoint_every": ("2", NOTHING),
    "train.log_every": ("2", NOTHING),
    "train.validate_every": ("2", TRAIN),
    "train.patience": ("2", TRAIN),
    "train.devices": ("2", NOTHING),
    "train.strategy": ("ddp", NOTHING),  # fsdp needs other settings, too
    "train.sync_batchnorm": ("true", TRAIN),
    "train.local_copy": ("{link}", NOTHING),
    "train.threads": ("1", NOTHING),
    "fold": ("{number: 1, of: 2}", PREPARE | TRAIN),
    "search": ("{trials: 2, space: {train.learning_rate: {low: 0.1, high: 1}}}", NOTHING),
    "evaluate.protocol": ("monai", EVALUATE),
    "evaluate.resamples": ("60", EVALUATE),
    "register_as.name": ("other", REGISTER),
    "register_as.alias": ("champion", REGISTER),
    "tracking.experiment": ("other", NOTHING),
    "tracking.system_metrics": ("false", NOTHING),
    "card": ("{card}", TRAIN),
}
"""Another value of each key, and the stages that are made anew where all that they start from is as it was."""


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a recipe of volumes, but for the one that chooses the kind."""
    for name, field in section.model_fields.items():
        inner = VolumeData if name == "data" else field.annotation
        whole = name not in {"data", "model", "train", "evaluate", "register_as", "tracking"}
        if prefix or whole:
            yield f"{prefix}{name}"
        else:
            assert isinstance(inner, type) and issubclass(inner, BaseModel)
            yield from (key for key in keys(inner, f"{name}.") if key != "data.kind")


def test_every_key_of_a_recipe_is_here():
    assert set(keys(Recipe)) == set(CHANGES)


Changed = Callable[..., tuple[set[str], bool]]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Changed:
    """The stages that changes of a recipe reach directly, and whether what the report shows is another."""
    folder = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        store = folder / "mlflow.db"
        shutil.copyfile(migrated, store)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        (folder / "raw").mkdir()
        (folder / "link").symlink_to(write_raw(folder / "raw"))
        path = write_recipe(folder / "ball.yaml", folder / "raw", folder / "run")
        job = run_stages(load_recipe(path), ["prepare", "train", "evaluate"])
    card = json.dumps({**job.recipe.card, "license": "CC0-1.0"})
    arguments = json.dumps({**job.recipe.model.arguments, "drop_path_rate": 0.1})
    texts = {"{link}": str(folder / "link"), "{trained}": str(job.model), "{card}": card, "{model}": arguments}

    def inputs(recipe: Recipe, **others: Any) -> dict[str, str]:
        again = Job(recipe, find_kind(recipe), job.output, job.stages, (), others.get("uri", job.uri))
        again.made, again.prepared, again.summary = {**job.made, **others.get("made", {})}, job.prepared, job.summary
        return {stage: json.dumps(again.inputs(stage), sort_keys=True, default=str) for stage in (*MADE, "report")}

    before = inputs(job.recipe)

    def stages(*names: str, **others: Any) -> tuple[set[str], bool]:
        values = {name: CHANGES[name][0] for name in names} | others.get("fixed", {})
        overrides = [f"{name}={texts.get(value, value)}" for name, value in values.items()]
        recipe = load_recipe(path, overrides)
        after = inputs(recipe, **others)
        different = {stage for stage in after if after[stage] != before[stage]}
        return different, shown(recipe) != shown(job.recipe)

    stages.made = job.made  # pyright: ignore[reportFunctionMemberAccess]
    return stages


@pytest.mark.parametrize("name", CHANGES)
def test_a_key_changes_exactly_the_stages_that_depend_on_it(name: str, changed: Changed):
    found, is_shown = changed(name)
    assert found == CHANGES[name][1] | ({"report"} if is_shown else NOTHING)


COMPATIBLE = sorted(set(CHANGES) - {"train.steps", "data.size", "model.init", "model.arguments", "data.slices"})


@settings(max_examples=12)
@given(names=st.sets(st.sampled_from(COMPATIBLE), min_size=2, max_size=5))
def test_several_keys_change_what_each_of_them_changes(names: set[str], changed: Changed):
    found, is_shown = changed(*names)
    expected = set[str]().union(*(CHANGES[name][1] for name in names))
    assert found - {"report"} == expected and ("report" in found) == is_shown


def test_a_seed_of_the_split_alone_leaves_the_rest_of_the_randomness_as_it_is(changed: Changed):
    assert changed("data.split_seed")[0] == {"prepare", "report"}
    found, _ = changed("seed", "data.split_seed", fixed={"data.split_seed": "1"})  # the seed that the recipe began with
    assert "prepare" not in found and {"train", "evaluate"} <= found


def test_any_file_of_the_model_folder_changes_all_that_is_made_from_it(changed: Changed, tmp_path: Path):
    trained: Path = changed.made["train"]  # pyright: ignore[reportFunctionMemberAccess]
    for number, change in enumerate((weights.CARD, weights.WEIGHTS, "outliers.safetensors")):
        folder = tmp_path / str(number)
        shutil.copytree(trained, folder)
        with (folder / "model" / change).open("ab") as file:
            file.write(b" \n")
        assert changed(made={"train": folder})[0] == {"evaluate", "report", "register"}, change
    left = tmp_path / "left"
    shutil.copytree(trained, left)
    (left / "model/.domain-vision-0123abcd.lock").write_bytes(b"of a killed process")
    assert changed(made={"train": left})[0] == NOTHING


def test_another_store_changes_what_is_registered(changed: Changed):
    assert changed(uri="postgresql://host/other")[0] == {"register"}
    assert changed(uri="sqlite:////elsewhere/mlflow.db")[0] == {"register"}
