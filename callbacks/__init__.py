"""Callbacks look at a run and never touch it."""

from callbacks.event_files import EventFiles
from callbacks.histograms import Histograms
from callbacks.hyper_parameters import HyperParameters
from callbacks.linear_probe import LayerwiseLinearProbe
from callbacks.progress import RunProgress
from callbacks.step_log import StepLog

__all__ = ["EventFiles", "Histograms", "HyperParameters", "LayerwiseLinearProbe", "RunProgress", "StepLog"]
