"""`runs compare`: the same answer from the tracking store and from the output folders."""

import json
from pathlib import Path

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from pipelines.__main__ import main
from pipelines.comparison import compare, read_run
from pipelines.recipe.loading import load_recipe
from pipelines.stages import run_stages
from shared_backbones.errors import InputError
from tests.pipelines.balls import write_raw, write_recipe

QUICK = ["tracking.system_metrics=false", "train.epochs=1", "train.steps_per_epoch=1", "evaluate.resamples=10"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("settings", [1]), ("settings", {"seed": 1}), ("data", 3), ("figures", {"dice": "x"}), ("evaluation", 5),
     ("run_id", 7), ("settings", None)],
)  # fmt: skip
def test_a_file_that_is_no_note_is_one_line(tmp_path: Path, key: str, value: object):
    note = {"run_id": "0", "uri": "sqlite://", "settings": {}, "data": {}, "figures": {}, "evaluation": None}
    path = tmp_path / "runs" / "note.json"
    path.parent.mkdir()
    path.write_text(json.dumps(note))
    assert read_run(str(tmp_path)).settings == {}
    path.write_text(json.dumps({**note, key: value}))
    with pytest.raises(InputError, match="no note of a complete run"):
        read_run(str(path))
    with pytest.raises(InputError, match="holds no run that is complete"):
        read_run(str(tmp_path))


def test_two_runs_are_compared_by_settings_data_and_cases(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "raw").mkdir()
    raw = write_raw(tmp_path / "raw")
    jobs = []
    for name, changes in (("first", []), ("second", ["train.learning_rate=0.1", "evaluate.protocol=monai"])):
        path = write_recipe(tmp_path / f"{name}.yaml", raw, tmp_path / name, name=name)
        jobs.append(run_stages(load_recipe(path, [*QUICK, *changes]), ["prepare", "train", "evaluate"]))
    by_folder = compare(read_run(str(tmp_path / "first")), read_run(str(tmp_path / "second")))
    assert by_folder["settings"] == {
        "name": ["first", "second"],
        "train.learning_rate": ["0.002", "0.1"],
        "evaluate.protocol": ["default", "monai"],
    }
    assert by_folder["data"] == {} and set(by_folder["same_data"]) == {"train", "validation", "test"}
    first, second = by_folder["figures"]["test_dice"]
    assert first is not None and second is not None
    dice = next(row for row in by_folder["paired"] if row["figure"] == "dice")
    assert dice["cases"] == 2 and dice["mean"] == pytest.approx(second - first)
    by_store = compare(read_run("first"), read_run(str(jobs[1].run_id)))
    for part in ("runs", "settings", "data", "paired"):
        assert by_store[part] == by_folder[part], part
    assert by_store["figures"]["test_dice"] == by_folder["figures"]["test_dice"]
    command = ["runs", "compare", "first", str(tmp_path / "second")]
    capsys.readouterr()
    assert run(app, command) == 0
    shown = capsys.readouterr().out
    assert "train.learning_rate  0.002    0.1" in shown and "2 cases" in shown
    assert main(command) == 0
    assert capsys.readouterr().out == shown
    run_stages(load_recipe(str(tmp_path / "first.yaml"), [*QUICK, "train.learning_rate=0.1"]), ["prepare", "train"])
    for name, message in (
        ("third", "neither a folder nor a run of"),
        ("first", "several have that name; give one by its id"),
        (str(tmp_path / "first"), "holds 2 runs; give one by its id, such as"),
        (str(tmp_path / "raw"), "holds no run that is complete"),
        (str(tmp_path / "first.yaml"), "is no note of a complete run"),
    ):
        assert run(app, ["runs", "compare", name, "second"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
