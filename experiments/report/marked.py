"""A document between whose marks tables are written."""

from __future__ import annotations

import os
from pathlib import Path

import polars

from experiments.files import write_atomically, writing
from rhm import InvalidInput

BAR = r"\|"
BEGIN, END = MARKS = "<!-- table: begin -->", "<!-- table: end -->"


class Marked:
    """A Markdown file of somebody's own, in which a part belongs to a report.

    Args:
        path: of the file.

    Raises:
        InvalidInput: it cannot be read or written, or has no marks.
    """

    def __init__(self, path: str):
        self.path = Path(path).resolve()
        allowed = f"a text file that has the lines {' and '.join(MARKS)} and can be written"
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InvalidInput("tables", f"{path} ({error})", allowed) from error
        writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        if not all(mark in text for mark in MARKS) or text.index(BEGIN) > text.index(END) or not writable:
            raise InvalidInput("tables", path, allowed)

    def write(self, tables: list[tuple[str, polars.DataFrame]]) -> None:
        """Put tables, each with a title, in the place of what stands between the marks."""
        parts = [f"**{title}**\n\n{markdown(table)}" for title, table in tables]
        with writing("tables", self.path, "file"):
            text = self.path.read_text(encoding="utf-8")
            before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
            write_atomically(self.path, "\n".join([before, "\n\n".join(parts), after]))


def markdown(table: polars.DataFrame) -> str:
    """A table for a document."""
    rows = [table.columns, ["---"] * table.width, *table.iter_rows()]
    return "\n".join(f"| {' | '.join(str(value).replace('|', BAR) for value in row)} |" for row in rows)
