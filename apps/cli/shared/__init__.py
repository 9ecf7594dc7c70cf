"""What the programs share: starting up, options, sharding, and the verbs run, import and review."""
