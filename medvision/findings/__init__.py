"""What a reader should know of a segmentation: volumes, flags, expected Dice, and the side-car that says it."""
