"""`run --on slurm` where no SLURM is needed: the batch script, and what is refused before SLURM is asked."""

import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from apps.cluster.slurm import SlurmSettings, batch_script
from shared_backbones.errors import InputError
from tests.conftest import ROOT

ARGUMENTS = ["run", "pneumoniamnist_medvitv2_cpu", "data.root=a b.npz"]


def test_a_dry_run_prints_the_script_and_does_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--on=slurm", "--nodes=2", "--gpus-per-node=4", "--time=1:00:00", "--sbatch=qos=long", "--no-requeue"]
    assert run(app, [*ARGUMENTS, "--stages=train", *options, "--dry-run"]) == 0
    script = capsys.readouterr().out
    asked = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "time=1:00:00", "qos=long", "no-requeue"} <= set(asked)
    assert "requeue" not in asked and not any(line.startswith(("mem", "account", "partition")) for line in asked)
    assert list(tmp_path.iterdir()) == []
    # what srun starts, as a shell takes it apart twice
    (line,) = (line for line in script.splitlines() if line.startswith("srun "))
    started = shlex.split(shlex.split(line)[-1].partition("exec ")[2])
    assert started[1:] == ["-m", "pipelines", *ARGUMENTS, "--stages=train"]
    assert "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize("end", ["left", "failed", "cancelled", "done"])
def test_the_script_requeues_a_job_that_left_and_no_other(end: str, tmp_path: Path):
    """With programs in place of SLURM's: the real ones are in `tests/cluster`."""
    code = {"done": 0, "failed": 1}.get(end, 143)
    left = "" if end in {"done", "failed"} else 'touch "$DOMAIN_VISION_LEFT"; '
    for name, body in {
        "srun": 'shift; exec "$@"', "scontrol": 'echo "$@" > requeued',
        "squeue": f"echo {'COMPLETING' if end == 'cancelled' else 'RUNNING'}",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "logs").mkdir()
    script = batch_script(SlurmSettings(logs="logs"), "x", f"bash -c '{left}exit {code}'")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash"], input=script, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == code
    assert (tmp_path / "requeued").exists() == (end == "left")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes=2"], "add --on slurm"),
        (["--on=slurm", "--restart=train"], "would begin anew each time it is requeued"),
        (["--on=slurm", "--nodes=5"], "train.batch_size=48: cannot be shared out to 5 processes"),
        (["--on=slurm", "--partition=a b"], "settings of the job: partition"),
        (["--on=slurm", "--account=a\n#SBATCH --uid=0"], "settings of the job: account"),
        (["--on=slurm", "--sbatch=array=1-10"], "found 'array=1-10', which contradicts the batch script: a job is one"),
        (["--on=slurm", "--sbatch=arr=1-10"], "found 'arr=1-10', which contradicts"),
        (
            ["--on=slurm", "--sbatch=qos=a", "--sbatch=nodes=4"],
            "found 'nodes=4', which contradicts the batch script: give",
        ),
        (["--on=slurm", "--sbatch=ntasks-per-node=2"], "each GPU gets a process; leave it out"),
        (["--on=slurm", "--sbatch=gres=gpu:2"], "GPUs are asked for by --gpus-per-node"),
        (["--on=slurm", "--sbatch=output=x.log"], "the run keeps the log"),
        (["--on=slurm", "--sbatch=export=NONE"], "the job needs the variables of its run"),
        (["--on=slurm", "--sbatch=signal=B:USR1@10"], "it is what asks for a checkpoint"),
        (["--on=slurm", "--sbatch=requeue"], "give it as --no-requeue"),
        (["--on=slurm", "--sbatch=time=1:00"], "give it as --time"),
        (["--on=slurm", "--sbatch=--qos=a"], "expected a long name without dashes"),
        (["--on=slurm", "--sbatch=a=1-3"], "which contradicts"),
        (["--on=slurm", "--sbatch=qos=long", "--sbatch=exclusive", "--sbatch=gres=nvme:1"], "sbatch: not found"),
        (["--on=slurm"], "sbatch: not found"),
        (["--on=pbs"], "slurm"),
    ],
)
def test_what_cannot_be_queued_is_one_line(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    assert run(app, [*ARGUMENTS, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_settings_from_a_file_are_checked():
    assert SlurmSettings.read({"nodes": 2, "gpus_per_node": 4}).processes == 8
    for content, message in (
        ({"node": 2}, "expected some of: nodes"),
        ({"nodes": 0}, "nodes: Input should be greater"),
    ):
        with pytest.raises(InputError, match=message):
            SlurmSettings.read(content)


def test_mlflow_finds_the_backend():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["mlflow.project_backend"]
    module, _, name = points["domain-vision-slurm"].partition(":")
    from importlib import import_module

    from mlflow.projects.backend.abstract_backend import AbstractBackend

    assert isinstance(getattr(import_module(module), name)(), AbstractBackend)
