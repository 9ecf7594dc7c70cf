"""Blocks and tools that the models of every domain share: plain PyTorch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared_backbones.inference import optimize_for_inference

__all__ = ["optimize_for_inference"]


def __getattr__(name: str) -> Any:
    """Import torch when something is asked for that needs it, not before."""
    if name != "optimize_for_inference":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shared_backbones.inference import optimize_for_inference

    return optimize_for_inference
