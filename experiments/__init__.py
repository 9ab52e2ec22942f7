"""Running experiments: the command line, what a run leaves behind, the demonstration."""

from rhm.names import claim

claim()  # before anything here imports networks, rules or callbacks
