"""Whole networks and trunks that more than one domain names, and their registration with timm."""
