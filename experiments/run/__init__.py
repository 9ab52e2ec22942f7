"""One run: its folder, its checkpoints, the ranks that train it, its results."""
