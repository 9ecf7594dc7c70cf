"""Names of runs: they tell runs apart, and say nothing private."""

from pathlib import Path

import pytest

from pipelines.recipe.loading import load_recipe
from pipelines.recipe.shown import run_name
from shared_backbones import weights
from tests.pipelines.small_training import small_network

RECIPE = "pneumoniamnist_medvitv2_cpu"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ""),
        (["train.learning_rate=3e-4", "seed=7"], " seed=7 learning_rate=0.0003"),
        (["train.learnt=head"], " trainable=head"),  # by its name of today
        (["train.gradient_clip=null", "train.compile=true"], " gradient_clip=null compile=true"),
        (["data.root=/data/jane", "output=/data/jane/runs", "train.local_copy=/scratch/jane"], ""),
        (["tracking.system_metrics=false", "tracking.experiment=mine"], ""),
        (["data.size=32", "model.arguments.size=2"], " data.size=32 model.arguments.size=2"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_what_the_command_line_changed(overrides: list[str], expected: str):
    assert run_name(load_recipe(RECIPE, overrides)) == f"{RECIPE}{expected}"


def test_what_stands_in_the_file_already_is_no_change():
    recipe = load_recipe(RECIPE)
    assert run_name(load_recipe(RECIPE, [f"train.batch_size={recipe.train.batch_size}"])) == RECIPE


def test_a_name_has_no_subject_and_no_folder_and_is_not_long(tmp_path: Path):
    weights.save(tmp_path / "Jane", small_network(), {"name": "trained"})
    private = ["data.options={test: [Jane_Doe], test_share: 0.5}", f"model.init={tmp_path / 'Jane'}"]
    name = run_name(load_recipe("hippocampus_unet_cpu", private))
    assert "Jane" not in name and str(tmp_path) not in name
    assert "test_share=0.5" in name and "init=sha256:" in name
    many = [f"model.arguments.argument_{number}={'x' * 40}" for number in range(20)]
    assert len(run_name(load_recipe(RECIPE, many))) == 120
