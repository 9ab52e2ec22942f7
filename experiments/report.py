"""``rhm report``: what a study has found so far, as a table, figures and one page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

from callbacks.figures import heat_map
from experiments.complexity import SampleComplexity, growth
from experiments.figures import Curve, Line, Point, complexity, ladder, learning_curves, plain
from experiments.study import TASK_KEYS, Plan, Run, cell_label, slug
from experiments.sweep import StudyFolder
from experiments.tables import wide_console
from experiments.tidy import Gathered, complexities, curve, gather, task_label
from rhm import InvalidInput, Task

ABSCISSAE = ("n m^L", "v m^3", "L")
RUNGS = {
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
Complexities = dict[tuple[str, str, str], SampleComplexity]


def report(run_dir: str, out: str | None = None, threshold: float | None = None) -> None:
    """Read the results of a study, finished or not, and write ``results.csv``, ``results.parquet``, figures and ``index.html``.

    Args:
        run_dir: folder of the study.
        out: folder of the report; ``RUN_DIR/report`` by default. Files of an earlier report there are replaced.
        threshold: share of the chance error ``1 - 1/n`` that counts as a small error; the study's by default.
    """
    folder = StudyFolder(Path(run_dir))
    try:
        study = yaml.safe_load(folder.study.read_text())
        plan = Plan.of(folder.plan.read_text())
        reference, question = str(study["reference"]), str(study["question"])
        threshold = float(study["threshold"]) if threshold is None else threshold
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InvalidInput("run_dir", run_dir, "a folder in which `rhm sweep` has started a study") from error
    target = Path(out) if out is not None else folder.path / "report"
    if target.exists() and not target.is_dir():
        raise InvalidInput("out", out, "a folder; this is a file")
    if not 0 < threshold < 1:
        raise InvalidInput("threshold", threshold, "a share of the chance error, above 0 and below 1")
    gathered = gather(folder.runs, plan.runs)
    figures_only = gathered.table.filter(~pl.col("stage").str.starts_with("search"))
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "results.csv").write_text(gathered.table.write_csv())
    except OSError as error:
        raise InvalidInput("out", f"{target} ({error.strerror})", "a folder that can be written") from error
    gathered.table.write_parquet(target / "results.parquet")
    found = complexities(gathered.table, threshold)
    failed, unreadable = _failed(folder.failed)
    page = Page(question or folder.path.name, target)
    page.paragraph(_state(gathered, plan, failed))
    page.items("Files of the study that cannot be read", unreadable)
    _problems(page, gathered, failed, plan)
    if found:
        page.section("Strings that each rule needs")
        page.paragraph(
            f"P* is the smallest number of strings with a test error of {threshold:g} of the chance error 1 - 1/n. The mean "
            "error over seeds is made monotone up to the size at which it is lowest (isotonic regression), and its logarithm "
            "interpolated in log P; the interval is the 95 % percentile bootstrap over seeds, and there is none with one seed. "
            "> P: no size up to P is enough. ≤ P: the smallest size is. †, or “a larger size fails”: with more strings than P* "
            f"the error was above the bound again. Ratio: P* over that of {reference} on the same task with the same settings; "
            f"–: {reference} was not run with them, or nothing is known but two bounds."
        )
        table = _table(figures_only, found, reference)
        cells = table["settings"].n_unique() > 1
        if cells:
            page.table(_overview(figures_only, found))
        page.table(table, "With intervals, supervision, ratios and times" if cells else "")
        exponents = _exponents(figures_only, found)
        if exponents.height:
            page.section("Growth of P*")
            page.paragraph(
                "Exponent b of P* = a x^b, fitted over tasks by least squares in logarithms. The 95 % interval spans "
                "Student's, from the scatter of the tasks around the line, and that of the bootstrap over seeds. The factor "
                "by which P* grows from one level to the next is the mean over tasks that differ in L alone, with the "
                "bootstrap's interval. * Bootstrap draws at this end lie beyond the sizes that were tried: it may be further "
                "out. Tasks whose P* lies beyond the sizes are left out and counted; as they are mostly those that need the "
                "most strings, this makes the exponent too small."
            )
            page.table(exponents)
        _figures(page, figures_only, found, threshold, {run.name: run for run in plan.runs})
    page.details("The study", yaml.safe_dump(study, sort_keys=False))
    chosen = _chosen(study, plan.runs)
    if chosen.height:
        page.table(chosen, "Settings chosen by the search")
    page.write()
    console = wide_console()
    for text in (_state(gathered, plan, failed), *unreadable):
        console.print(text, soft_wrap=True, highlight=False)
    console.print(f"page: {target / 'index.html'}", soft_wrap=True, highlight=False)


def _failed(path: Path) -> tuple[dict[str, str], list[str]]:
    """Runs that failed, with their messages; and what is wrong with the file that says so."""
    if not path.exists():
        return {}, []
    try:
        return {str(name): str(message) for name, message in json.loads(path.read_text()).items()}, []
    except (OSError, ValueError, AttributeError) as error:
        return {}, [f"{path.name}: {type(error).__name__}: {error}; which runs have failed is not known"]


def _state(gathered: Gathered, plan: Plan, failed: dict[str, str]) -> str:
    read = gathered.table["run"].n_unique() if gathered.table.height else 0
    parts = [f"{read} of {len(plan.runs)} runs are in this report"]
    for text, count in (
        ("missing or unfinished", len(set(gathered.missing) - failed.keys())),
        ("damaged and left out", len(gathered.damaged)),
        ("failed", len(failed)),
        ("skipped parts of the grid", len(plan.skipped)),
    ):
        parts += [f"{count} {text}"] if count else []
    return "; ".join(parts) + "."


def _problems(page: Page, gathered: Gathered, failed: dict[str, str], plan: Plan) -> None:
    page.items("Missing or unfinished runs", sorted(set(gathered.missing) - failed.keys()))
    page.items("Damaged results, left out", [f"{name}: {reason}" for name, reason in gathered.damaged.items()])
    page.items("Failed runs", [f"{name}: {reason}" for name, reason in failed.items()])
    page.items("Skipped parts of the grid", plan.skipped)
    page.items("Notes", plan.notes)


# -------------------------------------------------------------------- tables


def _groups(table: pl.DataFrame) -> Iterable[tuple[tuple[str, str, str], pl.DataFrame]]:
    for key, group in table.group_by("rule", "task", "cell", maintain_order=True):
        yield (str(key[0]), str(key[1]), str(key[2])), group


def _table(table: pl.DataFrame, found: Complexities, reference: str) -> pl.DataFrame:
    """Rule, supervision, P*, ratio to the reference and seconds, for each task and cell."""
    rows = []
    for (rule, task, cell), group in _groups(table):
        if (rule, task, cell) not in found:
            continue
        pairs = group["pairs"][0]
        supervision = group["supervision"][0]
        learns = supervision if pairs is None else f"{pairs} ({supervision})"
        own = found[rule, task, cell]
        rows.append(
            {
                "task": task,
                "settings": cell,
                "rule": rule,
                "hidden layers learn from": "nothing beyond strings" if learns == "none" else learns,
                "P*": str(own),
                f"ratio to {reference}": ratio(own, found.get((reference, task, cell))),
                "n m^L": f"{group['n m^L'][0]:,.0f}",
                "v m^3": f"{group['v m^3'][0]:,.0f}",
                "seconds": f"{group.unique('run')['seconds'].sum():,.0f}",
            }
        )
    return pl.DataFrame(rows)


def ratio(own: SampleComplexity, other: SampleComplexity | None) -> str:
    """P* over another's, or the bound that is known of it."""
    if other is None:
        return "–"
    value = {math.inf: own.largest, -math.inf: own.smallest}.get(own.value, own.value)
    base = {math.inf: other.largest, -math.inf: other.smallest}.get(other.value, other.value)
    direction = {math.inf: 1, -math.inf: -1}.get(own.value, 0), {math.inf: -1, -math.inf: 1}.get(other.value, 0)
    if {1, -1} <= set(direction):
        return "–"
    sign = {1: "> ", -1: "< ", 0: ""}[max(direction, key=abs)]
    return f"{sign}{value / base:.2g}"


