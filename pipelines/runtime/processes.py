"""Which of the processes that train together this one is, and who started them: srun, torchrun or Lightning itself."""

import os
from typing import TYPE_CHECKING

from shared_backbones.errors import InputError

if TYPE_CHECKING:  # programs ask who they are before anything heavy is imported
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

# Of srun, of torchrun (and anything else that sets what torch reads), and of Lightning's own children.
_RANKS = ("SLURM_PROCID", "RANK", "GROUP_RANK", "NODE_RANK", "LOCAL_RANK")


def first_process() -> bool:
    """Whether this is the process that prints and writes files."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def launcher() -> str | None:
    """Who started all processes: `torchrun`, `slurm` (a step of srun), or None where Lightning starts the others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    # a batch script has SLURM's variables, too, but is no step: what it starts without srun is alone
    return "slurm" if "SLURM_STEP_ID" in os.environ and _number("SLURM_STEP_NUM_TASKS") > 0 else None


def job_name() -> str:
    """What all processes that were started together have in common, and no others do at the same time."""
    if launcher() == "torchrun":
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    elif launcher() == "slurm":
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return str(os.getpid())
    return " ".join(os.environ.get(name, "") for name in names)


def placement(devices: int) -> tuple[int, int]:
    """Processes of each node, and nodes: as they were started, else `devices` on this one."""
    if launcher() == "torchrun":
        here = _number("LOCAL_WORLD_SIZE")
        return here, _number("WORLD_SIZE") // here
    if launcher() == "slurm":
        nodes = _number("SLURM_STEP_NUM_NODES")
        return _number("SLURM_STEP_NUM_TASKS") // nodes, nodes
    return devices, 1


def environment() -> "ClusterEnvironment":
    """How Lightning learns of the other processes."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if launcher() == "torchrun":
        return TorchElasticEnvironment()
    if launcher() == "slurm":
        return SLURMEnvironment(auto_requeue=False)  # the batch script does that
    return LightningEnvironment()


def share_of(batch_size: int, processes: int) -> int:
    """Images of a batch that each process takes.

    Raises:
        InputError: they cannot be shared out evenly.
    """
    if batch_size % processes:
        raise InputError(
            f"train.batch_size={batch_size}: cannot be shared out to {processes} processes; give a multiple of "
            f"{processes}, or another number of processes"
        )
    return batch_size // processes


def tags() -> dict[str, str]:
    """What a run notes of the job it belongs to; no name of a node."""
    if launcher() != "slurm":
        return {}
    return {
        "slurm.job_id": os.environ.get("SLURM_JOB_ID", ""),
        "slurm.nodes": os.environ.get("SLURM_STEP_NUM_NODES", ""),
        "slurm.processes": os.environ.get("SLURM_STEP_NUM_TASKS", ""),
        "slurm.requeues": os.environ.get("SLURM_RESTART_COUNT", "0"),
    }


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0
