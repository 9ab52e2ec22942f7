"""Callbacks look at a run and never touch it."""

from callbacks.linear_probe import LayerwiseLinearProbe
from callbacks.progress import RunProgress
from callbacks.step_log import StepLog

__all__ = ["LayerwiseLinearProbe", "RunProgress", "StepLog"]