def _overview(table: pl.DataFrame, found: Complexities) -> pl.DataFrame:
    """P* without its interval: a row for each task and cell, a column for each rule."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    rules = [str(rule) for rule in table["rule"].unique(maintain_order=True)]
    for (rule, task, cell), own in found.items():
        rows.setdefault((task, cell), {})[rule] = own.shown(own.value) + (" †" if own.fails_later else "")
    shown = [
        {"task": task, "settings": cell, **{rule: row.get(rule, "") for rule in rules}} for (task, cell), row in rows.items()
    ]
    return pl.DataFrame(shown)


def _exponents(table: pl.DataFrame, found: Complexities) -> pl.DataFrame:
    """Exponents of P* for each rule and cell against each abscissa, and its factor from level to level."""
    others = [key for key in TASK_KEYS if key != "L"]
    varied = [key for key in others if table[key].n_unique() > 1]
    rows = []
    for (rule, cell), group in table.group_by("rule", "cell", maintain_order=True):
        row: dict[str, str] = {}
        for abscissa in ABSCISSAE[:2]:
            fitted = growth(*_over_tasks(group, found, abscissa))
            row |= {} if fitted is None else {f"exponent in {abscissa}": str(fitted)}
        for values, tasks in group.group_by(others, maintain_order=True):
            given = "".join(f", {key}={value}" for key, value in zip(others, values, strict=True) if key in varied)
            levels, complexities_T = _over_tasks(tasks, found, "L")
            fitted = growth([math.exp(level) for level in levels], complexities_T, scatter=False)
            row |= {} if fitted is None else {f"factor from level to level{given}": fitted.factor}
        rows += [{"rule": str(rule), "settings": str(cell)} | row] if row else []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pl.DataFrame([{key: row.get(key, "–") for key in columns} for row in rows])


def _over_tasks(group: pl.DataFrame, found: Complexities, abscissa: str) -> tuple[list[float], list[SampleComplexity]]:
    """Abscissae and P* of one rule and cell, a task each."""
    tasks = group.unique("task", maintain_order=True)
    keys = list(zip(tasks["rule"], tasks["task"], tasks["cell"], tasks[abscissa], strict=True))
    kept = [(float(x), found[rule, task, cell]) for rule, task, cell, x in keys if (rule, task, cell) in found]
    return [x for x, _ in kept], [own for _, own in kept]


def _chosen(study: dict[str, Any], runs: list[Run]) -> pl.DataFrame:
    """What the search has chosen for each rule, task and cell: the last of a run's arguments of that name."""
    tried = [(study.get("search") or {}).get("settings"), *(rule.get("search") for rule in study["rules"])]
    keys = list(dict.fromkeys(key for settings in tried for key in settings or ()))
    rows = []
    for run in runs:
        if run.stage == "grid":
            given = dict(argument.removeprefix("--").split("=", 1) for argument in run.args)
            values = {key: given.get(key, "–") for key in keys}
            rows.append({"rule": run.rule, "task": task_label(Task(**run.task)), "settings": cell_label(run.cell)} | values)
    return pl.DataFrame(rows if keys else [])


