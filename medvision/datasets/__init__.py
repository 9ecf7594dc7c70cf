"""Medical data sets as they are published, drawn heads, and slices for training."""
