"""What the network learns from in one step of each task: forward pass, loss, figures, optimiser."""
