"""What a recipe can say: its sections, how it is read and changed on the command line, and how it is shown."""
