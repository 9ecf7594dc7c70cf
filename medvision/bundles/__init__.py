"""MONAI bundles: folders of a configuration and weights, read into trained models and written from them."""
