"""Galaxy data sets as they are published, cut-outs of mosaics, and drawn galaxies."""
