"""Pictures of a run. Shape suffixes: K layer, L level."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROW_INCHES = 10.5
"""Of a row of maps, at the most: a page has about as many, and numbers of 8 points can be read on it."""
CELL_INCHES = (0.5, 0.45)
"""Width and height of a map's cell: a number of 8 points and some room."""
LEAST_INCHES = 1.2
"""Of a map's width: the words below it."""
LETTER_INCHES, LINE_INCHES = 0.085, 0.16
"""Of a name of 9 points."""
LEFT, RIGHT, GAP, BELOW = 0.6, 0.9, 0.45, 0.55
"""Inches for the layers' numbers, for the bar of colours, between two maps, and for the levels' numbers."""


def heat_map(
    accuracy_KL: dict[str, Tensor],
    chance: float,
    label: str = "probe accuracy",
    title: str = "",
    shown: Sequence[int] | None = None,
) -> Figure:
    """Probe accuracy, layer by level, one panel for each name; colours go from chance to 1.

    Panels stand at places that are computed here: to have them found takes a minute where there are hundreds.

    Args:
        accuracy_KL: NaN where nothing was measured.
        chance: value of the first colour.
        label: of the values.
        title: above all panels; it is broken into lines.
        shown: the levels that have a column; all by default.
    """
    if shown is not None:
        accuracy_KL = {name: table[:, list(shown)] for name, table in accuracy_KL.items()}
    shapes = [table.shape for table in accuracy_KL.values()]
    rows, levels = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    lines = max(name.count("\n") + 1 for name in accuracy_KL)
    longest = max(len(line) for name in accuracy_KL for line in name.split("\n"))
    wide, high = max(CELL_INCHES[0] * levels, LETTER_INCHES * longest, LEAST_INCHES), CELL_INCHES[1] * rows
    across = min(max(1, int((ROW_INCHES - LEFT - RIGHT) / (wide + GAP))), len(shapes))
    down = math.ceil(len(shapes) / across)
    left, gap, above, below = LEFT, GAP, 0.2 + LINE_INCHES * lines, BELOW
    width = left + (wide + gap) * across + RIGHT
    heading = [part for line in title.split("\n") for part in textwrap.wrap(line, int(width / LETTER_INCHES))]
    top = 0.1 + LINE_INCHES * len(heading)
    height = top + (above + high + below) * down
    figure = Figure(figsize=(width, height))
    if heading:
        figure.text(0.5, 1 - 0.1 / height, "\n".join(heading), ha="center", va="top", fontsize=9)

    def panel(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / width, y / height, w / width, h / height))

    image = None
    for i, (name, table) in enumerate(accuracy_KL.items()):
        row, column = divmod(i, across)
        ax = panel(left + (wide + gap) * column, height - top - (above + high) * (row + 1) - below * row, wide, high)
        image = ax.imshow(table.tolist(), vmin=chance, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for k, values in enumerate(table.tolist()):
            for level, value in enumerate(values):
                colour = "black" if value > (1 + chance) / 2 else "white"
                text = "–" if value != value else f"{value:.2f}"
                ax.text(level, k, text, ha="center", va="center", color="black" if value != value else colour, fontsize=8)
        ax.set_title(name, fontsize=9)
        ax.set_xticks(range(table.shape[1]), [str(level) for level in shown or range(table.shape[1])])
        ax.set_yticks(range(table.shape[0]), [str(k) for k in range(1, table.shape[0] + 1)])
        if i + across >= len(shapes):
            ax.set_xlabel("level (0: tokens)")
        if column == 0:
            ax.set_ylabel("layer")
    if image is not None:
        tall = min(2.5, height - top - above - below)
        colours = panel(left + (wide + gap) * across - 0.2, height - top - above - tall, 0.15, tall)
        figure.colorbar(image, cax=colours, label=label)
    return figure


def spectra(shares: dict[str, Tensor]) -> Figure:
    """Leading eigenvalues of each layer's covariance, shares of its trace in falling order, on a log scale."""
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    ax = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(shares)))
    for (name, share), colour in zip(shares.items(), colours, strict=True):
        ax.plot(range(1, len(share) + 1), share.clamp_min(1e-8).tolist(), color=colour, marker=".", label=name)
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("share of the variance")
    ax.legend(frameon=False)
    return figure


CELL = 48
"""Pixels of a cell of :func:`map_picture`."""


def map_picture(values_KL: Tensor, lowest: float, highest: float, shown: Sequence[int] | None = None) -> np.ndarray:
    """A map of layers by levels as bytes ``[height, width, 3]``: the picture of a run under way.

    It shows what :func:`heat_map` shows in a thirtieth of the time, so that each validation can afford one.

    Args:
        values_KL: NaN is a grey cell.
        lowest, highest: values of the first and the last colour.
        shown: the levels that have a column; all by default.
    """
    names = list(range(values_KL.shape[1]) if shown is None else shown)
    table = values_KL[:, names].cpu().numpy()
    rows, levels = table.shape
    cells = colormaps["viridis"].with_extremes(bad="grey")(np.ma.masked_invalid((table - lowest) / (highest - lowest)))
    colours = (cells[::-1, :, :3] * 255).round().astype(np.uint8)  # the first layer at the bottom
    image = Image.new("RGB", (CELL * (levels + 1), CELL * (rows + 1)), "white")
    image.paste(Image.fromarray(colours).resize((CELL * levels, CELL * rows), Image.Resampling.NEAREST), (CELL, 0))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)

    def write(column: float, row: float, text: str, colour: str) -> None:
        draw.text((CELL * (column + 0.5), CELL * (row + 0.5)), text, colour, font, anchor="mm")

    for k in range(rows):
        write(0, rows - 1 - k, f"layer\n{k + 1}", "black")
        for level, value in enumerate(table[k]):
            bright = value > (lowest + highest) / 2
            write(level + 1, rows - 1 - k, "-" if np.isnan(value) else f"{value:.2f}", "black" if bright else "white")
    for column, level in enumerate(names, 1):
        write(column, rows, f"level\n{level}", "black")
    return np.asarray(image)
