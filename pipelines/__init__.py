"""From raw data to prepared data, training, metrics, reports and registered models, tracked in MLflow."""
