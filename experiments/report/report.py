"""``rhm report``: what a study has found so far, as a table, figures and one page that needs nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars
import yaml

from experiments.files import UNREADABLE, check_folder, read_json, read_settings, writing
from experiments.report.marked import Marked
from experiments.report.page import Page
from experiments.report.panels import add_figures
from experiments.report.tables import (
    SEVERAL,
    accuracy_table,
    answers,
    chosen_table,
    complexity_table,
    exponents,
    overview,
    unit_of,
    values_table,
)
from experiments.study.chosen import Chosen, read_chosen, write_chosen
from experiments.study.folder import StudyFolder
from experiments.study.job import LONGEST_MESSAGE, Failure
from experiments.study.plan import Plan
from experiments.study.tidy import Gathered, complexities, gather
from experiments.terminal import wide_console
from rhm import InvalidInput


def report(
    run_dir: str, out: str | None = None, threshold: float | None = None, linked: bool = False, tables: str | None = None
) -> None:
    """Read the results of a study, finished or not, and write ``results.csv``, ``results.parquet``, figures and ``index.html``.

    Runs of the search are not among the results; what each has reached stands in ``chosen.json``, which is copied.

    Args:
        run_dir: folder of the study.
        out: folder of the report; ``RUN_DIR/report`` by default. Files of an earlier report there are replaced.
        threshold: share of the chance error ``1 - 1/n`` that counts as a small error; the study's by default.
        linked: write each figure once, as a small PNG file to which the page links, and no Parquet: for a repository. Else
            the page holds all figures itself, and they are written beside it as PNG and SVG too.
        tables: Markdown file between whose marks the tables of accuracies and of chosen settings are written.
    """
    folder = StudyFolder(Path(run_dir))
    try:
        study = read_settings("run_dir", folder.study)
        plan = Plan.of(read_json(folder.plan))
        reference, question = str(study["reference"]), str(study["question"])
        threshold = float(study["threshold"]) if threshold is None else threshold
    except UNREADABLE as error:
        got = f"{run_dir} ({type(error).__name__}: {' '.join(str(error).split())[:LONGEST_MESSAGE]})"
        raise InvalidInput("run_dir", got, "a folder in which `rhm sweep` has started a study") from error
    found = read_chosen(folder.chosen)
    chosen = chosen_table(found)
    target = Path(out) if out is not None else folder.path / "report"
    check_folder("out", target)
    if not 0 < threshold < 1:
        raise InvalidInput("threshold", threshold, "a share of the chance error, above 0 and below 1")
    document = None if tables is None else Marked(tables)
    gathered = gather(folder.runs, [run for run in plan.runs if not run.is_search])
    try:
        failed, unreadable = folder.read_failed(), list[str]()
    except ValueError as error:
        failed, unreadable = {}, [f"{error}; which runs have failed is not known"]
    state = _state(gathered, plan, failed)
    with writing("out", target):
        target.mkdir(parents=True, exist_ok=True)
        _write_results(target, gathered.table, linked)
        _write_chosen(target / folder.chosen.name, found)
        page = Page(question or folder.path.name, target, linked)
        page.paragraph(state)
        page.items("Files of the study that cannot be read", unreadable)
        _problems(page, gathered, failed, plan)
        _results(page, gathered.table, threshold, reference, plan)
        page.details("The study", yaml.safe_dump(study, sort_keys=False))
        if chosen.height:
            page.table(chosen, "Settings chosen by the search")
            if any(own.trials for own in found.values()):
                page.table(values_table(found), VALUES[0].upper() + VALUES[1:])
        page.write()
    if document is not None and gathered.table.height:
        last = [("settings chosen", chosen), (VALUES, values_table(found))] if chosen.height else []
        document.write([*_for_document(gathered.table, threshold, reference), *last])
    console = wide_console()
    for text in (state, *unreadable):
        console.print(text, soft_wrap=True, highlight=False)
    console.print(f"page: {target / 'index.html'}", soft_wrap=True, highlight=False)


def _write_results(target: Path, table: polars.DataFrame, linked: bool) -> None:
    rounded = as_text(table).with_columns(polars.col(polars.Float64, polars.Float32).round(DECIMALS))
    (target / "results.csv").write_text(rounded.write_csv(), encoding="utf-8")
    if not linked:
        table.write_parquet(target / "results.parquet")


def _write_chosen(path: Path, found: dict[str, Chosen]) -> None:
    """Wherever they were searched, so that a page that is made with its own file leaves it as it is."""
    known = {key: replace(own, taken_from=None) for key, own in found.items() if own.question}
    if known:
        write_chosen(path, known)
    else:
        path.unlink(missing_ok=True)


VALUES = "best accuracy of the search's runs with each value, and how many were tried"


def as_text(table: polars.DataFrame) -> polars.DataFrame:
    """A table in which a spreadsheet takes no text for a formula: an apostrophe is put before what would be one."""
    texts = polars.col(polars.String)
    return table.with_columns(polars.when(texts.str.contains(FORMULA)).then("'" + texts).otherwise(texts).name.keep())


FORMULA = r"^\s*[=+\-@\t\r\n]"
"""How a text begins that spreadsheets compute."""
DECIMALS = 5
"""Of the numbers in ``results.csv``, which people read and keep; ``results.parquet`` has them whole."""


def _state(gathered: Gathered, plan: Plan, failed: dict[str, Failure]) -> str:
    read = gathered.table["run"].n_unique() if gathered.table.height else 0
    searched = sum(run.is_search for run in plan.runs)
    parts = [f"{read} of {len(plan.runs) - searched} runs are in this report"]
    parts += [f"{searched} of the search are not"] if searched else []
    for text, count in (
        ("missing or unfinished", len(set(gathered.missing) - failed.keys())),
        ("damaged and left out", len(gathered.damaged)),
        ("failed", len(failed)),
        ("skipped parts of the grid", len(plan.skipped)),
    ):
        parts += [f"{count} {text}"] if count else []
    return "; ".join(parts) + "."


def _problems(page: Page, gathered: Gathered, failed: dict[str, Failure], plan: Plan) -> None:
    page.items("Missing or unfinished runs", sorted(set(gathered.missing) - failed.keys()))
    page.items("Damaged results, left out", [f"{name}: {reason}" for name, reason in gathered.damaged.items()])
    page.items("Failed runs", [f"{name}: {failure.message}" for name, failure in failed.items()])
    lost = gathered.table.filter("diverged").group_by("run", maintain_order=True).agg("P", "seed")
    shown = [
        f"{run}: " + ", ".join(f"seed {seed} of {size:,} strings" for size, seed in zip(sizes, seeds, strict=True))
        for run, sizes, seeds in lost.rows()
    ]
    page.items("Runs with diverged replicas, counted with what weights that are not finite reach", shown)
    page.items("Skipped parts of the grid", plan.skipped)
    page.items("Notes", plan.notes)


def _results(page: Page, table: polars.DataFrame, threshold: float, reference: str, plan: Plan) -> None:
    """Strings that each rule needs, their growth, and the figures; nothing where no run has finished."""
    found = complexities(table, threshold)
    if not found:
        return
    unit = unit_of(table)
    page.items("In short", answers(table, found))
    page.section(f"{unit.capitalize()} strings that each rule needs")
    page.paragraph(P_STAR.format(threshold=threshold, reference=reference, unit=unit, counted=COUNTED[unit]))
    whole = complexity_table(table, found, reference)
    cells = whole["settings"].n_unique() > 1
    if cells:
        page.table(overview(table, found))
    page.table(whole, "With intervals, supervision, ratios and times" if cells else "")
    for title, accuracy in accuracies(table, threshold):
        page.table(accuracy, f"Test accuracy, mean ± standard deviation over seeds, {title}")
    fitted = exponents(table, found)
    if fitted.height:
        page.section("Growth of P*")
        page.paragraph(GROWTH)
        page.table(fitted)
    add_figures(page, table, found, threshold, {run.name: run for run in plan.runs})


def accuracies(table: polars.DataFrame, threshold: float) -> list[tuple[str, polars.DataFrame]]:
    """A table of accuracies with its title for each task and cell."""
    grid = table.filter(polars.col("stage") == "grid")
    several = grid["seed"].n_unique() >= SEVERAL
    told = f"; “of”: seeds with an error of at most {threshold:g} of the chance error" if several else ""
    rows = grid.select("task", "cell").unique(maintain_order=True).rows()
    return [(f"{task}{f', {cell}' if cell else ''}{told}", accuracy_table(table, task, cell, threshold)) for task, cell in rows]


def _for_document(table: polars.DataFrame, threshold: float, reference: str) -> list[tuple[str, polars.DataFrame]]:
    """The tables of a Markdown file, each with its title: accuracies, P* and its growth over tasks."""
    found = complexities(table, threshold)
    fitted = exponents(table, found)
    needed = complexity_table(table, found, reference) if found else polars.DataFrame()
    last = [
        (f"P*: strings for an error of {threshold:g} of the chance error", needed),
        ("growth of P*", fitted),
    ]
    return [*accuracies(table, threshold), *(part for part in last if part[1].height)]


P_STAR = (
    "P* is the smallest number of {unit} strings with a test error of {threshold:g} of the chance error 1 - 1/n. The mean "
    "error over seeds is made monotone up to the size at which it is lowest (isotonic regression), and its logarithm "
    "interpolated in log P; the interval is a 95 % bootstrap over seeds, wider for few of them, and there is none with one. "
    "> P: no size up to P is enough. ≤ P: the smallest size is. †, or “a larger size fails”: with more {unit} strings than P* "
    "the error was above the bound again. Ratio: P* over that of {reference} on the same task with the same settings; "
    "–: {reference} was not run with them, or nothing is known but two bounds.{counted}"
)
COUNTED = {
    "training": "",
    "labelled": " Counted are strings with labels: all that a rule is trained on, or as many of a larger training set.",
}
GROWTH = (
    "Exponent b of P* = a x^b, fitted over tasks by least squares in logarithms. The 95 % interval spans "
    "Student's, from the scatter of the tasks around the line, and that of the bootstrap over seeds. The factor "
    "by which P* grows from one level to the next is the mean over tasks that differ in L alone, with the "
    "bootstrap's interval. * Bootstrap draws at this end lie beyond the sizes that were tried: it may be further "
    "out. Tasks whose P* lies beyond the sizes are left out and counted; as they are mostly those that need the "
    "most strings, this makes the exponent too small."
)
