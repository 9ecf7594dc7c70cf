"""Parts that networks are built of: attention, convolutions, embeddings, KAN layers, transformer blocks."""
