"""Recipes on two nodes of a real SLURM: the same result as in one process, whatever happens to the job."""

import re
import shlex
import sys

import pytest
from mlflow import MlflowClient

from shared_backbones import weights
from tests.cluster.conftest import STEPS, Home, figures, same_bytes, trained
from tests.cluster.small_cluster import SmallCluster, wait_until
from tests.conftest import ROOT


def submit(home: Home, cluster: SmallCluster, output: str, *options: str, **changes: str) -> tuple[str, str]:
    """Queue the small training; the job's number and its run."""
    printed = home.medvision(
        "run", *home.overrides(output, **changes), "--stages=prepare,train", "--on=slurm", "--nodes=2", *options,
        environment=cluster.environment,
    )  # fmt: skip
    found = re.search(r"job (\d+): queued; run (\w+);", printed)
    assert found, printed
    return found[1], found[2]


def progress(home: Home, output: str) -> int:
    """Steps that the last checkpoint has behind it."""
    from pipelines.training.checkpoints import steps_in

    files = list((home.folder / output / "train").glob("*/last.safetensors"))
    return steps_in(files[0]) if files else 0


def wait_for_step(home: Home, output: str, step: int) -> None:
    wait_until(lambda: progress(home, output) >= step, f"{output} does not come to step {step}")


def followers(cluster: SmallCluster, job: str) -> dict[str, str]:
    """States, by number, of what is queued to note that a job failed, and waits or runs."""
    listed = cluster.run("squeue", "-h", "-n", "domain-vision-failure", "-o", "%i %T %E").splitlines()
    return dict(line.split()[:2] for line in listed if f"afternotok:{job}(" in line)


def log(home: Home, job: str) -> str:
    return (home.folder / "slurm-logs" / f"job-{job}.log").read_text()


def test_two_nodes_learn_what_one_process_learns_in_one_tracked_run(home: Home, cluster: SmallCluster, whole: str):
    home.run(sys.executable, "-m", "pipelines", "run", *home.overrides("alone"), "--stages=prepare,train")
    client = MlflowClient(home.uri)
    experiment = client.get_experiment_by_name("medvision")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2  # of the job with its two processes, and of the one alone
    (alone,) = (run.info.run_id for run in runs if run.info.run_id != whole)
    together = client.get_run(whole)
    assert together.info.status == "FINISHED"
    tags = {name: value for name, value in together.data.tags.items() if name.startswith("slurm.")}
    job = tags.pop("slurm.job_id")
    assert tags == {"slurm.nodes": "2", "slurm.processes": "2", "slurm.requeues": "0"}
    assert [file.path for file in client.list_artifacts(whole, "logs")] == [f"logs/job-{job}.log"]
    assert {file.path for file in client.list_artifacts(whole)} >= {"evaluation", "report.html"}
    assert client.get_model_version_by_alias("pneumoniamnist_medvitv2_cpu", "newest").run_id == whole
    mine, theirs = figures(home, whole), figures(home, alone)
    assert [step for step, _ in theirs["loss"]] == list(range(50, STEPS + 1, 50))
    for name in ("loss", "validation_log_likelihood", "validation_accuracy", "learning_rate"):
        # gradients are summed in another order; the difference grows over hundreds of steps
        assert mine[name] == [(step, pytest.approx(value, rel=1e-3)) for step, value in theirs[name]], name
    assert mine["loss"][0][1] == pytest.approx(theirs["loss"][0][1], rel=1e-5)
    card = weights.load(trained(home, "whole") / "model").card
    assert card["training"]["batch_size"] == 8


def test_a_job_that_is_preempted_twice_ends_like_one_that_never_stopped(home: Home, cluster: SmallCluster, whole: str):
    job, run_id = submit(home, cluster, "preempted", **{"train.local_copy": str(home.folder)})
    wait_for_step(home, "preempted", 20)
    cluster.run("scancel", "--signal=TERM", job)
    wait_until(lambda: cluster.state(job) == "PENDING", "the job does not leave")
    assert list(followers(cluster, job).values()) == ["PENDING"]  # it has not failed
    first = progress(home, "preempted")
    assert f"preempted: checkpoint at step {first} of {STEPS}" in log(home, job)
    assert MlflowClient(home.uri).get_run(run_id).info.status == "KILLED"
    wait_for_step(home, "preempted", first + 20)
    urgent = cluster.run("sbatch", "--parsable", "-p", "high", "-N", "3", "-o", "/dev/null", "--wrap", "srun sleep 1")
    wait_until(lambda: cluster.state(job) == "PENDING", "the job does not make room")
    second = progress(home, "preempted")
    assert first + 20 <= second < STEPS
    assert f"preempted: checkpoint at step {second} of {STEPS}" in log(home, job)
    cluster.wait_for(urgent, "COMPLETED")
    cluster.wait_for(job, "COMPLETED")
    same_bytes(home, "whole", "preempted")
    wait_until(lambda: not followers(cluster, job), "what was to note a failure stays in the queue")
    assert log(home, job).count("copy: ") == 1  # two processes, three starts
    run = MlflowClient(home.uri).get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["slurm.requeues"] == "2"
    mine, theirs = figures(home, run_id), figures(home, whole)
    for name in ("loss", "validation_log_likelihood", "validation_accuracy", "learning_rate"):
        assert mine[name] == theirs[name], name


