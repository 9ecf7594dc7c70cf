"""`run --sweep … --on slurm` and `--on kubernetes`, where no cluster is needed."""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from apps.cluster.slurm import SlurmJob
from tests.pipelines.balls import write_recipe

AXES = ["--sweep", "train.learning_rate=1e-3,3e-4", "--seeds=1-2"]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return write_recipe(tmp_path / "ball.yaml", Path("/data"), Path("/data/out"))


def test_an_array_has_a_task_for_each_run(recipe: str, capsys: pytest.CaptureFixture[str]):
    assert run(app, ["run", recipe, "train.batch_size=2", *AXES, "--on=slurm", "--stages=train", "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-4\n" in script
    (line,) = (line for line in script.splitlines() if line.startswith("srun "))
    inner = shlex.split(line)[-1].partition("exec ")[2]
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {inner}"], env={"SLURM_ARRAY_TASK_ID": "3"}, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[1:] == [
        "-m", "pipelines", "run", recipe, "train.batch_size=2", "--stages=train",
        "--sweep=train.learning_rate=1e-3,3e-4", "--seeds=1-2", "--task=3",
    ]  # fmt: skip


def test_a_task_that_left_is_queued_again_alone(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """With programs in place of SLURM's: the id of one task of an array is that of the whole array."""
    assert run(app, ["run", recipe, *AXES, "--on=slurm", "--dry-run"]) == 0
    script = capsys.readouterr().out
    for name, body in {
        "srun": 'touch "$DOMAIN_VISION_LEFT"; exit 143',
        "scontrol": 'echo "$@" > requeued',
        "squeue": 'case "$3" in 7_4) echo RUNNING;; *) echo RUNNING; echo RUNNING;; esac',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "slurm-logs").mkdir()
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}
    subprocess.run(
        ["bash"], input=script, text=True, cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    )
    assert (tmp_path / "requeued").read_text() == "requeue 7_4\n"


@pytest.mark.parametrize(
    ("listed", "state"),
    [
        ("COMPLETED\nRUNNING\nFAILED", "RUNNING"),
        ("COMPLETED\nFAILED\nCOMPLETED", "FAILED"),
        ("COMPLETED\nCOMPLETED", "COMPLETED"),
        ("CANCELLED by 0", "CANCELLED"),
    ],
)
def test_an_array_ends_with_its_last_task(listed: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "squeue").write_text(f"#!/bin/bash\nprintf '{listed}\\n'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert SlurmJob("7", tmp_path / "log", "", "").state() == state


def test_every_run_is_a_job_of_kubernetes(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    for form, kind in (("job", "Job"), ("trainjob", "TrainJob")):
        options = ["--on=kubernetes", "--image=x/y:1", "--volume=claim:/data", f"--form={form}"]
        assert run(app, ["run", recipe, *AXES, *options]) == 0
        documents = [document for document in yaml.safe_load_all(capsys.readouterr().out) if document]
        jobs = [document for document in documents if document["kind"] == kind]
        text = [yaml.safe_dump(job) for job in jobs]
        assert len(jobs) == 4 and all(f"--task={number}" in text[number - 1] for number in range(1, 5))
        named = [(document["kind"], document["metadata"].get("name")) for document in documents]
        assert len({name for name in named if name[1]}) == len([name for name in named if name[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task=1"], "add --sweep, --seeds or --folds"),
        ([*AXES, "--task=5"], "the sweep has the runs 1 to 4"),
        ([*AXES, "--on=slurm", "--task=1"], "is what the jobs of a sweep are given"),
        ([*AXES, "--restart=train"], "each run of a sweep would begin anew"),
        ([*AXES, "--on=slurm", "--restart=train"], "would begin anew each time it is requeued"),
        ([*AXES, "--search=optuna"], "leave --sweep, --seeds, --folds and --on out"),
        (["--folds=1"], "folds"),
        (["--search=x"], "optuna"),
        ([*AXES, "--on=slurm", "--nodes=3"], "cannot be shared out to 3 processes"),
    ],
)
def test_what_contradicts_itself_is_refused(
    recipe: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run(app, ["run", recipe, *options]) == 2
    assert message in capsys.readouterr().err