# -------------------------------------------------------------------- figures


def _figures(page: Page, table: pl.DataFrame, found: Complexities, threshold: float, runs: dict[str, Run]) -> None:
    for (cell,), group in table.group_by("cell", maintain_order=True):
        tail, words = (f"-{slug(str(cell))}", f" ({cell})") if cell else ("", "")
        unit = "training" if set(group["vary"]) == {"train_size"} else "labelled"
        page.figure(f"learning_curves{tail}", f"Learning curves{words}", _curves(group, threshold, unit), CURVES)
        panels = _complexity_panels(group, found)
        if panels:
            page.figure(f"sample_complexity{tail}", f"P* against the size of the task{words}", complexity(panels, unit), POINTS)
        for name, label in ("probe", "probe accuracy"), ("sensitivity", "synonymic sensitivity"):
            for task, maps in _maps(group, name).items():
                own = group.filter(pl.col("task") == task).row(0, named=True)
                floor = 1 / max(own["v"], own["n"]) if name == "probe" else 0.0
                title = f"{label.capitalize()}, layer by level: {task}{words}"
                page.figure(f"{name}{tail}-{slug(task)}", title, heat_map(maps, floor, label), MAPS[name])
    rungs = _rungs(table, runs)
    if rungs:
        page.figure("mask_ladder", "The mask ladder", ladder(rungs, _chance(table)), LADDER)


def _chance(table: pl.DataFrame) -> dict[str, float]:
    """The accuracy of guessing on each task."""
    return dict(zip(table["task"], table["chance"], strict=True))


