"""FSDP: the processes of a training share the network and its optimiser out, for networks too large for one GPU."""

import copy
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Sharded(ModelParallelStrategy):
    """torch's `fully_shard`, with checkpoints that the trainer's `CheckpointIO` writes and reads as one file.

    The task enters its network, `task.model`, by calling it; methods of it find shares only.

    Args:
        processes: how many there are on all nodes.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(processes, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._plain: nn.Module | None = None

    def setup(self, trainer: Any) -> None:
        """Share the network out, before the optimiser is made of the shares."""
        task: Any = self.lightning_module
        accelerator: Any = self.accelerator
        accelerator.setup(trainer)
        if self.is_global_zero:
            self._plain = copy.deepcopy(task.model).to("meta")
        if self._layer_sync is not None:
            self._layer_sync.apply(task)
        shard(task.model, self.device_mesh["data_parallel"])
        self.model_to_device()
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        """A step of the task; running statistics of batch norms are the first process's, as under DDP."""
        task: Any = self.lightning_module
        for module in task.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)
        return super().training_step(*arguments, **named)

    def whole_network(self) -> nn.Module | None:
        """The network as it was before it was shared out, with the weights of now, on the CPU; for the first process.

        All processes must ask together.
        """
        task: Any = self.lightning_module
        tensors = get_model_state_dict(task.model, options=_WHOLE)
        if self._plain is not None:
            self._plain.load_state_dict(tensors, assign=True)
        return self._plain

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State of the optimiser by names of weights, in the first process; all must ask together."""
        task: Any = self.lightning_module
        return get_optimizer_state_dict(task, getattr(optimizer, "_optimizer", optimizer), options=_WHOLE)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, of any number of processes; each takes its shares of the weights and the optimiser."""
        task: Any = self.lightning_module
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        shares = StateDictOptions(full_state_dict=True)
        set_model_state_dict(task, checkpoint.pop("state_dict"), options=shares)
        for optimizer, state in zip(self.optimizers, checkpoint.pop("optimizer_states"), strict=True):
            set_optimizer_state_dict(task, optimizer, state, options=shares)
            for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
                group.update({name: saved[name] for name in saved if name != "params"})  # torch makes tuples lists
        return checkpoint


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share a network's weights out over processes; each block is gathered when it computes, and let go after it.

    Blocks are members of lists that have parts of their own; what else there is, is gathered with the network.
    """
    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # channels_last cannot be shared out
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    members = [member for group in reversed(lists) for member in group if not isinstance(member, nn.ModuleList)]
    for block in [member for member in members if next(member.children(), None) is not None]:
        fully_shard(block, mesh=mesh)  # the innermost first
    fully_shard(network, mesh=mesh)
