"""FSDP: each process of a training keeps a part of the network and its optimiser, for those too large for one GPU."""

import copy

import lightning
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    OptimizerStateType,
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from pipelines.training.callbacks import Batch
from pipelines.training.checkpoints import Checkpoint, FilePath

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """torch's `fully_shard`, with checkpoints that the trainer's `CheckpointIO` writes and reads as one file.

    The task enters its network, `task.model`, by calling it: its methods would see shards only.

    Args:
        processes: Number of processes on all nodes.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._plain: nn.Module | None = None

    @property
    def _task(self) -> lightning.LightningModule:
        assert self.lightning_module is not None  # noqa: S101 - Lightning sets it before anything is asked of us
        return self.lightning_module

    @property
    def _network(self) -> nn.Module:
        return self._task.get_submodule("model")

    def setup(self, trainer: lightning.Trainer) -> None:
        """Shard the network, before the optimiser is made for the shards."""
        assert self.accelerator is not None  # noqa: S101
        self.accelerator.setup(trainer)
        if self.is_global_zero:
            self._plain = copy.deepcopy(self._network).to("meta")
        if self._layer_sync is not None:
            self._layer_sync.apply(self._task)
        shard(self._network, self.device_mesh["data_parallel"])
        self.model_to_device()
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def training_step(self, *arguments: Batch | int) -> STEP_OUTPUT:
        """A step of the task; running statistics of batch norms are the first process's, as under DDP."""
        for module in self._task.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)
        return super().training_step(*arguments)

    def whole_network(self) -> nn.Module | None:
        """The network as it was before it was sharded, with the present weights, on the CPU; None in other processes.

        All processes must call it together.
        """
        tensors = get_model_state_dict(self._network, options=_WHOLE)
        if self._plain is not None:
            self._plain.load_state_dict(tensors, assign=True)
        return self._plain

    def optimizer_state(self, optimizer: Optimizer) -> OptimizerStateType:
        """State of the optimiser by names of weights, in the first process; all must call it together."""
        return get_optimizer_state_dict(self._task, getattr(optimizer, "_optimizer", optimizer), options=_WHOLE)

    def load_checkpoint(self, checkpoint_path: FilePath, weights_only: bool | None = None) -> Checkpoint:
        """Read a checkpoint of any number of processes; each keeps its shards of the weights and the optimiser."""
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        whole = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self._task, checkpoint.pop("state_dict"), options=whole)
        for optimizer, state in zip(self.optimizers, checkpoint.pop("optimizer_states"), strict=True):
            set_optimizer_state_dict(self._task, optimizer, state, options=whole)
            for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
                group.update({name: saved[name] for name in saved if name != "params"})  # torch makes tuples lists
        return checkpoint


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network's weights over processes; each block is gathered while it computes, and released after it.

    Blocks are members of lists that have submodules of their own; all else is gathered with the network.
    """
    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # channels_last cannot be sharded
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    members = [member for group in reversed(lists) for member in group if not isinstance(member, nn.ModuleList)]
    for block in [member for member in members if next(member.children(), None) is not None]:
        fully_shard(block, mesh=mesh)  # the innermost first
    fully_shard(network, mesh=mesh)
