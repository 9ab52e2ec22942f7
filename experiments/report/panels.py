"""What of a study's results goes into which figure.

Shape suffixes: S seed, P training-set size, T task.
"""

from __future__ import annotations

import math

import polars
import torch
from matplotlib.figure import Figure

from callbacks.figures import heat_map
from experiments.report.figures import Curve, Line, Point, ladder, learning_curves, p_star_by_task, plain
from experiments.report.page import Page
from experiments.report.tables import ABSCISSAE, Complexities, groups, over_tasks, unit_of
from experiments.study.complexity import SampleComplexity, growth
from experiments.study.names import cell_label, slug
from experiments.study.plan import Run
from experiments.study.study import TASK_KEYS
from experiments.study.tidy import curve
from rhm import Task

LATENT = "v m^3"
"""Of strings without labels."""
RUNG_OF = {
    ("exact", "transposed"): 1,
    ("batch_mean", "transposed"): 2,
    ("other_string", "transposed"): 3,
    ("constant", "transposed"): 4,
    ("constant", "random"): 5,
    ("exact", "random"): 6,
    ("constant", "direct"): 7,
    ("none", "direct"): 8,
}
"""Of the mask ladder, by masks and feedback."""


def add_figures(page: Page, table: polars.DataFrame, found: Complexities, threshold: float, runs: dict[str, Run]) -> None:
    for (cell,), group in table.group_by("cell", maintain_order=True):
        tail, words = (f"-{slug(str(cell))}", f" ({cell})") if cell else ("", "")
        unit = unit_of(group)
        page.figure(f"learning_curves{tail}", f"Learning curves{words}", _curves(group, threshold, unit), CURVES)
        panels = _complexity_panels(group, found)
        if panels:
            title = f"P* against the size of the task{words}"
            figure = p_star_by_task(panels, unit, _laws_by_abscissa(group, unit))
            page.figure(f"sample_complexity{tail}", title, figure, POINTS)
        for name, label in ("probe", "probe accuracy"), ("sensitivity", "synonymic sensitivity"):
            for task, maps in _maps(group, name).items():
                floor = _baseline(group.filter(polars.col("task") == task)) if name == "probe" else 0.0
                title = f"{label.capitalize()}, layer by level: {task}{words}"
                page.figure(f"{name}{tail}-{slug(task)}", title, heat_map(maps, floor, label), MAPS[name])
    rungs = rungs_of(table, runs)
    if rungs:
        page.figure("mask_ladder", "The mask ladder", ladder(rungs, _chance(table)), LADDER)


def _chance(table: polars.DataFrame) -> dict[str, float]:
    """The accuracy of guessing on each task."""
    return dict(zip(table["task"], table["chance"], strict=True))


CURVES = (
    "Mean over seeds; the band goes from the lowest to the highest seed. Dashed: the accuracy that P* asks for. Dotted: "
    "chance. Upright: numbers of strings of theory; with fewer than n m ln 10 over a tenth of the root's rules is unseen."
)
POINTS = (
    "Bars: 95 % bootstrap interval over seeds. Open markers with an arrow are bounds, moved sideways so that all can be seen: "
    "upwards, no size that was tried is enough; downwards, the smallest is. Numbers: fitted exponent with its interval. Grey: "
    "what theory says of the number of strings."
)
MAPS = {
    "probe": (
        "Linear probes, mean over seeds at the largest size that a rule was tried on. Layer l is where level l should be "
        "readable."
    ),
    "sensitivity": (
        "How much a layer changes when tuples of a level are exchanged for synonyms, relative to another string, mean over "
        "seeds at the largest size that a rule was tried on."
    ),
}
LADDER = (
    "At the largest size of each task; bars from the lowest to the highest seed. 1 to 4 and 6 to 5 isolate the masks, 1 to 6 "
    "and 4 to 5 the weights."
)


def _curves(group: polars.DataFrame, threshold: float, unit: str) -> Figure:
    panels: dict[str, dict[str, Curve]] = {}
    for (rule, task, _), rows in groups(group.sort("n m^L", "v m^3", maintain_order=True)):
        size_P, error_SP = curve(rows)
        if len(size_P):
            accuracy = 1 - error_SP
            lines = accuracy.mean(0).tolist(), accuracy.min(0).tolist(), accuracy.max(0).tolist()
            panels.setdefault(task, {})[rule] = Curve(size_P.astype(int).tolist(), *lines)
    return learning_curves(panels, _chance(group), threshold, unit, _laws(group, unit))


def _laws(group: polars.DataFrame, unit: str) -> dict[str, dict[str, float]]:
    """What theory says of each task: of a grammar without noise, silence or unequal rules, and of labels only what it says of
    them."""
    if not group["plain"].all():
        return {}
    left_out = {LATENT} if unit == "labelled" else set()
    return {
        title: {text: own for text, own in task.laws.items() if text not in left_out} for title, task in _tasks(group).items()
    }


def _tasks(group: polars.DataFrame) -> dict[str, Task]:
    """By title."""
    rows = group.unique("task", maintain_order=True).select("task", *TASK_KEYS).iter_rows()
    return {title: Task(**dict(zip(TASK_KEYS, sizes, strict=True))) for title, *sizes in rows}


