"""Blocks and tools that the models of every domain share: plain PyTorch."""
