"""The command-line programs, one package each, and the verbs and options that they share."""
