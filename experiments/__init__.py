"""Running experiments: the command line, what a run leaves behind, the demonstration."""
