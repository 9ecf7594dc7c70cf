"""Processes, preemption, and progress of long work."""
