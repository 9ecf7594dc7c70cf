"""Blocks and tools that the models of every domain share: plain PyTorch."""

from typing import TYPE_CHECKING

from shared_backbones.lazy import lazy

if TYPE_CHECKING:
    from shared_backbones.inference import optimize_for_inference
    from shared_backbones.official import load_official

__all__ = ["load_official", "optimize_for_inference"]

__getattr__, __dir__ = lazy(
    __name__,
    {"load_official": "shared_backbones.official", "optimize_for_inference": "shared_backbones.inference"},
)
