"""Plain functions of tensors, each with its equation and source."""