def _laws_by_abscissa(group: polars.DataFrame, unit: str) -> dict[str, dict[str, dict[float, float]]]:
    """The same against depth, where tasks differ in nothing else, and against its own abscissa."""
    laws, tasks = _laws(group, unit), sorted(_tasks(group).items(), key=lambda own: own[1].L)
    if not laws:
        return {}
    texts = next(iter(laws.values()))
    found: dict[str, dict[str, dict[float, float]]] = {
        abscissa: {abscissa: {x: x for x in sorted({own[abscissa] for own in laws.values()})}}
        for abscissa in ABSCISSAE
        if abscissa in texts
    }
    if len({(task.v, task.n, task.m, task.s) for _, task in tasks}) == 1:
        found["L"] = {text: {task.L: laws[title][text] for title, task in tasks} for text in texts}
    return found


def _complexity_panels(group: polars.DataFrame, found: Complexities) -> dict[str, dict[str, tuple[list[Point], Line | None]]]:
    """P* of each rule against each abscissa that takes several values."""
    panels: dict[str, dict[str, tuple[list[Point], Line | None]]] = {}
    for abscissa in (*ABSCISSAE, "L"):
        if group[abscissa].n_unique() < 2:
            continue
        for (rule,), rows in group.group_by("rule", maintain_order=True):
            x, complexities_T = over_tasks(rows, found, abscissa)
            fitted = growth(x, complexities_T) if abscissa != "L" else None
            line = None
            if fitted is not None:
                line = Line(fitted.prefactor, fitted.exponent, fitted.shown())
            points = [_point(x_t, own) for x_t, own in zip(x, complexities_T, strict=True)]
            panels.setdefault(abscissa, {})[str(rule)] = points, line
    return panels


def _point(x: float, own: SampleComplexity) -> Point:
    if own.value == math.inf:
        return Point(x, own.largest, own.largest, own.largest, 1)
    if own.value == -math.inf:
        return Point(x, own.smallest, own.smallest, own.smallest, -1)
    low = min(max(own.low, own.smallest), own.value)
    return Point(x, own.value, low, max(min(own.high, own.largest), own.value), 0)


def _baseline(rows: polars.DataFrame) -> float:
    """The least that naming the commonest symbol gets on a level; of runs that do not say it, one in so many symbols."""
    columns = [column for column in rows.columns if column.startswith("probe_baseline/")]
    found = [float(value) for value in rows.select(polars.col(columns).mean()).row(0) if value is not None] if columns else []
    return min(found, default=1 / max(rows["v"][0], rows["n"][0]))


def _maps(group: polars.DataFrame, name: str) -> dict[str, dict[str, torch.Tensor]]:
    """For the task with the most strings to learn: each rule's layers by levels, mean over seeds at its largest size."""
    columns = [column for column in group.columns if column.startswith(f"{name}/layer")]
    measured = group.filter(polars.any_horizontal(polars.col(columns).is_not_null())) if columns else group.clear()
    if not measured.height:
        return {}
    hardest = measured.sort("n m^L", descending=True)["task"][0]
    maps: dict[str, torch.Tensor] = {}
    for (rule, task, _), rows in groups(measured):
        if task != hardest:
            continue
        largest = int(rows["P"].to_numpy().max())
        mean = rows.filter(polars.col("P") == largest).select(polars.col(columns).mean()).row(0, named=True)
        cells = {tuple(int(part.lstrip("layerv")) for part in key.split("/")[1:]): value for key, value in mean.items()}
        own = {place: value for place, value in cells.items() if value is not None}
        if own:
            first, last = min(level for _, level in own), max(level for _, level in own)
            layers = range(1, max(layer for layer, _ in own) + 1)
            picture = [[own.get((k, level), math.nan) for level in range(min(first, 0), last + 1)] for k in layers]
            maps[plain(f"{rule}\n{largest:,} {unit_of(rows)} strings")] = torch.tensor(picture)
    return {hardest: maps}


def rungs_of(table: polars.DataFrame, runs: dict[str, Run]) -> dict[str, dict[str, dict[int, tuple[float, float, float]]]]:
    """Accuracy on each rung of the mask ladder: for each task and what else is set by rung, at the largest size."""
    panels: dict[str, dict[str, dict[int, tuple[float, float, float]]]] = {}
    for (rule, task, _), rows in groups(table.filter(polars.col("masks").is_not_null())):
        largest = rows.filter(polars.col("P") == rows["P"].max())
        rung = RUNG_OF.get((largest["masks"][0], largest["feedback"][0]))
        if rung is not None:
            cell = runs[largest["run"][0]].cell
            others = cell_label({key: value for key, value in cell.items() if key.split(".")[-1] not in ("masks", "feedback")})
            accuracy, lines = largest["test_accuracy"].to_numpy(), panels.setdefault(task, {})
            line = lines.setdefault(others or "accuracy", {})
            if rung in line:  # several rules on one rung
                line = lines.setdefault(f"{others}, {rule}" if others else rule, {})
            line[rung] = float(accuracy.mean()), float(accuracy.min()), float(accuracy.max())
    return panels
