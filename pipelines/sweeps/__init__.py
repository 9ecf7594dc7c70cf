"""Many runs of one recipe over one preparation: settings, seeds and folds, their table, and their ensemble."""
