"""Classifying images with a trained model: input contract, calibration, prediction sets, outliers, Grad-CAM."""
