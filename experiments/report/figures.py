"""Pictures of studies: learning curves, P* and the mask ladder, each rule in a look of its own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation, Transform

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's, safe for the colour-blind; without yellow, which is hard to see on white."""
SHAPES = (
    ("o", "-"),
    ("s", "--"),
    ("^", ":"),
    ("D", "-."),
    ("v", (0, (5, 1, 1, 1, 1, 1))),
    ("P", (0, (1, 3))),
    ("X", (0, (8, 2))),
    ("*", (0, (3, 1))),
    ("<", (0, (1, 1))),
    (">", (0, (6, 2, 3, 2))),
    ("h", (0, (2, 4))),
)
"""Marker and line: the sum of a rule's row and column in ``STYLED`` says which, so that they differ along both."""
STYLED = (
    ("backprop", "sibling_contrastive", "grape", "local_cross_entropy", "random_expansion", "vicreg", "similarity_matching"),
    ("kolen_pollack", "feedback_alignment", "supervised_contrastive", "sign_dfa", "activity_perturbation", "lpl", "pepita"),
    ("backprop_decay", "dkp", "label_context", "clapp", "clapp_local", "barlow_twins", "clapp_pp"),
    ("end_to_end_contrastive", "latent_clustering", "gevb", "forward_dfa", "sfa", "drtp", "frozen"),
    ("mask_ladder", "weight_mirror", "gim", "simsiam", "byol", "phyll", "exchange_clustering"),
    ("node_perturbation", "scff", "forward_forward", "softhebb", "ebd", "usf", "low_rank_feedback"),
    ("rung 1", "rung 2", "rung 3", "rung 4", "rung 5", "rung 6", "rung 7"),
    ("brsf", "frsf", "class_contrastive", "local_expansion", "exchange_clustering_label", "ddtp", "rung 8"),
    ("forward_gradient", "equilibrium_propagation", "dtp", "predictive_coding", "dfa", "sigprop", "mono_forward"),
    ("lls", "backprop_bottleneck", "frozen_below_top", "backprop_contrastive", "end_to_end_all_contrastive"),
)
"""Rules by row and column, the column's colour theirs, so that each looks the same in every figure. In the studies that come
with the project at most two rules have one colour, and rules that are close in grey differ in marker and line."""


class Style(NamedTuple):
    """How a rule is drawn."""

    colour: str
    marker: str
    line: Any


class Curve(NamedTuple):
    """A learning curve: for rising sizes the mean, the lowest and the highest over seeds."""

    sizes: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


class Point(NamedTuple):
    """A number of strings for a task.

    Attributes:
        x: of the task.
        value, low, high: P* and its interval.
        beyond: 1 if P* is larger than ``value``, -1 if it is at most that, 0 if it is ``value``.
    """

    x: float
    value: float
    low: float
    high: float
    beyond: int


class Line(NamedTuple):
    """``prefactor x^exponent``, with the exponent and its interval as text."""

    prefactor: float
    exponent: float
    text: str


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, all different: that of ``STYLED``, or one that the name decides."""
    places = {name: (row, column) for row, line in enumerate(STYLED) for column, name in enumerate(line)}
    found = {name: places[name] for name in names if name in places}
    for name in sorted(set(names) - found.keys()):
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        count = len(COLOURS) * len(SHAPES)
        tried = (divmod((start + i) % count, len(COLOURS)) for i in range(count))
        found[name] = next((place for place in tried if place not in found.values()), divmod(start % count, len(COLOURS)))
    return {name: _style(*place) for name, place in found.items()}


def _style(row: int, column: int) -> Style:
    return Style(COLOURS[column], *SHAPES[(row + column) % len(SHAPES)])


def plain(text: str) -> str:
    """A text that matplotlib shows as it is: no formula between dollars, and in the legend even if it starts with ``_``."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


