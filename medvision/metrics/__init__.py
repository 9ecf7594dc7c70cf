"""Overlap and surface distances, and the published protocols that score cases with them."""
