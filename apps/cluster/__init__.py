"""Launching pipelines on a cluster: SLURM, Kubernetes, and MLflow's project backend for SLURM."""
