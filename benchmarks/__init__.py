"""Speed, as ratios that are each measured in one process."""
