"""Activation checkpointing that leaves a training step what it was."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: Any) -> Tensor:
    """Call `module`, whose activations are not kept but computed again in the backward pass.

    Gradients equal those of a plain call, random draws included, and so do the running statistics of batch norms:
    the second computation does not count the batch again.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), keep_statistics(module)

    output: Any = checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)
    return output


@contextmanager
def keep_statistics(module: nn.Module) -> Iterator[None]:
    """While it lasts, batch norms inside `module` that are training leave running statistics and counters alone."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