def test_a_job_that_loses_a_node_is_requeued_and_goes_on(home: Home, cluster: SmallCluster, whole: str):
    job, run_id = submit(home, cluster, "lost")
    wait_for_step(home, "lost", 40)
    with cluster.without("n2"):
        wait_until(lambda: cluster.state(job) == "PENDING", "the job is not requeued")
        assert 40 <= progress(home, "lost") < STEPS and "preempted" not in log(home, job)
        cluster.wait_for(job, "COMPLETED")  # on the spare node
    same_bytes(home, "whole", "lost")
    run = MlflowClient(home.uri).get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.tags["slurm.requeues"] == "1"


def test_the_run_of_a_job_that_dies_with_its_node_is_failed(home: Home, cluster: SmallCluster):
    job, run_id = submit(home, cluster, "died", "--no-requeue")
    client = MlflowClient(home.uri)
    (follower,) = followers(cluster, job)
    cluster.run("scontrol", "hold", follower)
    wait_until(lambda: client.get_run(run_id).info.status == "RUNNING", "the job does not start")
    with cluster.without(cluster.run("squeue", "-h", "-j", job, "-o", "%B").strip()):  # where the first process is
        cluster.wait_for(job, "NODE_FAIL")
        assert client.get_run(run_id).info.status == "RUNNING"
        cluster.run("scontrol", "release", follower)
        wait_until(lambda: client.get_run(run_id).info.status == "FAILED", "nobody notes the end")
    assert [file.path for file in client.list_artifacts(run_id, "logs")] == [f"logs/job-{job}.log"]


def test_mlflow_queues_a_job_and_sees_it_fail_where_it_may_not_be_requeued(
    home: Home, cluster: SmallCluster, whole: str
):
    name, *overrides = home.overrides("failed")
    (home.folder / "slurm.json").write_text('{"nodes": 2, "requeue": false}')
    mlflow = home.start(
        sys.executable, "-m", "mlflow", "run", str(ROOT), "--backend=domain-vision-slurm", "-c", "slurm.json",
        "-P", f"recipe={name}", "-P", f"overrides={shlex.join(overrides)}", "--experiment-name=backend",
        environment=cluster.environment,
    )  # fmt: skip
    with mlflow:
        try:
            wait_until(lambda: mlflow.poll() is not None or progress(home, "failed") >= 20, "nothing is trained")
            with cluster.without("n2"):
                printed = mlflow.communicate(timeout=300)[0]
        finally:
            mlflow.kill()
    assert mlflow.returncode == 1
    found = re.search(r"job (\d+): queued; run (\w+);", printed)
    assert found, printed
    assert cluster.state(found[1]) == "NODE_FAIL"
    client = MlflowClient(home.uri)
    assert client.get_run(found[2]).info.status == "FAILED"
    assert [file.path for file in client.list_artifacts(found[2], "logs")] == [f"logs/job-{found[1]}.log"]
    assert client.get_run(found[2]).data.tags["slurm.job_id"] == found[1]
    wait_until(lambda: not followers(cluster, found[1]), "what notes the failure does not end")


def test_what_slurm_or_the_store_cannot_do_is_said_before_a_job_is_queued(home: Home, cluster: SmallCluster):
    def refused(*options: str, **variables: str) -> str:
        printed = home.medvision(
            "run",
            *home.overrides("refused"),
            "--on=slurm",
            *options,
            code=2,
            environment={**cluster.environment, **variables},
        )
        (line,) = printed.splitlines()
        return line

    before = set(cluster.run("squeue", "-h", "-t", "all", "-o", "%i").split())
    assert "Invalid partition name" in refused("--partition=nowhere") and "sinfo" in refused("--partition=nowhere")
    assert "node configuration is not available" in refused("--nodes=4")
    assert "cannot be shared out to 3 processes" in refused("--nodes=3")
    assert "means another machine on every node" in refused("--nodes=2", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "cannot be used" in refused("--nodes=2", MLFLOW_TRACKING_URI="http://nowhere.invalid:9")
    assert "plain folders" in refused("--nodes=2", MLFLOW_TRACKING_URI="file:runs")
    assert set(cluster.run("squeue", "-h", "-t", "all", "-o", "%i").split()) <= before
    assert not (home.folder / "refused").exists()
