"""The page of a report."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import polars
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

PALETTE = 128
"""Of a small picture: seven of rules, those of a heat map, and shades where lines are smoothed; no eye sees the difference."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2rem .7rem; text-align: left; }
th { border-bottom: 2px solid #222; } td { border-bottom: 1px solid #ddd; white-space: nowrap; }
img { max-width: 100%; } figure { margin: 1.5rem 0; }
figcaption, .note { color: #555; } pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; } div.wide { overflow-x: auto; }
"""


class Page:
    """One HTML file with everything in it; figures are also written beside it.

    Args:
        title: of the page.
        folder: where to.
        linked: keep figures out of the page, each in a small PNG file.
    """

    def __init__(self, title: str, folder: Path, linked: bool = False):
        self.title, self.folder, self.linked = title, folder, linked
        self.parts: list[str] = []
        self.names: list[str] = []  # of figures

    def section(self, title: str) -> None:
        """A heading."""
        self.parts.append(f"<h2>{html.escape(title)}</h2>")

    def paragraph(self, text: str) -> None:
        """Text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def items(self, title: str, texts: list[str]) -> None:
        """A list that can be opened; nothing if it is empty."""
        if texts:
            inside = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
            self.parts.append(f"<details open><summary>{html.escape(title)}: {len(texts)}</summary><ul>{inside}</ul></details>")

    def details(self, title: str, text: str) -> None:
        """Text as it is, that can be opened."""
        self.parts.append(f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>")

    def table(self, table: polars.DataFrame, folded: str = "") -> None:
        """A table without its empty columns; with a title, one that is to be opened."""
        table = table.select(column for column in table if (column != "").any())
        head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
        rows = ("".join(f"<td>{html.escape(str(value))}</td>" for value in row) for row in table.iter_rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        shown = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
        self.parts.append(f"<details><summary>{html.escape(folded)}</summary>{shown}</details>" if folded else shown)

    def figure(self, name: str, title: str, figure: Figure, caption: str) -> None:
        """A figure, written as a PNG file to which the page links, or into the page, as PNG and as SVG.

        A name that the page has already gets a number: names of different settings may be the same as file names.
        """
        same = sum(taken == name or taken.startswith(f"{name}~") for taken in self.names)
        name += f"~{same + 1}" if same else ""
        self.names.append(name)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        figure.set_layout_engine("none")  # all has its place now, in the other format too
        if self.linked:
            small(picture, self.folder / f"{name}.png")
            source = quote(f"{name}.png")
        else:
            (self.folder / f"{name}.png").write_bytes(picture.getvalue())
            with rc_context({"svg.hashsalt": name}):  # the same figure is the same file
                figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
            source = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
        self.section(title)
        image = f'<img alt="{html.escape(title)}" src="{source}">'
        self.parts.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self) -> None:
        """Write ``index.html``."""
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{STYLE}</style>'
        body = f"<h1>{html.escape(self.title)}</h1>{''.join(self.parts)}"
        (self.folder / "index.html").write_text(
            f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n", encoding="utf-8"
        )


def small(picture: BinaryIO, path: Path) -> None:
    """Write a picture with a palette of its own, which a figure of few colours and their shades needs no more than."""
    Image.open(picture).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(path, optimize=True)
