"""Prepared data: the store, reading images into it, batches out of it, augmentation."""
