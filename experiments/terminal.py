"""The terminal: how wide it is, how numbers are told, and that nobody but us speaks in it."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from typing import Any

from jsonargparse._deprecated import JsonargparseDeprecationWarning
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor

from experiments.streams import spelled

LEAST_TEXT = 8
"""Columns of the terminal below which a column of text is not made narrower; longer words are broken there."""


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

    def print_table(self, table: Table, keys: int = 1) -> None:
        """Print a table in which no number is broken: one that is too wide in parts, each with the first columns again.

        Columns without content are left out.

        Args:
            table: numbers in columns that are not wrapped (``no_wrap``), texts in others.
            keys: columns that say what a row is.
        """
        _, right, _, left = table.padding
        line = int(table.box is not None)

        def least(column: Column) -> int:
            widest = max(Measurement.get(self, self.options, cell).maximum for cell in (column.header, *column.cells))
            return left + right + line + (widest if column.no_wrap else column.min_width or min(widest, LEAST_TEXT))

        for column in table.columns:
            column.overflow = "ellipsis" if column.no_wrap else "fold"
        first, rest = (
            [column for column in columns if any(column.cells) or not table.rows]
            for columns in (table.columns[:keys], table.columns[keys:])
        )
        room = self.width + (-line if table.show_edge else line) - sum(map(least, first))
        parts, free = [list[Column]()], room
        for column in rest:
            if parts[-1] and least(column) > free:
                parts, free = [*parts, []], room
            parts[-1].append(column)
            free -= least(column)
        for i, columns in enumerate(parts):
            part = copy.copy(table)
            part.columns = [*first, *columns]
            part.title = table.title if i == 0 else None
            part.caption = table.caption if i == len(parts) - 1 else None
            self.print(part)


def wide_console() -> PlainConsole:
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
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # their reports, which were asked for
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
