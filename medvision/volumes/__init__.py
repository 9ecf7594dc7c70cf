"""Volumes on disk and in memory: NIfTI and NRRD files, geometry, headers, resampling."""
