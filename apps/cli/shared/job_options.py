"""Options of work that a cluster does: where it runs, and what each job asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

JOB = "With --on"
"""The heading under which `--help` lists them."""

JobSettings: TypeAlias = dict[str, int | str | bool | list[str]]
"""Settings of a job by the names that schedulers' settings have."""


class Scheduler(StrEnum):
    """What runs jobs."""

    slurm = "slurm"
    kubernetes = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a user asks of the jobs of a cluster."""

    on: Annotated[Scheduler | None, typer.Option(help="Queue it as a SLURM job, or print it as a Kubernetes job.")] = (
        None
    )
    gpus_per_node: Annotated[
        int | None,
        typer.Option(min=1, help="GPUs of each node, one process each; by default none.", rich_help_panel=JOB),
    ] = None
    cpus_per_task: Annotated[
        int | None, typer.Option(min=1, help="CPU cores of each process.", rich_help_panel=JOB)
    ] = None
    mem: Annotated[str | None, typer.Option(help="Memory of each node, such as 64G.", rich_help_panel=JOB)] = None
    partition: Annotated[str | None, typer.Option(help="SLURM partition; sinfo lists them.", rich_help_panel=JOB)] = (
        None
    )
    time: Annotated[
        str | None,
        typer.Option(help="Time limit of the job, such as 12:00:00; anew after a requeue.", rich_help_panel=JOB),
    ] = None
    account: Annotated[
        str | None, typer.Option(help="SLURM account that the job is charged to.", rich_help_panel=JOB)
    ] = None
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="Another option of sbatch, such as qos=long; repeatable.", rich_help_panel=JOB),
    ] = None
    image: Annotated[str | None, typer.Option(help="Kubernetes: image of the containers.", rich_help_panel=JOB)] = None
    volume: Annotated[
        list[str] | None,
        typer.Option(
            help="Kubernetes: CLAIM:/PATH of a volume, CLAIM:/PATH:ro of one that is only read; repeatable.",
            rich_help_panel=JOB,
        ),
    ] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(
            help="Kubernetes: secret with MLflow's user and password, or NAME:KEY of another one; repeatable.",
            rich_help_panel=JOB,
        ),
    ] = None
    env: Annotated[
        list[str] | None, typer.Option(help="Kubernetes: NAME=VALUE of a variable; repeatable.", rich_help_panel=JOB)
    ] = None
    node_selector: Annotated[
        list[str] | None,
        typer.Option(help="Kubernetes: KEY=VALUE of a label that nodes must have; repeatable.", rich_help_panel=JOB),
    ] = None
    toleration: Annotated[
        list[str] | None,
        typer.Option(help="Kubernetes: KEY[=VALUE][:EFFECT] of a taint; repeatable.", rich_help_panel=JOB),
    ] = None
    no_requeue: Annotated[
        bool,
        typer.Option(
            "--no-requeue", help="End when preempted or out of time, instead of queueing again.", rich_help_panel=JOB
        ),
    ] = False
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.", rich_help_panel=JOB)] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script, and queue nothing.", rich_help_panel=JOB)
    ] = False

    @property
    def job_settings(self) -> JobSettings:
        """Settings of the job that were given, by the names that schedulers' settings have."""
        return given({
            "gpus_per_node": self.gpus_per_node, "cpus_per_task": self.cpus_per_task, "mem": self.mem,
            "partition": self.partition, "time": self.time, "account": self.account, "sbatch": self.sbatch or None,
            "requeue": False if self.no_requeue else None, "image": self.image, "volumes": self.volume or None,
            "secrets": self.secret or None, "env": self.env or None, "node_selector": self.node_selector or None,
            "tolerations": self.toleration or None,
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ArrayOptions(JobOptions):
    """What a user asks of an array of jobs that share an input out."""

    shards: Annotated[
        int | None, typer.Option(min=1, max=999_999, help="Parts of the input, one for each job.", rich_help_panel=JOB)
    ] = None
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Most jobs that run at the same time.", rich_help_panel=JOB)
    ] = None
    journal: Annotated[
        Path | None,
        typer.Option(
            help="With --shard: folder for notes of this shard; an input that killed its process is named and left out "
            "when the shard starts again. Jobs of --on keep one."
        ),
    ] = None


def given(settings: Mapping[str, int | str | bool | list[str] | None]) -> JobSettings:
    """Settings that have a value."""
    return {name: value for name, value in settings.items() if value is not None}
