"""The terminal: how wide it is, how numbers are told, and that nobody but us speaks in it."""

from __future__ import annotations

import logging
import math
import warnings

from jsonargparse._deprecated import JsonargparseDeprecationWarning
from rich.console import Console
from torch import Tensor


def wide_console() -> Console:
    """A console as wide as the terminal, and wide enough for a table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=140)  # the widest table, that of the demonstration


def mean_and_deviation(values: Tensor | list[float]) -> str:
    """``mean ± standard deviation`` of accuracies, or the one value; a dash where nothing was measured."""
    numbers = [float(v) for v in values]
    mean = sum(numbers) / len(numbers)
    if math.isnan(mean):
        return "–"
    if len(numbers) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {math.sqrt(sum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1)):.3f}"


def quiet() -> None:
    """Keep Lightning to what a person needs to know, and warnings to a line."""
    for name in "pytorch_lightning", "lightning_fabric":
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
    for message in (
        r".*LightningCLI's args parameter.*",
        r".*does not have many workers.*",
        r".*sync_dist=True.*",
        r".*no logger configured.*",
        r".*all_gather is deprecated.*",
        r".*isinstance\(treespec, LeafSpec\).*",
    ):
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = lambda message, *_, **__: f"rhm: warning: {message}\n"
