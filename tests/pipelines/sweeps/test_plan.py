"""Which runs a sweep has, and what is refused before any of them begins."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.recipe.recipe import STAGES
from pipelines.sweeps.children import read_outcomes
from pipelines.sweeps.plan import Axes, _values, plan_sweep, varied_keys
from pipelines.sweeps.table import tabulate
from shared_backbones.errors import InputError
from tests.pipelines.balls import write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return write_recipe(tmp_path / "ball.yaml", tmp_path, tmp_path / "run")


def test_settings_seeds_and_folds_are_multiplied(recipe: str):
    axes = Axes(("train.learning_rate=1e-3,3e-4", "data.views=[axial],[axial, coronal]"), "1-2,7", 2)
    sweep = plan_sweep(recipe, ["train.batch_size=2"], axes)
    assert len(sweep.children) == 2 * 2 * 3 * 2 and len(sweep.settings) == 4
    assert [child.number for child in sweep.children] == list(range(1, 25))
    last = sweep.children[-1]
    assert last.setting == {"train.learning_rate": "3e-4", "data.views": "[axial, coronal]"}
    assert (last.seed, last.fold) == (7, 2)
    assert (last.recipe.train.learning_rate, last.recipe.train.batch_size, last.recipe.seed) == (3e-4, 2, 7)
    assert last.recipe.fold is not None and (last.recipe.fold.number, last.recipe.fold.of) == (2, 2)
    assert last.label == "train.learning_rate=3e-4 data.views=[axial, coronal] seed=7 fold=2"
    assert varied_keys(sweep) == {"train.learning_rate", "data.views", "seed", "fold.number"}
    assert sweep.stages == STAGES[:-1]  # nothing is registered unless that is asked for
    assert plan_sweep(recipe, ["train.batch_size=2"], axes).name == sweep.name
    assert plan_sweep(recipe, ["train.batch_size=4"], axes).name != sweep.name


def test_seeds_keep_the_split_of_the_recipe(recipe: str):
    for overrides, split in (([], 1), (["seed=4"], 4), (["seed=4", "data.split_seed=9"], 9)):
        sweep = plan_sweep(recipe, overrides, Axes(seeds="3,5"))
        assert [child.recipe.seed for child in sweep.children] == [3, 5]
        assert {child.recipe.split_seed for child in sweep.children} == {split}
    asked = plan_sweep(recipe, [], Axes(("data.split_seed=1,2",), "3,5"))
    assert [child.recipe.split_seed for child in asked.children] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (Axes(("train.learning_rate",)), "expected KEY=V1,V2"),
        (Axes(("train.learning_rate=",)), "a value is empty"),
        (Axes(("train.learning_rate=1e-3,,1e-4",)), "a value is empty"),
        (Axes(("data.views=[axial",)), "a bracket or a quote is not closed"),
        (Axes(("train.learning_rate=1e-3", "train.learning_rate=1e-4")), "is given twice"),
        (Axes(("train.batch_size=2,4",)), "is given twice"),
        (Axes(("train.learning_rate=1e-3,0.001",)), "are the same run"),
        (Axes(("train.learning_rat=1,2",)), "did you mean learning_rate"),
        (Axes(("train.learning_rate=-1,2",)), "greater than 0, found -1"),
        (Axes(("seed=1,2",)), "give --seeds"),
        (Axes(("fold.of=2,3",)), "give --folds"),
        (Axes(("tracking.experiment=a,b",)), "in one experiment"),
        (Axes(("train={batch_size: 2},{batch_size: 4}",)), "train.batch_size is given twice"),
        (Axes(("model.arguments.depths=[1],[2]", "model.arguments={a: 1},{a: 2}")), "depths is given twice"),
        (Axes(("output=a,b",)), "share an output"),
        (Axes(seeds="5-1"), "expected numbers below 2^31 such as"),
        (Axes(seeds="a"), "expected numbers below 2^31 such as"),
        (Axes(seeds=""), "expected numbers below 2^31 such as"),
        (Axes(seeds="1-2147483648"), "expected numbers below 2^31"),
        (Axes(seeds="0-2000000000"), "more than 1000 seeds"),
        (Axes(seeds="0-999,1000-1999"), "more than 1000 seeds"),
        (Axes(seeds="1,1-2"), "a seed is there twice"),
        (Axes(folds=1), "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_swept_is_one_line(recipe: str, axes: Axes, message: str):
    with pytest.raises(InputError) as caught:
        plan_sweep(recipe, ["train.batch_size=8"], axes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_fold_and_all_folds_contradict_each_other(recipe: str):
    with pytest.raises(InputError, match=r"--folds 3: fold\.number=2 says which fold"):
        plan_sweep(recipe, ["fold.number=2", "fold.of=3"], Axes(folds=3))


def test_names_of_folders_and_subjects_stay_on_the_command_line(recipe: str):
    """What of a sweep is printed, tabulated and tracked, and whose values name folders, files or people."""
    hidden = {
        "data.root": "/scans/jane/a,/scans/jane/b", "data.options.test": "[Jane_Doe],[John_Doe]",
        "data.options": "{test: [Jane_Doe]},{test: [John_Doe]}", "model.init": "/scans/jane/a,/scans/jane/b",
    }  # fmt: skip
    for key, values in hidden.items():
        sweep = plan_sweep(recipe, [], Axes((f"{key}={values}", "train.learning_rate=1e-3,2e-3")))
        said = [sweep.axes, *(child.label for child in sweep.children), tabulate(sweep, read_outcomes(sweep), {})]
        assert not any(name in str(said).lower() for name in ("jane", "john", "home"))
        assert [child.shown[key] for child in sweep.children] == ["value 1", "value 1", "value 2", "value 2"]
        assert sweep.axes == {key: "value 1,value 2", "train.learning_rate": "1e-3,2e-3"}


@given(st.lists(st.sampled_from(["1e-3", "[a, b]", "{x: 1, y: [2, 3]}", "'a,b'", '"[,"', "it's", "a b"]), min_size=1))
def test_commas_inside_brackets_and_quotes_belong_to_a_value(values: list[str]):
    assert _values(",".join(values), "option") == values