CURVES = (
    "Mean over seeds; the band goes from the lowest to the highest seed. Dashed: the accuracy that P* asks for. Dotted: chance."
)
POINTS = (
    "Bars: 95 % bootstrap interval over seeds. Open markers with an arrow are bounds, moved sideways so that all can be seen: "
    "upwards, no size that was tried is enough; downwards, the smallest is. Numbers: fitted exponent with its interval."
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


def _curves(group: pl.DataFrame, threshold: float, unit: str) -> Figure:
    panels: dict[str, dict[str, Curve]] = {}
    for (rule, task, _), rows in _groups(group.sort("n m^L", "v m^3", maintain_order=True)):
        size_P, error_SP = curve(rows)
        if len(size_P):
            accuracy = 1 - error_SP
            lines = accuracy.mean(0).tolist(), accuracy.min(0).tolist(), accuracy.max(0).tolist()
            panels.setdefault(task, {})[rule] = Curve(size_P.astype(int).tolist(), *lines)
    return learning_curves(panels, _chance(group), threshold, unit)


def _complexity_panels(group: pl.DataFrame, found: Complexities) -> dict[str, dict[str, tuple[list[Point], Line | None]]]:
    """P* of each rule against each abscissa that takes several values."""
    panels: dict[str, dict[str, tuple[list[Point], Line | None]]] = {}
    for abscissa in ABSCISSAE:
        if group[abscissa].n_unique() < 2:
            continue
        for (rule,), rows in group.group_by("rule", maintain_order=True):
            x, complexities_T = _over_tasks(rows, found, abscissa)
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


def _maps(group: pl.DataFrame, name: str) -> dict[str, dict[str, torch.Tensor]]:
    """For the task with the most strings to learn: each rule's layers by levels, mean over seeds at its largest size."""
    columns = [column for column in group.columns if column.startswith(f"{name}/layer")]
    measured = group.filter(pl.any_horizontal(pl.col(columns).is_not_null())) if columns else group.clear()
    if not measured.height:
        return {}
    hardest = measured.sort("n m^L", descending=True)["task"][0]
    maps: dict[str, torch.Tensor] = {}
    for (rule, task, _), rows in _groups(measured):
        if task != hardest:
            continue
        largest = int(rows["P"].to_numpy().max())
        mean = rows.filter(pl.col("P") == largest).select(pl.col(columns).mean()).row(0, named=True)
        cells = {tuple(int(part.lstrip("layerv")) for part in key.split("/")[1:]): value for key, value in mean.items()}
        own = {place: value for place, value in cells.items() if value is not None}
        if own:
            first, last = min(level for _, level in own), max(level for _, level in own)
            layers = range(1, max(layer for layer, _ in own) + 1)
            picture = [[own.get((k, level), math.nan) for level in range(min(first, 0), last + 1)] for k in layers]
            maps[plain(f"{rule}\nP = {largest:,}")] = torch.tensor(picture)
    return {hardest: maps}


def _rungs(table: pl.DataFrame, runs: dict[str, Run]) -> dict[str, dict[str, dict[int, tuple[float, float, float]]]]:
    """Accuracy on each rung of the mask ladder: for each task and what else is set by rung, at the largest size."""
    panels: dict[str, dict[str, dict[int, tuple[float, float, float]]]] = {}
    for (rule, task, _), rows in _groups(table.filter(pl.col("masks").is_not_null())):
        largest = rows.filter(pl.col("P") == rows["P"].max())
        rung = RUNGS.get((largest["masks"][0], largest["feedback"][0]))
        if rung is not None:
            cell = runs[largest["run"][0]].cell
            others = cell_label({key: value for key, value in cell.items() if key.split(".")[-1] not in ("masks", "feedback")})
            accuracy, lines = largest["test_accuracy"].to_numpy(), panels.setdefault(task, {})
            line = lines.setdefault(others or "accuracy", {})
            if rung in line:  # several rules on one rung
                line = lines.setdefault(f"{others}, {rule}" if others else rule, {})
            line[rung] = float(accuracy.mean()), float(accuracy.min()), float(accuracy.max())
    return panels


# -------------------------------------------------------------------- the page

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
    """

    def __init__(self, title: str, folder: Path):
        self.title, self.folder = title, folder
        self.parts: list[str] = []

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

    def table(self, table: pl.DataFrame, folded: str = "") -> None:
        """A table without its empty columns; with a title, one that is to be opened."""
        table = table.select(column for column in table if (column != "").any())
        head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
        rows = ("".join(f"<td>{html.escape(str(value))}</td>" for value in row) for row in table.iter_rows())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        shown = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
        self.parts.append(f"<details><summary>{html.escape(folded)}</summary>{shown}</details>" if folded else shown)

    def figure(self, name: str, title: str, figure: Figure, caption: str) -> None:
        """A figure, written as PNG and SVG too."""
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        (self.folder / f"{name}.png").write_bytes(picture.getvalue())
        with rc_context({"svg.hashsalt": name}):  # the same figure is the same file
            figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
        data = base64.b64encode(picture.getvalue()).decode()
        self.section(title)
        image = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
        self.parts.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self) -> None:
        """Write ``index.html``."""
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{STYLE}</style>'
        body = f"<h1>{html.escape(self.title)}</h1>{''.join(self.parts)}"
        (self.folder / "index.html").write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n")
