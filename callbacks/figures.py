"""Pictures of a run. Shape suffixes: K layer, L level."""

from __future__ import annotations

from itertools import cycle

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
from matplotlib import colormaps  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402
from torch import Tensor  # noqa: E402


def heat_map(accuracy_KL: dict[str, Tensor], chance: float) -> Figure:
    """Probe accuracy, layer by level, one panel for each name; colours go from chance to 1."""
    rows, levels = next(iter(accuracy_KL.values())).shape
    size = (1.2 + (0.6 * levels + 0.5) * len(accuracy_KL), 1.3 + 0.45 * rows)
    figure, axes = plt.subplots(1, len(accuracy_KL), figsize=size, squeeze=False, sharey=True, layout="constrained")
    image = None
    for ax, (name, table) in zip(axes[0], accuracy_KL.items(), strict=True):
        image = ax.imshow(table.tolist(), vmin=chance, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for k, row in enumerate(table.tolist()):
            for level, value in enumerate(row):
                colour = "black" if value > (1 + chance) / 2 else "white"
                ax.text(level, k, "–" if value != value else f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("level (0: tokens)")
        ax.set_xticks(range(levels))
        ax.set_yticks(range(rows), [str(k) for k in range(1, rows + 1)])
    axes[0][0].set_ylabel("layer")
    if image is not None:
        figure.colorbar(image, ax=list(axes[0]), label="probe accuracy", shrink=0.9)
    plt.close(figure)  # drop it from pyplot's list; the figure itself stays usable
    return figure


def learning_curves(curves: dict[str, tuple[list[int], list[float], list[float], list[float]]], chance: float) -> Figure:
    """Test accuracy against the number of training strings: for each name sizes, means, lowest and highest."""
    figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito's, safe for the colour-blind
    for (name, (sizes, mean, low, high)), colour in zip(curves.items(), cycle(colours), strict=False):
        ax.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(sizes, mean, color=colour, marker="o", label=name)
    ax.axhline(chance, color="grey", linestyle=":", label="chance")
    ax.set_xscale("log", base=2)
    ax.set_xlabel("training strings P")
    ax.set_ylabel("test accuracy")
    ax.set_ylim(0, 1.03)
    ax.legend(frameon=False)
    plt.close(figure)
    return figure


def spectra(shares: dict[str, Tensor]) -> Figure:
    """Leading eigenvalues of each layer's covariance, shares of its trace in falling order, on a log scale."""
    figure, ax = plt.subplots(figsize=(4.2, 3.0), layout="constrained")
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(shares)))
    for (name, share), colour in zip(shares.items(), colours, strict=True):
        ax.plot(range(1, len(share) + 1), share.clamp_min(1e-8).tolist(), color=colour, marker=".", label=name)
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("share of the variance")
    ax.legend(frameon=False)
    plt.close(figure)
    return figure


CELL = 48
"""Pixels of a cell of :func:`map_picture`."""


def map_picture(values_KL: Tensor, lowest: float, highest: float) -> np.ndarray:
    """A map of layers by levels as bytes ``[height, width, 3]``: the picture of a run under way.

    It shows what :func:`heat_map` shows in a thirtieth of the time, so that each validation can afford one.

    Args:
        values_KL: NaN is a grey cell.
        lowest, highest: values of the first and the last colour.
    """
    table = values_KL.cpu().numpy()
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
            write(level + 1, rows - 1 - k, "–" if np.isnan(value) else f"{value:.2f}", "black" if bright else "white")
    for level in range(levels):
        write(level + 1, rows, f"level\n{level}", "black")
    return np.asarray(image)