PANEL = (3.6, 2.9)
"""Inches of a panel of curves: three fill the width of a page."""
ACROSS = 3
"""Panels in a row."""
EDGE = (0.6, 0.4)
"""Inches for what is written left of the panels, and below them."""
WIDE_PANEL = (4.4, 3.8)
"""Inches of a panel of P*, and of what stands above its legend."""
RUNG_PANEL = (3.8, 3.2)
"""Inches of a panel of the mask ladder: names of rungs are long."""
LAW = "lightgrey"
NEAR = 1.5
"""How far beyond the sizes a law is drawn: further ones would press the curves together."""
TOP = 1.03
"""Highest accuracy on an axis: the line at 1 is seen whole."""
BAND = 0.15
"""Opacity of what lies between seeds: several bands over one another can be told apart."""
APART = 0.08
"""Between equal abscissae of lines of the mask ladder, so that bars do not hide one another; rungs are 1 apart."""
LEGEND_BELOW = -0.16
"""Of a panel's height: a legend starts below the axis and its label."""
LEAST_LEGEND = 1.2
"""Inches that are left for a legend below panels: half a dozen rules."""
LEGEND_LINE = 0.19
"""Inches of a line of a legend of 8 points."""


def learning_curves(
    panels: dict[str, dict[str, Curve]],
    chance: dict[str, float],
    threshold: float | None = None,
    unit: str = "training",
    laws: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Test accuracy against the number of strings, a panel for each title; the band goes from the lowest to the highest.

    Args:
        panels: titles with the curves of each name.
        chance: titles with the accuracy of guessing.
        threshold: share of the chance error that counts as small.
        unit: which strings, ``training`` or ``labelled``.
        laws: titles with what theory says of the number of strings, by formula; those near the sizes are drawn.
    """
    looks = styles({name for curves in panels.values() for name in curves})
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(EDGE[0] + PANEL[0] * across, EDGE[1] + PANEL[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for i, (title, curves) in enumerate(panels.items()):
        ax = axes.flat[i]
        for name, curve in curves.items():
            look = looks[name]
            ax.fill_between(curve.sizes, curve.low, curve.high, color=look.colour, alpha=BAND, linewidth=0)
            ax.plot(
                curve.sizes,
                curve.mean,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                markersize=4,
                label=plain(name),
            )
        ax.axhline(chance[title], color="grey", linestyle=":", linewidth=1, label="chance")
        if threshold is not None:
            small = 1 - threshold * (1 - chance[title])
            ax.axhline(small, color="grey", linestyle="--", linewidth=1, label="small error")
        ax.set_xscale("log")
        _numbers(ax.xaxis)
        _upright(ax, (laws or {}).get(title, {}), [size for curve in curves.values() for size in curve.sizes])
        ax.set_title(plain(title), fontsize=9)
        ax.set_ylim(0, TOP)
        if i + across >= len(panels):
            ax.set_xlabel(f"{unit} strings P")
        if i % across == 0:
            ax.set_ylabel("test accuracy")
    _legend(figure, axes.flat[: len(panels)])
    return figure


def _upright(ax: Axes, laws: Mapping[str, float], sizes: list[int]) -> None:
    """A line for each law that lies near the sizes, with its formula at its foot; for laws that say the same, one."""
    texts: dict[float, list[str]] = {}
    for text, strings in laws.items():
        texts.setdefault(strings, []).append(formula(text))
    for strings, alike in texts.items():
        if min(sizes) / NEAR <= strings <= max(sizes) * NEAR:
            ax.axvline(strings, color=LAW, linewidth=0.8, zorder=0)
            shown = ax.annotate(", ".join(alike), (strings, 0), (2, 3), textcoords="offset points", fontsize=7, color="grey")
            shown.set(rotation=90, va="bottom")


def p_star_by_task(
    panels: dict[str, dict[str, tuple[list[Point], Line | None]]],
    unit: str = "training",
    laws: Mapping[str, Mapping[str, Mapping[float, float]]] | None = None,
) -> Figure:
    """P* against what theory says of the task, a panel for each abscissa, with fitted lines and their exponents.

    Open markers with an arrow show bounds: upwards, no size that was tried is enough; downwards, the smallest is. They are
    moved sideways, each rule a little further, so that equal bounds do not hide one another.

    Args:
        panels: for each abscissa the points and the fitted line of each name.
        unit: which strings, ``training`` or ``labelled``.
        laws: for each abscissa what theory says of the number of strings, by formula, at some places; drawn where points are.
    """
    names = list(dict.fromkeys(name for rules in panels.values() for name in rules))
    looks = styles(names)
    bounded = [name for name in names if any(p.beyond for rules in panels.values() for p in rules.get(name, ([], None))[0])]
    # legends below panels hang from them, and the panels' height is only found by the layout: some room for the difference
    figure = Figure(
        figsize=(WIDE_PANEL[0] * len(panels) + EDGE[1], WIDE_PANEL[1] + LEAST_LEGEND),
        layout=ConstrainedLayoutEngine(h_pad=0.15),
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for ax, (label, rules) in zip(axes[0], panels.items(), strict=True):
        for name, (points, line) in rules.items():
            _complexity(ax, name, looks[name], [point for point in points if not point.beyond], line)
            for point in points:
                if point.beyond:
                    _bound(ax, point, looks[name], SHIFT * (bounded.index(name) - (len(bounded) - 1) / 2))
        if label == "L":
            ax.set_xlabel("depth L")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            ax.set_xscale("log")
            _numbers(ax.xaxis)
            ax.set_xlabel(formula(label))
        ax.set_yscale("log")
        _numbers(ax.yaxis)
        ax.margins(MARGIN[0] + SHIFT * len(bounded) / PANEL_POINTS, MARGIN[1])
        if ax is axes[0][0] or any(line is not None for _, line in rules.values()):
            ax.legend(
                frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, LEGEND_BELOW), ncols=_columns(len(rules))
            )
    for ax, label in zip(axes[0], panels, strict=True):  # when all points are drawn, whose range the panels share
        _along(ax, (laws or {}).get(label, {}))
    axes[0][0].set_ylabel(f"P*, {unit} strings")
    sizes = [_size(figure, ax.get_legend()) for ax in axes[0] if ax.get_legend() is not None]
    across = max(width for width, _ in sizes)
    below = max(LEAST_LEGEND, *(height for _, height in sizes))
    figure.set_size_inches(max(WIDE_PANEL[0], across) * len(panels) + EDGE[1], WIDE_PANEL[1] + below)
    return figure


def _complexity(ax: Axes, name: str, look: Style, points: list[Point], line: Line | None) -> None:
    """P* of a rule with its intervals, and the fitted line."""
    bars = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
    text = plain(name if line is None else f"{name}: {line.text}")
    places = [p.x for p in points], [p.value for p in points]
    ax.errorbar(*places, bars, color=look.colour, fmt=look.marker, capsize=2, label=text)
    if line is not None:
        ends = [min(p.x for p in points), max(p.x for p in points)]
        ax.plot(ends, [line.prefactor * x**line.exponent for x in ends], color=look.colour, linestyle=look.line)


def _along(ax: Axes, laws: Mapping[str, Mapping[float, float]]) -> None:
    """A line for each law, with its formula at its last point within the panel, whose range stays as it is."""
    ranges = ax.get_xlim(), ax.get_ylim()
    for text, strings in laws.items():
        ax.plot(list(strings), list(strings.values()), color=LAW, linewidth=0.8, zorder=0)
        inside = [(x, y) for x, y in strings.items() if ranges[1][0] <= y <= ranges[1][1]]
        if inside:
            ax.annotate(
                formula(text), max(inside), (2, 2), textcoords="offset points", fontsize=7, color="grey", annotation_clip=True
            )
    ax.set_xlim(ranges[0])
    ax.set_ylim(ranges[1])


def formula(text: str) -> str:
    """What theory says of a task, as matplotlib sets it."""
    return text.replace("^L", "$^L$").replace("^3", "$^3$")


class RoundNumbers(Locator):
    """Ticks of a logarithmic axis: 1 and 3 times the powers of ten; finer ones where that gives fewer than two.

    Never more than ``MOST_TICKS``, so that numbers written out stand apart.
    """

    def __call__(self) -> list[float]:
        """Ticks of the axis as it is shown."""
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Ticks between two numbers above 0."""
        low, high = sorted((vmin, vmax))
        powers = [10.0**i for i in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        ticks: list[float] = []
        for steps in (1, 3), (1, 2, 5), range(1, 10):
            ticks = [power * step for power in powers for step in steps if low <= power * step <= high]
            if len(ticks) > 1:
                break
        else:
            whole = {float(round(tick)) for tick in MaxNLocator(MOST_TICKS - 1).tick_values(low, high)}
            ticks = sorted(tick for tick in whole if low <= tick <= high)
        return ticks[:: math.ceil(len(ticks) / MOST_TICKS)]


MOST_TICKS = 6
"""Of an axis: ``1,000,000`` is half an inch, and a panel three and more."""


def _numbers(axis: Axis) -> None:
    """Numbers written out on a logarithmic axis."""
    axis.set_major_locator(RoundNumbers())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


SHIFT = 6
"""Points between the bounds of one rule and the next."""
ARROW = (3, 17)
"""Points from a bound to its arrow's ends: clear of the marker, and longer than it."""
MARGIN = (0.05, 0.12)
"""Of a panel, left and right of the points and above and below them: there are arrows."""
PANEL_POINTS = 500
"""Of a panel's width, twice what it is without its margins: half of what is moved lies on either side."""


def _bound(ax: Axes, point: Point, look: Style, shift: float) -> None:
    """An open marker, moved sideways, with an arrow in the direction in which P* lies."""

    def moved(up: float) -> Transform:
        return ax.transData + ScaledTranslation(shift / 72, up * point.beyond / 72, ax.figure.dpi_scale_trans)

    place = point.x, point.value
    marker = Line2D(
        [point.x], [point.value], color=look.colour, marker=look.marker, markerfacecolor="white", markersize=5, zorder=1
    )
    marker.set_transform(moved(0))
    ax.add_artist(marker)
    ax.update_datalim([place])
    arrow = {"arrowstyle": "->", "color": look.colour, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", place, place, moved(ARROW[1]), moved(ARROW[0]), arrowprops=arrow)


def ladder(panels: dict[str, dict[str, dict[int, tuple[float, float, float]]]], chance: dict[str, float]) -> Figure:
    """Test accuracy on each rung of the mask ladder, a panel for each task and a line for each cell.

    Args:
        panels: titles with, for each line, the mean, lowest and highest accuracy by rung.
        chance: titles with the accuracy of guessing.
    """
    names = sorted({name for lines in panels.values() for name in lines})
    looks = {name: _style(*divmod(i, len(COLOURS))) for i, name in enumerate(names)}  # no rules: colours in their order
    across = min(ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(RUNG_PANEL[0] * across, RUNG_PANEL[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for i, (title, lines) in enumerate(panels.items()):
        ax = axes.flat[i]
        for name, rungs in lines.items():
            look, shift = looks[name], APART * (names.index(name) - (len(names) - 1) / 2)
            x = [rung + shift for rung in sorted(rungs)]
            mean, low, high = zip(*(rungs[rung] for rung in sorted(rungs)), strict=True)
            bars = [[m - lowest for m, lowest in zip(mean, low, strict=True)], [h - m for m, h in zip(mean, high, strict=True)]]
            ax.errorbar(
                x,
                mean,
                bars,
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                markersize=4,
                capsize=2,
                label=plain(name),
            )
        ax.axhline(chance[title], color="grey", linestyle=":", linewidth=1, label="chance")
        ax.set_title(plain(title), fontsize=9)
        ax.set_xticks(range(1, 9), RUNG_NAMES, rotation=60, ha="right", fontsize=7)
        ax.set_ylim(0, TOP)
        if i % across == 0:
            ax.set_ylabel("test accuracy")
    _legend(figure, axes.flat[: len(panels)])
    return figure


RUNG_NAMES = (
    "1 backprop",
    "2 masks: batch mean",
    "3 masks: other string",
    "4 masks: constant",
    "5 random, constant",
    "6 random, exact (FA)",
    "7 direct (DFA)",
    "8 direct, no own mask",
)
"""Of the mask ladder, see :class:`rules.mask_ladder.MaskLadder`."""


MOST_LINES = 40
"""Of a legend's column."""
AROUND = 0.3
"""Inches around a legend, in all."""


def _columns(count: int, lines: int = MOST_LINES) -> int:
    """Of a legend with so many names."""
    return max(1, math.ceil(count / max(lines, MOST_LINES)))


def _size(figure: Figure, legend: Legend) -> tuple[float, float]:
    """Width and height in inches, with some room around."""
    box = legend.get_window_extent()
    return box.width / figure.dpi + AROUND, box.height / figure.dpi + AROUND


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, beside them; the figure, which had room for the panels alone, becomes as large as it needs."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    across, down = figure.get_size_inches()
    columns = _columns(len(found), int(down / LEGEND_LINE))
    place: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "fontsize": 8}
    width, height = _size(figure, figure.legend(list(found.values()), list(found), ncols=columns, **place))
    figure.set_size_inches(across + width, max(down, height))
