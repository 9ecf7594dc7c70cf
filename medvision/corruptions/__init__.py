"""What goes wrong with medical images and volumes, in five severities, and errors relative to a published baseline."""
