"""A verb over many inputs as an array of jobs: of SLURM, or as an indexed Job of Kubernetes. Each job takes a shard."""

import secrets
import shlex
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from apps.cluster import kubernetes, slurm
from apps.cluster.kubernetes import PodSettings
from apps.cluster.settings import JobSettings
from apps.cluster.slurm import SlurmSettings
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document

_INDEX = "JOB_COMPLETION_INDEX"  # of a pod, from 0; Kubernetes sets it
_FINAL = [2, 5]  # exit codes that another start would not change: wrong options, and inputs that cannot be used


@dataclass(frozen=True)
class Array:
    """Jobs that share an input out.

    Attributes:
        program: Name of the program.
        verb: Name of its verb.
        arguments: What is typed after it, but for `--shard` and `--journal`.
        count: Number of shards.
        journal: Folder of the shards' notes and logs.
        at_once: Most jobs that run at the same time; None for any number.
    """

    program: str
    verb: str
    arguments: Sequence[str]
    count: int
    journal: Path
    at_once: int | None = None

    @property
    def name(self) -> str:
        """What its jobs are called."""
        return f"{self.program}-{self.verb}"

    def log(self, number: int | str) -> Path:
        """The log of a shard."""
        return self.journal / f"{number}-of-{self.count}.log"


def slurm_script(array: Array, settings: SlurmSettings, numbers: Collection[int]) -> str:
    """The script that sbatch takes for some of the shards.

    Raises:
        InputError: the settings are those of jobs that train.
    """
    _check_alone(settings)
    most = f"%{array.at_once}" if array.at_once else ""
    options = {
        "job-name": array.name,
        "array": _ranges(numbers) + most,
        "nodes": 1,
        "ntasks": 1,
        "gpus-per-node": settings.gpus_per_node or None,
        "cpus-per-task": settings.cpus_per_task,
        **settings.model_dump(include={"mem", "partition", "time", "account"}),
        "output": _quoted(array.log("%a")),
        "open-mode": "append",
    }
    lines = [f"{name}={value}" for name, value in options.items() if value is not None]
    lines += ["requeue" if settings.requeue else "no-requeue", *settings.sbatch]
    program = [sys.executable, "-m", f"apps.cli.{array.program}.program", array.verb, *array.arguments]
    cpus = [f"--cpus-per-task={settings.cpus_per_task}"] if settings.cpus_per_task else []
    command = shlex.join(["srun", "--kill-on-bad-exit=1", *cpus, *program, f"--journal={array.journal}"])
    shard = f'--shard="$SLURM_ARRAY_TASK_ID/{array.count}"'
    return "\n".join(["#!/bin/bash", *(f"#SBATCH --{line}" for line in lines), "", f"exec {command} {shard}", ""])


def submit(
    array: Array, settings: SlurmSettings, numbers: Collection[int], before: Callable[[], None] | None = None
) -> str:
    """Queue shards; returns the number of the array's job.

    Args:
        array: The jobs.
        settings: What each asks for.
        numbers: Shards to queue.
        before: Called when SLURM would take them, before it does.

    Raises:
        InputError: SLURM does not take it, or the folder of notes cannot be made.
    """
    script = slurm_script(array, settings, numbers)
    slurm.check(script)
    try:
        array.journal.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{printable(array.journal)}: cannot be made ({error.strerror}); choose another --output"
        ) from None
    if before is not None:
        before()
    return slurm.ask_sbatch(script, ["--parsable"]).partition(";")[0]


def in_the_queue(job: str) -> bool:
    """Whether jobs of an array wait or run."""
    return bool(slurm.output_of("squeue", "-h", "-r", "-j", job, "-o", "%T"))


def wait(job: str, seconds: float = 3.0) -> None:
    """Wait until no job of an array waits or runs."""
    absent = 0
    while absent < 2:  # one on its way back into the queue may be in no list for a moment
        absent = 0 if in_the_queue(job) else absent + 1
        time.sleep(seconds)


def indexed_job(array: Array, settings: PodSettings, written: Sequence[Path], read: Sequence[Path]) -> str:
    """The manifest of an indexed Job that `kubectl create -f -` takes.

    A pod that is killed is started again, and leaves out the input that killed it; one that ends because of the options
    or of inputs that cannot be used is not.

    Args:
        array: The jobs.
        settings: What each pod asks for.
        written: Files and folders that pods write.
        read: Those that they read.

    Raises:
        InputError: pods cannot see a path or cannot write there, or a server would refuse the manifest.
    """
    _check_alone(settings)
    for path in (*written, *read):
        mount = settings.mount_of(str(path)) if path.is_absolute() else None
        if mount is None:
            raise InputError(f"{printable(path)}: in no volume of the pods; mount one there with --volume CLAIM:/PATH")
        if mount.read_only and path in written:
            raise InputError(f"{printable(path)}: in a volume that is only read; mount it without :ro")
    name = f"{kubernetes.label_of(array.name)}-{secrets.token_hex(3)}"
    command = shlex.join([array.program, array.verb, *array.arguments, f"--journal={array.journal}"])
    script = f'exec {command} --shard="$(({_INDEX} + 1))/{array.count}"'
    pod = kubernetes.pod_spec(settings, None)
    given = [option.partition("=")[::2] for option in settings.env]
    pod["containers"][0] |= {
        "image": settings.image,
        "command": ["/bin/sh", "-c", script.replace("$(", "$$(")],
        "env": [
            *({"name": key, "value": value.replace("$(", "$$(")} for key, value in given),
            *kubernetes.secret_variables(settings),
        ],
        **kubernetes.resources("resources", settings),
    }
    pod["restartPolicy"] = "Never"
    final = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": _FINAL}}
    job: Document = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": dict(kubernetes.LABELS)},
        "spec": {
            "completionMode": "Indexed",
            "completions": array.count,
            "parallelism": min(array.at_once or array.count, array.count),
            "backoffLimitPerIndex": settings.retries,
            "podFailurePolicy": {"rules": [dict(kubernetes.EVICTED), final]},
            "template": {"metadata": {"labels": {"domain-vision/job": name}}, "spec": pod},
        },
    }
    return kubernetes.dump([job])


def _check_alone(settings: JobSettings) -> None:
    if settings.gpus_per_node > 1:
        raise InputError(
            f"--gpus-per-node {settings.gpus_per_node}: each shard is one process, which uses one GPU; give 1, and "
            "more --shards"
        )


def _quoted(log: Path) -> str:
    """A log as a line of a batch script has it, in which signs of a folder's name mean nothing."""
    folder = str(log.parent).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{folder}/{log.name}"'


def _ranges(numbers: Collection[int]) -> str:
    """Numbers as SLURM has them: `1-3,7`."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else f"{run[0][1]}" for run in runs)
