"""The terminal: how wide it is, how numbers are told, and that nobody but us speaks in it."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

from jsonargparse._deprecated import JsonargparseDeprecationWarning
from rich.console import Console
from rich.text import Text
from torch import Tensor

from experiments.streams import spelled


class PlainConsole(Console):
    """Shows texts as they are, brackets and colons too: paths and names are a person's own. A style is a ``Text``'s.

    Args:
        width: in columns; that of the terminal by default.
    """

    def __init__(self, width: int | None = None):
        super().__init__(width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text in the letters that the terminal has."""
        return super().render_str(spelled(text, self.encoding), **options)


def wide_console() -> Console:
    """A console as wide as the terminal, and wide enough for a table where there is none."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=140)  # the widest table, that of the demonstration


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
