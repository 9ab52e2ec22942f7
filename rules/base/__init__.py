"""What rules share: the contract, a training step, and a base class for each family."""
