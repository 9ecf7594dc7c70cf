"""Scoring trained models: figures with intervals, calibration, robustness."""
