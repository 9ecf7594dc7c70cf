"""Sweeps on a cluster: an array of SLURM with a task for each run, or a Kubernetes job for each."""

import shlex
import sys
from collections.abc import Sequence

from apps.cluster import kubernetes, slurm
from apps.cluster.kubernetes import PodSettings
from apps.cluster.slurm import SlurmJob, SlurmSettings
from pipelines.runtime import processes
from pipelines.sweeps.plan import Sweep
from pipelines.sweeps.sweep import sweep_run_id
from pipelines.tracking import stores


def queue_sweep(
    sweep: Sweep, arguments: Sequence[str], settings: SlurmSettings, *, dry_run: bool = False, wait: bool = False
) -> None:
    """Queue a sweep as an array, each task of which is one run.

    The run that ends last makes the table; behind the array a small job makes it where a run has failed, for one that
    dies with its node cannot.

    Args:
        sweep: Sweep, which is checked here.
        arguments: Arguments of `python -m pipelines run`, from which each task reads it again.
        settings: Settings of each task.
        dry_run: Whether the batch script is only printed.
        wait: Whether to wait until all have ended, however often they are requeued.

    Raises:
        InputError: a recipe does not suit the number of processes, SLURM or the tracking store refuses the jobs, or
            they were waited for and a run failed.
    """
    for child in sweep.children:
        processes.share_of(child.recipe.train.batch_size, settings.processes)
    command = shlex.join([sys.executable, "-m", "pipelines", "run", *arguments])
    # expanded by the shell of each task
    script = slurm.batch_script(
        settings, f"{sweep.recipe.name}-sweep", f"{command} --task=$SLURM_ARRAY_TASK_ID", array=len(sweep.children)
    )
    if dry_run:
        print(script, end="")
        return
    uri = stores.tracking_uri()
    stores.check_seen_from_nodes(uri)
    stores.open_store(uri)
    slurm.check(script)
    run_id = sweep_run_id(sweep, uri)
    table = shlex.join([sys.executable, "-m", "pipelines", "run", *arguments, "--task=0"])
    job = slurm.submit(script, settings, uri=uri, run_id=run_id, after_failure=table)
    print(f"job {job}: {len(sweep.children)} runs queued; run {run_id}; logs {job.log.parent}")
    if wait:
        slurm.wait_for(SlurmJob(job.number, job.log, uri, run_id))


def print_sweep(sweep: Sweep, arguments: Sequence[str], settings: PodSettings) -> None:
    """Print the manifests of a sweep, a job for each run, for `kubectl create -f -`; see `kubernetes.print_recipe`.

    Args:
        sweep: Sweep, which is checked here.
        arguments: Arguments of `python -m pipelines run`, from which the pods read it again.
        settings: Settings of each job.

    Raises:
        InputError: a recipe does not suit the number of processes, or pods cannot see where it writes or is tracked.
    """
    for child in sweep.children:
        print("---")
        kubernetes.print_recipe(child.recipe, [*arguments, f"--task={child.number}"], settings)
