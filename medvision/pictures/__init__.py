"""Overlays of labels on slices, and which slices to show."""
