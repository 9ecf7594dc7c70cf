"""Arrays of jobs where no cluster is needed: scripts, manifests against the schemas, and what is refused."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from apps.cli.astrovision import program as astrovision
from apps.cli.geovision import program as geovision
from apps.cli.medvision import program as medvision
from apps.cli.shared.program import run
from apps.cluster.arrays import Array, slurm_script
from apps.cluster.manifest_rules import check_manifest
from apps.cluster.slurm import SlurmSettings
from shared_backbones.errors import InputError
from tests.apps.cluster.test_kubernetes import checked

POD = ["--on=kubernetes", "--image=r/i:1", "--volume=data:/data:ro", "--volume=runs:/runs"]
PROGRAMS: dict[str, Any] = {
    "medvision": medvision.app, "geovision": geovision.app, "astrovision": astrovision.app,
}  # fmt: skip
VERBS = {
    ("medvision", "segment"): ["-o", "/runs/out", "--labels=thalamus,hippocampus"],
    ("medvision", "classify"): ["-o", "/runs/t.csv", "--model=/data/m", "--skip-unreadable"],
    ("geovision", "embed"): ["-o", "/runs/t.parquet", "--model=models:/m@best", "--bands=red,green"],
    ("geovision", "map"): ["-o", "/runs/maps", "--model=/data/m", "--overlap=0.5"],
    ("geovision", "classify"): ["-o", "/runs/t.csv", "--model=/data/m"],
    ("astrovision", "classify"): ["-o", "/runs/t.vot", "--model=/data/m", "--parity=-1", "--catalogue=/data/c.csv"],
}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_prints_an_indexed_job_that_follows_the_schema(verb: tuple[str, str], capsys):
    typed = [verb[1], "-i", "/data/my $(x) 'scans'", *VERBS[verb]]
    assert run(PROGRAMS[verb[0]], [*typed, *POD, "--shards=100", "--at-once=20", "--cpus-per-task=4", "--mem=8Gi"]) == 0
    [job] = yaml.safe_load_all(capsys.readouterr().out)
    spec = checked(job, "IoK8sApiBatchV1Job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 100, 20)
    [container] = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    shell, option, script = container["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    # what Kubernetes leaves of $$( is what the shell sees; with a program that prints what it is given
    script = script.replace("$$(", "$(").replace("exec ", "printf '%s\\n' ")
    started = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"JOB_COMPLETION_INDEX": "6", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert started[:2] == list(verb) and started[-1] == "--shard=7/100" and "--input=/data/my $(x) 'scans'" in started
    output = VERBS[verb][1]
    assert started[-2] == f"--journal={output}.shards"
    assert ("--resume" in started) == (verb[1] in ("segment", "map"))
    assert set(VERBS[verb][2:]) <= set(started)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["-i", "/elsewhere", "-o", "/runs/o"], "/elsewhere: in no volume of the pods"),
        (["-i", "scans", "-o", "/runs/o"], "scans: in no volume of the pods"),
        (["-i", "/data/s", "-o", "/data/o"], "/data/o: in a volume that is only read"),
        (["-i", "/data/s", "-o", "/runs"], "/runs.shards: in no volume of the pods"),
        (["-i", "/data/s", "-o", "/runs/o", "--model=/m/x"], "/m/x: in no volume of the pods"),
        (["-i", "/data/s", "-o", "/runs/o", "--reference=/r"], "/r: in no volume of the pods"),
        (["-i", "/data/s", "-o", "/runs/o", "--gpus-per-node=2"], "--gpus-per-node 2: each shard is one process"),
        (["-i", "/data/s", "-o", "/runs/o", "--shard=1/2"], "--shard and --journal are those of each job"),
        (["-i", "/data/s"], "--output is needed"),
        (["-i", "/data/s", "-o", "/runs/o", "--partition=x"], "settings of the job: partition"),
    ],
)
def test_what_no_pod_can_do_is_one_line(changes: list[str], message: str, capsys):
    assert run(medvision.app, ["segment", *changes, *POD, "--shards=3"]) == 2
    given = capsys.readouterr()
    assert message in given.err and given.err.count("\n") == 1 and not given.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on=slurm"], "--shards is needed"),
        (["--shards=3"], "add --on slurm or --on kubernetes"),
        (["--mem=3G"], "add --on slurm or --on kubernetes"),
        (["--resume"], "--resume: a table is written whole; add --on"),
        (["--on=slurm", "--shards=3", "--image=x"], "settings of the job: image"),
        (["--on=slurm", "--shards=3", "--sbatch=array=1-9"], "contradicts the batch script"),
        (["--on=slurm", "--shards=3", "--input=nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options: list[str], message: str, tmp_path: Path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert (
        run(medvision.app, ["classify", "-i", str(tmp_path), "-o", str(tmp_path / "t.csv"), "--model=m", *options]) == 2
    )
    given = capsys.readouterr()
    assert message in given.err and given.err.count("\n") == 1 and not given.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_dry_run_prints_the_script_and_does_nothing(tmp_path: Path, capsys):
    (tmp_path / "scans").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "scans" / "a.png")
    table = tmp_path / "my table.csv"
    command = ["classify", "-i", str(tmp_path / "scans"), "-o", str(table), "--model=m", "--on=slurm", "--shards=12"]
    assert run(medvision.app, [*command, "--at-once=4", "--mem=2G", "--sbatch=qos=long", "--dry-run"]) == 0
    script = capsys.readouterr().out
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"array=1-12%4", "nodes=1", "ntasks=1", "mem=2G", "requeue", "qos=long"} <= asked
    (line,) = (line for line in script.splitlines() if line.startswith("exec srun "))
    started = shlex.split(line)
    assert started[started.index("-m") :] == [
        "-m", "apps.cli.medvision.program", "classify", f"--input={tmp_path / 'scans'}", f"--output={table}",
        "--model=m", f"--journal={table}.shards", "--shard=$SLURM_ARRAY_TASK_ID/12",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@given(st.sets(st.integers(1, 300), min_size=1))
def test_the_array_has_the_shards_that_are_asked_for(numbers: set[int]):
    script = slurm_script(Array("p", "v", [], 300, Path("/n")), SlurmSettings(), numbers)
    (text,) = (line.partition("=")[2] for line in script.splitlines() if line.startswith("#SBATCH --array="))
    runs = [list(map(int, part.split("-"))) for part in text.split(",")]
    assert [n for run in runs for n in range(run[0], run[-1] + 1)] == sorted(numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completionMode": "NonIndexed"}, "backoffLimitPerIndex needs an indexed Job"),
        ({"backoffLimitPerIndex": None}, "a rule that fails an index needs backoffLimitPerIndex"),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"values": [5, 2]}}]}},
            "ascending order",
        ),
        ({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"values": [0]}}]}}, "without 0"),
    ],
)
def test_rules_of_a_server_for_indices_are_looked_at(change: dict[str, Any], message: str, capsys):
    assert run(medvision.app, ["segment", "-i", "/data/s", "-o", "/runs/o", *POD, "--shards=3"]) == 0
    [job] = yaml.safe_load_all(capsys.readouterr().out)
    job["spec"] = {key: value for key, value in {**job["spec"], **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        check_manifest([job])
