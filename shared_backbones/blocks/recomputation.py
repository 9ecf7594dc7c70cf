"""Activation checkpointing that does not change a training step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: Tensor | int | tuple[int, int] | None) -> Tensor:
    """Call `module`, whose activations are not kept but computed again in the backward pass.

    Gradients equal those of a plain call, random draws included, and so do the running statistics of batch norms:
    the second computation does not count the batch again.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), keep_statistics(module)

    output: Tensor = checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)
    return output


@contextmanager
def keep_statistics(module: nn.Module) -> Iterator[None]:
    """Inside the block, batch norms of `module` do not update their running statistics and counters."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
